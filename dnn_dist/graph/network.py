# SPDX-License-Identifier: Apache-2.0
"""A network: a DAG of ops over tensors, in the order in which the file runs them.

These are values made by `tflite.read_network`; constants stay in the file and are reached by
`Network.constant`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from dnn_dist.graph.geometry import Geometry
from dnn_dist.graph.modelfile import ModelFile


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the main graph."""

    index: int
    name: str
    shape: tuple[int, ...]
    """With the batch axis: NHWC for images. As in the file, but for what that leaves open and ops before it say."""
    dtype: str
    """NumPy's name where it has one: float32, int8, ..."""
    scale: float | None
    """real = scale * (stored - zero_point); None when not quantised, or by channel."""
    zero_point: int
    constant: bool
    """Whether it is the same in every run: the file holds its value, or a folded op makes it."""
    bytes: int
    """Of the whole tensor; 0 when the shape does not say (strings)."""
    buffer: int
    """Number of the buffer that holds its value, if the file does; else 0."""
    variable: bool
    """Keeps its value from one run to the next."""
    fixed: bool
    """Whether the shape holds for every run with a batch of one."""

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Without the batch axis: what pieces, tiles and messages carry."""
        return self.shape[1:] if self.shape[:1] == (1,) else self.shape

    @property
    def is_image(self) -> bool:
        """Whether it is NHWC with a batch of one, so that regions of it make sense."""
        return len(self.shape) == 4 and self.shape[0] == 1

    @property
    def height(self) -> int:
        return self.shape[1]

    @property
    def width(self) -> int:
        return self.shape[2]


@dataclass(frozen=True, slots=True)
class Op:
    """One op of the main graph."""

    index: int
    kind: str
    """The schema's name (CONV_2D); a custom op is CUSTOM:<its name>."""
    inputs: tuple[int, ...]
    """Tensors read, constants included; -1 is an optional input that is not given."""
    outputs: tuple[int, ...]
    macs: int
    """Multiply-accumulates for the whole output."""
    activation_bytes: int
    """Of all tensors read and written that are no constants."""
    weight_bytes: int
    """Of all constants read."""
    geometry: Geometry | None
    """How an output region maps to an input region; None when the op cannot be tiled."""
    reason: str
    """Why it cannot be tiled; empty when it can."""
    folded: bool = False
    """Gives the same in every run: no stage depends on it, pieces carry it along or hold its value."""
    inner: tuple[int, ...] = ()
    """Ops before it that are cut as one with it: this op's geometry is that of them all."""
    part_of: int | None = None
    """The op that this one is cut as one with."""

    @property
    def tileable(self) -> bool:
        """Whether a range of ops in tiles can hold it."""
        return self.geometry is not None or self.folded or self.part_of is not None


@dataclass(frozen=True, eq=False)  # no slots: cached properties need a __dict__
class Network:
    """The main graph of a .tflite file."""

    file: ModelFile
    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    values: Mapping[int, np.ndarray] = field(default_factory=dict)
    """Constants that the file does not hold but that are known: shapes worked out while running."""

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def sha256(self) -> str:
        """Hash of the file's bytes: the name that plans know the model by. Computed when first asked for."""
        return self.file.sha256

    @cached_property
    def macs(self) -> int:
        return sum(op.macs for op in self.ops)

    @cached_property
    def producers(self) -> dict[int, int]:
        """Tensor -> index of the op that writes it. Model inputs and constants have none."""
        return {tensor: op.index for op in self.ops for tensor in op.outputs}

    @cached_property
    def consumers(self) -> dict[int, tuple[int, ...]]:
        """Tensor -> indices of the ops that read it, in order; empty for tensors that nobody reads."""
        readers: dict[int, list[int]] = {tensor.index: [] for tensor in self.tensors}
        for op in self.ops:
            for tensor in sorted(set(op.inputs) - {-1}):
                readers[tensor].append(op.index)
        return {tensor: tuple(ops) for tensor, ops in readers.items()}

    def activations(self, op: Op) -> tuple[int, ...]:
        """The tensors `op` reads that are computed or fed in, each once, in the op's order."""
        return self._activations[op.index]

    @cached_property
    def _activations(self) -> tuple[tuple[int, ...], ...]:
        def of(op: Op) -> tuple[int, ...]:
            live = (t for t in op.inputs if t >= 0 and not self.tensors[t].constant and not self.tensors[t].variable)
            return () if op.folded else tuple(dict.fromkeys(live))

        return tuple(of(op) for op in self.ops)

    def sources(self, op: Op) -> tuple[int, ...]:
        """The activations of `op` and the ops cut as one with it: what its geometry is about."""
        return self.activations(self.ops[op.inner[0]] if op.inner else op)

    def macs_of(self, first: int, last: int) -> int:
        """Of ops first..last, for their whole outputs."""
        return sum(op.macs for op in self.ops[first : last + 1])

    def live_before(self, first: int, last: int) -> tuple[int, ...]:
        """Tensors that ops first..last read and do not make, in order of first use."""
        return self.read_by(range(first, last + 1))

    def live_after(self, first: int, last: int) -> tuple[int, ...]:
        """Tensors that ops first..last make and that later ops or the caller want, in order of making."""
        return self.made_by(range(first, last + 1))

    def read_by(self, ops: Iterable[int]) -> tuple[int, ...]:
        """Tensors that these ops (ascending) read and do not make, in order of first use."""
        made: set[int] = set()
        needed: dict[int, None] = {}
        for number in ops:
            op = self.ops[number]
            needed.update((t, None) for t in self.activations(op) if t not in made and self._is_live(t))
            made.update(op.outputs)
        return tuple(needed)

    def made_by(self, ops: Sequence[int]) -> tuple[int, ...]:
        """Tensors that these ops (ascending) make and that other ops or the caller want, in order of making."""
        inside = ops if isinstance(ops, range) else set(ops)
        return tuple(
            tensor
            for number in ops
            if not self.ops[number].folded
            for tensor in self.ops[number].outputs
            if tensor in self.outputs or any(reader not in inside for reader in self._readers(tensor))
        )

    def _readers(self, tensor: int) -> tuple[int, ...]:
        return tuple(op for op in self.consumers[tensor] if not self.ops[op].folded)

    def is_stored(self, tensor: int) -> bool:
        """Whether it is a constant that the file holds."""
        return self.tensors[tensor].constant and tensor not in self.producers

    def _is_live(self, tensor: int) -> bool:
        # what nobody writes and nobody feeds is an empty stand-in that travels with its op
        return tensor in self.producers or tensor in self.inputs

    def constant(self, tensor: int) -> np.ndarray:
        """The value of a constant, as a read-only view of the mapped file, in the tensor's shape.

        Not of what ops make from constants, unless it is in `values`.
        """
        value = self.tensors[tensor]
        if tensor in self.values:
            return self.values[tensor]
        return stored(self.file, value)


def stored(file: ModelFile, tensor: Tensor) -> np.ndarray:
    """The value of a constant that the file holds, as a read-only view of it."""
    content = file.buffer_bytes(tensor.buffer)
    return content[: tensor.bytes].view(tensor.dtype).reshape(tensor.shape)
