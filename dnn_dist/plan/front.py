# SPDX-License-Identifier: Apache-2.0
"""Where to cut a network in a front, for the robot that has the inputs, and a rest, for a server.

A front is closed: it has all that its layers need. Prefixes of the file's order are not the only closed sets, as soon
as the network has branches: one branch may go far on the robot, another not at all. What crosses the cut are the
tensors of the front that the rest reads, each sent once. Each is a path (paths.py), so that what one path sends and the
server computes hides behind the robot's work on the next.

The paper enumerates paths from source to sink, of which a network with many forks has millions. Layers run once, and
all paths by the same tensor over the cut are computed and sent together: they are one path here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import accumulate
from operator import or_

from dnn_dist.plan.paths import Ordered, Paths, best_order

MOST_FRONTS = 20_000
"""Closed sets up to which all are tried; some seconds."""
KEPT = 8
"""Fronts from which a search goes on. With one it misses the best in one of seven random networks, with eight in none
of 300 (test/test_front.py)."""

Front = int
"""A closed set of layers, bit i for layer i."""
Rule = Callable[[Paths], Ordered]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, or ops that are cut as one. A model's input is a layer too: no work, and only the robot has it."""

    robot: float  # s on the robot
    server: float  # s on the server; inf: must be in the front
    send: float  # s on the link for what it makes
    takes: tuple[int, ...] = ()  # layers whose results it reads, all before it


def source(send: float) -> Layer:
    """A model's input, that takes `send` seconds on the link."""
    return Layer(0.0, math.inf, send)


@dataclass(frozen=True)  # no slots: cached properties need a __dict__
class LayerGraph:
    """Layers in an order in which they can run."""

    layers: tuple[Layer, ...]

    @cached_property
    def takes(self) -> tuple[int, ...]:
        """Layer -> set of those that it reads."""
        return tuple(_set(layer.takes) for layer in self.layers)

    @cached_property
    def takers(self) -> tuple[int, ...]:
        """Layer -> set of those that read it."""
        found = [0] * len(self.layers)
        for taker, layer in enumerate(self.layers):
            for maker in layer.takes:
                found[maker] |= 1 << taker
        return tuple(found)

    @cached_property
    def needs(self) -> tuple[int, ...]:
        """Layer -> set of itself and all that it needs, directly or not."""
        found: list[int] = []
        for number, layer in enumerate(self.layers):
            found.append(1 << number)
            for maker in layer.takes:
                found[-1] |= found[maker]
        return tuple(found)

    @cached_property
    def needed_by(self) -> tuple[int, ...]:
        """Layer -> set of itself and all that need it, directly or not."""
        found = [0] * len(self.layers)
        for number in reversed(range(len(self.layers))):
            found[number] |= 1 << number
            for maker in self.layers[number].takes:
                found[maker] |= found[number]
        return tuple(found)

    @property
    def whole(self) -> Front:
        """LO: all on the robot."""
        return (1 << len(self.layers)) - 1

    @cached_property
    def least(self) -> Front:
        """RO: on the robot only what must be there."""
        found = 0
        for number, layer in enumerate(self.layers):
            if math.isinf(layer.server):
                found |= self.needs[number]
        return found

    def crossing(self, front: Front) -> tuple[int, ...]:
        """Layers of the front that the rest reads."""
        return tuple(number for number in members(front) if self.takers[number] & ~front)

    def summed(self, front: Front) -> float:
        """Seconds when nothing overlaps: the front, then all that crosses, then the rest."""
        layers = self.layers
        on_server = sum(layers[number].server for number in members(self.whole & ~front))
        on_link = sum(layers[number].send for number in self.crossing(front))
        return sum(layers[number].robot for number in members(front)) + on_link + on_server

    def paths(self, front: Front) -> Paths:
        """What crosses the cut as paths, numbered as in `crossing`."""
        crossing = self.crossing(front)
        waits = {tensor: 1 << path for path, tensor in enumerate(crossing)}  # layer -> paths that it waits for
        robot: dict[int, float] = {}
        server: dict[int, float] = {}
        for number, layer in enumerate(self.layers):
            if front >> number & 1:
                needed_by = self.needed_by[number]
                group = _set(path for path, tensor in enumerate(crossing) if needed_by >> tensor & 1)
                robot[group] = robot.get(group, 0.0) + layer.robot
            else:
                group = reduce(or_, (waits[maker] for maker in layer.takes))
                waits[number] = group
                server[group] = server.get(group, 0.0) + layer.server
        return Paths(robot, tuple(self.layers[tensor].send for tensor in crossing), server)


