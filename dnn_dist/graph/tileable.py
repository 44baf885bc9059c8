# SPDX-License-Identifier: Apache-2.0
"""Which geometry an op has, or why it has none that can be tiled.

An op can be tiled when a box of its output depends on a box of its input alone, and when the runtime computes
each value of a tile in the same way as in the whole. Every rule that an op breaks is a sentence for the user.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from dnn_dist.graph import resample
from dnn_dist.graph.facts import NotTileable, OpFacts, TensorLike, size_of
from dnn_dist.graph.geometry import Geometry, Pad, Pads, Pointwise, Window

# Of one input (and constants): value by value, or at most along the channels of a pixel
UNARY = frozenset(
    ["RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LEAKY_RELU", "PRELU", "ELU", "GELU", "HARD_SWISH",
     "LOGISTIC", "TANH", "SOFTMAX", "ABS", "NEG", "EXP", "LOG", "SIN", "COS", "SQRT", "RSQRT", "SQUARE",
     "FLOOR", "CEIL", "ROUND", "SIGN", "QUANTIZE", "DEQUANTIZE", "CAST", "L2_NORMALIZATION"]
)  # fmt: skip
# Of these, what only changes the type, so that it may be one that no other op of a tile can have
CASTS = frozenset(["QUANTIZE", "DEQUANTIZE", "CAST"])
# Of two inputs of equal height and width, or one and a constant per channel
BINARY = frozenset(["ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"])
_MAX_EXTENT = 1 << 16  # rows, columns or channels; beyond, a file is broken rather than a picture large
_POWERS_AT_ONCE = 16  # values in the widest vector registers
_DTYPES = ("float32", "int8", "uint8", "int16")
_CAST_DTYPES = (*_DTYPES, "int32", "int64")

_WHY_NOT = {
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), "each output value depends on whole rows or columns"),
    **dict.fromkeys(("FULLY_CONNECTED", "BATCH_MATMUL"), "each output value depends on the whole input"),
    **dict.fromkeys(
        ("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "PACK", "UNPACK"),
        "it moves values across rows and columns",
    ),
    **dict.fromkeys(("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"), "it turns rows and columns into a batch"),
}


def geometry_of(op: OpFacts) -> Geometry:
    """The op's geometry; raises NotTileable."""
    rule = _RULES.get(op.kind)
    if rule is None:
        raise NotTileable(_WHY_NOT.get(op.kind, "no rule says how its output regions depend on its input"))
    if not op.outputs or (len(op.outputs) > 1 and op.kind != "SPLIT") or not op.inputs:
        raise NotTileable("it has not one output and some input")
    spatial = [tensor for tensor in op.inputs if tensor is not None and not tensor.constant]
    if not spatial:
        raise NotTileable("all it reads is constant")
    check_images([*spatial, *op.outputs], _CAST_DTYPES if op.kind in CASTS else _DTYPES)
    return rule(op)


def check_images(tensors: Iterable[TensorLike | None], dtypes: Collection[str] = _DTYPES) -> None:
    """Raises NotTileable unless each is one image of a type and size that tiles can have."""
    for tensor in filter(None, tensors):
        if len(tensor.shape) != 4 or tensor.shape[0] != 1:
            raise NotTileable(f"{list(tensor.shape)} is no single image (1 x height x width x channels)")
        if not tensor.fixed:
            raise NotTileable("its height, width or channels are decided when it runs")
        if min(tensor.shape) < 1:
            raise NotTileable(f"{list(tensor.shape)} holds nothing")
        if max(tensor.shape) > _MAX_EXTENT:
            raise NotTileable(f"{list(tensor.shape)} is no picture")
        if tensor.dtype not in dtypes:
            raise NotTileable(f"tiles of {tensor.dtype} are not supported")


def _pointwise(op: OpFacts) -> Geometry:
    size = size_of(op.outputs[0])
    for number, tensor in enumerate(op.inputs):
        if tensor is None:
            raise NotTileable(f"input {number} is missing")
        if tensor.constant:
            if any(extent != 1 for extent in tensor.shape[:-1]):
                raise NotTileable(f"its constant of shape {list(tensor.shape)} differs from pixel to pixel")
        elif size_of(tensor) != size and not (size_of(tensor) == (1, 1) and op.kind in BINARY):
            # but for one pixel for all others, which every tile is given
            raise NotTileable(f"input {number} is stretched from {size_of(tensor)} to {size} (broadcast)")
    if all(t is None or t.constant or size_of(t) != size for t in op.inputs):
        raise NotTileable(f"no input has the {size[0]} x {size[1]} pixels of its output")
    return Pointwise()


