# SPDX-License-Identifier: Apache-2.0
"""Dilated convolutions as converters write them: SPACE_TO_BATCH_ND, a dense convolution, BATCH_TO_SPACE_ND.

The three are cut as one op, the last: the batch in between exists within a piece only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dnn_dist.graph.facts import NotTileable, OpFacts, size_of
from dnn_dist.graph.geometry import Dilated
from dnn_dist.graph.network import Op
from dnn_dist.graph.tileable import check_images, kernel_of

_VALID = 1


def join_dilated(ops: Sequence[Op], facts: Sequence[OpFacts], outputs: Sequence[int]) -> list[Op]:
    """The ops, with the three of each dilated convolution made one: see Op.inner and Op.part_of."""
    joined = list(ops)
    makers = {tensor: op.index for op in ops for tensor in op.outputs}
    readers: dict[int, int] = dict.fromkeys(outputs, 1)
    for op in ops:
        for tensor in op.inputs:
            readers[tensor] = readers.get(tensor, 0) + 1
    for last in ops:
        trio = _trio(ops, makers, readers, last)
        if trio is None:
            continue
        try:
            geometry = _geometry(*(facts[op.index] for op in trio))
        except NotTileable as error:
            joined[last.index] = replace(last, reason=str(error))
            continue
        spread, dense, _ = trio
        height, width = size_of(facts[last.index].outputs[0])
        made = facts[dense.index].outputs[0].shape  # of one image of the batch, or of all: macs count per pixel
        macs = dense.macs // (made[0] * made[1] * made[2]) * height * width
        joined[spread.index] = replace(spread, part_of=last.index, reason="")
        joined[dense.index] = replace(dense, part_of=last.index, reason="", geometry=None, macs=macs)
        joined[last.index] = replace(last, inner=(spread.index, dense.index), geometry=geometry, reason="")
    return joined


def _trio(
    ops: Sequence[Op], makers: Mapping[int, int], readers: Mapping[int, int], last: Op
) -> tuple[Op, Op, Op] | None:
    """SPACE_TO_BATCH_ND, convolution and `last`, each the only reader of the one before it."""
    if last.kind != "BATCH_TO_SPACE_ND" or len(last.inputs) != 3:
        return None
    dense = ops[makers[last.inputs[0]]] if last.inputs[0] in makers else None
    if dense is None or dense.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D") or readers[last.inputs[0]] != 1:
        return None
    spread = ops[makers[dense.inputs[0]]] if dense.inputs and dense.inputs[0] in makers else None
    if spread is None or spread.kind != "SPACE_TO_BATCH_ND" or readers[dense.inputs[0]] != 1:
        return None
    return (spread, dense, last) if len(spread.inputs) == 3 else None


def _geometry(spread: OpFacts, dense: OpFacts, last: OpFacts) -> Dilated:
    image, out = spread.inputs[0], last.outputs[0]
    check_images([image, out])
    kernel = kernel_of(dense)
    if dense.options("padding") != _VALID:
        raise NotTileable("its convolution pads the images of the batch")
    strides = {dense.options(name) for name in ("stride_h", "stride_w", "dilation_hfactor", "dilation_wfactor")}
    if strides != {1}:
        raise NotTileable("its convolution has strides or a dilation of its own")
    block, pads = (_list(spread, number) for number in (1, 2))
    unblock, crops = (_list(last, number) for number in (1, 2))
    if block.shape != (2,) or pads.shape != (2, 2) or crops.shape != (2, 2) or not np.array_equal(block, unblock):
        raise NotTileable("it does not spread rows and columns alone, or not gathers them alike")
    if block.min() < 1 or min(pads.min(), crops.min()) < 0 or max(block.max(), pads.max(), crops.max()) > 1 << 16:
        raise NotTileable("its blocks, pads or crops are out of range")
    lead = []
    for axis, (size, made) in enumerate(zip(size_of(image), size_of(out), strict=True)):
        padded, crop = size + int(pads[axis].sum()), int(crops[axis].sum())
        dilation = int(block[axis])
        if padded % dilation or made != padded - dilation * (kernel[axis] - 1) - crop:
            raise NotTileable("its output's size does not follow from its blocks, pads and crops")
        lead.append(int(pads[axis, 0]) - int(crops[axis, 0]))
        if lead[-1] > dilation * (kernel[axis] - 1) or made - lead[-1] > size:
            raise NotTileable("it pads so much that outputs depend on pads alone")
    return Dilated(size_of(image), kernel, (int(block[0]), int(block[1])), (lead[0], lead[1]))


def _list(op: OpFacts, number: int) -> np.ndarray:
    tensor = op.inputs[number]
    if tensor is None or not tensor.constant:
        raise NotTileable("its blocks, pads or crops are computed, not constant")
    return op.value(number).astype(np.int64)
