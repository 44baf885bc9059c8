# SPDX-License-Identifier: Apache-2.0
"""The rate of a link as what goes over it anyway shows it: works and feeds that are sent, and that the worker has.

Messages arrive in the order in which they were sent, and nobody says more than that they are there. So one began its
way when it was sent, or when the one before had arrived, and of its time one round trip is no bytes' time: that is what
messages without bytes take.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

SMALL = 4_000
"""Bytes below which a message tells the round trip and not the rate: what else is on the air delays it by more than its
own time.
"""
SHORTEST = 1e-3
"""Seconds. Times of messages are not known better."""
MOST = 256
"""Messages under way that are remembered."""


@dataclass(slots=True)
class _UnderWay:
    what: Hashable
    sent_at: float  # s
    size: int  # bytes
    awaited: bool = True  # else it may be on its way, and nobody will say that it is there


@dataclass(slots=True)
class Meter:
    """One link, from a source's robot to a worker elsewhere."""

    rate: float = 0.0  # bytes/s, by the newest message; 0: not known
    at: float = float("-inf")  # s; when that arrived
    count: int = 0  # rates measured
    _under_way: deque[_UnderWay] = field(default_factory=lambda: deque(maxlen=MOST))  # in the order of sending
    _round_trips: deque[float] = field(default_factory=lambda: deque(maxlen=8))  # s, the newest
    _arrived_at: float = float("-inf")  # s; the newest message
    _unclear_until: float = float("-inf")  # s; when something was under way before of which nobody knows when it came

    def sent(self, what: Hashable, size: int, now: float) -> None:
        """A message of `size` bytes is on its way; `what` it is, for those who hear of its arrival."""
        self._under_way.append(_UnderWay(what, now, size))

    def seen(self, number: int, now: float) -> None:
        """The worker has seen the work of this number, and so those before."""
        for one in reversed(self._under_way):
            if isinstance(one.what, int) and one.what <= number:
                self.arrived(one.what, now)
                return

    def fed(self, what: Hashable, since: float, now: float) -> None:
        """A task has all its feeds, of which the last was sent at `since` (s). Where that did not go over this link
        nobody knows when those that did have come.
        """
        if not any(one.what == what and one.sent_at >= since for one in self._under_way):
            self.lost(what)
        self.arrived(what, now)

    def arrived(self, what: Hashable, now: float) -> None:
        """A message is there, and with it all that were sent before."""
        place = max((n for n, one in enumerate(self._under_way) if one.what == what), default=None)
        if place is None:
            return
        came = [self._under_way.popleft() for _ in range(place + 1)]
        size, before = sum(one.size for one in came), self._arrived_at
        self._arrived_at = now
        if not all(one.awaited for one in came):
            self._unclear_until = now
        if came[0].sent_at < self._unclear_until:
            return
        if size < SMALL:
            if before <= came[0].sent_at:
                self._round_trips.append(now - came[-1].sent_at)
            return
        round_trip = self.round_trip
        began = max(came[0].sent_at, before - round_trip)
        self.rate, self.at, self.count = size / max(SHORTEST, now - began - round_trip), now, self.count + 1

    def lost(self, what: Hashable) -> None:
        """Nobody will say of a message that it is there; it may be on its way all the same."""
        for one in self._under_way:
            one.awaited = one.awaited and one.what != what

    def forget(self, before: float) -> None:
        """Let go of what was sent before that time (s): the middleware has given it up."""
        while self._under_way and self._under_way[0].sent_at < before:
            self._under_way.popleft()

    @property
    def awaits(self) -> bool:
        """Whether the arrival of a message will be heard of."""
        return any(one.awaited for one in self._under_way)

    @property
    def backlog(self) -> int:
        """Bytes that are under way, or may be."""
        return sum(one.size for one in self._under_way)

    @property
    def round_trip(self) -> float:
        """Seconds, at best of late; 0 while not known."""
        return min(self._round_trips, default=0.0)

    def left(self, now: float) -> float:
        """Seconds until all that is under way will have arrived, at the rate that is known."""
        if not self._under_way or not self.rate:
            return 0.0
        began = max(self._under_way[0].sent_at, self._arrived_at)
        return max(0.0, self.backlog / self.rate - (now - began))

    def most(self, now: float, slack: float) -> float:
        """Bytes/s that the link carries at most, since what is under way has not arrived; inf: nothing is late.

        A message may take `slack` seconds beside its bytes' time, for nobody may be there to say that it came.
        """
        sent = list(self._under_way)
        oldest = next((n for n, one in enumerate(sent) if one.awaited and one.size >= SMALL), -1)
        size, found = 0, 0.0
        for one in reversed(sent[: oldest + 1]):  # it waited for one of these before it, or for itself
            size += one.size
            seconds = now - max(one.sent_at, self._arrived_at) - slack - self.round_trip
            found = max(found, size / seconds if seconds > 0 else float("inf"))
        return found or float("inf")
