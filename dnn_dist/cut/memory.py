# SPDX-License-Identifier: Apache-2.0
"""What a tiled stage costs a robot in memory, as DeepThings counts it (Zhao et al. 2018, section V).

One layer is held at a time: its input and its output; weights of all layers are held throughout. Ops that only
change values in place (an activation, a scale) are no layers of their own: their output takes their input's
place. These are figures of the cut, not of a runtime, which lays out its memory as it likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from dnn_dist.cut.piece import Piece, Stage
from dnn_dist.cut.tile import piece_walk
from dnn_dist.cut.walk import operands, walk_tile
from dnn_dist.graph.geometry import Need, Pad, Pointwise
from dnn_dist.graph.network import Network, Op
from dnn_dist.graph.region import Region
from dnn_dist.graph.schema import ITEM_BITS


@dataclass(frozen=True, slots=True)
class LayerMemory:
    """Bytes for one layer of a stage: its input and its output, and the weights that it reads."""

    op: int
    weights: int
    whole: int
    """Input and output uncut."""
    piece: int
    """Those of the piece that needs most."""

    @property
    def saving(self) -> float:
        """The layer's own weights are on both sides: no cut by rows and columns divides them."""
        return (self.whole - self.piece) / (self.whole + self.weights)


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Bytes that a robot needs for any piece of a stage, against those for all of it uncut."""

    weights: int
    whole: int
    """Weights and the largest layer (input and output) uncut."""
    piece: int
    """Weights and the largest layer of any piece."""
    layer_saving: float
    """Mean over layers of 1 - (largest of any piece) / (the whole's), each with the layer's own weights."""

    @property
    def saving(self) -> float:
        return 1 - self.piece / self.whole


def stage_memory(network: Network, stage: Stage) -> StageMemory:
    """Of a stage of tiles or bands."""
    layers = layer_memory(network, stage)
    weights = sum(op.weight_bytes for op in network.ops[stage.first : stage.last + 1])
    return StageMemory(
        weights=weights,
        whole=weights + max((layer.whole for layer in layers), default=0),
        piece=weights + max((layer.piece for layer in layers), default=0),
        layer_saving=sum(layer.saving for layer in layers) / len(layers) if layers else 0.0,
    )


def layer_memory(network: Network, stage: Stage) -> tuple[LayerMemory, ...]:
    """Of each op of a stage of tiles or bands that makes a tensor of its own, in order."""
    whole = _layers(network, stage, None)
    pieces = [_layers(network, stage, piece) for piece in stage.pieces]
    return tuple(
        LayerMemory(op, network.ops[op].weight_bytes, size, max(layers.get(op, 0) for layers in pieces))
        for op, size in sorted(whole.items())
        if size
    )


def _layers(network: Network, stage: Stage, piece: Piece | None) -> dict[int, int]:
    """Op -> bytes of its input and output; of the whole when `piece` is None."""
    if piece is None:
        outputs = {t: Region.whole(network.tensors[t].height, network.tensors[t].width) for t in stage.outputs}
        walk = walk_tile(network, stage.first, stage.last, outputs)
    else:
        walk = piece_walk(network, stage, piece)
    return {
        step.op: _bytes(network, network.ops[step.op], step.need)
        for step in walk.steps
        if not isinstance(network.ops[step.op].geometry, Pointwise | Pad)
    }


def _bytes(network: Network, op: Op, need: Need) -> int:
    read = [(tensor, box) for tensor, box in operands(network, op, need).items()]
    made = [(tensor, need.output) for tensor in op.outputs]
    return sum(
        box.size * prod(network.tensors[t].shape[3:]) * ITEM_BITS[network.tensors[t].dtype] // 8
        for t, box in (*read, *made)
    )
