# SPDX-License-Identifier: Apache-2.0
"""Ways to cut a range of ops for a crew of workers, and the places where ranges may begin and end.

Small networks are cut at every op, for a few workers in every grid; of large ones only the places where little is
live, and grids near a square, so that a search ends in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from dnn_dist.cut.auto import tileable_ranges
from dnn_dist.cut.bands import cut_bands, layers_of
from dnn_dist.cut.layers import cut_layers, cut_points, layer_starts
from dnn_dist.cut.local import cut_local, whole_stage
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.slices import cut_slices
from dnn_dist.cut.spec import filled
from dnn_dist.cut.tiles import cut_tiles, front_end
from dnn_dist.errors import CutError
from dnn_dist.graph.network import Network
from dnn_dist.plan.between import Between, between
from dnn_dist.plan.chains import WHOLE, Chains, Kind, Terms, joined
from dnn_dist.plan.groups import Pipelines
from dnn_dist.plan.predict import Circumstances
from dnn_dist.settings import PartitionSettings

SMALL, FEW = 16, 4
"""Layers up to which a network is cut at each of them, and workers up to which it is then cut in every grid."""
FINE = ((3, 3), (4, 4), (5, 5))
"""Grids for few workers with little memory."""
EXCHANGES = 48
"""Places at which a chain may exchange borders, at most."""
BEGINNINGS = 20
"""Places at which a group of a pipeline may begin, or exchange borders, at most."""
PLACES = 12
"""Places between layers that are looked at in a larger one."""
MOST_WORK = 2.0
"""Tiles of large networks with more work than so many times that of the ops are left out: some amplify badly."""
_MOST_UNLIKE = 1000.0  # times that a robot counts as faster than the slowest, when it comes to shares
MOST_CODED = 8  # slices that a code with several parities is known for

Stages = tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Crew:
    """Robots with workers, fastest first."""

    names: tuple[str, ...]
    speeds: tuple[float, ...]  # MAC/s
    tolerate: int = 0  # workers that may fail without loss
    byte: float = 0.0  # s that a byte takes between two of them, all on the way together
    overhead: float = 0.0  # s of a stage, whatever it does
    wire: str = PartitionSettings.wire
    tight: bool = False  # a robot may be too small for what it is given

    @property
    def shares(self) -> str:
        """Speeds as a cut names them, or empty when they hardly differ."""
        low = min(self.speeds)
        ratios = (round(min(speed / low, _MOST_UNLIKE), 2) for speed in self.speeds)
        return "" if max(self.speeds) < 1.1 * low else ",".join(f"{ratio:g}" for ratio in ratios)


@dataclass(frozen=True, eq=False)  # no slots: it remembers
class Space:
    """All ways to cut one network that a search may try."""

    network: Network
    macs: tuple[float, ...]  # of each op; where ops were measured, in proportion to their seconds
    _stages: dict[object, Stages] = field(default_factory=dict)
    _work: dict[tuple[int, tuple[int, int]], list[tuple[int, float]]] = field(default_factory=dict)
    _between: dict[str, Between] = field(default_factory=dict)

    @cached_property
    def small(self) -> bool:
        return len(self._starts) <= SMALL

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        return layer_starts(self.network, 0, len(self.network.ops) - 1)

    @cached_property
    def places(self) -> tuple[int, ...]:
        """Ops at which a stage may begin, and at last the number of ops: stages are cut between two of them."""
        count = len(self.network.ops)
        if self.small:
            return (*self._starts, count)
        return (0, *_narrow(self.network, self._starts[1:], PLACES - 1), count)

    @cached_property
    def chains(self) -> Chains:
        """Chains begin and end at places, and exchange at these and where layers need their surroundings."""
        inner = [start for start in self._starts[1:] if any(start == first for first, _ in self.layers)]
        if len(inner) > EXCHANGES:
            inner = list(_narrow(self.network, inner, EXCHANGES))
        places = tuple(sorted({*inner, *self.places}))
        return Chains(self.network, self.macs, places, frozenset(first for first, _ in self.layers), self.small)

    @cached_property
    def pipelines(self) -> Pipelines:
        """Groups begin, and exchange, at some of the places where chains exchange."""
        inner = self.chains.places[1:-1]
        if len(inner) > BEGINNINGS:
            inner = _narrow(self.network, inner, BEGINNINGS)
        return Pipelines(self.chains, (0, *inner, len(self.network.ops)))

    @cached_property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """Ranges of ops that bands can be cut in, each with one layer that needs its surroundings."""
        return tuple(layer for run in self.tileable for layer in layers_of(self.network, *run))

    @cached_property
    def tileable(self) -> tuple[tuple[int, int], ...]:
        """Longest runs of ops that can be tiled, as (first, last), both included."""
        return tileable_ranges(self.network)

    def adjacent(self, first: int, last: int) -> bool:
        """Whether no place lies within the range."""
        return self.places.index(last + 1) == self.places.index(first) + 1

    def ways(self, kinds: Iterable[str], first: int, last: int, crew: Crew) -> Iterator[Stages]:
        """Stages for ops first..last, of these kinds, each way once."""
        for kind in kinds:
            for key, cut in WAYS[kind](self, first, last, crew):
                if key not in self._stages:
                    try:
                        self._stages[key] = cut()
                    except CutError:  # this range cannot be cut in this way
                        self._stages[key] = ()
                if self._stages[key]:
                    yield self._stages[key]

    def band(self, text: str, layer: tuple[int, int]) -> Stages:
        """One layer, or a part of it, in bands; CutError where it cannot be cut so."""
        key = ("band", text, layer)
        if key not in self._stages:
            self._stages[key] = cut_bands(self.network, _speeds(text), text, *layer)
        return self._stages[key]

    def between(self, given: Circumstances, server: str) -> Between:
        """The network between the gateway's robot and this one."""
        if server not in self._between:
            fleet, own = given.fleet, given.gateway
            robots, link = (fleet.robot(own), fleet.robot(server)), fleet.link(own, server)
            self._between[server] = between(self.network, *robots, link, given.wire)
        return self._between[server]

    def pipeline(self, count: int) -> Stages:
        """The network in so many runs of layers, gathered."""
        if ("pipeline", count) not in self._stages:
            self._stages["pipeline", count] = cut_layers(self.network, (1.0,) * count, str(count))
        return self._stages["pipeline", count]

    def note_work(self, first: int, last: int, grid: tuple[int, int], ratio: float) -> None:
        """Remember how much more work the tiles of ops first..last are than the ops themselves."""
        self._work.setdefault((first, grid), []).append((last, ratio))

    def wasted(self, first: int, last: int, grid: tuple[int, int], most: float) -> bool:
        """Whether the tiles are known to be more than `most` times the work, since those of a shorter range were."""
        return any(last >= end and ratio > most for end, ratio in self._work.get((first, grid), ()))

    def has_work(self, first: int, last: int) -> bool:
        """Whether any op of the range runs at all."""
        return any(not op.folded for op in self.network.ops[first : last + 1])


