# SPDX-License-Identifier: Apache-2.0
"""Sums of an int8 layer in float32, exact whatever their size.

Pieces of a coded stage of an int8 model compute with integers as float32, exact up to 2^24, in any order of
summing, as long as no sum of absolute values is larger. From a layer's weights follows how large its sums can be:

    largest over outputs of  sum |weight - zero point| * largest |input - zero point| + |bias|

times what a parity adds up, the sum of the absolute values of its coefficients. Where that is above 2^24 the
layer's input channels are taken in parts that each stay below. What a part gives is split in high * 4096 + low,
both integers, and highs and lows are added up apart: so they are exact too, however large the sum. A piece then
gives twice the channels: highs, then lows. `joined` makes one sum of them, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from dnn_dist.graph.network import Network, Op
from dnn_dist.graph.write import GraphWriter

LARGEST = 1 << 24
"""Integers up to this are exact in float32."""
_BASE = 1 << 12  # of high and low
_STEPS = 512  # runs of input channels that are not divided further; fewer parts than _BASE, so that lows stay exact
_CHUNK_BYTES = 1 << 20  # of weights read at a time

ReadRows = Callable[[int, int, int], np.ndarray]
"""Rows of a constant as integers less their zero point: (tensor, first, after)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large the sums of an int8 layer can be, over all inputs and the worst of its outputs."""

    whole: int
    """Of a whole sum, with its bias."""
    bias: int
    ends: tuple[int, ...]
    """Where each run of input channels ends."""
    runs: tuple[int, ...]
    """Of the sum over each run."""


_known: WeakKeyDictionary[Network, dict[int, Bounds]] = WeakKeyDictionary()


def bounds_of(network: Network, op: Op, read_rows: ReadRows) -> Bounds:
    """Of an op whose input, weights and output are int8 or uint8; reads all its weights the first time."""
    found = _known.setdefault(network, {})
    if op.index not in found:
        found[op.index] = _bounds(network, op, read_rows)
    return found[op.index]


def _bounds(network: Network, op: Op, read_rows: ReadRows) -> Bounds:
    image, weights = (network.tensors[t] for t in op.inputs[:2])
    limits = np.iinfo(image.dtype)
    reach = max(limits.max - image.zero_point, image.zero_point - limits.min)
    filters, channels = weights.shape[0], weights.shape[-1]
    ends = [channels * (step + 1) // min(channels, _STEPS) for step in range(min(channels, _STEPS))]
    step = max(1, _CHUNK_BYTES * filters // max(weights.bytes, 1))
    runs, whole, largest_bias = np.zeros(len(ends), np.int64), 0, 0
    for start in range(0, filters, step):
        stop = min(filters, start + step)
        rows = np.abs(read_rows(weights.index, start, stop).astype(np.int16)).reshape(stop - start, -1, channels)
        sums = np.add.reduceat(rows.sum(1, np.int64), [0, *ends[:-1]], 1) * reach
        bias = np.zeros(stop - start, np.int64)
        if len(op.inputs) > 2 and op.inputs[2] >= 0:
            bias = np.abs(read_rows(op.inputs[2], start, stop).astype(np.int64))
        runs = np.maximum(runs, sums.max(0))
        whole, largest_bias = max(whole, int((sums.sum(1) + bias).max())), max(largest_bias, int(bias.max()))
    return Bounds(whole, largest_bias, tuple(ends), tuple(runs.tolist()))


def parts_of(bounds: Bounds, code: np.ndarray) -> tuple[int, ...]:
    """Where the parts of the input channels end; empty when one sum holds all.

    Raises ValueError, with the bound, when no parts are small enough. `code`: what slices count in each parity.
    """
    times = max(1, int(np.abs(code).sum(1).max(initial=0)))
    if times * bounds.whole <= LARGEST:
        return ()
    ends, held, end = [], times * bounds.bias, 0
    for size, after in zip(bounds.runs, bounds.ends, strict=True):
        if held + times * size > LARGEST and end:
            ends.append(end)
            held = 0
        held, end = held + times * size, after
        if held > LARGEST:
            raise ValueError(f"sums of a parity may reach {held} in its parts, float32 is exact up to {LARGEST}")
    return (*ends, end)


def joined(array: np.ndarray) -> np.ndarray:
    """The sums of a piece that gives highs and lows."""
    width = array.shape[-1] // 2
    whole: np.ndarray = array[..., :width].astype(np.float64) * _BASE + array[..., width:]
    return whole


def add_parts(
    network: Network,
    writer: GraphWriter,
    op: Op,
    image: int,
    constants: Sequence[np.ndarray],
    parts: Sequence[int],
    shape: Sequence[int],
    name: str,
) -> int:
    """Adds `op` in parts to a piece's graph; returns the tensor `name`: highs, then lows, of shape `shape`.

    `image`: the writer's tensor of integers; `constants`: float32 weights and perhaps bias, of the piece.
    """
    weights, *bias = constants
    extents = network.tensors[op.inputs[0]].shape
    if op.kind == "FULLY_CONNECTED":
        rows = int(np.prod(extents)) // weights.shape[-1]
        image, extents = _reshaped(writer, image, "rows", (rows, weights.shape[-1])), (rows, weights.shape[-1])
        made: tuple[int, ...] = (rows, weights.shape[0])
    else:
        made = (*shape[:-1], weights.shape[0])
    base = writer.add_constant("base", np.array([_BASE], np.float32))
    inverse = writer.add_constant("inverse", np.array([1 / _BASE], np.float32))
    total: list[int] = []
    for number, (start, stop) in enumerate(zip((0, *parts[:-1]), parts, strict=True)):
        begin = np.array([*[0] * (len(extents) - 1), start], np.int32)
        size = np.array([*extents[:-1], stop - start], np.int32)
        crop = writer.add_value(f"part_{number}", size.tolist())
        lists = [writer.add_constant("begin", begin), writer.add_constant("size", size)]
        writer.add_op("SLICE", 1, [image, *lists], [crop], "SliceOptions")
        operands = [crop, writer.add_constant(f"sum_{number}", weights[..., start:stop])]
        if bias:
            operands.append(writer.add_constant(f"bias_{number}", bias[0] if number == 0 else np.zeros_like(bias[0])))
        part = writer.add_value(f"{name}/{number}", made)
        writer.copy_op(op.index, operands, [part], fused_activation_function=0)
        scaled, high, back, low = (
            writer.add_value(f"{name}/{number}/{n}", made) for n in ("scaled", "high", "back", "low")
        )
        writer.add_op("MUL", 1, [part, inverse], [scaled], "MulOptions")
        writer.add_op("FLOOR", 1, [scaled], [high], "")
        writer.add_op("MUL", 1, [high, base], [back], "MulOptions")
        writer.add_op("SUB", 1, [part, back], [low], "SubOptions")
        if total:
            sums = [writer.add_value(f"{name}/{number}/{n}", made) for n in ("highs", "lows")]
            for before, more, after in zip(total, (high, low), sums, strict=True):
                writer.add_op("ADD", 1, [before, more], [after], "AddOptions")
            total = sums
        else:
            total = [high, low]
    both = writer.add_value(f"{name}/both", (*made[:-1], 2 * made[-1]))
    writer.add_op("CONCATENATION", 1, total, [both], "ConcatenationOptions", axis=len(made) - 1)
    return _reshaped(writer, both, name, shape)


def _reshaped(writer: GraphWriter, tensor: int, name: str, shape: Sequence[int]) -> int:
    output = writer.add_value(name, shape)
    listed = writer.add_constant("shape", np.array(shape, np.int32))
    writer.add_op("RESHAPE", 1, [tensor, listed], [output], "ReshapeOptions")
    return output
