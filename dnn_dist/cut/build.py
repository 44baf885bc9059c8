# SPDX-License-Identifier: Apache-2.0
"""A piece as a .tflite file.

What a tile adds to the network's own ops: PAD before a convolution and PADV2 before a max-pool, for the rows
and columns that the crop lacks on its outer sides only, SLICE where an op reads less than the tile holds, and
CONCATENATION where it stitches strips of its neighbours to what it made (reuse.py).
The runtime then computes each value by the same instructions as in the whole, so that results are equal bit
for bit. The same piece gives the same bytes, and so do pieces of one stage with equal form.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dnn_dist.cut.piece import Piece, Stage
from dnn_dist.cut.slices import slice_file
from dnn_dist.cut.tile import piece_walk
from dnn_dist.cut.walk import Step, beside, operands, without
from dnn_dist.graph.flatbuffer import BrokenBuffer
from dnn_dist.graph.geometry import Dilated, Downsample, Pad, Pads, Transposed, Upsample, Window
from dnn_dist.graph.network import Network, Op
from dnn_dist.graph.piecefile import PieceFile
from dnn_dist.graph.region import Region
from dnn_dist.graph.write import GraphWriter

_VALID = 1
_INT8_VERSION = 2  # of PAD, PADV2 and SLICE: the first that takes int8; one more for int16


def build_piece(network: Network, stage: Stage, piece: Piece) -> bytes:
    """The .tflite of `piece` in memory; in- and outputs in the order of its ports, with a batch axis of one."""
    return network.file.read() if _is_whole(network, stage) else piece_file(network, stage, piece).content()


def write_piece(network: Network, stage: Stage, piece: Piece, path: Path) -> Path:
    """The same as a file at `path`, with a few MB of memory whatever its size.

    Returns where the piece is: at `path`, or where the model is when the piece is the whole of it.
    """
    if _is_whole(network, stage):
        return network.path
    piece_file(network, stage, piece).write(path)
    return path


def piece_size(network: Network, stage: Stage, piece: Piece) -> int:
    """Bytes of a piece's file, without writing it."""
    return len(network.file) if _is_whole(network, stage) else piece_file(network, stage, piece).size


def piece_file(network: Network, stage: Stage, piece: Piece) -> PieceFile:
    """The file of a piece, yet to be written."""
    try:
        if stage.kind == "slices":
            return slice_file(network, stage, piece)
        if stage.kind in ("tiles", "bands"):
            return _Tile(network, stage, piece).build()
        return _run_of_ops(network, stage)
    except BrokenBuffer as error:  # in what reading did not look at
        raise network.file.broken(error) from None


def _is_whole(network: Network, stage: Stage) -> bool:
    return stage.kind not in ("slices", "tiles", "bands") and len(stage.ops) == len(network.ops)


def _run_of_ops(network: Network, stage: Stage) -> PieceFile:
    writer = GraphWriter(network)
    for op in map(network.ops.__getitem__, stage.ops):
        if not op.folded:
            inputs = [writer.copy_tensor(t) if t >= 0 else -1 for t in op.inputs]
            writer.copy_op(op.index, inputs, [writer.copy_tensor(t) for t in op.outputs])
    return writer.finish(*([writer.copy_tensor(t) for t in tensors] for tensors in (stage.inputs, stage.outputs)))


