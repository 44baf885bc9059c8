# SPDX-License-Identifier: Apache-2.0
"""Reads a .tflite file as a Network.

Everything that later code trusts is checked here, once: indices, the order of ops, sizes of constants.
Whatever the file holds, the answer is a Network or a ModelError of one line. Of several graphs the first is
the main one; the others (bodies of loops and branches) are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from dnn_dist.graph.cost import macs
from dnn_dist.graph.dilated import join_dilated
from dnn_dist.graph.facts import NotTileable, OpFacts
from dnn_dist.graph.flatbuffer import BrokenBuffer, Table
from dnn_dist.graph.fold import is_carried, known_value
from dnn_dist.graph.geometry import Geometry
from dnn_dist.graph.modelfile import ModelFile
from dnn_dist.graph.network import Network, Op, Tensor, stored
from dnn_dist.graph.schema import DTYPES, ITEM_BITS, OPERATORS, TABLES
from dnn_dist.graph.shapes import keeps_batch, shapes_of
from dnn_dist.graph.squares import join_squares
from dnn_dist.graph.tileable import geometry_of

_MAX_ELEMENTS, _MAX_RANK = 1 << 40, 32
# Tables may point to one another's parts: a small file could unfold without end; honest ones give about 1
_UNFOLDED_PER_BYTE = 8
_OLD_CODE_LIMIT = 127  # codes up to here may stand in the deprecated field alone


def read_network(path: str | Path) -> Network:
    """The network in the file at `path`; raises ModelError (missing, empty, no .tflite, damaged)."""
    file = ModelFile(path)
    try:
        room = _Room(_UNFOLDED_PER_BYTE * len(file))
        tensors = tuple(_tensor(file, index, table, room) for index, table in enumerate(file.tensors))
        inputs, outputs = (_indices(file.graph[name], len(tensors), room) for name in ("inputs", "outputs"))
        if not outputs:
            raise BrokenBuffer("the graph has no output")
        codes = [_kind(code) for code in file.operator_codes]
        reading = _Reading(file, list(tensors), set(inputs), frozenset(outputs), codes, room)
        for index, table in enumerate(file.operators):
            reading.add(index, table)
        _check_order(tensors, reading.ops, inputs, outputs)
        ops = join_squares(join_dilated(reading.ops, reading.facts, outputs), reading.facts, outputs)
    except (BrokenBuffer, UnicodeError, MemoryError, OverflowError) as error:
        raise file.broken(error) from None
    return Network(file, tuple(reading.tensors), tuple(ops), inputs, outputs, reading.values)


class _Room:
    """Bytes of lists and names that may still be unfolded."""

    def __init__(self, count: int) -> None:
        self._left = count

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise BrokenBuffer("its parts overlap so that it would unfold to many times its size")


def _tensor(file: ModelFile, index: int, table: Table, room: _Room) -> Tensor:
    shape_field = table["shape"]
    shape = tuple(shape_field.tolist()) if shape_field is not None else ()
    if len(shape) > _MAX_RANK or any(extent < 0 for extent in shape) or prod(shape) > _MAX_ELEMENTS:
        raise BrokenBuffer(f"tensor {index} has the shape {list(shape)[:8]}")
    if not 0 <= table["type"] < len(DTYPES):
        raise BrokenBuffer(f"tensor {index} has the unknown type {table['type']}")
    dtype = DTYPES[table["type"]]
    size = -(-prod(shape) * ITEM_BITS[dtype] // 8)
    buffer = table["buffer"]
    held = file.buffer_span(buffer)[1] if file.buffers else 0
    if 0 < held < size and table["sparsity"] is None:
        raise BrokenBuffer(f"tensor {index} needs {size} bytes, its buffer holds {held}")
    scale, zero_point = _quantisation(index, table["quantization"])
    name = table["name"] or f"tensor_{index}"
    room.take(len(name) + 4 * len(shape))
    # Buffer 0 is the empty one by convention, and an external buffer is a constant kept elsewhere
    constant = (buffer > 0 and held > 0) or table["external_buffer"] > 0
    signature = table["shape_signature"]
    fixed = signature is None or not (signature[1:] < 0).any()
    return Tensor(
        index,
        name,
        shape,
        dtype,
        scale,
        zero_point,
        constant,
        size,
        buffer,
        bool(table["is_variable"]),
        fixed,
    )


def _quantisation(index: int, table: Table | None) -> tuple[float | None, int]:
    """(scale, zero point) of a tensor with one scale; (None, 0) without, or with a scale per channel."""
    scales = table["scale"] if table is not None else None
    if table is None or scales is None or scales.size != 1:
        return None, 0
    zeros = table["zero_point"]
    scale = float(scales[0])
    if not np.isfinite(scale):
        raise BrokenBuffer(f"tensor {index} has the scale {scale}")
    return scale, int(zeros[0]) if zeros is not None and zeros.size else 0


def _kind(code: Table) -> str:
    old, new = code["deprecated_builtin_code"], code["builtin_code"]
    number = max(old, new) if old <= _OLD_CODE_LIMIT else new
    kind = OPERATORS.get(number, f"UNKNOWN_{number}")
    return f"CUSTOM:{code['custom_code'] or ''}" if kind == "CUSTOM" else kind


def _indices(values: np.ndarray | None, limit: int, room: _Room, optional: bool = False) -> tuple[int, ...]:
    """Indices of tensors, each within the file; -1 only where an input may be left out."""
    room.take(values.nbytes if values is not None else 0)
    found = tuple(values.tolist()) if values is not None else ()
    for index in found:
        if not (0 <= index < limit or (optional and index == -1)):
            raise BrokenBuffer(f"tensor {index} of {limit} is asked for")
    return found


class _Reading:
    """The ops read so far, and what is known of tensors by then."""

    def __init__(
        self,
        file: ModelFile,
        tensors: list[Tensor],
        live: set[int],
        outputs: frozenset[int],
        codes: list[str],
        room: _Room,
    ) -> None:
        self.tensors, self.values = tensors, dict[int, np.ndarray]()
        self.ops: list[Op] = []
        self.facts: list[OpFacts] = []
        self._file, self._codes, self._room = file, codes, room
        self._live, self._outputs = live, outputs  # tensors fed in or made; of the graph
        self._weight_bytes = {t.index: t.bytes for t in tensors if t.constant}  # in the file, behind a constant
        self._batched: set[int] = set()  # tensors whose batch is not what the file says

    def add(self, index: int, table: Table) -> None:
        tensors = self.tensors
        if not 0 <= table["opcode_index"] < len(self._codes):
            raise BrokenBuffer(f"op {index} has code {table['opcode_index']} of {len(self._codes)}")
        kind = self._codes[table["opcode_index"]]
        inputs = _indices(table["inputs"], len(tensors), self._room, optional=True)
        outputs = _indices(table["outputs"], len(tensors), self._room)
        ins = [tensors[t] if t >= 0 else None for t in inputs]
        options = _options(table["builtin_options"])
        self._settle(OpFacts(kind, options, ins, [tensors[t] for t in outputs], partial(self._value, inputs)), outputs)
        outs = [tensors[t] for t in outputs]
        read = [t for t in dict.fromkeys(ins) if t is not None]
        facts = OpFacts(kind, options, ins, outs, partial(self._value, inputs))
        geometry, reason, folded = None, "", self._fold(facts, inputs, outputs)
        if not folded:
            geometry, reason = self._geometry(facts, inputs, outputs)
        self._live.update(outputs)
        self.facts.append(facts)
        self.ops.append(
            Op(
                index=index,
                kind=kind,
                inputs=inputs,
                outputs=outputs,
                macs=macs(kind, [t.shape if t else None for t in ins], [t.shape for t in outs]),
                activation_bytes=0 if folded else sum(t.bytes for t in (*read, *outs) if not t.constant),
                weight_bytes=0 if folded else sum(self._weight_bytes.get(t.index, 0) for t in read),
                geometry=geometry,
                reason=reason,
                folded=folded,
            )
        )

    def _settle(self, facts: OpFacts, outputs: tuple[int, ...]) -> None:
        """Shapes of outputs that the file leaves open."""
        if facts.kind.startswith("CUSTOM:"):  # of its outputs a converter may not know the rank either
            for t in (t for t in outputs if not self.tensors[t].shape):
                self.tensors[t] = replace(self.tensors[t], fixed=False)
            return
        signatures = [self._file.tensors[t]["shape_signature"] for t in outputs]
        if not any(signature is not None and (signature < 0).any() for signature in signatures):
            return
        said = [self.tensors[t].shape if s is None else s.tolist() for t, s in zip(outputs, signatures, strict=True)]
        found = shapes_of(facts, said)
        for number, index in enumerate(outputs):
            tensor = self.tensors[index]
            if found is not None:
                size = -(-prod(found[number]) * ITEM_BITS[tensor.dtype] // 8)
                self.tensors[index] = replace(tensor, shape=found[number], bytes=size, fixed=True)
            elif not keeps_batch(facts) and any(extent < 0 for extent in said[number]):
                self.tensors[index] = replace(tensor, fixed=False)

    def _fold(self, facts: OpFacts, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> bool:
        """Whether the op gives the same in every run; then what it makes is constant from here on."""
        if self._outputs.intersection(outputs) or any(t in self._batched for t in inputs):
            return False
        value = known_value(facts)
        if value is None and not is_carried(facts):
            return False
        for tensor in outputs:
            self.tensors[tensor] = replace(self.tensors[tensor], constant=True, buffer=0)
            if value is not None:
                self.values[tensor] = value
            else:
                self._weight_bytes[tensor] = sum(self._weight_bytes.get(t, 0) for t in set(inputs))
        return True

    def _geometry(
        self, facts: OpFacts, inputs: tuple[int, ...], outputs: tuple[int, ...]
    ) -> tuple[Geometry | None, str]:
        """(geometry, "") or (None, the reason why there is none)."""
        if facts.kind == "SPACE_TO_BATCH_ND" or any(t in self._batched for t in inputs):
            if facts.kind != "BATCH_TO_SPACE_ND":
                self._batched.update(outputs)
            return None, "it turns rows and columns into a batch, or works on such a batch"
        try:
            for tensor in facts.inputs:
                if isinstance(tensor, Tensor) and not tensor.constant and not self._is_made(tensor):
                    raise NotTileable("it reads a tensor that is neither fed in nor made by an op before it")
            return geometry_of(facts), ""
        except NotTileable as error:
            return None, str(error)

    def _is_made(self, tensor: Tensor) -> bool:
        return not tensor.variable and tensor.index in self._live

    def _value(self, inputs: tuple[int, ...], number: int) -> np.ndarray:
        tensor = self.tensors[inputs[number]]
        if tensor.index in self.values:
            return self.values[tensor.index]
        if tensor.constant and tensor.buffer:
            return stored(self._file, tensor)
        raise NotTileable("one of its lists is computed, not constant")


def _options(table: Table | None) -> Callable[[str], Any]:
    """Reads fields of an op's options; 0 where they have no such field."""

    def option(name: str) -> Any:
        if table is not None and any(f and f.name == name for f in TABLES[table.name]):
            return table[name]
        return 0

    return option


def _check_order(tensors: tuple[Tensor, ...], ops: list[Op], inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
    """Ops stand in an order in which they can run, each tensor is made once, and the outputs are made."""
    maker = {tensor: op.index for op in reversed(ops) for tensor in op.outputs}
    for op in ops:
        for tensor in op.outputs:
            if maker[tensor] != op.index or tensor in inputs or tensors[tensor].constant:
                raise BrokenBuffer(f"op {op.index} writes tensor {tensor}, which has another origin")
        for tensor in op.inputs:
            if maker.get(tensor, -1) >= op.index:
                raise BrokenBuffer(f"op {op.index} reads tensor {tensor} before it is made (a cycle)")
    for tensor in outputs:
        if tensor not in maker and tensor not in inputs and not tensors[tensor].constant:
            raise BrokenBuffer(f"output {tensor} is never made")
