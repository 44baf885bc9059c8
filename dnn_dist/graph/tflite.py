# SPDX-License-Identifier: Apache-2.0
"""Reads a .tflite file as a Network.

Everything that later code trusts is checked here, once: indices, the order of ops, sizes of constants.
Whatever the file holds, the answer is a Network or a ModelError of one line. Of several graphs the first is
the main one; the others (bodies of loops and branches) are not looked at.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from dnn_dist.graph.cost import macs
from dnn_dist.graph.flatbuffer import BrokenBuffer, Table
from dnn_dist.graph.modelfile import ModelFile
from dnn_dist.graph.network import Network, Op, Tensor
from dnn_dist.graph.schema import DTYPES, ITEM_BITS, OPERATORS, TABLES
from dnn_dist.graph.tileable import NotTileable, OpFacts, geometry_of

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
        shell = Network(file, tensors, (), inputs, outputs)
        live = set(inputs)
        ops: list[Op] = []
        for index, table in enumerate(file.operators):
            ops.append(_op(shell, codes, index, table, room, live))
            live.update(ops[-1].outputs)
        _check_order(tensors, ops, inputs, outputs)
    except (BrokenBuffer, UnicodeError, MemoryError, OverflowError) as error:
        raise file.broken(error) from None
    return Network(file, tensors, tuple(ops), inputs, outputs)


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


def _op(shell: Network, codes: list[str], index: int, table: Table, room: _Room, live: set[int]) -> Op:
    tensors = shell.tensors
    if not 0 <= table["opcode_index"] < len(codes):
        raise BrokenBuffer(f"op {index} has code {table['opcode_index']} of {len(codes)}")
    kind = codes[table["opcode_index"]]
    inputs = _indices(table["inputs"], len(tensors), room, optional=True)
    outputs = _indices(table["outputs"], len(tensors), room)
    ins = [tensors[t] if t >= 0 else None for t in inputs]
    outs = [tensors[t] for t in outputs]
    options = table["builtin_options"]

    def option(name: str) -> Any:
        if options is not None:
            return options[name] if any(f and f.name == name for f in TABLES[options.name]) else 0
        return 0

    geometry, reason = None, ""
    try:
        if any(t is not None and not t.constant and (t.variable or t.index not in live) for t in ins):
            raise NotTileable("it reads a tensor that is neither fed in nor made by an op before it")
        geometry = geometry_of(OpFacts(kind, option, ins, outs, lambda n: shell.constant(inputs[n])))
    except NotTileable as error:
        reason = str(error)
    read = [t for t in dict.fromkeys(ins) if t is not None]
    return Op(
        index=index,
        kind=kind,
        inputs=inputs,
        outputs=outputs,
        macs=macs(kind, [t.shape if t else None for t in ins], [t.shape for t in outs]),
        activation_bytes=sum(t.bytes for t in (*read, *outs) if not t.constant),
        weight_bytes=sum(t.bytes for t in read if t.constant),
        geometry=geometry,
        reason=reason,
    )


def _check_order(
    tensors: tuple[Tensor, ...], ops: list[Op], inputs: tuple[int, ...], outputs: tuple[int, ...]
) -> None:
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
