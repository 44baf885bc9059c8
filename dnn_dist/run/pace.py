# SPDX-License-Identifier: Apache-2.0
"""How long an acknowledgement takes on a link, learnt from those that came.

A constant would be too short where much is on the way, and then everything is sent twice, which makes it more; or too
long where little is. It is what TCP's timer does, by bytes: twice the slowest of the newest few, in proportion to what
was on the way before it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf

from dnn_dist.run.delays import KEPT

SMALL = 16_000
"""Bytes below which a message takes its round trip and not its bytes."""


@dataclass(slots=True)
class Pace:
    """Times of the newest acknowledgements of one link."""

    seen: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=8))  # (s, bytes on the way)
    past: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=KEPT))  # more of them; inf s: missed

    def note(self, seconds: float, size: int) -> None:
        """An acknowledgement came after `seconds`, with `size` bytes on the way when its message was sent."""
        self.seen.append((seconds, max(size, SMALL)))
        self.past.append((seconds, size))

    def miss(self) -> None:
        """Something did not come in time."""
        self.past.append((inf, 0))

    def patience(self, size: int, least: float, most: float, unknown: float) -> float:
        """Seconds to wait for an acknowledgement with `size` bytes on the way; `unknown` while none has come."""
        if not self.seen:
            return unknown
        slowest = max([seconds * size / before if size > before else seconds for seconds, before in self.seen])
        return max(least, min(2 * slowest, most))
