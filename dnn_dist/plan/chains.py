# SPDX-License-Identifier: Apache-2.0
"""Where a chain exchanges borders: direct boundaries between stages, by dynamic programming over places and grids.

More exchanges mean less work done twice and more bytes on the way. A stage takes as long as its slowest worker
computes; a boundary takes what its feeds take on the way, which follows from the grids on both sides. So the fastest
chain from a place to each later one adds up. That is an estimate, since feeds travel while others compute; the schedule
has the last word on a few chains: with feeds at several prices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from math import prod
from operator import or_

import numpy as np

from dnn_dist.cut.bands import band_of, cut_bands
from dnn_dist.cut.local import whole_stage
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.tiles import cut_tiles, fits, is_closed, largest_grid, tile_regions
from dnn_dist.cut.walk import Step, operands, step_pixels
from dnn_dist.graph.network import Network, Op
from dnn_dist.graph.region import Region
from dnn_dist.plan.plan import wire_dtype
from dnn_dist.plan.policy import alike, deal

MOST_WORK = 1.6
"""Stages with more than so many times the work of their ops are left out: an exchange is cheaper."""
PRICES = (2.5, 1.0, 0.25)
"""How much of the feeds' time on the way is counted: more, for plans that send less, or little, as if hidden."""
MOST_CHAINS = 3
"""Chains to the end that the schedule is asked about; of those that end before, one."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a stage is cut: in a grid, in bands for robots of these speeds, or not at all."""

    grid: tuple[int, int] = (1, 1)
    bands: str = ""

    @property
    def whole(self) -> bool:
        return self.grid == (1, 1) and not self.bands

    @property
    def speeds(self) -> tuple[float, ...]:
        return tuple(map(float, self.bands.split(",")))

    def boxes(self, network: Network, tensor: int) -> tuple[Region, ...]:
        """What each piece makes of a tensor. A band without rows is no piece."""
        return tuple(box for box in self.shares(network, tensor) if not box.empty)

    def shares(self, network: Network, tensor: int) -> tuple[Region, ...]:
        """What each robot makes of a tensor: of a small one a slow robot may have no rows."""
        image = network.tensors[tensor]
        if self.bands:
            speeds = self.speeds
            return tuple(band_of(network, tensor, speeds, number) for number in range(len(speeds)))
        return tile_regions(image.height, image.width, self.grid)

    def cut(self, network: Network, first: int, last: int) -> tuple[Stage, ...]:
        if self.bands:
            return cut_bands(network, self.speeds, self.bands, first, last)
        if self.whole:
            return (whole_stage(network, "layers", f"layers:1@{first}..{last}", first, last),)
        return (cut_tiles(network, self.grid, first, last),)


WHOLE = Kind()


