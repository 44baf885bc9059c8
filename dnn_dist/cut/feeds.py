# SPDX-License-Identifier: Apache-2.0
"""What pieces of a chain give each other: boxes of tensors that go straight from worker to worker.

A chain is a run of stages joined by direct boundaries; a stage with gathered ones is a chain by itself. Within a chain
each input of a piece comes from the pieces of whichever earlier stage made the tensor; tensors from before the chain
come with the work, and what lives on after it goes to the aggregator from its maker. The boxes that come cover each
input exactly once, since the pieces of a stage cover what they make exactly once. Tiles that reuse each other's
overlap (reuse.py) give strips within their stage; those who give stand before those who take.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from dnn_dist.cut.piece import Piece, Port, Stage
from dnn_dist.cut.sides import SIDES
from dnn_dist.graph.network import Network
from dnn_dist.graph.region import Region
from dnn_dist.graph.schema import ITEM_BITS

FEEDING = ("tiles", "bands", "layers", *SIDES)
"""Kinds of stages that may stand at a direct boundary: their pieces give boxes of finished tensors."""

Maker = tuple[int, int]
"""Stage and piece that make a box, or take it."""
AGGREGATOR: Maker = (-1, -1)
"""Who gives a piece what was made before its chain, where that does not come with its work."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box of a tensor that one piece gives another."""

    port: int
    """Number of the input that it belongs to."""
    output: int
    """Number of the output that it is cut from."""
    region: Region | None
    """Within the whole tensor; None: all of it."""
    shape: tuple[int, ...]
    """Of the array."""
    dtype: str

    @property
    def bytes(self) -> int:
        return prod(self.shape) * ITEM_BITS[self.dtype] // 8


Boxes = tuple[Box, ...]


def lenders(taker: Maker, makers: Iterable[Maker]) -> frozenset[Maker]:
    """Of those who give a piece something, the ones of its own stage: it can do without their strips (reuse.py)."""
    return frozenset(maker for maker in makers if maker[0] == taker[0])


def chains(stages: Sequence[Stage]) -> tuple[range, ...]:
    """The stages' numbers, chain by chain."""
    starts = [number for number, stage in enumerate(stages) if number == 0 or not stage.direct]
    return tuple(range(start, end) for start, end in zip(starts, [*starts[1:], len(stages)], strict=True))


