# SPDX-License-Identifier: Apache-2.0
"""A piece as the bytes of a .tflite file.

What a tile adds to the network's own ops: PAD before a convolution and PADV2 before a max-pool, for the rows
and columns that the crop lacks on its outer sides only, and SLICE where an op reads less than the tile holds.
The runtime then computes each value by the same instructions as in the whole, so that results are equal bit
for bit. The same piece gives the same bytes, and so do pieces of one stage with equal form.
"""

from __future__ import annotations

import numpy as np

from dnn_dist.cut.piece import Piece, Stage
from dnn_dist.cut.walk import Step, TileWalk, walk_tile
from dnn_dist.graph.flatbuffer import BrokenBuffer
from dnn_dist.graph.geometry import Pad, Pads, Upsample, Window
from dnn_dist.graph.network import Network
from dnn_dist.graph.region import Region
from dnn_dist.graph.write import GraphWriter

_VALID = 1
_INT8_VERSION = 2  # of PAD, PADV2 and SLICE: the first that takes int8; one more for int16


def build_piece(network: Network, stage: Stage, piece: Piece) -> bytes:
    """The .tflite of `piece`; in- and outputs in the order of its ports, with a batch axis of one."""
    try:
        return _build(network, stage, piece)
    except BrokenBuffer as error:  # in what reading did not look at
        raise network.file.broken(error) from None


def _build(network: Network, stage: Stage, piece: Piece) -> bytes:
    if stage.kind == "tiles":
        outputs = {port.tensor: port.region for port in piece.outputs if port.region is not None}
        return _Tile(network, walk_tile(network, stage.first, stage.last, outputs)).build()
    if (stage.first, stage.last) == (0, len(network.ops) - 1):
        return network.file.read()
    writer = GraphWriter(network)
    for op in network.ops[stage.first : stage.last + 1]:
        inputs = [writer.copy_tensor(t) if t >= 0 else -1 for t in op.inputs]
        writer.copy_op(op.index, inputs, [writer.copy_tensor(t) for t in op.outputs])
    return writer.finish(
        *([writer.copy_tensor(t) for t in tensors] for tensors in (stage.inputs, stage.outputs))
    )


class _Tile:
    """The graph of one tile while it is being written."""

    def __init__(self, network: Network, walk: TileWalk) -> None:
        self._network, self._walk = network, walk
        self._writer = GraphWriter(network)
        self._held: dict[
            int, int
        ] = {}  # the network's tensor -> the writer's, of the box that the tile holds
        self._cropped: dict[tuple[int, Region], int] = {}
        self._padded: dict[tuple[int, Region, Pads, str], int] = {}

    def build(self) -> bytes:
        for tensor, region in self._walk.inputs.items():
            self._held[tensor] = self._tensor(tensor, "", region.height, region.width)
        inputs = list(self._held.values())
        for step in self._walk.steps:
            self._add(step)
        outputs = [self._crop(tensor, region) for tensor, region in self._walk.outputs.items()]
        return self._writer.finish(inputs, outputs)

    def _tensor(self, like: int, suffix: str, height: int, width: int) -> int:
        tensor = self._network.tensors[like]
        return self._writer.add_tensor(like, tensor.name + suffix, (1, height, width, tensor.shape[3]))

    def _add(self, step: Step) -> None:
        op, need = self._network.ops[step.op], step.need
        geometry = op.geometry
        options: dict[str, int] = {}
        inputs = [self._operand(t, need.input) for t in op.inputs]
        if isinstance(geometry, Window) and not need.same:
            options["padding"] = _VALID
            if need.pads.any:
                inputs[0] = self._pad(op.inputs[0], need.input, need.pads, geometry.fill)
        elif isinstance(geometry, Pad):
            amounts = self._network.constant(op.inputs[1]).copy()
            amounts[1:3] = _amounts(need.pads)
            inputs[1] = self._writer.add_constant("pads", amounts)
        elif isinstance(geometry, Upsample):
            size = np.array((need.output.height, need.output.width), np.int32)
            inputs[1] = self._writer.add_constant("size", size)
        target = op.outputs[0]
        output = self._tensor(target, "", need.output.height, need.output.width)
        self._held[target] = output
        self._writer.copy_op(step.op, inputs, [output], **options)

    def _operand(self, tensor: int, region: Region) -> int:
        if tensor < 0 or self._network.tensors[tensor].constant:
            return tensor if tensor < 0 else self._writer.copy_tensor(tensor)
        return self._crop(tensor, region)

    def _crop(self, tensor: int, region: Region) -> int:
        """The box of a tensor: what the tile holds, or a slice of it."""
        held = self._walk.held[tensor]
        if region == held:
            return self._held[tensor]
        if (tensor, region) not in self._cropped:
            channels = self._network.tensors[tensor].shape[3]
            begin = np.array((0, region.y0 - held.y0, region.x0 - held.x0, 0), np.int32)
            size = np.array((1, region.height, region.width, channels), np.int32)
            output = self._tensor(tensor, "/slice", region.height, region.width)
            inputs = [
                self._held[tensor],
                self._writer.add_constant("begin", begin),
                self._writer.add_constant("size", size),
            ]
            self._writer.add_op("SLICE", self._version(tensor), inputs, [output], "SliceOptions")
            self._cropped[tensor, region] = output
        return self._cropped[tensor, region]

    def _pad(self, tensor: int, region: Region, pads: Pads, fill: str) -> int:
        """The box of a tensor with pads around it: of what stands for zero, or of the lowest value."""
        key = (tensor, region, pads, fill)
        if key not in self._padded:
            height, width = region.height + pads.top + pads.bottom, region.width + pads.left + pads.right
            output = self._tensor(tensor, "/pad", height, width)
            amounts = np.array(((0, 0), *_amounts(pads), (0, 0)), np.int32)
            inputs = [self._crop(tensor, region), self._writer.add_constant("pads", amounts)]
            if fill == "lowest":
                dtype = np.dtype(self._network.tensors[tensor].dtype)
                lowest = np.finfo(dtype).min if dtype.kind == "f" else np.iinfo(dtype).min
                inputs.append(self._writer.add_constant("lowest", np.array([lowest], dtype), like=tensor))
                self._writer.add_op("PADV2", self._version(tensor), inputs, [output], "PadV2Options")
            else:
                self._writer.add_op("PAD", self._version(tensor), inputs, [output], "PadOptions")
            self._padded[key] = output
        return self._padded[key]

    def _version(self, tensor: int) -> int:
        return {"int8": _INT8_VERSION, "int16": _INT8_VERSION + 1}.get(self._network.tensors[tensor].dtype, 1)


def _amounts(pads: Pads) -> tuple[tuple[int, int], tuple[int, int]]:
    return (pads.top, pads.bottom), (pads.left, pads.right)