def joined(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages with direct boundaries between them."""
    return tuple(replace(stage, direct=number > 0) for number, stage in enumerate(stages))


@dataclass(frozen=True, slots=True)
class Terms:
    """What a chain is for."""

    kinds: tuple[Kind, ...]
    speeds: tuple[float, ...]  # MAC/s of the workers
    overhead: float  # s of each stage, whatever it does
    byte: float  # s that a byte of a feed takes, all on the way together
    wire: str


@dataclass(frozen=True, slots=True)
class Walk:
    """A stage, as far as costs need it."""

    macs: tuple[float, ...]  # of each piece
    inputs: Mapping[int, np.ndarray]  # tensor -> box (y0, y1, x0, x1) of each piece, none: of no size


@dataclass(slots=True)
class _Piece:
    """A piece on the way back, as cut/walk.py goes it."""

    wanted: dict[int, Region] = field(default_factory=dict)  # tensor -> box that is needed and not made yet
    macs: float = 0.0

    def step_back(self, network: Network, op: Op, macs: float, made: Mapping[int, Region]) -> None:
        """Take an op of so many MACs in, of whose results these boxes are wanted after the stage."""
        boxes = [*made.values(), *(self.wanted.pop(t) for t in op.outputs if t in self.wanted)]
        if boxes and op.geometry is not None:
            need = op.geometry.need(reduce(or_, boxes))
            for tensor, box in operands(network, op, need).items():
                self.wanted[tensor] = self.wanted[tensor] | box if tensor in self.wanted else box
            part, whole = step_pixels(network, Step(op.index, need))
            self.macs += macs * part / whole


Cut = tuple[int, int, Kind]  # first op, op after the last
_Best = dict[tuple[int, Kind], tuple[float, Cut, Kind | None]]  # (op after, last kind) -> s, last cut, kind before it


@dataclass(frozen=True, eq=False)  # no slots: it remembers
class Chains:
    """Chains of one network between some of its ops."""

    network: Network
    macs: tuple[float, ...]  # of each op; where ops were measured, in proportion to their seconds
    places: tuple[int, ...]  # ops at which stages may begin, and at last the number of ops
    layers: frozenset[int]  # ops at which a stage of bands begins anew
    small: bool = False  # so that all may be looked at
    _stages: dict[Cut, tuple[Stage, ...]] = field(default_factory=dict)
    _walks: dict[tuple[int, Kind], dict[int, Walk]] = field(default_factory=dict)
    _made: dict[tuple[Kind, int], np.ndarray] = field(default_factory=dict)
    _moved: dict[tuple[Kind, Cut, tuple[int, ...], str], int] = field(default_factory=dict)
    _found: dict[tuple[int, Terms, float], _Best] = field(default_factory=dict)

    def between(self, first: int, last: int, terms: Terms) -> list[tuple[Cut, ...]]:
        """The most promising chains of two stages or more for ops first..last."""
        found: dict[tuple[Cut, ...], float] = {}
        for price in PRICES:
            best = self._from(first, terms, price)
            for kind in terms.kinds:
                cuts: list[Cut] = []
                at: tuple[int, Kind] | None = (last + 1, kind)
                while at in best:
                    _, cut, before = best[at]
                    cuts.append(cut)
                    at = None if before is None else (cut[0], before)
                if len(cuts) > 1:
                    found.setdefault(tuple(reversed(cuts)), best[last + 1, kind][0])
        most = MOST_CHAINS if self.small or last + 1 == self.places[-1] else 1
        return sorted(found, key=lambda cuts: found[cuts])[:most]

    def stages(self, cuts: Sequence[Cut]) -> tuple[Stage, ...]:
        """The stages of a chain; CutError where one cannot be cut so."""
        for cut in cuts:
            if cut not in self._stages:
                first, after, kind = cut
                self._stages[cut] = kind.cut(self.network, first, after - 1)
        return joined([stage for cut in cuts for stage in self._stages[cut]])

    def _from(self, first: int, terms: Terms, price: float) -> _Best:
        """Estimated seconds of the best chain from `first` to each later place, by the kind of its last stage."""
        key = (first, terms, price)
        if key not in self._found:
            best = self._found[key] = {}
            places = self.places[self.places.index(first) :]
            for number, place in enumerate(places[:-1]):
                before = [(best[place, kind][0], kind) for kind in terms.kinds if (place, kind) in best]
                for kind in terms.kinds if before or not number else ():
                    for after in places[number + 1 :]:
                        if kind.whole and after != places[-1] and not self.small:
                            continue  # one robot hardly helps but at the end
                        cut = (place, after, kind)
                        walk = self.walk(cut)
                        if walk is None:
                            continue
                        seconds = terms.overhead + _slowest(walk.macs, terms.speeds)
                        least, last = best.get((after, kind), (float("inf"),))[0], None
                        if not number:
                            best[after, kind] = seconds, cut, None
                        for spent, other in before:
                            if spent + seconds < least:
                                feeds = price * terms.byte * self.moved(other, cut, first, terms.wire)
                                if spent + seconds + feeds < least:
                                    least, last = spent + seconds + feeds, other
                        if last is not None:
                            best[after, kind] = least, cut, last
        return self._found[key]

    def walk(self, cut: Cut) -> Walk | None:
        """None: this range cannot be cut so, or not well."""
        first, after, kind = cut
        if (after, kind) not in self._walks:
            self._walks[after, kind] = dict(self._back_from(after, kind))
        return self._walks[after, kind].get(first)

    def _back_from(self, after: int, kind: Kind) -> Iterator[tuple[int, Walk]]:
        """Stages that end before op `after`, by their first op: one walk back through the ops gives them all."""
        network, places = self.network, frozenset(self.places)
        if kind.whole:
            for first in self.places[: self.places.index(after)]:
                inputs = {t: self._boxes(WHOLE, t) for t in network.live_before(first, after - 1)}
                yield first, Walk((sum(self.macs[first:after]),), inputs)
            return
        live = frozenset(network.live_after(0, after - 1))
        pieces: list[_Piece] = []
        for op in reversed(network.ops[:after]):
            made = [t for t in op.outputs if t in live]
            if not op.tileable or not fits(kind.grid, largest_grid(network, tuple(made)) if made else kind.grid):
                return
            for boxes in (kind.boxes(network, t) for t in made):
                pieces = pieces or [_Piece() for _ in boxes]
                if len(boxes) != len(pieces):
                    return  # tensors of unlike size, which too fine bands do not cut alike
            for number, piece in enumerate(pieces):
                macs = sum(self.macs[inner] for inner in (op.index, *op.inner))
                piece.step_back(network, op, macs, {t: kind.boxes(network, t)[number] for t in made})
            if op.index in places and pieces and is_closed(network, op.index, after - 1):
                work = tuple(piece.macs for piece in pieces)
                if sum(work) > MOST_WORK * sum(self.macs[op.index : after]):
                    return  # of longer stages more is done twice
                tensors = dict.fromkeys(t for piece in pieces for t in piece.wanted)
                inputs = {t: np.array([_box(piece.wanted.get(t)) for piece in pieces]) for t in tensors}
                yield op.index, Walk(work, inputs)
            if kind.bands and op.index in self.layers:
                return

    def _boxes(self, kind: Kind, tensor: int) -> np.ndarray:
        """What robots make of a tensor in stages of this kind."""
        key = (kind, tensor)
        if key not in self._made:
            image = self.network.tensors[tensor]
            whole = Region(0, image.height, 0, image.width) if image.is_image else Region(0, 1, 0, 1)
            boxes = (whole,) if kind.whole or not image.is_image else kind.shares(self.network, tensor)
            self._made[key] = np.array([_box(box) for box in boxes])
        return self._made[key]

    def moved(self, before: Kind, cut: Cut, first: int, wire: str) -> int:
        """What moves over the boundary before a stage of a chain from `first` on, if stages before it are like this."""
        walk = self.walk(cut)
        assert walk is not None, "only stages that can be cut are asked about"
        producers = self.network.producers
        tensors = tuple(t for t in walk.inputs if producers.get(t, -1) >= first)
        key = (before, cut, tensors, wire)
        if key not in self._moved:
            total, shared = 0.0, np.zeros((1, 1))
            for tensor in tensors:
                need, made = walk.inputs[tensor], self._boxes(before, tensor)
                low = np.maximum(need[:, None, 0::2], made[None, :, 0::2])
                high = np.minimum(need[:, None, 1::2], made[None, :, 1::2])
                pixel = self._pixel(tensor, wire)
                shared = shared + pixel * np.clip(high - low, 0, None).prod(axis=2)
                total += pixel * _pixels(need)
            stays = shared.max(axis=1).sum() if shared.shape[1] > 1 else shared.max()
            self._moved[key] = int(total - stays)
        return self._moved[key]

    def taken(self, cut: Cut, first: int, wire: str) -> int:
        """Bytes that a stage takes of what was made before op `first`."""
        walk, producers = self.walk(cut), self.network.producers
        assert walk is not None, "only stages that can be cut are asked about"
        before = {tensor: boxes for tensor, boxes in walk.inputs.items() if producers.get(tensor, -1) < first}
        return int(sum(self._pixel(tensor, wire) * _pixels(boxes) for tensor, boxes in before.items()))

    def _pixel(self, tensor: int, wire: str) -> float:
        """Bytes of a pixel as it travels, or of a tensor that is no image."""
        value = self.network.tensors[tensor]
        dtype = np.dtype("uint8" if tensor in self.network.inputs else wire_dtype(value.dtype, wire))
        return dtype.itemsize * prod(value.array_shape) / _pixels(self._boxes(WHOLE, tensor))


def _pixels(boxes: np.ndarray) -> float:
    """Of all boxes together."""
    return float((boxes[:, 1::2] - boxes[:, 0::2]).prod(axis=1).sum())


def _slowest(macs: Sequence[float], speeds: Sequence[float]) -> float:
    """Seconds until the last of the workers has done its pieces."""
    busy = [0.0] * len(speeds)
    for load, worker in zip(macs, deal(alike(macs, speeds)), strict=True):
        busy[worker] += load / speeds[worker]
    return max(busy)


def _box(region: Region | None) -> tuple[int, int, int, int]:
    return (0, 0, 0, 0) if region is None else (region.y0, region.y1, region.x0, region.x1)
