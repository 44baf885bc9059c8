# SPDX-License-Identifier: Apache-2.0
"""Sums of squares, which the runtime computes in one step where it finds them: a square and the sum or mean of it.

Cut apart, each half would be rounded for itself and the last bits differ from the whole's. So they are one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from dnn_dist.graph.facts import OpFacts
from dnn_dist.graph.network import Op


def join_squares(ops: Sequence[Op], facts: Sequence[OpFacts], outputs: Sequence[int]) -> list[Op]:
    """The ops, with each float32 square made part of the sum or mean that is its only reader."""
    joined = list(ops)
    makers = {tensor: op for op in ops for tensor in op.outputs}
    readers = Counter(tensor for op in ops for tensor in set(op.inputs)) + Counter(outputs)
    for last in ops:
        square = makers.get(last.inputs[0]) if last.kind in ("MEAN", "SUM") and last.inputs else None
        if square is not None and _is_square(square, facts[square.index]) and readers[last.inputs[0]] == 1:
            joined[square.index] = replace(square, part_of=last.index, geometry=None, reason="")
            joined[last.index] = replace(last, inner=(square.index,))
    return joined


def _is_square(op: Op, facts: OpFacts) -> bool:
    image = facts.inputs[0] if facts.inputs else None
    itself = op.kind == "SQUARE" or (op.kind == "MUL" and len(op.inputs) == 2 and op.inputs[0] == op.inputs[1])
    return itself and not op.folded and image is not None and image.dtype == "float32"