def _set(numbers: Iterable[int]) -> int:
    found = 0
    for number in numbers:
        found |= 1 << number
    return found


def members(front: Front) -> Iterator[int]:
    """The layers of a set, ascending."""
    while front:
        lowest = front & -front
        yield lowest.bit_length() - 1
        front ^= lowest


@dataclass(frozen=True, slots=True)
class Division:
    """A network in front and rest, its paths in an order."""

    front: Front
    crossing: tuple[int, ...]  # layers whose results are sent; paths are numbered by this
    paths: Ordered

    @property
    def makespan(self) -> float:
        """Seconds of a frame."""
        return self.paths.makespan

    @property
    def sent(self) -> tuple[int, ...]:
        """Layers whose results are sent, in the order of sending."""
        return tuple(self.crossing[path] for path in self.paths.order)


def divide(graph: LayerGraph, front: Front, rule: Rule = best_order) -> Division:
    """The network cut after this front, its paths in the order that `rule` gives."""
    return Division(front, graph.crossing(front), rule(graph.paths(front)))


def closed_sets(graph: LayerGraph, most: int = MOST_FRONTS) -> list[Front] | None:
    """All fronts there are; None when there are more than `most`."""
    found = [0]
    for number, takes in enumerate(graph.takes):
        grown = [front | 1 << number for front in found if not takes & ~front]
        found = grown if graph.least >> number & 1 else found + grown
        if len(found) > most:
            return None
    return found


def best_cut(
    graph: LayerGraph, rule: Rule = best_order, most: int = MOST_FRONTS, starts: Sequence[Front] = ()
) -> Division:
    """The front that ends soonest when computing and sending overlap, in the order that `rule` gives each.

    Of all closed sets where they are no more than `most`; else the best that `searched` finds.
    """
    fronts = closed_sets(graph, most)
    if fronts is None:
        return searched(graph, rule, starts)
    return _soonest(graph, fronts, rule)


def searched(graph: LayerGraph, rule: Rule = best_order, starts: Sequence[Front] = (), kept: int = KEPT) -> Division:
    """A good front without trying all: from the `kept` best so far on, until no step leads to one as good as those.

    A step adds a layer with all that it needs, or takes one away with all that need it. Starts are LO, RO, all prefixes
    of the order, and `starts` (the minimum cut, for instance).
    """
    prefixes = accumulate(range(len(graph.layers)), lambda front, number: front | 1 << number, initial=graph.least)
    tried: set[Front] = set()
    new = {*prefixes, *starts}
    best: list[Division] = []
    while new:
        tried |= new
        best = sorted((*best, *(divide(graph, front, rule) for front in sorted(new))), key=_makespan)[:kept]
        steps = (front for division in best for front in _steps(graph, division.front))
        new = {front for front in steps if front not in tried}
        if len(best) == kept:
            new = {front for front in new if graph.paths(front).bound() < best[-1].makespan}
    return best[0]


def _makespan(division: Division) -> float:
    return division.makespan


def _steps(graph: LayerGraph, front: Front) -> Iterator[Front]:
    yield from (front | needs for needs in graph.needs)
    yield from (front & ~needed_by | graph.least for needed_by in graph.needed_by)


def _soonest(graph: LayerGraph, fronts: Sequence[Front], rule: Rule) -> Division:
    """The best of these fronts; the most promising first, and no further than one can be better."""
    best: Division | None = None
    for promise, front in sorted((graph.paths(front).bound(), front) for front in fronts):
        if best is not None and promise >= best.makespan:
            break
        found = divide(graph, front, rule)
        if best is None or found.makespan < best.makespan:
            best = found
    assert best is not None, "there is always a front: LO"
    return best
