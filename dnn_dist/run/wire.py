# SPDX-License-Identifier: Apache-2.0
"""Keys and tensors as they travel between robots.

A tensor on the wire may have another type than in the model: pixels travel as uint8 and become float32, or the model's
own int8, where they are used. This is the only place that converts, so that the whole model run in one process and its
pieces on ten robots see the same numbers.

Float32 tensors may travel narrower, as a plan's `wire` says. What that costs, for values of which the largest is m:

    wire      bytes  largest error of a value x
    float32   4      0
    float16   2      2^-11 |x|, for |x| below 2^-14 no more than 2^-25; what exceeds 65504 becomes 65504
    int8      1      m / 254, one scale for each message
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dnn_dist.errors import DnnDistError
from dnn_dist.graph.region import Region
from dnn_dist.plan.plan import Pixels, wire_dtype

DTYPES = {name: np.dtype(name) for name in ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "bool")}


class WireError(DnnDistError):
    """A message does not hold what it says, or is not for us."""


class TaskKey(NamedTuple):
    """One piece for one frame."""

    source: str  # name of the camera with its partition and aggregator
    session: int  # random number the source drew at start
    frame: int  # counts from 0 within the session
    stage: int  # index into the plan's stages
    piece: int  # index into the stage's pieces

    def __str__(self) -> str:
        return f"{self.source}/{self.frame}/{self.stage}/{self.piece}"


@dataclass(frozen=True, slots=True)
class WireTensor:
    """A tensor of the model, or a box of it, with the bytes as they travel (NHWC without batch, row-major)."""

    name: str
    array: np.ndarray
    scale: float = 0.0  # real value = scale * (stored - zero_point); 0: values are stored as they are
    zero_point: int = 0
    region: Region | None = None  # the box of the whole tensor; None: all of it
    jpeg: int = 0  # bytes of pixels travel as JPEG of this quality; 0: as they are

    @property
    def bytes(self) -> int:
        """Bytes of the values, without the message around them."""
        return int(self.array.nbytes)


def array_from_bytes(name: str, dtype: str, shape: tuple[int, ...], buffer: bytes | memoryview) -> np.ndarray:
    """View the bytes of a message as an array of `shape`; raises WireError when they do not fit."""
    if dtype not in DTYPES:
        raise WireError(f"tensor {name!r}: dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    expected = DTYPES[dtype].itemsize
    for extent in shape:
        expected *= int(extent)
    if len(shape) > 8 or expected != len(buffer):
        raise WireError(f"tensor {name!r}: {len(buffer)} bytes, expected {expected} for {dtype} {tuple(shape)}")
    return np.frombuffer(buffer, DTYPES[dtype]).reshape(shape)


def encode(
    name: str, array: np.ndarray, scale: float, zero_point: int, wire: str, region: Region | None = None
) -> WireTensor:
    """An array of the model's tensor as it travels under a plan's `wire`: `decode` takes it back.

    `scale` and `zero_point` are the model's (0, 0 where not quantised). Infinities saturate like all that is out of
    range; NaN stays NaN in float16 and becomes 0 in int8.
    """
    if wire_dtype(array.dtype.name, wire) == array.dtype.name:
        return WireTensor(name, array, scale, zero_point, region)
    if wire == "float16":
        most = np.finfo(np.float16).max
        return WireTensor(name, np.clip(array, -most, most).astype(np.float16), region=region)
    # The peak of what is finite: one infinity must not flatten everything else. The scale travels as float32, so it
    # is not below what that holds in full, nor so large that 127 of it overflow.
    peak = min(float(np.abs(array).max(initial=0.0, where=np.isfinite(array))), 3.4e38)
    step = max(np.float32(peak / 127), np.finfo(np.float32).tiny)
    stored = np.rint(np.nan_to_num(array, posinf=peak, neginf=-peak) / step)
    return WireTensor(name, stored.astype(np.int8), float(step), 0, region)


def after_wire(array: np.ndarray, scale: float, zero_point: int, wire: str) -> np.ndarray:
    """What arrives of an array sent under a plan's `wire`, in the array's own type."""
    sent = encode("", array, scale, zero_point, wire)
    return decode(sent, array.dtype.name, scale, zero_point, array.shape)


def decode(tensor: WireTensor, dtype: str, scale: float, zero_point: int, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor as the model wants it: `dtype` with the model's `scale` and `zero_point` (0, 0 where not quantised).

    Raises WireError when the array is not of `shape`.
    """
    array = tensor.array
    if array.shape != tuple(shape):
        raise WireError(f"tensor {tensor.name!r}: shape {array.shape}, expected {tuple(shape)}")
    if array.dtype == dtype and (tensor.scale == 0 or (tensor.scale, tensor.zero_point) == (scale, zero_point)):
        return array
    real = array.astype(np.float64)
    if tensor.scale:
        real = (real - tensor.zero_point) * tensor.scale
    return quantise(real, dtype, scale, zero_point)


def decode_pixels(
    array: np.ndarray, pixels: Pixels, dtype: str, scale: float, zero_point: int, shape: tuple[int, ...]
) -> np.ndarray:
    """Bytes of the image as the model's input wants them; arguments as for `decode`.

    There are 256 values only: converting by table is faster than arithmetic, and the same on every robot.
    """
    if array.shape != tuple(shape) or array.dtype != np.uint8:
        raise WireError(f"pixels: {array.dtype} {array.shape}, expected uint8 {tuple(shape)}")
    real = np.arange(256) * pixels.scale + pixels.offset
    looked_up: np.ndarray = quantise(real, dtype, scale, zero_point)[array]
    return looked_up


def quantise(real: np.ndarray, dtype: str, scale: float, zero_point: int) -> np.ndarray:
    """Real values as `dtype`; integers as round(real / scale) + zero_point, clipped."""
    if not np.issubdtype(DTYPES[dtype], np.integer):
        return real.astype(dtype)
    limits = np.iinfo(DTYPES[dtype])
    stored = np.rint(real / scale) + zero_point if scale else np.rint(real)
    clipped: np.ndarray = np.clip(stored, limits.min, limits.max)
    return clipped.astype(dtype)


def dequantise(array: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """float32 real values of a tensor of the model; `scale` 0 where it is not quantised."""
    if array.dtype == np.float32 and not scale:
        return array
    real = array.astype(np.float32)
    return (real - np.float32(zero_point)) * np.float32(scale) if scale else real
