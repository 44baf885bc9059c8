# SPDX-License-Identifier: Apache-2.0
"""The air between robots, in virtual time: one rate shared by all, delay, jitter, loss, cut links, bounded queues.

Pure: no clock, no sockets. `send` takes a frame in, `advance` hands out what has arrived, `next_wake` says when to ask
again; times are seconds on any clock that does not run backwards. `namespaces.py` gives it Ethernet frames and a clock.

How it stands for Wi-Fi
  One frame is on the air at a time. It occupies it for `overhead` (preamble, gaps, acknowledgement) plus its bits at
  `rate`. Stations with frames waiting take turns, frame by frame, as carrier sense with equal chances does on average;
  there are no collisions. A frame for several receivers is sent once, and each loses it by itself.
  A station that sends faster than its turns come fills its queue; what does not fit there is dropped.
  Who sends does not learn of a cut: the frame takes its time on the air and arrives nowhere.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Weather:
    """What the air is like. All may change while running."""

    rate: float = 20e6  # bit/s while a frame's bits are on the air
    overhead: float = 50e-6  # s that each frame occupies the air beside its bits
    delay: float = 2e-3  # s from a frame's end on the air to its arrival
    jitter: float = 0.0  # s; up to this much is added to the delay, evenly, so that frames may overtake each other
    loss: float = 0.0  # share of frames that a receiver loses
    queue: int = 300_000  # bytes that wait at a sender; what comes on top is dropped

    def __post_init__(self) -> None:
        if not (self.rate > 0 and self.queue > 0 and min(self.overhead, self.delay, self.jitter) >= 0):
            raise ValueError("rate and queue must be above 0; overhead, delay and jitter 0 or more")
        if not 0 <= self.loss <= 1:
            raise ValueError(f"loss is {self.loss:g}, expected 0 to 1")

    def airtime(self, size: int) -> float:
        """Seconds for which a frame of `size` bytes occupies the air."""
        return self.overhead + 8 * size / self.rate


CALM = Weather(rate=1e9, overhead=0.0, delay=0.0)
"""As good as a cable."""


@dataclass(slots=True)
class Counters:
    """Sums since the start. A frame counts once when sent and once per receiver when it arrives or does not."""

    offered: int = 0  # frames given by stations
    dropped: int = 0  # frames that found their sender's queue full
    sent: int = 0  # frames that have begun on the air
    sent_bytes: int = 0
    airtime: float = 0.0  # s that the air was occupied
    delivered: int = 0  # receptions
    delivered_bytes: int = 0
    lost: int = 0  # receptions lost by chance
    cut: int = 0  # receptions lost to a cut link

    def __sub__(self, earlier: Counters) -> Counters:
        """What happened in between."""
        before = asdict(earlier)
        return Counters(**{name: value - before[name] for name, value in asdict(self).items()})


@dataclass(slots=True)
class _Station:
    queue: deque[tuple[float, tuple[str, ...], bytes]] = field(default_factory=deque)  # (since, receivers, frame)
    waiting: int = 0  # bytes in the queue
    turn: int = 0  # when it last sent, counted in frames


class Medium:
    """See the module's rules."""

    def __init__(self, stations: Sequence[str], weather: Weather | None = None, seed: int = 0) -> None:
        self.weather = weather or Weather()
        self.counters = Counters()
        self._stations = {name: _Station() for name in stations}
        self._free_at = -math.inf  # s; the air is occupied until then
        self._turn = 0
        self._cut: set[frozenset[str]] = set()
        self._flying: list[tuple[float, int, str, bytes]] = []  # heap of (arrival, number, receiver, frame)
        self._number = 0
        # Each link draws from its own chances: what one loses does not hang on how others are timed.
        self._chances = {(a, b): random.Random(f"{seed} {a} {b}") for a in stations for b in stations if a != b}

    def send(self, sender: str, receivers: Iterable[str], frame: bytes, now: float) -> None:
        """A station gives a frame to the air at time `now`."""
        station = self._stations[sender]
        self._transmit(now)  # what has begun by now has left its queue
        self.counters.offered += 1
        if station.waiting + len(frame) > self.weather.queue:
            self.counters.dropped += 1
            return
        station.queue.append((now, tuple(receivers), frame))
        station.waiting += len(frame)

    def advance(self, now: float) -> list[tuple[str, bytes]]:
        """(receiver, frame) of all that has arrived by `now`, in order."""
        self._transmit(now)
        arrived = []
        while self._flying and self._flying[0][0] <= now:
            _, _, receiver, frame = heapq.heappop(self._flying)
            self.counters.delivered += 1
            self.counters.delivered_bytes += len(frame)
            arrived.append((receiver, frame))
        return arrived

    def next_wake(self) -> float:
        """Time at which `advance` has something to do, if nothing more is sent; infinite when idle."""
        arrival = self._flying[0][0] if self._flying else math.inf
        return min(arrival, self._next_start())

    def change(self, now: float, **values: Any) -> None:
        """Other weather, for frames that begin from `now` on."""
        self._transmit(now)
        self.weather = replace(self.weather, **values)

    def cut(self, *stations: str) -> None:
        """Cut a link (two stations), all links of one, or all there are (none given)."""
        self._cut |= self._links(stations)

    def heal(self, *stations: str) -> None:
        """Undo `cut`."""
        self._cut -= self._links(stations)

    def told(self) -> dict[str, Any]:
        """The counters, and frames and bytes that wait or are under way."""
        waiting = sum(len(station.queue) for station in self._stations.values())
        return {**asdict(self.counters), "waiting": waiting, "flying": len(self._flying)}

    def _links(self, stations: tuple[str, ...]) -> set[frozenset[str]]:
        unknown = [name for name in stations if name not in self._stations]
        if unknown or len(stations) > 2:
            raise ValueError(f"{' '.join(unknown or stations)}: expected up to two of {' '.join(self._stations)}")
        return {frozenset(link) for link in self._chances if set(stations) <= set(link)}

    def _next_start(self) -> float:
        heads = [station.queue[0][0] for station in self._stations.values() if station.queue]
        return max(self._free_at, min(heads)) if heads else math.inf

    def _transmit(self, now: float) -> None:
        """Put on the air what begins by `now`."""
        while (start := self._next_start()) <= now:
            ready = [(s.turn, name) for name, s in self._stations.items() if s.queue and s.queue[0][0] <= start]
            name = min(ready)[1]
            station = self._stations[name]
            _, receivers, frame = station.queue.popleft()
            station.waiting -= len(frame)
            self._turn += 1
            station.turn = self._turn
            airtime = self.weather.airtime(len(frame))
            self._free_at = start + airtime
            self.counters.sent += 1
            self.counters.sent_bytes += len(frame)
            self.counters.airtime += airtime
            for receiver in receivers:
                self._fly(name, receiver, frame)

    def _fly(self, sender: str, receiver: str, frame: bytes) -> None:
        chances, weather = self._chances[sender, receiver], self.weather
        # Both are drawn every time, so that the n-th frame of a link has its fate whatever the weather was before.
        lost, jitter = chances.random() < weather.loss, chances.random() * weather.jitter
        if frozenset((sender, receiver)) in self._cut:
            self.counters.cut += 1
        elif lost:
            self.counters.lost += 1
        else:
            self._number += 1
            heapq.heappush(self._flying, (self._free_at + weather.delay + jitter, self._number, receiver, frame))
