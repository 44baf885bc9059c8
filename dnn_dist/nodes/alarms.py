# SPDX-License-Identifier: Apache-2.0
"""Calls to come, by steady time. Pure: whoever holds them asks when the next is due, and runs them then.

A node has one ROS timer for all of them, and not one each: when one timer is reset while another is due, rclpy's
events executor calls the other several times, and then lets as many of its turns pass. A node resets at nearly every
message; a timer of 0.25 s was seen to rest for 4.7 s.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush

Call = Callable[[], None]
NEVER = float("inf")


def next_turn(due: float, period: float, now: float) -> float:
    """The first of the times due, due + period, due + 2 period, ... that is after `now`."""
    following = due + period * (1 + (now - due) // period)
    return following if following > now else following + period  # a quotient may be rounded down


class Alarms:
    """Calls that are made once, that move, or that come again and again. All times in seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []  # each is told what time it is
        self._order = itertools.count()  # calls of equal time keep their order
        self._moved: dict[Call, float] = {}  # -> when it is to be made
        self._entered: dict[Call, float] = {}  # -> the earliest of its entries in the heap

    def next(self) -> float:
        """When `run` is to be called."""
        return self._heap[0][0] if self._heap else NEVER

    def run(self, now: float, guard: Callable[[Call], None] = lambda call: call()) -> None:
        """Make the calls that are due, each by `guard`; what they enter waits for the next `run`, however early."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heappop(self._heap)[2])
        for call in due:
            guard(partial(call, now))

    def at(self, when: float, call: Call) -> None:
        """Have `call` made once at `when`; each `at` is a call of its own."""
        self._enter(when, lambda _: call())

    def move(self, when: float, call: Call) -> None:
        """Have `call` made once, at `when`; this replaces the time of the last `move`."""
        self._moved[call] = when
        if when < self._entered.get(call, NEVER):  # else the entry that is there finds out that it is too early
            self._entered[call] = when
            self._enter(when, lambda now: self._arrive(call, when, now))

    def every(self, period: float, call: Call, now: float) -> None:
        """Have `call` made each `period` after `now`; turns that were missed are left out, the beat is kept."""

        def enter(due: float) -> None:
            def turn(now: float) -> None:
                enter(next_turn(due, period, now))
                call()

            self._enter(due, turn)

        enter(now + period)

    def _enter(self, when: float, call: Callable[[float], None]) -> None:
        heappush(self._heap, (when, next(self._order), call))

    def _arrive(self, call: Call, entered: float, now: float) -> None:
        if self._entered.get(call) != entered:
            return  # entered once more since, for an earlier time
        del self._entered[call]
        when = self._moved.pop(call)
        if when > now:
            self.move(when, call)
        else:
            call()