Way = tuple[object, Callable[[], Stages]]


def _local(space: Space, first: int, last: int, crew: Crew) -> Iterator[Way]:
    """At the gateway's robot."""
    yield ("local", first, last), lambda: (cut_local(space.network, first, last),)


def _remote(space: Space, first: int, last: int, crew: Crew) -> Iterator[Way]:
    """All of it at one worker."""
    spec = f"layers:1@{first}..{last}"
    yield ("layers", first, last), lambda: (whole_stage(space.network, "layers", spec, first, last),)


def _tiles(space: Space, first: int, last: int, crew: Crew) -> Iterator[Way]:
    """Fused tiles, about one or a few for each worker; ops between them that cannot be tiled at the gateway."""
    network = space.network
    runs = [(max(a, first), min(b, last)) for a, b in space.tileable if a <= last and b >= first]
    if not runs or (runs != [(first, last)] and (space.small or not space.adjacent(first, last))):
        return
    most = len(crew.names) if space.small else min(MOST_WORK, len(crew.names))
    fine = space.small and len(crew.names) <= FEW
    for grid in _grids(len(crew.names), fine):
        if space.wasted(first, last, grid, most):
            continue
        # balancing takes long to work out, and pays where every worker has one tile
        uneven = fine and max(grid) > 2 and grid[0] * grid[1] == len(crew.names)
        for balanced in (False, True) if uneven else (False,):

            def cut(grid: tuple[int, int] = grid, balanced: bool = balanced) -> Stages:
                stages = [cut_tiles(network, grid, *run, balanced) for run in runs]
                work = sum(piece.macs for stage in stages for piece in stage.pieces)
                space.note_work(first, last, grid, work / max(1, sum(network.macs_of(*run) for run in runs)))
                return filled(space.network, stages, first, last)

            yield ("tiles", first, last, grid, balanced), cut


def _reuse(space: Space, first: int, last: int, crew: Crew) -> Iterator[Way]:
    """The same tiles, and many for few robots with little memory, that lend each other strips: those are not kept for
    a robot that may not be missed.
    """
    network, workers = space.network, len(crew.names)
    runs = [(max(a, first), min(b, last)) for a, b in space.tileable if a <= last and b >= first]
    if crew.tolerate or not runs or (runs != [(first, last)] and (space.small or not space.adjacent(first, last))):
        return
    for grid in dict.fromkeys((*_grids(workers, fine=False), *(FINE if crew.tight and workers <= FEW else ()))):

        def cut(grid: tuple[int, int] = grid) -> Stages:
            return filled(network, [cut_tiles(network, grid, *run, reuse=True) for run in runs], first, last)

        yield ("reuse", first, last, grid), cut


