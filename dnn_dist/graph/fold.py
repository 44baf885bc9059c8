# SPDX-License-Identifier: Apache-2.0
"""Ops whose result is the same in every run, so that no piece has to be sent it.

Converters leave two kinds. Some prepare constants: DEQUANTIZE of float16 weights; pieces carry such ops along
with what they read. Others work out shapes while running: SHAPE, STRIDED_SLICE, PACK in front of a RESHAPE or
TRANSPOSE_CONV; with a batch of one their values are known here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dnn_dist.graph.facts import NotTileable, OpFacts

CARRIED = frozenset(["DEQUANTIZE", "DENSIFY", "RESHAPE", "TRANSPOSE", "CAST", "EXPAND_DIMS", "SQUEEZE"])
"""Ops of constants alone that pieces carry along."""
_MOST_VALUES = 64  # in a list that is worked out here


def is_carried(op: OpFacts) -> bool:
    """Whether it computes a constant from constants, in a way that can be copied into pieces."""
    if op.kind not in CARRIED or not op.inputs or len(op.outputs) != 1:
        return False
    if op.kind == "DEQUANTIZE" and (op.inputs[0] is None or op.inputs[0].shape != op.outputs[0].shape):
        return False  # value by value, so that rows of it are rows of what it reads
    return all(t is not None and t.constant for t in op.inputs)


def known_value(op: OpFacts) -> np.ndarray | None:
    """What an op on shapes gives, as integers of its output's type and shape; None when it is no such op."""
    rule = _RULES.get(op.kind)
    if rule is None or len(op.outputs) != 1 or op.outputs[0].dtype not in ("int32", "int64"):
        return None
    try:
        value = rule(op)
        if value is None or value.size > _MOST_VALUES or value.shape != op.outputs[0].shape:
            return None
        return value.astype(op.outputs[0].dtype)
    except (NotTileable, ValueError, IndexError):
        return None


def _shape(op: OpFacts) -> np.ndarray | None:
    tensor = op.inputs[0] if op.inputs else None
    return None if tensor is None or not tensor.fixed else np.array(tensor.shape, np.int64)


def _values(op: OpFacts) -> list[np.ndarray] | None:
    if not op.inputs or not all(
        t is not None and t.constant and t.dtype in ("int32", "int64") and np.prod(t.shape) <= _MOST_VALUES
        for t in op.inputs
    ):
        return None
    return [op.value(number).astype(np.int64) for number in range(len(op.inputs))]


def _strided_slice(op: OpFacts) -> np.ndarray | None:
    values = _values(op)
    masks = {name: op.options(f"{name}_mask") for name in ("begin", "end", "shrink_axis")}
    if values is None or len(values) != 4 or [v.shape for v in values[1:]] != [(1,)] * 3 or values[0].ndim != 1:
        return None
    if op.options("ellipsis_mask") or op.options("new_axis_mask") or op.options("offset"):
        return None
    whole, begin, end, step = values[0], *(int(v[0]) for v in values[1:])
    if masks["shrink_axis"] & 1:
        return np.asarray(whole[begin])
    return whole[slice(None if masks["begin"] & 1 else begin, None if masks["end"] & 1 else end, step)]


def _pack(op: OpFacts) -> np.ndarray | None:
    values = _values(op)
    return None if values is None or op.options("axis") != 0 else np.stack(values)


def _concatenation(op: OpFacts) -> np.ndarray | None:
    values = _values(op)
    return None if values is None or any(v.ndim != 1 for v in values) else np.concatenate(values)


def _product(op: OpFacts) -> np.ndarray | None:
    values = _values(op)
    if values is None or len(values) != 2 or max(np.abs(v).max(initial=0) for v in values) > 1 << 20:
        return None
    return np.asarray(values[0] * values[1])


_RULES: dict[str, Callable[[OpFacts], np.ndarray | None]] = {
    "SHAPE": _shape,
    "STRIDED_SLICE": _strided_slice,
    "PACK": _pack,
    "CONCATENATION": _concatenation,
    "MUL": _product,
}
