# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates of an op for its whole output; ops that multiply no weights count as none."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Shape = tuple[int, ...]


def macs(kind: str, inputs: Sequence[Shape | None], outputs: Sequence[Shape]) -> int:
    """MACs from the shapes alone (with batch; None: an input that is not given).

    A convolution costs, per output value, one MAC for each weight of a filter; a fully connected layer one
    per weight and row of its input; a transposed convolution one per weight and *input* pixel.
    """
    if not outputs or len(inputs) < 2 or inputs[1] is None:
        return 0
    first, second, out = inputs[0] or (), inputs[1], prod(outputs[0])
    if kind in ("CONV_2D", "CONV_3D") and len(second) >= 4:
        # weights are O x KH x KW x I, for 3-D KD x KH x KW x I x O
        return out * (prod(second[1:]) if kind == "CONV_2D" else prod(second[:-1]))
    if kind == "DEPTHWISE_CONV_2D" and len(second) == 4:
        return out * second[1] * second[2]
    if kind == "TRANSPOSE_CONV" and len(inputs) > 2 and inputs[2] is not None and len(second) == 4:
        return prod(inputs[2][:3]) * prod(second)
    if kind == "FULLY_CONNECTED" and len(second) == 2:
        return out * second[1]
    if kind == "BATCH_MATMUL" and first:
        return out * first[-1]
    return 0
