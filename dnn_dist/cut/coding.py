# SPDX-License-Identifier: Apache-2.0
"""Parity pieces: any N of N + r are enough (coded distributed computing, after Hadidi et al., 2019-2021).

A convolution or fully connected layer is affine in its weights and bias. With y_i = W_i x + b_i of slice i,
before the activation, a parity piece with weights sum_i g_i W_i and bias sum_i g_i b_i gives sum_i g_i y_i.
When all N slices have come nothing is decoded; lost ones solve the equations of as many parities as are lost.
Slices of uneven size count as padded with zeros.

The coefficients g are small integers: r = 1 is the plain sum; for r = 2 and 3 a search over integer matrices
found ones whose every square part is regular and well conditioned. Rounding errors of what came enter what is
recovered amplified (root mean square, worst of all ways to lose r of 8 + r) by 13 for r = 2 and 28 for r = 3;
random orthogonal rows, the best of 300, amplify by 29 and 65, Vandermonde rows at Chebyshev nodes by 32 and
(shifted, since a node at 0 is lost) 1034, Cauchy rows by 1133 and 30474. Measured on VGG16's fc1, whose sums of
25 088 products are the worst that common networks have: 8e-6 (4 + 1), 4e-5 (8 + 2), 7e-5 (8 + 3) of the largest
value. Small integers have another merit: int8 models stay exact.

int8 models: pieces compute with the integers themselves, as float32: the input less its zero point, the
stored weights, the bias, and give the accumulator, exactly: exact.py says how. So recovered accumulators are
rounded to integers, and requantising the merged ones is the runtime's own last step (XNNPACK: to float32,
multiply in float32, round half to even).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dnn_dist.cut.piece import Stage
from dnn_dist.errors import CutError
from dnn_dist.graph.network import Network, Op, Tensor

Arrays = Sequence[np.ndarray]

MOST_CODED, MOST_PARITIES = 8, 3
_COEFFICIENTS = {
    2: ((2, -5, 4, 3, -1, -5, 2, 1), (-4, 1, -2, -3, -4, -1, 2, -5)),
    3: ((-4, -7, -2, -3, 1, -2, 4, 6), (-4, -4, 7, -4, -6, -4, -5, 2), (2, -1, -1, 7, 5, -5, -5, -6)),
}
_LIMITS = {"NONE": None, "RELU": (0.0, None), "RELU_N1_TO_1": (-1.0, 1.0), "RELU6": (0.0, 6.0)}
"""Fused activations that can be taken off and applied later: real (lowest, highest)."""


def coefficients(count: int, parity: int) -> np.ndarray:
    """What each of `count` slices counts in each parity: integers, parity x count."""
    if parity <= 1:
        return np.ones((parity, count), np.int64)
    if parity > MOST_PARITIES or count > MOST_CODED:
        raise CutError(
            f"slices:{count}+{parity}: two or three parities are known for up to {MOST_CODED} slices; "
            f"take slices:{min(count, MOST_CODED)}+{min(parity, MOST_PARITIES)}, or one parity"
        )
    return np.array(_COEFFICIENTS[parity], np.int64)[:, :count]


def decode(stage: Stage, received: Mapping[int, Arrays]) -> dict[int, Arrays]:
    """The outputs of every data piece of a coded stage from any `stage.needed` pieces or more.

    `received` maps a piece's index to its outputs, of an int8 model to its sums. What came is passed on as it is.
    Raises ValueError when too few have come.
    """
    count = stage.needed
    pieces = {index: received[index] for index in range(count) if index in received}
    lost = [index for index in range(count) if index not in received]
    if not lost:
        return pieces
    parities = [index for index in range(count, len(stage.pieces)) if index in received]
    if len(parities) < len(lost):
        raise ValueError(f"{stage.spec}: {len(received)} of {count} pieces that are needed have come")
    matrix = coefficients(count, stage.parity)[[index - count for index in parities]].astype(np.float64)
    # Every parity that came takes part; as many as lost would do
    solution = np.linalg.pinv(matrix[:, lost])
    recovered: list[list[np.ndarray]] = [[] for _ in lost]
    for number in range(len(stage.pieces[0].outputs)):
        sums = []
        for row, index in zip(matrix, parities, strict=True):
            rest = received[index][number].astype(np.float64)
            for other, outputs in pieces.items():
                rest[..., : outputs[number].shape[-1]] -= row[other] * outputs[number].astype(np.float64)
            sums.append(rest)
        for place, weights in enumerate(solution):
            begin, end = stage.pieces[lost[place]].outputs[number].channels or (0, 0)
            value = np.tensordot(weights, sums, 1)[..., : end - begin]
            recovered[place].append(value.astype(received[parities[0]][number].dtype))
    return {**pieces, **dict(zip(lost, recovered, strict=True))}


def finish(network: Network, stage: Stage, sums: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """The stage's tensors from their merged sums: the fused activation, and in int8 models requantising."""
    lowest, highest = _LIMITS[stage.finish] or (None, None)
    done = {}
    for index, array in sums.items():
        tensor = network.tensors[index]
        if tensor.dtype == array.dtype.name:
            done[index] = array if (lowest, highest) == (None, None) else np.clip(array, lowest, highest)
            continue
        limits = np.iinfo(tensor.dtype)
        assert tensor.scale is not None
        least = limits.min if lowest is None else max(limits.min, _quantum(lowest, tensor))
        most = limits.max if highest is None else min(limits.max, _quantum(highest, tensor))
        scaled = np.rint(np.rint(array).astype(np.float32) * _requantisation(network, network.ops[stage.first]))
        done[index] = np.clip(scaled + np.float32(tensor.zero_point), least, most).astype(tensor.dtype)
    return done


