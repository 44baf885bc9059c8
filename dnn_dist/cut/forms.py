# SPDX-License-Identifier: Apache-2.0
"""Tiles that the file of another tile can compute, so that a robot holds fewer files of the same weights.

Tiles of a grid differ by a row or a column where the grid does not divide the output, and each size is a file of its
own with all the weights of the range. A larger tile computes a smaller one, if both have the same pads at their top
and left and the smaller one has none at its bottom and right (or is as high, or as wide): the input is extended by
zeros there, and of the output the upper left part is kept. Position for position both do the same sums of the same
values, so the results are equal bit for bit. YOLOv2's front in 5x5 tiles at 608: 9 files for 16, for 3.5 % more work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dnn_dist.cut.piece import Piece, Port, Stage
from dnn_dist.cut.walk import TileWalk, operands, walk_tile
from dnn_dist.graph.geometry import Pads, Pointwise, Window
from dnn_dist.graph.network import Network
from dnn_dist.graph.region import Region

MOST_EXTRA = 1.05
"""MACs of a stage whose tiles are computed by larger ones over its own, at most; else each has its own file."""
MOST_FORMS = 64
"""A stage of more forms, balanced tiles as a rule, is left as it is: each is compared with each."""


def serving(network: Network, stage: Stage) -> tuple[int, ...]:
    """For each piece of a stage the number of the piece whose file computes it, itself or a larger one."""
    first: dict[str, Piece] = {}  # form -> the first piece of it
    for piece in stage.pieces:
        first.setdefault(piece.form, piece)
    serves = dict(first)
    if stage.kind == "tiles" and not stage.reuses and len(first) <= MOST_FORMS:
        kept: list[tuple[Piece, TileWalk]] = []
        for piece in sorted(first.values(), key=lambda piece: -piece.macs):
            walk = _walk(network, stage, piece)
            large = next((large for large, its in kept if _contains(network, its, walk)), piece)
            serves[piece.form] = large
            if large is piece:
                kept.append((piece, walk))
    work = sum(serves[piece.form].macs for piece in stage.pieces)
    if work > MOST_EXTRA * sum(piece.macs for piece in stage.pieces):
        serves = first
    return tuple(serves[piece.form].index for piece in stage.pieces)


def extend(ports: Sequence[Port], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Arrays as the inputs `ports` of a larger tile: zeros below and to the right."""
    return [_extended(array, port.shape) for port, array in zip(ports, arrays, strict=True)]


def shrink(ports: Sequence[Port], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What the outputs `ports` are of those of a larger tile: the upper left part."""
    return [
        np.ascontiguousarray(array[tuple(map(slice, port.shape))]) for port, array in zip(ports, arrays, strict=True)
    ]


def _extended(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape == shape:
        return array
    larger = np.zeros(shape, array.dtype)
    larger[tuple(map(slice, array.shape))] = array
    return larger


class _Span(NamedTuple):
    """Rows or columns that a tile reads or gives."""

    start: int  # counted from the first that it holds of the tensor
    size: int
    before: int  # pads
    after: int


def _walk(network: Network, stage: Stage, piece: Piece) -> TileWalk:
    outputs = {port.tensor: port.region for port in piece.outputs if port.region is not None}
    return walk_tile(network, stage.first, stage.last, outputs)


def _contains(network: Network, large: TileWalk, small: TileWalk) -> bool:
    """Whether the upper left part of what `large` computes is what `small` computes."""
    if [step.op for step in large.steps] != [step.op for step in small.steps]:
        return False
    ops = (network.ops[step.op] for step in small.steps)
    if not all(isinstance(op.geometry, Window | Pointwise) for op in ops):  # the others' places depend on sizes
        return False
    if any(step.need.same for step in (*large.steps, *small.steps)):
        return False
    return all(
        ours == its or all(map(_reaches, ours, its))
        for ours, its in zip(_traces(network, large), _traces(network, small), strict=True)
    )


def _traces(network: Network, walk: TileWalk) -> tuple[list[_Span], list[_Span]]:
    """All that a tile reads and gives, as spans of rows and of columns."""
    found: list[tuple[Region, Region, Pads]] = []  # box, that of which it is a part, pads around it
    for step in walk.steps:
        boxes = operands(network, network.ops[step.op], step.need)
        found += [(box, walk.held[tensor], step.need.pads) for tensor, box in boxes.items()]
        found.append((step.need.output, step.need.output, Pads()))
    found += [(box, walk.held[tensor], Pads()) for tensor, box in walk.outputs.items()]
    rows = [_Span(box.y0 - held.y0, box.height, pads.top, pads.bottom) for box, held, pads in found]
    columns = [_Span(box.x0 - held.x0, box.width, pads.left, pads.right) for box, held, pads in found]
    return rows, columns


def _reaches(large: _Span, small: _Span) -> bool:
    """Whether one span is the other and more behind it, with nothing but true values there."""
    begin = (large.start, large.before) == (small.start, small.before)
    return begin and large.size >= small.size and not large.after and not small.after
