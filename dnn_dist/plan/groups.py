# SPDX-License-Identifier: Apache-2.0
"""Pipelines of groups: each group of robots has a run of layers, in tiles that give each other borders, or whole.

PICO's two steps (Yang et al., IEEE TMC 2023) by dynamic programming. Within a group stages follow one another on the
same robots, so their seconds add up: the best way from one place to each later one, for every size of group. Over
groups the slowest counts: the least bottleneck of all divisions of the network and of the robots, for every number of
groups, since each more is one more frame in work and so a longer latency. On the air all bytes of a frame add up.
These are estimates; the schedule has the last word on a few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from dnn_dist.cut.piece import Stage
from dnn_dist.errors import CutError
from dnn_dist.plan.chains import WHOLE, Chains, Cut, Kind, Terms

PRICES = (0.02, 1.0)
"""How much of the time of feeds is counted where groups exchange borders: little, for they travel while others compute;
all, where the air would be the slowest."""
KEPT = 3
"""Ways kept at a place for so many robots in so many groups."""
BOUNDS = (1.3, float("inf"))
"""The slowest group takes at most so many times what each would if all were divided evenly; more if there is no such
pipeline."""


def piped(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages as a pipeline, each with robots of its own."""
    return tuple(replace(stage, direct=number > 0, group=number > 0) for number, stage in enumerate(stages))


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline of groups."""

    stages: tuple[Stage, ...]
    seconds: float  # of the slowest group, or on the air if that is more
    groups: int


@dataclass(frozen=True, slots=True)
class _Run:
    """What one group does."""

    cuts: tuple[Cut, ...]
    seconds: float  # a frame, of its slowest robot
    sent: int  # bytes to its robots, from others or each other


@dataclass(frozen=True, slots=True)
class _Way:
    """Groups from the beginning to a place."""

    seconds: float = 0.0  # of the slowest
    sent: int = 0
    runs: tuple[_Run, ...] = ()


@dataclass(frozen=True, eq=False)  # no slots: it remembers
class Pipelines:
    """Pipelines of one network for crews of robots."""

    chains: Chains
    places: tuple[int, ...]  # of those of the chains: ops at which groups may begin, and exchange borders within
    _runs: dict[tuple[int, Terms, float, float], dict[int, _Run]] = field(default_factory=dict)
    _sizes: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    def best(self, terms: Terms, room: float) -> Iterator[Pipeline]:
        """The fastest of two groups, of three and so on, while that helps.

        `terms`: of all robots, fastest first; each group takes the next of them. `room`: bytes that each has for the
        weights and the largest layer of its group.
        """
        even = sum(self.chains.macs) / sum(terms.speeds)
        ways = next(filter(None, (self._ways(terms, room, bound * even, PRICES[0]) for bound in BOUNDS)), {})
        if any(way.sent * terms.byte > way.seconds for way in ways.values()):
            most = max(_worth(way, terms) for way in ways.values())
            for groups, way in self._ways(terms, room, most, PRICES[1]).items():
                ways[groups] = min(way, ways.get(groups, way), key=lambda way: _worth(way, terms))
        fastest = float("inf")
        for groups, way in sorted(ways.items()):
            if _worth(way, terms) < fastest:
                with suppress(CutError):
                    stages, fastest = self._stages(way), _worth(way, terms)
                    yield Pipeline(stages, fastest, groups)

    def _stages(self, way: _Way) -> tuple[Stage, ...]:
        first, *later = (self.chains.stages(run.cuts) for run in way.runs)
        behind = (replace(stage, direct=True, group=not n) for group in later for n, stage in enumerate(group))
        return (*first, *behind)

    def _ways(self, terms: Terms, room: float, most: float, price: float) -> dict[int, _Way]:
        """Number of groups, two or more -> the best way to the end; no group takes more than `most` seconds."""
        places, speeds = self.places, terms.speeds
        found: dict[int, dict[tuple[int, int], list[_Way]]] = {place: {} for place in places}
        found[0][0, 0] = [_Way()]  # (robots, groups) -> ways
        rest = {place: sum(self.chains.macs[place:]) for place in places}
        for first in places[:-1]:
            for (used, groups), ways in found.pop(first).items():
                for size in range(1, len(speeds) - max(used, 1) + 1):
                    left = sum(speeds[used + size :])
                    for after, run in self._group(first, _for_group(terms, used, size), most, price).items():
                        if rest[after] <= most * left and self._memory(first, after, size) <= room:
                            there = found[after].setdefault((used + size, groups + 1), [])
                            for way in ways:
                                longer = _Way(max(way.seconds, run.seconds), way.sent + run.sent, (*way.runs, run))
                                _keep(there, longer)
        whole: dict[int, _Way] = {}
        for (_, groups), ways in found[places[-1]].items():
            if groups == 1:
                continue
            whole[groups] = min([*ways, *filter(None, [whole.get(groups)])], key=lambda way: _worth(way, terms))
        return whole

    def _group(self, first: int, terms: Terms, most: float, price: float) -> dict[int, _Run]:
        """What one group can do from op `first` on within `most` seconds: the op after the last -> the best way."""
        key = (first, terms, most, price)
        if key not in self._runs:
            self._runs[key] = self._from(*key)
        return self._runs[key]

    def _from(self, first: int, terms: Terms, most: float, price: float) -> dict[int, _Run]:
        chains, start = self.chains, self.places.index(first)
        best: dict[tuple[int, Kind], tuple[float, _Run]] = {}
        for number, place in enumerate(self.places[start:-1], start):
            before = [(kind, *best[place, kind]) for kind in terms.kinds if (place, kind) in best]
            if number > start and (not before or len(terms.speeds) == 1):
                continue  # one robot does all in one stage
            for kind in terms.kinds:
                for after in self.places[number + 1 :]:
                    cut = (place, after, kind)
                    walk = chains.walk(cut)
                    if walk is None:
                        continue
                    seconds = terms.overhead + _slowest(walk.macs, terms.speeds)
                    if seconds > most:
                        break  # longer ones take longer
                    ways = [(0.0, _Run((), 0.0, 0), 0)] if number == start else []
                    ways += [(cost, run, chains.moved(other, cut, first, terms.wire)) for other, cost, run in before]
                    for cost, run, fed in ways:
                        cost += seconds + price * terms.byte * fed
                        within = run.seconds + seconds <= most
                        if within and ((after, kind) not in best or cost < best[after, kind][0]):
                            sent = run.sent + fed + chains.taken(cut, first, terms.wire)
                            best[after, kind] = cost, _Run((*run.cuts, cut), run.seconds + seconds, sent)
        ends: dict[int, tuple[float, _Run]] = {}
        for (after, _), (cost, run) in best.items():
            if after not in ends or cost < ends[after][0]:
                ends[after] = cost, run
        return {after: run for after, (_, run) in ends.items()}

    def _memory(self, first: int, after: int, size: int) -> float:
        """Bytes that a robot of so many needs for these ops, about: all weights, and its part of the largest layer."""
        if (first, after) not in self._sizes:
            ops = [op for op in self.chains.network.ops[first:after] if not op.folded]
            largest = max((op.activation_bytes for op in ops), default=0)
            self._sizes[first, after] = sum(op.weight_bytes for op in ops), largest
        weights, largest = self._sizes[first, after]
        return weights + largest / size


def _for_group(terms: Terms, used: int, size: int) -> Terms:
    """The terms of the robots used..used + size."""
    kinds = tuple(kind for kind in _grids(size) if kind != WHOLE) if size > 1 else ()
    return replace(terms, kinds=(WHOLE, *kinds), speeds=terms.speeds[used : used + size])


def _grids(size: int) -> tuple[Kind, ...]:
    """One tile for each robot: as near to a square as it goes, or rows."""
    rows = max(rows for rows in range(1, int(size**0.5) + 1) if size % rows == 0)
    return tuple(dict.fromkeys((Kind((rows, size // rows)), Kind((size, 1)))))


def _slowest(macs: tuple[float, ...], speeds: tuple[float, ...]) -> float:
    """Seconds of a stage with a piece for each robot, or one piece: the greatest goes to the fastest."""
    if speeds[0] == speeds[-1]:
        return max(macs) / speeds[0]
    return max(load / speed for load, speed in zip(sorted(macs, reverse=True), speeds, strict=False))


def _worth(way: _Way, terms: Terms) -> float:
    return max(way.seconds, way.sent * terms.byte)


def _keep(ways: list[_Way], new: _Way) -> None:
    """Add a way unless another is as good in both figures; the few fastest are kept."""
    if any(way.seconds <= new.seconds and way.sent <= new.sent for way in ways):
        return
    ways[:] = [way for way in ways if way.seconds < new.seconds or way.sent < new.sent]
    ways.append(new)
    if len(ways) > KEPT:
        ways.sort(key=lambda way: (way.seconds, way.sent))
        del ways[KEPT - 1 : -1]  # of those in between the slower; the one that sends least stays
