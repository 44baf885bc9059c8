# SPDX-License-Identifier: Apache-2.0
"""A worker's results: one is on its way at a time, or a few small ones. The next follows when Progress has it, or when
it should long have come; who sends all at once has them meet on the air.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dnn_dist.run.pace import Pace
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.wire import TaskKey

TOGETHER = 1_400
"""Bytes of results that are sent without waiting for each other: one datagram of the Wi-Fi profile."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """The result that is on its way, the newest of several small ones."""

    key: TaskKey
    bytes: int  # of all
    at: float  # s
    until: float  # s; then it is waited for no longer


@dataclass(slots=True)
class Outbox:
    """What was computed and waits to be sent, in order."""

    _waiting: dict[TaskKey, tuple[int, float]] = field(default_factory=dict)  # -> bytes, its frame's deadline (s)
    _sent: _Sent | None = None
    _pace: Pace = field(default_factory=Pace)  # of results, until Progress has them

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[TaskKey]:
        return iter(self._waiting)

    def __contains__(self, key: TaskKey) -> bool:
        return key in self._waiting

    def put(self, key: TaskKey, size: int, expires: float) -> None:
        """A result of so many bytes is to be sent before a time."""
        self._waiting[key] = size, expires

    @property
    def due(self) -> float:
        """When the one on its way is waited for no longer, s, if another waits for that."""
        return self._sent.until if self._sent is not None and self._waiting else float("inf")

    def next(self, unwanted: Callable[[TaskKey], bool], settings: WorkerSettings, now: float) -> TaskKey | None:
        """The result to be sent now: the next that is wanted, unless one is on its way; small ones travel together."""
        if (sent := self._sent) is not None and unwanted(sent.key):
            self._pace.note(now - sent.at, sent.bytes)
            self._sent = None
        elif sent is not None and now >= sent.until:
            self._sent = None
        while self._waiting:
            key, (size, expires) = next(iter(self._waiting.items()))
            size += self._sent.bytes if self._sent is not None else 0
            if self._sent is not None and size > TOGETHER:
                return None
            del self._waiting[key]
            if not unwanted(key) and now < expires:
                wait = self._pace.patience(size, settings.transit, settings.lifespan, settings.transit)
                self._sent = _Sent(key, size, now, now + wait)
                return key
        return None