def _quantum(real: float, tensor: Tensor) -> int:
    """Where a fused activation clamps, in the order and width in which XNNPACK works it out: 127.5 is common, as
    converters choose scales by the activation's range.
    """
    return int(np.rint(np.float32(real) / np.float32(tensor.scale) + np.float32(tensor.zero_point)))


def _requantisation(network: Network, op: Op) -> np.ndarray:
    """Output quanta per unit of the accumulator, float32, per channel or one for all; in XNNPACK's order."""
    image, weights, output = (network.tensors[t] for t in (*op.inputs[:2], op.outputs[0]))
    scales = np.asarray(network.file.tensors[weights.index]["quantization"]["scale"], np.float32)
    factors: np.ndarray = np.float32(image.scale) * scales / np.float32(output.scale)
    return factors


def why_not_coded(network: Network, op: Op, activation: str) -> str:
    """Why parities of slices of `op` would be wrong; empty when they are right. It can be sliced at all."""
    image, weights, output = (network.tensors[t] for t in (*op.inputs[:2], op.outputs[0]))
    if activation not in _LIMITS:
        return f"its fused activation {activation} cannot be taken off"
    if (image.dtype, output.dtype) == ("float32", "float32"):
        if weights.dtype not in ("float32", "float16"):
            return f"{weights.dtype} weights on float32 activations: each run has a scale of its own"
        return ""
    if image.dtype == output.dtype and image.dtype in ("int8", "uint8"):
        if image.scale is None or not output.scale:
            return "its activations have no single scale"
        limits = np.iinfo(image.dtype)
        if not limits.min <= image.zero_point <= limits.max:
            return f"its input's zero point {image.zero_point} is no {image.dtype}"
        if weights.dtype not in ("int8", "uint8"):
            return f"weights of {weights.dtype} cannot be summed"
        if any(network.tensors[t].dtype != "int32" for t in op.inputs[2:] if t >= 0):
            return "its bias is no int32"
        quantisation = network.file.tensors[weights.index]["quantization"]
        scales = quantisation["scale"] if quantisation is not None else None
        if scales is None or scales.size not in (1, weights.shape[0]):
            return "its weights have no scale, or not one per filter"
        return ""
    return f"sums of {image.dtype} in float32 would not be exact"
