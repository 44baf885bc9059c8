# SPDX-License-Identifier: Apache-2.0
"""Writes part of a network, or ops around it, as a .tflite file.

Ops and constants are copied from the network's own file with their options, versions and quantisation, so
that the runtime computes them as it does in the whole; ops that a cut adds (PAD, SLICE) are made here. The
bytes depend on the calls alone. Constants are named by their place in the network's file and read when the
piece is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from dnn_dist.errors import CutError
from dnn_dist.graph.flatbuffer import BrokenBuffer
from dnn_dist.graph.network import Network
from dnn_dist.graph.piecefile import Blocks, Content, PieceFile, Span
from dnn_dist.graph.schema import DTYPES, ITEM_BITS, OPERATOR_CODES, UNIONS

_SCHEMA_VERSION = 3
_OPTION_NUMBERS = {name: number for number, name in UNIONS["BuiltinOptions"].items()}
# Fields of options that name another graph of the file, which a piece does not carry along
_GRAPH_FIELDS = ("subgraph_index", "subgraph_indices", "subgraph")


class GraphWriter:
    """Collects tensors and ops; `finish` gives the file. Adding a tensor returns its number in the file."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._tensors: list[dict[str, Any]] = []
        self._operators: list[dict[str, Any]] = []
        self._contents: list[Content | None] = [None]  # buffer number 0 is the empty one
        self._codes: list[dict[str, Any]] = []
        self._copied_tensors: dict[int, int] = {}
        self._copied_spans: dict[Span, int] = {}

    def copy_tensor(self, index: int) -> int:
        """The network's tensor as it is; once, however often asked for.

        A constant comes with its value, or with the ops that make it from constants.
        """
        if not 0 <= index < len(self._network.tensors):
            raise BrokenBuffer(f"tensor {index} of {len(self._network.tensors)} is asked for")
        if index not in self._copied_tensors:
            tensor = self._network.tensors[index]
            self._check_inside(index)
            if index in self._network.values:
                number = self.add_computed(tensor.name, self._network.values[index])
            elif tensor.constant and not self._network.is_stored(index):
                number = self._carry(index)
            else:
                tree = self._tree(index)
                tree["buffer"] = self._copy_span(*self._span(index)) if tensor.constant else 0
                number = self._add(tree)
            self._copied_tensors[index] = number
        return self._copied_tensors[index]

    def copy_rows(self, index: int, start: int, stop: int) -> int:
        """Rows start..stop (half-open, along axis 0) of a constant, with their scales if those go by row.

        Rows of what DEQUANTIZE makes of a constant are made of that constant's rows.
        """
        tensor = self._network.tensors[index]
        self._check_inside(index)
        if not tensor.constant or not tensor.shape or not 0 <= start < stop <= tensor.shape[0]:
            raise CutError(f"tensor '{tensor.name}' {list(tensor.shape)} has no constant rows {start}..{stop}")
        tree = self._tree(index)
        tree.update(name=f"{tensor.name}/{start}..{stop}", shape=np.array((stop - start, *tensor.shape[1:]), np.int32))
        if not self._network.is_stored(index):
            maker = self._network.ops[self._network.producers[index]]
            if maker.kind != "DEQUANTIZE":
                raise CutError(f"tensor '{tensor.name}' is made by {maker.kind}, of which no rows can be taken")
            rows = self.copy_rows(maker.inputs[0], start, stop)
            tree["buffer"] = 0
            number = self._add(tree)
            self.copy_op(maker.index, [rows], [number])
            return number
        row_bits = prod(tensor.shape[1:]) * ITEM_BITS[tensor.dtype]
        if tree.pop("sparsity", None) or row_bits % 8:
            raise CutError(f"tensor '{tensor.name}' is packed so that its rows cannot be taken apart")
        _cut_scales(tree, tensor.shape[0], start, stop)
        position, _ = self._span(index)
        tree["buffer"] = self._copy_span(position + start * row_bits // 8, (stop - start) * row_bits // 8)
        return self._add(tree)

    def add_tensor(self, like: int, name: str, shape: Sequence[int]) -> int:
        """A tensor of type and quantisation of the network's tensor `like`, with another name and shape."""
        tree = self._tree(like)
        tree.update(name=name, shape=np.array(shape, np.int32), buffer=0)
        return self._add(tree)

    def add_value(
        self, name: str, shape: Sequence[int], dtype: str = "float32", scale: float | None = None, zero_point: int = 0
    ) -> int:
        """A tensor that the network does not have, quantised when `scale` is given."""
        tree: dict[str, Any] = {"name": name, "shape": np.array(shape, np.int32), "type": DTYPES.index(dtype)}
        if scale is not None:
            tree["quantization"] = {"scale": np.array([scale], np.float32), "zero_point": np.array([zero_point])}
        return self._add(tree)

    def add_constant(self, name: str, value: np.ndarray | Blocks, like: int | None = None) -> int:
        """A constant, held and not copied; with the quantisation of the network's tensor `like` if given."""
        tree: dict[str, Any] = self._tree(like) if like is not None else {"type": DTYPES.index(value.dtype.name)}
        self._contents.append(value)
        tree.update(name=name, shape=np.array(value.shape, np.int32), buffer=len(self._contents) - 1)
        return self._add(tree)

    def add_computed(self, name: str, value: np.ndarray) -> int:
        """A list of integers that the runtime is to take for computed, not for constant.

        Which kernel runs an op may depend on that: XNNPACK takes no TRANSPOSE_CONV whose output's shape is
        computed, and sums in another order than the kernel that does.
        """
        if value.ndim != 1:
            return self.add_constant(name, value)
        items = [self.add_constant(f"{name}/{place}", np.asarray(item)) for place, item in enumerate(value)]
        output = self._add({"type": DTYPES.index(value.dtype.name), "name": name, "shape": np.array(value.shape)})
        self.add_op("PACK", 1, items, [output], "PackOptions", values_count=len(items))
        return output

    def copy_op(self, index: int, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> None:
        """The network's op with other tensors, and with some fields of its options changed."""
        tree = self._network.file.operators[index].unpack()
        if reason := _why_not_copied(tree):
            raise CutError(f"op {index} {self._network.ops[index].kind} {reason}; end the cut before it")
        tree.pop("debug_metadata_index", None)
        code = self._network.file.operator_codes[tree.get("opcode_index", 0)].unpack()
        tree.update(opcode_index=self._code(code), inputs=np.array(inputs), outputs=np.array(outputs))
        if "intermediates" in tree:
            numbers = tree["intermediates"].tolist()
            tree["intermediates"] = np.array([self.copy_tensor(t) if t >= 0 else t for t in numbers])
        if options:
            if tree.get("builtin_options") is None:
                raise BrokenBuffer(f"op {index} {self._network.ops[index].kind} has no options")
            tree["builtin_options"] = {**tree["builtin_options"], **options}
        self._operators.append(tree)

    def add_op(
        self, kind: str, version: int, inputs: Sequence[int], outputs: Sequence[int], options: str, **fields: Any
    ) -> None:
        """An op of `kind` whose options table `options` holds `fields`, and defaults else; "": it has none."""
        number = OPERATOR_CODES[kind]
        code = {"deprecated_builtin_code": min(number, 127), "builtin_code": number, "version": version}
        tree = {"opcode_index": self._code(code), "inputs": np.array(inputs), "outputs": np.array(outputs)}
        if options:
            tree |= {"builtin_options_type": _OPTION_NUMBERS[options], "builtin_options": fields}
        self._operators.append(tree)

    def finish(self, inputs: Sequence[int], outputs: Sequence[int]) -> PieceFile:
        """The file, whose graph takes and gives these tensors in this order."""
        graph = {
            "tensors": self._tensors,
            "inputs": np.array(inputs, np.int32),
            "outputs": np.array(outputs, np.int32),
            "operators": self._operators,
            "name": "main",
        }
        model = {
            "version": _SCHEMA_VERSION,
            "operator_codes": self._codes,
            "subgraphs": [graph],
            "description": "A piece, cut by dnn_dist.",
        }
        return PieceFile(self._network.file, model, self._contents)

    def _add(self, tree: dict[str, Any]) -> int:
        self._tensors.append(tree)
        return len(self._tensors) - 1

    def _carry(self, index: int) -> int:
        """What a folded op makes of constants, and the op."""
        op = self._network.ops[self._network.producers[index]]
        inputs = [self.copy_tensor(t) for t in op.inputs]
        outputs = [self._add({**self._tree(t), "buffer": 0}) for t in op.outputs]
        self.copy_op(op.index, inputs, outputs)
        return outputs[op.outputs.index(index)]

    def _check_inside(self, index: int) -> None:
        if self._network.file.tensors[index]["external_buffer"]:
            name = self._network.tensors[index].name
            raise CutError(f"tensor '{name}' lies in another file; merge the model into one file first")

    def _tree(self, index: int) -> dict[str, Any]:
        tree = self._network.file.tensors[index].unpack()
        if tree.pop("shape_signature", None) is not None:  # pieces have fixed shapes
            tree["shape"] = np.array(self._network.tensors[index].shape, np.int32)
        quantisation = tree.get("quantization", {})
        for field in ("scales", "zero_points"):  # of blocks, kept in tensors of their own
            if quantisation.get("details", {}).get(field, -1) >= 0:
                quantisation["details"][field] = self.copy_tensor(quantisation["details"][field])
        return tree

    def _span(self, index: int) -> tuple[int, int]:
        return self._network.file.buffer_span(self._network.tensors[index].buffer)

    def _copy_span(self, position: int, size: int) -> int:
        span = Span(position, size)
        if span not in self._copied_spans:
            self._contents.append(span)
            self._copied_spans[span] = len(self._contents) - 1
        return self._copied_spans[span]

    def _code(self, code: dict[str, Any]) -> int:
        if code not in self._codes:
            self._codes.append(code)
        return self._codes.index(code)


def _cut_scales(tree: dict[str, Any], rows: int, start: int, stop: int) -> None:
    """Keeps the scales of rows start..stop, where a tensor's unpacked table has one for each row."""
    quantisation = tree.get("quantization", {})
    if quantisation.get("details"):
        raise CutError(f"tensor '{tree['name']}' has scales by block, whose rows cannot be taken apart")
    if quantisation.get("quantized_dimension", 0) == 0:
        for name in ("min", "max", "scale", "zero_point"):
            values = quantisation.get(name)
            if values is not None and len(values) == rows and rows > 1:
                quantisation[name] = values[start:stop]


def _why_not_copied(operator: dict[str, Any]) -> str:
    """What of an unpacked op cannot go into another file; empty when all can."""
    for field in ("builtin_options", "builtin_options2"):
        options = operator.get(field)
        if operator.get(f"{field}_type") and options is None:
            return "has options that this version does not know"
        if any(name.endswith(_GRAPH_FIELDS) for name in options or {}):
            return "runs another graph of the file"
    return "keeps its options outside the graph" if operator.get("large_custom_options_size") else ""
