# SPDX-License-Identifier: Apache-2.0
"""Which shape an op's outputs have in every run, worked out from its inputs.

Converters write 1 for every extent that they do not know (-1 in the tensor's signature). With a batch of one most
of these follow from what stands before them, as UpSampling2D's do: TILE and RESHAPE by lists that are known. For
the others 1 is a guess, right for the batch axis alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from dnn_dist.graph.facts import NotTileable, OpFacts
from dnn_dist.graph.geometry import Window
from dnn_dist.graph.tileable import BINARY, UNARY

Shape = tuple[int, ...]
_MAX_RANK, _MAX_ELEMENTS = 32, 1 << 40


def shapes_of(op: OpFacts, signatures: Sequence[Sequence[int]]) -> list[Shape] | None:
    """The outputs' shapes; None when they do not follow, or are not what the file leaves open (-1) and says."""
    rule = _RULES.get(op.kind)
    if rule is None or any(tensor is not None and not tensor.fixed for tensor in op.inputs):
        return None
    try:
        found = [tuple(int(extent) for extent in shape) for shape in rule(op)]
    except (NotTileable, ArithmeticError, LookupError, TypeError, ValueError):
        return None
    return found if len(found) == len(signatures) and all(map(_agree, found, signatures)) else None


def keeps_batch(op: OpFacts) -> bool:
    """Whether the first axis of what the op makes is surely that of its first input, as far as is known."""
    return op.kind not in _MOVERS


def _agree(shape: Shape, signature: Sequence[int]) -> bool:
    sane = len(shape) <= _MAX_RANK and min(shape, default=0) >= 0 and prod(shape) <= _MAX_ELEMENTS
    return sane and len(shape) == len(signature) and all(s in (-1, e) for e, s in zip(shape, signature, strict=True))


def _input(op: OpFacts, number: int = 0) -> Shape:
    tensor = op.inputs[number]
    if tensor is None:
        raise LookupError
    return tensor.shape


def _list(op: OpFacts, number: int) -> list[int]:
    values: list[int] = op.value(number).reshape(-1).tolist()
    return values


