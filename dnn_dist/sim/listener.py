# SPDX-License-Identifier: Apache-2.0
"""What a source in virtual time knows of a worker."""

from __future__ import annotations

from typing import Any, Protocol


class Listener(Protocol):
    """A worker as a source's processes reach it."""

    robot: str

    def hear(self, value: Any) -> None:
        """A message arrives."""

    def look_later(self, source: Any) -> None:
        """What the source has just hung up matters to this worker when it gets there."""

    def beat(self) -> None:
        """Have the next heartbeat simulated."""

    def last_beat(self, until: float) -> float:
        """When it sent its last heartbeat before a time, s."""

    @property
    def hungry(self) -> bool:
        """Whether it has room for tasks."""
