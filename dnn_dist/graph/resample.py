# SPDX-License-Identifier: Apache-2.0
"""Rules of the ops that change the number of pixels without being windows: resizing, slicing, blocks to
channels and back, transposed convolutions.
"""

from __future__ import annotations

from math import prod

import numpy as np

from dnn_dist.graph.facts import NotTileable, OpFacts, size_of
from dnn_dist.graph.geometry import Downsample, Geometry, Transposed, Upsample

# Eigen multiplies matrices in blocks of so many rows, what is left over in another order; and small ones, whose rows,
# columns and depth are together below a number, value by value.
_ROWS_AT_ONCE, _LEAST_PRODUCT = 8, 20


def nearest(op: OpFacts) -> Geometry:
    """RESIZE_NEAREST_NEIGHBOR by whole factors."""
    size, factor = _factor(op)
    for source, times in zip(size, factor, strict=True):
        if (_nearest_rows(op, source, source * times) != np.arange(source * times) // times).any():
            raise NotTileable("align_corners or rounding moves its pixels, so that tiles would differ")
    return Upsample(size, factor)


def bilinear(op: OpFacts) -> Geometry:
    """RESIZE_BILINEAR by powers of two: their scale is exact in binary, so that a tile's rows get the
    weights that they have in the whole.
    """
    size, factor = _factor(op)
    if op.options("align_corners"):
        raise NotTileable("align_corners makes its weights depend on the size of the whole")
    if any(times & (times - 1) for times in factor):
        raise NotTileable(f"a factor of {factor} is rounded differently at each place; powers of two are not")
    return Upsample(size, factor, halo=1)


def _factor(op: OpFacts) -> tuple[tuple[int, int], tuple[int, int]]:
    (height, width), (out_height, out_width) = size_of(op.inputs[0]), size_of(op.outputs[0])
    if out_height % height or out_width % width:
        raise NotTileable(f"{height} x {width} to {out_height} x {out_width} is no whole factor")
    return (height, width), (out_height // height, out_width // width)


def _nearest_rows(op: OpFacts, source: int, target: int) -> np.ndarray:
    """Which input row LiteRT's kernel reads for each output row; in float32, as the kernel does it.

    The scale depends on the factor alone, so that the map of a tile is the head of the map of the whole.
    """
    align = bool(op.options("align_corners")) and target > 1
    scale = np.float32(source - 1) / np.float32(target - 1) if align else np.float32(source) / np.float32(target)
    offset = np.float32(0.5 if op.options("half_pixel_centers") else 0.0)
    place = (np.arange(target, dtype=np.float32) + offset) * scale
    # TfLiteRound rounds halves away from zero
    row: np.ndarray = np.floor(place + np.float32(0.5)) if align else np.floor(place)
    return np.minimum(row.astype(np.int64), source - 1)


def depth_to_space(op: OpFacts) -> Geometry:
    block, size = op.options("block_size"), size_of(op.inputs[0])
    if block < 1 or size_of(op.outputs[0]) != (size[0] * block, size[1] * block):
        raise NotTileable(f"its output's size does not follow from blocks of {block}")
    return Upsample(size, (block, block))


def space_to_depth(op: OpFacts) -> Geometry:
    block, size = op.options("block_size"), size_of(op.outputs[0])
    if block < 1 or size_of(op.inputs[0]) != (size[0] * block, size[1] * block):
        raise NotTileable(f"its output's size does not follow from blocks of {block}")
    return Downsample((0, 0), (block, block), (block, block))


def strided_slice(op: OpFacts) -> Geometry:
    """Rows and columns from a start on by a stride; channels in any way."""
    image, out = op.inputs[0], op.outputs[0]
    if image is None or image.constant or len(op.inputs) != 4:
        raise NotTileable("it does not slice an image by three lists")
    if any(op.options(f"{name}_mask") for name in ("ellipsis", "new_axis", "shrink_axis")):
        raise NotTileable("it changes the number of axes")
    begin, end, strides = (op.value(number).astype(np.int64).reshape(-1) for number in (1, 2, 3))
    if not len(begin) == len(end) == len(strides) == 4 or strides.min() < 1 or op.options("offset"):
        raise NotTileable("it slices backwards, or not by four places")
    starts = [
        slice(
            None if op.options("begin_mask") >> axis & 1 else int(begin[axis]),
            None if op.options("end_mask") >> axis & 1 else int(end[axis]),
            int(strides[axis]),
        ).indices(image.shape[axis])
        for axis in range(4)
    ]
    if [len(range(*places)) for places in starts] != list(out.shape):
        raise NotTileable("its output's size does not follow from its lists")
    (_, (y, _, dy), (x, _, dx), _) = starts
    return Downsample((y, x), (dy, dx), (1, 1))


def plain_slice(op: OpFacts) -> Geometry:
    """SLICE: a box of an image."""
    if len(op.inputs) != 3 or op.inputs[0] is None or op.inputs[0].constant:
        raise NotTileable("it does not slice an image by two lists")
    begin, size = (op.value(number).astype(np.int64).reshape(-1) for number in (1, 2))
    shape, out = op.inputs[0].shape, op.outputs[0].shape
    if len(begin) != 4 or len(size) != 4 or begin.min() < 0:
        raise NotTileable("it slices not by four places")
    for start, extent, made, whole in zip(begin.tolist(), size.tolist(), out, shape, strict=True):
        if made != (whole - start if extent == -1 else extent) or start + made > whole:
            raise NotTileable("its output's size does not follow from its lists")
    return Downsample((int(begin[1]), int(begin[2])), (1, 1), (1, 1))


def transposed(op: OpFacts) -> Geometry:
    """TRANSPOSE_CONV, whose inputs are the output's shape, weights, the image and maybe a bias."""
    if len(op.inputs) < 3 or any(t is not None and not t.constant for t in (*op.inputs[:2], *op.inputs[3:])):
        raise NotTileable("its weights or its output's size are computed, not constant")
    weights, image = op.inputs[1], op.inputs[2]
    if weights is None or image is None or len(weights.shape) != 4 or min(weights.shape) < 1:
        raise NotTileable("it has no weights or no image")
    if image.dtype == "float32" and weights.dtype != "float32":
        raise NotTileable(f"{weights.dtype} weights on float32 activations: each run has a scale of its own")
    _check_order(op)
    kernel, stride = weights.shape[1:3], (op.options("stride_h"), op.options("stride_w"))
    lead = []
    for size, out, taps, step in zip(size_of(image), size_of(op.outputs[0]), kernel, stride, strict=True):
        if not 1 <= step <= taps:
            raise NotTileable(f"a stride of {step} with a kernel of {taps} leaves gaps")
        over = (size - 1) * step + taps - out  # rows reached beyond those that are kept
        if over < 0 or (op.options("padding") == 0 and size != -(-out // step)):
            raise NotTileable("its output's size does not follow from kernel, stride and padding")
        lead.append(over // 2)
    return Transposed(size_of(image), (kernel[0], kernel[1]), stride, (lead[0], lead[1]))


def _check_order(op: OpFacts) -> None:
    """Raises NotTileable when sums of a transposed convolution depend on the number of pixels.

    It is a product of matrices, of weights (a row for each filter and tap) and pixels, unless XNNPACK computes it,
    which needs a constant for its output's shape.
    """
    shape, weights, image = op.inputs[:3]
    if shape is None or weights is None or image is None or shape.buffer or image.dtype != "float32":
        return
    rows, depth = prod(weights.shape[:3]), image.shape[3]
    if rows % _ROWS_AT_ONCE or rows + depth < _LEAST_PRODUCT:
        raise NotTileable(
            f"the runtime sums {rows} rows of weights (filters x taps) in an order that depends on the number of "
            f"pixels, about 1e-6 of the largest value apart; a multiple of {_ROWS_AT_ONCE} is exact"
        )
