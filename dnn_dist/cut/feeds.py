# SPDX-License-Identifier: Apache-2.0
"""What pieces of a chain give each other: boxes of tensors that go straight from worker to worker.

A chain is a run of stages joined by direct boundaries; a stage with gathered ones is a chain by itself. Within a chain
each input of a piece comes from the pieces of whichever earlier stage made the tensor; tensors from before the chain
come with the work, and what lives on after it goes to the aggregator from its maker. The boxes that come cover each
input exactly once, since the pieces of a stage cover what they make exactly once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dnn_dist.cut.piece import Piece, Port, Stage
from dnn_dist.graph.network import Network
from dnn_dist.graph.region import Region
from dnn_dist.graph.schema import ITEM_BITS

FEEDING = ("tiles", "bands", "layers")
"""Kinds of stages that may stand at a direct boundary: their pieces give boxes of finished tensors."""

Maker = tuple[int, int]
"""Stage and piece that make a box."""


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
        return int(np.prod(self.shape)) * ITEM_BITS[self.dtype] // 8


Boxes = tuple[Box, ...]


def chains(stages: Sequence[Stage]) -> tuple[range, ...]:
    """The stages' numbers, chain by chain."""
    starts = [number for number, stage in enumerate(stages) if number == 0 or not stage.direct]
    return tuple(range(start, end) for start, end in zip(starts, [*starts[1:], len(stages)], strict=True))


def chain_of(stages: Sequence[Stage], stage: int) -> range:
    """The chain that a stage belongs to."""
    return next(chain for chain in chains(stages) if stage in chain)


def feeds(stages: Sequence[Stage], stage: int, piece: int) -> dict[Maker, Boxes]:
    """What a piece gets from other pieces of its chain."""
    first = chain_of(stages, stage).start
    found: dict[Maker, list[Box]] = {}
    for number, port in enumerate(stages[stage].pieces[piece].inputs):
        for made in range(first, stage):
            if port.tensor in stages[made].outputs:
                for maker in stages[made].pieces:
                    box = _box(number, port, maker)
                    if box is not None:
                        found.setdefault((made, maker.index), []).append(box)
    return {maker: tuple(boxes) for maker, boxes in found.items()}


def given(stages: Sequence[Stage], stage: int, piece: int) -> tuple[int, ...]:
    """Numbers of the inputs that come with the work: their tensors were made before the chain."""
    made = {t for before in range(chain_of(stages, stage).start, stage) for t in stages[before].outputs}
    return tuple(n for n, port in enumerate(stages[stage].pieces[piece].inputs) if port.tensor not in made)


def reported(network: Network, stages: Sequence[Stage], stage: int) -> tuple[int, ...]:
    """Tensors of a stage that the aggregator gets: they live on after the chain."""
    later = {t for after in stages[chain_of(stages, stage).stop :] for t in after.inputs} | set(network.outputs)
    return tuple(t for t in stages[stage].outputs if t in later)


def source_view(network: Network, stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages as their source sees them: of each piece only the inputs that come with the work and the outputs that
    go to the aggregator. Without direct boundaries that is all.
    """
    view = []
    for number, stage in enumerate(stages):
        if len(chain_of(stages, number)) == 1:
            view.append(stage)
            continue
        tensors = reported(network, stages, number)
        pieces = [
            replace(
                piece,
                inputs=tuple(piece.inputs[port] for port in given(stages, number, piece.index)),
                outputs=tuple(port for port in piece.outputs if port.tensor in tensors),
            )
            for piece in stage.pieces
        ]
        view.append(replace(stage, pieces=tuple(pieces), outputs=tensors))
    return tuple(view)


def take(piece: Piece, box: Box, outputs: Sequence[np.ndarray]) -> np.ndarray:
    """A box out of what a piece gave: a view."""
    port, array = piece.outputs[box.output], outputs[box.output]
    if box.region is None or port.region == box.region:
        return array
    origin = port.region or Region(0, 0, 0, 0)
    return array[box.region.shift(-origin.y0, -origin.x0).slices]


def put(piece: Piece, box: Box, array: np.ndarray, inputs: dict[int, np.ndarray]) -> None:
    """A box to where it belongs in the inputs of a piece (number of the port -> array, made when first needed)."""
    port = piece.inputs[box.port]
    if array.shape == port.shape:
        inputs[box.port] = array
        return
    if box.port not in inputs:
        inputs[box.port] = np.empty(port.shape, port.dtype)
    assert box.region is not None, "a box smaller than its port has a region"
    origin = port.region or Region(0, 0, 0, 0)
    inputs[box.port][box.region.shift(-origin.y0, -origin.x0).slices] = array


def gathered_bytes(stages: Sequence[Stage], stage: int) -> int:
    """Bytes of model types that the boundary before a stage would move if it were gathered: all that came before it in
    its chain is sent to the aggregator once, and its pieces' inputs are sent out.
    """
    here, made = stages[stage], _made_before(stages, stage)
    back = sum(port.bytes for t in made for p in stages[made[t]].pieces for port in p.outputs if port.tensor == t)
    return back + sum(port.bytes for piece in here.pieces for port in piece.inputs if port.tensor in made)


def direct_bytes(stages: Sequence[Stage], stage: int, at: Mapping[Maker, str]) -> int:
    """Bytes of model types that move over the boundary before a stage when pieces are at these workers."""
    return sum(
        box.bytes
        for piece in stages[stage].pieces
        for maker, boxes in feeds(stages, stage, piece.index).items()
        for box in boxes
        if at[maker] != at[stage, piece.index]
    )


def _made_before(stages: Sequence[Stage], stage: int) -> dict[int, int]:
    """Tensors that a stage takes from earlier stages of its chain -> which."""
    chain = chain_of(stages, stage)
    return {t: made for made in range(chain.start, stage) for t in stages[made].outputs if t in stages[stage].inputs}


def _box(number: int, port: Port, maker: Piece) -> Box | None:
    for output, made in enumerate(maker.outputs):
        if made.tensor == port.tensor:
            if port.region is None or made.region is None:
                region, whole = port.region or made.region, port.shape if made.region is None else made.shape
                return Box(number, output, region, whole, port.dtype)
            region = port.region & made.region
            shape = (region.height, region.width, port.shape[2])
            return None if region.empty else Box(number, output, region, shape, port.dtype)
    return None
