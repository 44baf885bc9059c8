# SPDX-License-Identifier: Apache-2.0
"""What a source says to all, hung up for its workers to read.

A source tells every worker in reach its queue and its progress, on each change. In a fleet of a thousand robots nearly
all of these messages change nothing at the worker that hears them. So they are hung up here, each with the time at
which it was sent, and a worker reads the newest that has reached it before it handles anything else. That is faithful:

- A control message is a whole state, the newest is enough, and hearing one only stores it, unless the worker has room
  (then a queue may change to whom it offers it), holds a waiting task that is not wanted any more, or a result that
  waits until the one before has arrived. In these cases
  the worker is made to look at the very time at which the message would have reached it.
- A worker that has nothing to say about a message says nothing at that time on a robot either.

What differs: a message takes the mean delay of its link, and is not lost. `Scenario.exact` delivers each by itself;
`test/test_sim.py` holds both side by side.
"""

from __future__ import annotations

from collections import deque
from typing import Any

KEPT = 32
"""Messages kept: as many as may be under way to the most distant worker; older ones have been overtaken."""


class Board:
    """The newest messages of one kind of one source."""

    __slots__ = ("_told", "number")

    def __init__(self) -> None:
        self.number = 0  # of the newest message; 0: none
        self._told: deque[tuple[float, int, Any]] = deque(maxlen=KEPT)  # (sent at, number, message)

    def put(self, now: float, message: Any) -> None:
        """Hang up a message at time `now` (s)."""
        self.number += 1
        self._told.append((now, self.number, message))

    def read(self, seen: int, delay: float, now: float) -> tuple[int, Any, float]:
        """The newest message after number `seen` that has arrived at time `now` when each takes `delay` (s): its
        number, the message (None: there is none), and when the one after it arrives (inf: it is the newest).
        """
        later = float("inf")
        for at, number, message in reversed(self._told):
            if number <= seen:
                break
            if at + delay <= now:
                return number, message, later
            later = at + delay
        return seen, None, later
