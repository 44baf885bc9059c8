# SPDX-License-Identifier: Apache-2.0
"""Links that carry more or less for a while, as faults of a scenario say it. Both directions alike."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from dnn_dist.sim.faults import Fault


class Changes:
    """The share of its rate that each link has, over time; 0: it is cut."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._of: dict[frozenset[str], tuple[list[float], list[float]]] = {}  # robots -> times in s, ascending; factors
        for fault in sorted((one for one in faults if one.kind == "link"), key=lambda fault: fault.at):
            times, factors = self._of.setdefault(frozenset((fault.robot, fault.other)), ([], []))
            times.append(fault.at)
            factors.append(fault.factor)

    def __bool__(self) -> bool:
        return bool(self._of)

    def factor(self, a: str, b: str, time: float) -> float:
        """What of its rate the link has at a time (s)."""
        times, factors = self._of.get(frozenset((a, b)), ([], []))
        place = bisect_right(times, time)
        return factors[place - 1] if place else 1.0

    def since(self, a: str, b: str, time: float) -> float:
        """Since when it has had that, s."""
        times, _ = self._of.get(frozenset((a, b)), ([], []))
        place = bisect_right(times, time)
        return times[place - 1] if place else float("-inf")

    def done(self, a: str, b: str, begin: float, seconds: float) -> float:
        """When what takes so many seconds at the link's full rate is through, s; inf where it stays cut."""
        times, _ = self._of.get(frozenset((a, b)), ([], []))
        for end in times[bisect_right(times, begin) :]:
            carried = (end - begin) * self.factor(a, b, begin)
            if carried >= seconds:
                break
            begin, seconds = end, seconds - carried
        factor = self.factor(a, b, begin)
        return begin + seconds / factor if factor else float("inf") if seconds else begin