def _concatenation(op: OpFacts) -> Geometry:
    if op.options("axis") not in (3, -1):
        raise NotTileable(f"it joins along axis {op.options('axis')}, not along channels")
    if any(tensor is None or tensor.constant for tensor in op.inputs):
        raise NotTileable("one of its inputs is constant")
    return _pointwise(op)


def _split(op: OpFacts) -> Geometry:
    axis, image = op.inputs[0], op.inputs[-1]
    if len(op.inputs) != 2 or axis is None or not axis.constant or op.value(0).size != 1:
        raise NotTileable("it does not split an image along one given axis")
    if op.value(0).item() not in (3, -1):
        raise NotTileable("it splits rows or columns, not channels")
    if any(size_of(out) != size_of(image) for out in op.outputs):
        raise NotTileable("its outputs do not have its input's size")
    return Pointwise()


def _across_channels(op: OpFacts) -> Geometry:
    # The kernel takes powers of eight values at a time, and of the last few one by one, rounded otherwise
    if op.outputs[0].shape[3] % _POWERS_AT_ONCE:
        raise NotTileable(f"its powers are rounded by place unless channels are a multiple of {_POWERS_AT_ONCE}")
    return _pointwise(op)


def _window(op: OpFacts, kernel: tuple[int, int], dilation: tuple[int, int], fill: str) -> Geometry:
    first = op.inputs[0]
    if first is None or first.constant:
        raise NotTileable("its image is constant")
    window = Window(
        size=size_of(first),
        kernel=kernel,
        stride=(op.options("stride_h"), op.options("stride_w")),
        dilation=dilation,
        same=op.options("padding") == 0,
        fill=fill,
    )
    if min(*window.kernel, *window.stride, *window.dilation) < 1:
        raise NotTileable("its kernel, stride or dilation is below one")
    if (window.output_size(0), window.output_size(1)) != size_of(op.outputs[0]):
        raise NotTileable("its output's size does not follow from kernel, stride and padding")
    return window


def _convolution(op: OpFacts) -> Geometry:
    dilation = (op.options("dilation_hfactor"), op.options("dilation_wfactor"))
    return _window(op, kernel_of(op), dilation, "zero")


def kernel_of(op: OpFacts) -> tuple[int, int]:
    """Rows and columns of a convolution's kernel; raises NotTileable when its weights forbid tiles."""
    image, weights = op.inputs[0], op.inputs[1] if len(op.inputs) > 1 else None
    if weights is None or not weights.constant or any(t is not None and not t.constant for t in op.inputs[2:]):
        raise NotTileable("its weights are computed, not constant")
    if image is not None and image.dtype == "float32" and weights.dtype != "float32":
        # The runtime quantises the activations by the range of all of them, which no tile knows
        raise NotTileable(f"{weights.dtype} weights on float32 activations: each run has a scale of its own")
    if len(weights.shape) != 4 or min(weights.shape) < 1:
        raise NotTileable(f"weights of shape {list(weights.shape)}")
    return weights.shape[1], weights.shape[2]


def _pool(fill: str) -> Callable[[OpFacts], Geometry]:
    def rule(op: OpFacts) -> Geometry:
        return _window(op, (op.options("filter_height"), op.options("filter_width")), (1, 1), fill)

    return rule


def _pad(op: OpFacts) -> Geometry:
    if any(tensor is None or not tensor.constant for tensor in op.inputs[1:]) or len(op.inputs) < 2:
        raise NotTileable("its pads are computed, not constant")
    amounts = op.value(1)
    if amounts.shape != (4, 2) or amounts.min() < 0 or amounts[0].any():
        raise NotTileable(f"pads of {amounts.tolist()}")
    (top, bottom), (left, right) = amounts[1].tolist(), amounts[2].tolist()
    height, width = size_of(op.inputs[0])
    if (height + top + bottom, width + left + right) != size_of(op.outputs[0]):
        raise NotTileable("its output's size does not follow from its pads")
    return Pad((height, width), Pads(top, bottom, left, right))


_RULES: dict[str, Callable[[OpFacts], Geometry]] = {
    **dict.fromkeys(UNARY | BINARY, _pointwise),
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "MAX_POOL_2D": _pool("lowest"),
    "AVERAGE_POOL_2D": _pool("none"),
    "PAD": _pad,
    "PADV2": _pad,
    "SPLIT": _split,
    "LOCAL_RESPONSE_NORMALIZATION": _across_channels,
    "RESIZE_NEAREST_NEIGHBOR": resample.nearest,
    "RESIZE_BILINEAR": resample.bilinear,
    "DEPTH_TO_SPACE": resample.depth_to_space,
    "SPACE_TO_DEPTH": resample.space_to_depth,
    "STRIDED_SLICE": resample.strided_slice,
    "SLICE": resample.plain_slice,
    "TRANSPOSE_CONV": resample.transposed,
}