class Feeds:
    """Who gives whom what in all chains of a cut: derived once, asked often."""

    def __init__(self, network: Network, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        self.chains = chains(stages)
        self._chain_of = {stage: chain for chain in self.chains for stage in chain}
        self._feeds: dict[Maker, dict[Maker, Boxes]] = {}
        self._takers: dict[Maker, dict[Maker, Boxes]] = {}
        self._made: dict[int, frozenset[int]] = {}  # stage -> tensors that its chain makes before it
        self._reported: dict[int, tuple[int, ...]] = {}
        later = set(network.outputs)
        for chain in reversed(self.chains):
            for stage in chain:
                self._reported[stage] = tuple(t for t in self.stages[stage].outputs if t in later)
            later.update(tensor for stage in chain for tensor in self.stages[stage].inputs)
            self._derive(chain)
        self.seen = tuple(map(self._as_seen, range(len(self.stages))))
        """The stages as their source sees them: of each piece only the inputs that come with the work, and the outputs
        that go to the aggregator. Without direct boundaries that is all."""

    def _derive(self, chain: range) -> None:
        made: dict[int, _Made] = {}
        for stage in chain:
            self._made[stage] = frozenset(made)
            lent = _lent(self.stages[stage])
            for piece in self.stages[stage].pieces if made or lent else ():
                taker = stage, piece.index
                found: dict[Maker, list[Box]] = {}
                for number, port in enumerate(piece.inputs):
                    if port.strip:
                        lender, output = lent[port.tensor, port.region]
                        box = Box(number, output, port.region, port.shape, port.dtype)
                        found.setdefault((stage, lender), []).append(box)
                        continue
                    for maker, box in made[port.tensor].boxes(number, port) if port.tensor in made else ():
                        found.setdefault(maker, []).append(box)
                self._feeds[taker] = {maker: tuple(boxes) for maker, boxes in found.items()}
                for maker, boxes in self._feeds[taker].items():
                    self._takers.setdefault(maker, {})[taker] = boxes
            if stage != chain[-1]:
                made.update({tensor: _Made(self.stages, stage, tensor) for tensor in self.stages[stage].outputs})

    def _as_seen(self, stage: int) -> Stage:
        whole = self.stages[stage]
        if not self.chained(stage):
            return whole
        pieces = [
            replace(
                piece,
                inputs=tuple(piece.inputs[number] for number in self.given(stage, piece.index)),
                outputs=tuple(piece.outputs[number] for number in self.result(stage, piece.index)),
            )
            for piece in whole.pieces
        ]
        return replace(whole, pieces=tuple(pieces), outputs=self.reported(stage))

    def chain(self, stage: int) -> range:
        """The chain that a stage belongs to."""
        return self._chain_of[stage]

    def chained(self, stage: int) -> bool:
        """Whether pieces of its chain may give each other something."""
        return len(self.chain(stage)) > 1 or self.stages[stage].reuses

    def feeds(self, stage: int, piece: int) -> Mapping[Maker, Boxes]:
        """What a piece gets from other pieces of its chain."""
        return self._feeds.get((stage, piece), {})

    def takers(self, stage: int, piece: int) -> Mapping[Maker, Boxes]:
        """What a piece gives to other pieces of its chain: the same boxes, by who takes them."""
        return self._takers.get((stage, piece), {})

    def given(self, stage: int, piece: int) -> tuple[int, ...]:
        """Numbers of the inputs that come with the work: their tensors were made before the chain."""
        made = self._made[stage]
        inputs = self.stages[stage].pieces[piece].inputs
        return tuple(n for n, port in enumerate(inputs) if port.tensor not in made and not port.strip)

    def reported(self, stage: int) -> tuple[int, ...]:
        """Tensors of a stage that the aggregator gets: they live on after the chain."""
        return self._reported[stage]

    def result(self, stage: int, piece: int) -> tuple[int, ...]:
        """Numbers of the outputs of a piece that the aggregator gets."""
        outputs = self.stages[stage].pieces[piece].outputs
        reported = self._reported[stage]
        return tuple(n for n, port in enumerate(outputs) if port.tensor in reported and not port.strip)


def _lent(stage: Stage) -> dict[tuple[int, Region | None], tuple[int, int]]:
    """(tensor, box) -> piece of a stage that gives others this strip, and number of its output. Where several do, what
    they give is the same."""
    return {
        (port.tensor, port.region): (piece.index, number)
        for piece in reversed(stage.pieces)
        for number, port in enumerate(piece.outputs)
        if port.strip
    }


def made_before(network: Network, seen: Piece) -> tuple[Port, ...]:
    """Of the inputs of a piece as its source sees it, those that other chains or local stages make."""
    return tuple(port for port in seen.inputs if port.tensor not in network.inputs)


class _Made:
    """Where the pieces of a stage that make a tensor lie in it: rows of boxes, as all stages that feed are cut."""

    def __init__(self, stages: Sequence[Stage], stage: int, tensor: int) -> None:
        self.whole: tuple[Maker, int] | None = None
        rows: dict[tuple[int, int], list[tuple[int, int, Maker, int]]] = {}
        for piece in stages[stage].pieces:
            for output, port in enumerate(piece.outputs):
                if port.tensor == tensor and not port.strip:
                    maker = stage, piece.index
                    if port.region is None:
                        self.whole = maker, output
                    else:
                        y, x = (port.region.y0, port.region.y1), (port.region.x0, port.region.x1)
                        rows.setdefault(y, []).append((*x, maker, output))
        self.rows = sorted((*y, sorted(row)) for y, row in rows.items())

    def boxes(self, number: int, port: Port) -> Iterator[tuple[Maker, Box]]:
        """What `port`, input number `number` of some piece, gets of the tensor, and from whom."""
        if self.whole is not None:
            maker, output = self.whole
            yield maker, Box(number, output, port.region, port.shape, port.dtype)
            return
        need = port.region or Region(0, self.rows[-1][1], 0, self.rows[-1][2][-1][1])
        for y0, y1, row in _across(self.rows, need.y0, need.y1):
            for x0, x1, maker, output in _across(row, need.x0, need.x1):
                region = Region(y0, y1, x0, x1) & need
                yield maker, Box(number, output, region, (region.height, region.width, *port.shape[2:]), port.dtype)


def _across(spans: Sequence[tuple[Any, ...]], start: int, end: int) -> Sequence[tuple[Any, ...]]:
    """Those of `spans`, which begin with (from, to) and follow one another, that share something with [start, end)."""
    first = bisect_right(spans, start, key=lambda span: span[1])
    return spans[first : bisect_left(spans, end, key=lambda span: span[0])]


def take(piece: Piece, box: Box, outputs: Sequence[np.ndarray]) -> np.ndarray:
    """A box out of what a piece gave: a view."""
    port, array = piece.outputs[box.output], outputs[box.output]
    return array if box.region in (None, port.region) else array[_within(port, box)]


def put(piece: Piece, box: Box, array: np.ndarray, inputs: dict[int, np.ndarray]) -> None:
    """A box to where it belongs in the inputs of a piece (number of the port -> array, made when first needed)."""
    port = piece.inputs[box.port]
    if box.shape == port.shape:
        inputs[box.port] = array
    else:
        if box.port not in inputs:
            inputs[box.port] = np.empty(port.shape, port.dtype)
        inputs[box.port][_within(port, box)] = array


def fed(
    feeds: Feeds, stage: int, piece: int, outputs: Mapping[Maker, Sequence[np.ndarray]], alone: bool = False
) -> dict[int, np.ndarray]:
    """The inputs of a piece that come from its chain (number of the port -> array), of what their makers gave; `alone`:
    but for strips."""
    taker, inputs = feeds.stages[stage].pieces[piece], dict[int, np.ndarray]()
    given = feeds.feeds(stage, piece)
    lent = lenders((stage, piece), given) if alone else ()
    for maker, boxes in given.items():
        for box in boxes if maker not in lent else ():
            put(taker, box, take(feeds.stages[maker[0]].pieces[maker[1]], box, outputs[maker]), inputs)
    return inputs


def _within(port: Port, box: Box) -> tuple[slice, slice]:
    """Where a box lies in a port's array."""
    assert box.region is not None, "a box smaller than its port has a region"
    return (box.region if port.region is None else box.region.shift(-port.region.y0, -port.region.x0)).slices