class _Tile:
    """The graph of one tile while it is being written."""

    def __init__(self, network: Network, stage: Stage, piece: Piece) -> None:
        self._network, self._piece = network, piece
        self._walk = piece_walk(network, stage, piece)
        self._writer = GraphWriter(network)
        self._held: dict[int, int] = {}  # the network's tensor -> the writer's, of the box that the tile holds
        self._lent: dict[int, list[int]] = {}  # the network's tensor -> strips of it, in order
        self._cropped: dict[tuple[int, Region], int] = {}
        self._padded: dict[tuple[int, Region, Pads, str], int] = {}

    def build(self) -> PieceFile:
        inputs = []
        for port in self._piece.inputs:
            inputs.append(self._tensor(port.tensor, "/strip" if port.strip else "", *port.shape[:2]))
            if port.strip:
                self._lent.setdefault(port.tensor, []).append(inputs[-1])
            else:
                self._held[port.tensor] = inputs[-1]
        made = {tensor for step in self._walk.steps for tensor in self._network.ops[step.op].outputs}
        for tensor in [tensor for tensor in self._lent if tensor not in made]:
            self._stitch(tensor, Region(0, 0, 0, 0))
        for step in self._walk.steps:
            self._add(step)
            for tensor in self._network.ops[step.op].outputs:
                if tensor in self._lent:
                    self._stitch(tensor, step.need.output)
        outputs = [self._crop(port.tensor, port.region) for port in self._piece.outputs if port.region is not None]
        return self._writer.finish(inputs, outputs)

    def _stitch(self, tensor: int, made: Region) -> None:
        """The tile holds what it wants of a tensor: what is right of the box that it made, and strips around it."""
        strips, wanted = self._walk.strips[tensor], self._walk.wanted[tensor]
        box = without(wanted, strips)
        whole = None if box.empty else self._slice(tensor, self._held[tensor], made, box)
        for strip, number in zip(reversed(strips), reversed(self._lent[tensor]), strict=True):
            if whole is None:
                box, whole = strip, number
                continue
            side = beside(strip, box)
            parts = [(strip.x0 if side else strip.y0, number), (box.x0 if side else box.y0, whole)]
            box |= strip
            whole = self._tensor(tensor, "/stitched", box.height, box.width)
            self._writer.add_op(
                "CONCATENATION",
                self._version(tensor),
                [part for _, part in sorted(parts)],
                [whole],
                "ConcatenationOptions",
                axis=2 if side else 1,
            )
        assert whole is not None and box == wanted, "strips and the rest are all of it"
        self._held[tensor] = whole

    def _tensor(self, like: int, suffix: str, height: int, width: int) -> int:
        tensor = self._network.tensors[like]
        return self._writer.add_tensor(like, tensor.name + suffix, (1, height, width, tensor.shape[3]))

    def _add(self, step: Step) -> None:
        op, need = self._network.ops[step.op], step.need
        outputs = [self._tensor(t, "", need.output.height, need.output.width) for t in op.outputs]
        self._held.update(zip(op.outputs, outputs, strict=True))
        if isinstance(op.geometry, Dilated):
            self._add_dilated(op, op.geometry, step, outputs)
            return
        boxes = operands(self._network, op, need)
        inputs = [self._operand(t, boxes.get(t)) for t in op.inputs]
        options: dict[str, int] = {}
        if isinstance(op.geometry, Window) and not need.same:
            options["padding"] = _VALID
            if need.pads.any:
                inputs[0] = self._pad(op.inputs[0], need.input, need.pads, op.geometry.fill)
        elif isinstance(op.geometry, Transposed):
            options["padding"] = _VALID
        for number, value in self._lists(op, step).items():
            inputs[number] = self._list(op.inputs[number], value)
        self._writer.copy_op(step.op, inputs, outputs, **options)

    def _lists(self, op: Op, step: Step) -> dict[int, np.ndarray]:
        """The op's lists of integers (input number -> value) that differ from the whole's."""
        need = step.need
        made, crop = (need.output.height, need.output.width), (need.input.height, need.input.width)
        if isinstance(op.geometry, Pad):
            return {1: self._rows(op, 1, _amounts(need.pads))}
        if isinstance(op.geometry, Upsample) and len(op.inputs) > 1:
            return {1: np.array(made, np.int32)}
        if isinstance(op.geometry, Transposed):
            return {0: self._rows(op, 0, made)}
        if isinstance(op.geometry, Downsample) and len(op.inputs) > 1:
            return {1: self._rows(op, 1, (0, 0)), 2: self._rows(op, 2, crop)}
        return {}

    def _rows(self, op: Op, number: int, values: object) -> np.ndarray:
        """A list of one entry an axis, with those of rows and columns replaced."""
        changed: np.ndarray = self._network.constant(op.inputs[number]).copy()
        changed[1:3] = values
        return changed

    def _list(self, tensor: int, value: np.ndarray) -> int:
        if tensor in self._network.values:
            return self._writer.add_computed(self._network.tensors[tensor].name, value)
        return self._writer.add_constant(self._network.tensors[tensor].name, value)

    def _add_dilated(self, op: Op, geometry: Dilated, step: Step, outputs: list[int]) -> None:
        spread, dense = (self._network.ops[index] for index in op.inner)
        need = step.need
        height = need.input.height + need.pads.top + need.pads.bottom
        width = need.input.width + need.pads.left + need.pads.right
        (down, across), (rows, columns) = geometry.dilation, geometry.kernel
        batch = down * across
        seen = height // down, width // across
        image = self._crop(spread.inputs[0], need.input)
        spread_out = self._batch(spread.outputs[0], batch, *seen)
        block = self._writer.copy_tensor(spread.inputs[1])
        pads = np.array(_amounts(need.pads), self._network.constant(spread.inputs[2]).dtype)
        self._writer.copy_op(spread.index, [image, block, self._list(spread.inputs[2], pads)], [spread_out])
        made = seen[0] - rows + 1, seen[1] - columns + 1
        dense_out = self._batch(dense.outputs[0], batch, *made)
        weights = [t if t < 0 else self._writer.copy_tensor(t) for t in dense.inputs[1:]]
        self._writer.copy_op(dense.index, [spread_out, *weights], [dense_out])
        surplus = ((0, made[0] * down - need.output.height), (0, made[1] * across - need.output.width))
        crops = np.array(surplus, self._network.constant(op.inputs[2]).dtype)
        block = self._writer.copy_tensor(op.inputs[1])
        self._writer.copy_op(op.index, [dense_out, block, self._list(op.inputs[2], crops)], outputs)

    def _batch(self, like: int, count: int, height: int, width: int) -> int:
        tensor = self._network.tensors[like]
        return self._writer.add_tensor(like, tensor.name, (count, height, width, tensor.shape[3]))

    def _operand(self, tensor: int, region: Region | None) -> int:
        if region is not None:
            return self._crop(tensor, region)
        return tensor if tensor < 0 else self._writer.copy_tensor(tensor)

    def _crop(self, tensor: int, region: Region) -> int:
        """The box of a tensor: what the tile holds, or a slice of it."""
        held = self._walk.held[tensor]
        if region == held:
            return self._held[tensor]
        if (tensor, region) not in self._cropped:
            self._cropped[tensor, region] = self._slice(tensor, self._held[tensor], held, region)
        return self._cropped[tensor, region]

    def _slice(self, tensor: int, number: int, held: Region, region: Region) -> int:
        """A box of a tensor, out of what holds another box of it."""
        if region == held:
            return number
        channels = self._network.tensors[tensor].shape[3]
        begin = np.array((0, region.y0 - held.y0, region.x0 - held.x0, 0), np.int32)
        size = np.array((1, region.height, region.width, channels), np.int32)
        output = self._tensor(tensor, "/slice", region.height, region.width)
        inputs = [number, self._writer.add_constant("begin", begin), self._writer.add_constant("size", size)]
        self._writer.add_op("SLICE", self._version(tensor), inputs, [output], "SliceOptions")
        return output

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
