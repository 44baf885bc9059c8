# SPDX-License-Identifier: Apache-2.0
"""What the rules of `tileable` and `fold` are told about an op, before it is an Op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class TensorLike(Protocol):
    """What is asked of a tensor here (network.Tensor has it)."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def constant(self) -> bool: ...
    @property
    def fixed(self) -> bool: ...
    @property
    def buffer(self) -> int: ...


@dataclass(frozen=True, slots=True)
class OpFacts:
    """One op as read from the file, before its geometry is known."""

    kind: str
    options: Callable[[str], Any]
    """Value of a field of its options table."""
    inputs: Sequence[TensorLike | None]
    outputs: Sequence[TensorLike]
    value: Callable[[int], np.ndarray]
    """Value of its n-th input, which is a constant; raises NotTileable when the runtime computes it."""


class NotTileable(Exception):
    """The op cannot be tiled; the text says why."""


def size_of(tensor: TensorLike | None) -> tuple[int, int]:
    """Rows and columns of an image."""
    assert tensor is not None
    return tensor.shape[1], tensor.shape[2]