def _reshape(op: OpFacts) -> list[Shape]:
    wanted = _list(op, 1) if len(op.inputs) > 1 else op.options("new_shape").tolist()
    known, count = prod(extent for extent in wanted if extent != -1), prod(_input(op))
    shape = tuple(count // known if extent == -1 else extent for extent in wanted)
    if prod(shape) != count:
        raise ValueError
    return [shape]


def _expand(op: OpFacts) -> list[Shape]:
    shape = list(_input(op))
    (axis,) = _list(op, 1)
    shape.insert(axis if axis >= 0 else axis + len(shape) + 1, 1)
    return [tuple(shape)]


def _squeeze(op: OpFacts) -> list[Shape]:
    shape, listed = _input(op), op.options("squeeze_dims")
    axes = [a % len(shape) for a in listed.tolist()] if isinstance(listed, np.ndarray) and listed.size else None
    return [tuple(e for axis, e in enumerate(shape) if (e != 1 if axes is None else axis not in axes))]


def _tile(op: OpFacts) -> list[Shape]:
    return [tuple(e * times for e, times in zip(_input(op), _list(op, 1), strict=True))]


def _transpose(op: OpFacts) -> list[Shape]:
    return [tuple(_input(op)[axis] for axis in _list(op, 1))]


def _gather(op: OpFacts) -> list[Shape]:
    shape, indices, batch = _input(op), _input(op, 1), op.options("batch_dims")
    axis = op.options("axis") % len(shape)
    return [(*shape[:axis], *indices[batch:], *shape[axis + 1 :])]


def _strided_slice(op: OpFacts) -> list[Shape]:
    if any(op.options(name) for name in ("ellipsis_mask", "new_axis_mask", "offset")):
        raise ValueError
    begin, end, step = (_list(op, number) for number in (1, 2, 3))
    masks = {name: op.options(f"{name}_mask") for name in ("begin", "end", "shrink_axis")}
    shape: list[int] = []
    for axis, extent in enumerate(_input(op)):
        bit = 1 << axis
        if axis >= len(begin):
            shape.append(extent)
        elif not masks["shrink_axis"] & bit:
            first = None if masks["begin"] & bit else begin[axis]
            last = None if masks["end"] & bit else end[axis]
            shape.append(len(range(extent)[first : last : step[axis]]))
    return [tuple(shape)]


def _slice(op: OpFacts) -> list[Shape]:
    sizes = zip(_input(op), _list(op, 1), _list(op, 2), strict=True)
    return [tuple(extent - begin if size == -1 else size for extent, begin, size in sizes)]


def _concatenation(op: OpFacts) -> list[Shape]:
    shape = list(_input(op))
    axis = op.options("axis") % len(shape)
    shape[axis] = sum(_input(op, number)[axis] for number in range(len(op.inputs)))
    return [tuple(shape)]


def _pack(op: OpFacts) -> list[Shape]:
    shape, axis = list(_input(op)), op.options("axis")
    shape.insert(axis if axis >= 0 else axis + len(shape) + 1, len(op.inputs))
    return [tuple(shape)]


def _unpack(op: OpFacts) -> list[Shape]:
    shape = list(_input(op))
    del shape[op.options("axis")]
    return [tuple(shape)] * len(op.outputs)


def _split(op: OpFacts) -> list[Shape]:
    shape, (axis,) = list(_input(op, 1)), _list(op, 0)
    shape[axis] //= len(op.outputs)
    return [tuple(shape)] * len(op.outputs)


def _pad(op: OpFacts) -> list[Shape]:
    pads = op.value(1).tolist()
    return [tuple(extent + before + after for extent, (before, after) in zip(_input(op), pads, strict=True))]


def _reduction(op: OpFacts) -> list[Shape]:
    shape = _input(op)
    axes = {axis % len(shape) for axis in _list(op, 1)}
    kept = op.options("keep_dims")
    return [tuple(1 if a in axes else extent for a, extent in enumerate(shape) if kept or a not in axes)]


def _broadcast(op: OpFacts) -> list[Shape]:
    return [np.broadcast_shapes(*(tensor.shape for tensor in op.inputs if tensor is not None))]


def _windows(op: OpFacts, kernel: tuple[int, int], channels: int, dilation: tuple[int, int]) -> list[Shape]:
    batch, height, width, _ = _input(op)
    stride = op.options("stride_h"), op.options("stride_w")
    window = Window((height, width), kernel, stride, dilation, op.options("padding") == 0, "none")
    return [(batch, window.output_size(0), window.output_size(1), channels)]


def _convolution(op: OpFacts) -> list[Shape]:
    filters, rows, columns, depth = _input(op, 1)
    channels = filters if op.kind == "CONV_2D" else depth
    dilation = op.options("dilation_hfactor"), op.options("dilation_wfactor")
    return _windows(op, (rows, columns), channels, dilation)


def _pool(op: OpFacts) -> list[Shape]:
    return _windows(op, (op.options("filter_height"), op.options("filter_width")), _input(op)[3], (1, 1))


def _transposed(op: OpFacts) -> list[Shape]:
    return [tuple(_list(op, 0))]


def _resize(op: OpFacts) -> list[Shape]:
    batch, _, _, channels = _input(op)
    rows, columns = _list(op, 1)
    return [(batch, rows, columns, channels)]


def _dense(op: OpFacts) -> list[Shape]:
    (units, depth), shape = _input(op, 1), _input(op)
    return [(*shape[:-1], units) if op.options("keep_num_dims") else (prod(shape) // depth, units)]


def _depth_to_space(op: OpFacts) -> list[Shape]:
    (batch, height, width, channels), block = _input(op), op.options("block_size")
    if op.kind == "SPACE_TO_DEPTH":
        return [(batch, height // block, width // block, channels * block * block)]
    return [(batch, height * block, width * block, channels // (block * block))]


def _space_to_batch(op: OpFacts) -> list[Shape]:
    shape, block, change = _input(op), _list(op, 1), op.value(2).sum(1).tolist()
    inner = shape[1 : len(block) + 1]
    if op.kind == "BATCH_TO_SPACE_ND":
        grown = [extent * by - crop for extent, by, crop in zip(inner, block, change, strict=True)]
        return [(shape[0] // prod(block), *grown, *shape[len(block) + 1 :])]
    shrunk = [(extent + pad) // by for extent, by, pad in zip(inner, block, change, strict=True)]
    return [(shape[0] * prod(block), *shrunk, *shape[len(block) + 1 :])]


_MOVERS: dict[str, Callable[[OpFacts], list[Shape]]] = {
    "RESHAPE": _reshape,
    "EXPAND_DIMS": _expand,
    "SQUEEZE": _squeeze,
    "TILE": _tile,
    "BROADCAST_TO": lambda op: [tuple(_list(op, 1))],
    "TRANSPOSE": _transpose,
    "GATHER": _gather,
    "STRIDED_SLICE": _strided_slice,
    "SLICE": _slice,
    "CONCATENATION": _concatenation,
    "PACK": _pack,
    "UNPACK": _unpack,
    "SPLIT": _split,
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), _pad),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), _reduction),
    **dict.fromkeys(("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"), _space_to_batch),
    "FULLY_CONNECTED": _dense,
}
"""Ops that may change what the first axis means."""

_RULES: dict[str, Callable[[OpFacts], list[Shape]]] = {
    **_MOVERS,
    **dict.fromkeys(UNARY, lambda op: [_input(op)]),
    **dict.fromkeys(BINARY, _broadcast),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), _convolution),
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D"), _pool),
    "TRANSPOSE_CONV": _transposed,
    **dict.fromkeys(("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"), _resize),
    **dict.fromkeys(("DEPTH_TO_SPACE", "SPACE_TO_DEPTH"), _depth_to_space),
}
