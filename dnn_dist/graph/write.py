# SPDX-License-Identifier: Apache-2.0
"""Writes part of a network, or ops around it, as a .tflite file.

Ops and constants are copied from the network's own file with their options, versions and quantisation, so
that the runtime computes them as it does in the whole; ops that a cut adds (PAD, SLICE) are made here. The
bytes depend on the calls alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dnn_dist.errors import CutError
from dnn_dist.graph.flatbuffer import BrokenBuffer, pack
from dnn_dist.graph.modelfile import IDENTIFIER
from dnn_dist.graph.network import Network
from dnn_dist.graph.schema import DTYPES, OPERATOR_CODES, UNIONS

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
        self._buffers: list[dict[str, Any]] = [{}]  # number 0 is the empty one
        self._codes: list[dict[str, Any]] = []
        self._copied_tensors: dict[int, int] = {}
        self._copied_buffers: dict[int, int] = {}

    def copy_tensor(self, index: int) -> int:
        """The network's tensor as it is, with its value if it is constant; once, however often asked for."""
        if not 0 <= index < len(self._network.tensors):
            raise BrokenBuffer(f"tensor {index} of {len(self._network.tensors)} is asked for")
        if index not in self._copied_tensors:
            tensor, tree = self._network.tensors[index], self._tree(index)
            tree["buffer"] = self._copy_buffer(tensor.buffer) if tensor.constant else 0
            if tree.pop("external_buffer", 0):
                raise CutError(
                    f"tensor '{tensor.name}' lies in another file; merge the model into one file first"
                )
            self._tensors.append(tree)
            self._copied_tensors[index] = len(self._tensors) - 1
        return self._copied_tensors[index]

    def add_tensor(self, like: int, name: str, shape: Sequence[int]) -> int:
        """A tensor of type and quantisation of the network's tensor `like`, with another name and shape."""
        tree = self._tree(like)
        tree.update(name=name, shape=np.array(shape, np.int32), buffer=0)
        self._tensors.append(tree)
        return len(self._tensors) - 1

    def add_constant(self, name: str, value: np.ndarray, like: int | None = None) -> int:
        """A constant; with the quantisation of the network's tensor `like` if given."""
        tree: dict[str, Any] = (
            self._tree(like) if like is not None else {"type": DTYPES.index(value.dtype.name)}
        )
        self._buffers.append({"data": np.frombuffer(value.tobytes(), np.uint8)})
        tree.update(name=name, shape=np.array(value.shape, np.int32), buffer=len(self._buffers) - 1)
        self._tensors.append(tree)
        return len(self._tensors) - 1

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
            tree["builtin_options"] = {**tree["builtin_options"], **options}
        self._operators.append(tree)

    def add_op(
        self, kind: str, version: int, inputs: Sequence[int], outputs: Sequence[int], options: str
    ) -> None:
        """An op of `kind` whose options table `options` holds nothing but defaults."""
        number = OPERATOR_CODES[kind]
        code = {"deprecated_builtin_code": min(number, 127), "builtin_code": number, "version": version}
        self._operators.append(
            {
                "opcode_index": self._code(code),
                "inputs": np.array(inputs),
                "outputs": np.array(outputs),
                "builtin_options_type": _OPTION_NUMBERS[options],
                "builtin_options": {},
            }
        )

    def finish(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
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
            "buffers": self._buffers,
        }
        return bytes(pack(model, "Model", IDENTIFIER))

    def _tree(self, index: int) -> dict[str, Any]:
        tree = self._network.file.tensors[index].unpack()
        tree.pop("shape_signature", None)  # pieces have fixed shapes
        quantisation = tree.get("quantization", {})
        for field in ("scales", "zero_points"):  # of blocks, kept in tensors of their own
            if quantisation.get("details", {}).get(field, -1) >= 0:
                quantisation["details"][field] = self.copy_tensor(quantisation["details"][field])
        return tree

    def _copy_buffer(self, buffer: int) -> int:
        if buffer not in self._copied_buffers:
            self._buffers.append({"data": self._network.file.buffer_bytes(buffer)})
            self._copied_buffers[buffer] = len(self._buffers) - 1
        return self._copied_buffers[buffer]

    def _code(self, code: dict[str, Any]) -> int:
        if code not in self._codes:
            self._codes.append(code)
        return self._codes.index(code)


def _why_not_copied(operator: dict[str, Any]) -> str:
    """What of an unpacked op cannot go into another file; empty when all can."""
    for field in ("builtin_options", "builtin_options2"):
        options = operator.get(field)
        if operator.get(f"{field}_type") and options is None:
            return "has options that this version does not know"
        if any(name.endswith(_GRAPH_FIELDS) for name in options or {}):
            return "runs another graph of the file"
    return "keeps its options outside the graph" if operator.get("large_custom_options_size") else ""
