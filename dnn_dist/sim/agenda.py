# SPDX-License-Identifier: Apache-2.0
"""Virtual time: what happens next."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Agenda:
    """Calls to come, by time; those of one time in the order in which they were entered."""

    def __init__(self, start: float = 0.0) -> None:
        self.now = start  # s
        self.steps = 0  # calls made
        self.ended = False  # set to end the run
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._entered = 0

    def at(self, time: float, what: Callable[..., None], *args: Any) -> None:
        """Have `what(*args)` called at `time` (s); a time that has passed is now."""
        self._entered += 1
        heappush(self._heap, (time if time > self.now else self.now, self._entered, what, args))

    def pending(self, end: float) -> bool:
        """Whether calls are left until `end` (s)."""
        return bool(self._heap) and self._heap[0][0] <= end

    def run(self, end: float, after: Callable[[], None] | None = None) -> None:
        """Make calls until `ended` is set, nothing is left, or time would pass `end` (s); `after` follows each."""
        heap = self._heap
        while heap and heap[0][0] <= end and not self.ended:
            self.now, _, what, args = heappop(heap)
            self.steps += 1
            what(*args)
            if after is not None:
                after()