def _chain(space: Space, first: int, last: int, crew: Crew) -> Iterator[Way]:
    """Tiles, bands and runs of layers with direct boundaries."""
    workers = len(crew.names)
    if workers < 2 or not (space.small or first in dict(space.tileable)):
        return
    exact = [grid for grid in _grids(workers, fine=True) if grid[0] * grid[1] == workers]
    grids = exact if space.small else [grid for grid in _grids(workers, fine=False) if grid in exact]
    if crew.shares:
        grids += [grid for grid in _grids(workers, fine=False) if grid not in grids]
    kinds = (WHOLE, *(Kind(grid) for grid in grids), *([Kind(bands=crew.shares)] if crew.shares else []))
    terms = Terms(kinds, crew.speeds, crew.overhead, crew.byte, crew.wire)
    for cuts in space.chains.between(first, last, terms):
        yield ("chain", cuts), lambda cuts=cuts: space.chains.stages(cuts)  # type: ignore[misc]


def _bands(space: Space, first: int, last: int, crew: Crew) -> Iterator[Way]:
    """A row band for each worker, layer by layer, each keeping its rows; higher for faster ones."""
    layers = [layer for layer in space.layers if first <= layer[1] and layer[0] <= last]
    able = len(crew.names) > 1 and layers
    if not able or not all(op.tileable for op in space.network.ops[first : last + 1]):
        return
    single = space.adjacent(first, last) or (space.small and len(layers) == 1)
    if not single and (first, last) not in space.tileable:
        return
    layers = [(max(a, first), min(b, last)) for a, b in layers]
    for text in filter(None, (str(len(crew.names)), crew.shares)):

        def cut(text: str = text) -> Stages:
            stages = tuple(stage for layer in layers for stage in space.band(text, layer))
            return stages if crew.tolerate else joined(stages)

        yield ("bands", first, last, text), cut


def _slices(space: Space, first: int, last: int, crew: Crew) -> Iterator[Way]:
    """Output channels, each op that can be sliced in its own stage, ops between them at the gateway.

    With parities as many as workers may fail; and with one, so that the slowest need not be waited for. Longer ranges
    are made of these.
    """
    if not space.adjacent(first, last):
        return
    workers, least = len(crew.names), crew.tolerate
    for parity in range(least, max(least, 1) + 1 if workers > 2 else least + 1):
        slices = workers - parity
        if slices < 2 or (parity and slices > MOST_CODED) or parity > 3:
            continue
        texts = [str(slices), *([crew.shares] if crew.shares and not parity else [])]
        for text in (f"{text}+{parity}" if parity else text for text in texts):

            def cut(text: str = text, parity: int = parity) -> Stages:
                stages = cut_slices(space.network, _speeds(text.partition("+")[0]), parity, text, first, last)
                return filled(space.network, stages, first, last)

            yield ("slices", first, last, text), cut


WAYS: dict[str, Callable[[Space, int, int, Crew], Iterator[Way]]] = {
    "local": _local,
    "remote": _remote,
    "tiles": _tiles,
    "reuse": _reuse,
    "bands": _bands,
    "slices": _slices,
    "chain": _chain,
}


def _speeds(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(","))) if "," in text else (1.0,) * int(text)


def _grids(workers: int, fine: bool) -> tuple[tuple[int, int], ...]:
    """Grids of two tiles or more: all with up to two a worker, or (not `fine`) those with one or two near a square."""
    if fine:
        most = max(4, 2 * workers)
        return tuple((r, c) for r in range(1, most + 1) for c in range(1, most // r + 1) if r * c > 1)
    found: dict[tuple[int, int], None] = {}
    for tiles in (workers, 2 * workers):
        rows = max(rows for rows in range(1, int(tiles**0.5) + 1) if tiles % rows == 0)
        found[rows, tiles // rows] = None
        found[round(tiles**0.5), round(tiles**0.5)] = None
    return tuple(grid for grid in found if grid[0] * grid[1] > 1)


def _narrow(network: Network, starts: Sequence[int], most: int) -> tuple[int, ...]:
    """Of these ops about `most`, spread over the work, each the one of its part with the least live before it.

    Always among them: where the ops end that can be tiled from the start on.
    """
    live = {point.after + 1: point.bytes for point in cut_points(network)}
    work, done = {}, 0.0
    for op in network.ops:
        work[op.index] = done
        done += op.macs + network.macs / len(network.ops)  # so that ops without MACs are spread as well
    parts: dict[int, list[int]] = {}
    for start in starts:
        parts.setdefault(int(most * work[start] / done), []).append(start)
    chosen = {min(part, key=lambda start: (live[start], -start)) for part in parts.values()}
    return tuple(sorted(chosen | ({end + 1} & set(starts) if (end := front_end(network)) is not None else set())))
