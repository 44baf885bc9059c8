# SPDX-License-Identifier: Apache-2.0
"""Output channels of one convolution or fully connected layer in slices, with parities if wanted.

This divides the weights and not the input: every piece takes the whole input and holds its own filters only.
Without parity the fused activation stays in the piece. Pieces of a coded stage give the sums before it, bias
included (a bias is as linear as a weight, and sums that begin with it are those of the whole, bit for bit);
`coding.finish` applies the activation after merging.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from dnn_dist.cut.coding import coefficients, why_not_coded
from dnn_dist.cut.exact import add_parts, bounds_of, parts_of
from dnn_dist.cut.piece import Piece, Port, Stage, make_port
from dnn_dist.cut.shares import Speeds, proportional
from dnn_dist.errors import CutError
from dnn_dist.graph.network import Network, Op
from dnn_dist.graph.piecefile import Blocks, PieceFile
from dnn_dist.graph.schema import TABLES
from dnn_dist.graph.write import GraphWriter

KINDS = ("CONV_2D", "FULLY_CONNECTED")
_ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")  # schema's ActivationFunctionType
_WHY_NOT = {
    "DEPTHWISE_CONV_2D": "each of its output channels reads one input channel, so slices would divide the input "
    "too; cut it in tiles",
    "TRANSPOSE_CONV": "slices of transposed convolutions are not supported; cut it in tiles",
    "BATCH_MATMUL": "its second factor is computed, not constant",
}
_INT8_VERSION = 2  # of DEQUANTIZE and SLICE: the first that takes int8
_CHUNK_BYTES = 1 << 22  # of weights read at a time while a parity is summed


def cut_slices(
    network: Network, speeds: Speeds, parity: int, text: str, first: int = 0, last: int | None = None
) -> tuple[Stage, ...]:
    """Stages that cover ops first..last (None: to the end): one for every op that can be sliced.

    Ops between them become no stage; the caller runs them locally. Raises CutError when no op of the range can
    be sliced, or the one op that it consists of.
    """
    coefficients(len(speeds), parity)  # refuses what no code is known for
    last = len(network.ops) - 1 if last is None else last
    stages, reason, parts = [], "", tuple[int, ...]()
    for op in network.ops[first : last + 1]:
        reason, parts = why_not_sliced(network, op, parity), ()
        if not reason and network.tensors[op.outputs[0]].shape[-1] < len(speeds):
            reason = f"it has {network.tensors[op.outputs[0]].shape[-1]} output channels for {len(speeds)} slices"
        if not reason and parity and network.tensors[op.outputs[0]].dtype != "float32":
            reason, parts = _exact_parts(network, op, len(speeds), parity)
        if not reason:
            stages.append(_stage(network, op, speeds, parity, text, parts))
    if not stages and first == last:
        raise CutError(f"op {first} {network.ops[first].kind} cannot be cut in slices:{text}: {reason}")
    if not stages:
        raise CutError(f"ops {first}..{last}: none can be cut in slices:{text}; of the last one: {reason}")
    return tuple(stages)


def why_not_sliced(network: Network, op: Op, parity: int = 0) -> str:
    """Why output channels of `op` cannot be divided (with parities); empty when they can."""
    if op.part_of is not None or op.inner:
        return "it is cut as one with the ops around it, whose shapes the file does not say"
    if op.kind not in KINDS:
        return _WHY_NOT.get(op.kind, "it has no weights that its output channels could divide")
    if len(op.inputs) < 2 or len(op.outputs) != 1 or min(op.inputs[:2]) < 0:
        return "it has not one image, weights and one output"
    image, weights, output = (network.tensors[t] for t in (*op.inputs[:2], op.outputs[0]))
    constants = [network.tensors[t] for t in op.inputs[1:] if t >= 0]
    if image.constant or not all(t.constant and _stored(network, t.index) >= 0 for t in constants):
        return "its weights are computed, not constant"
    if len(weights.shape) != (4 if op.kind == "CONV_2D" else 2) or not (image.shape and output.shape and weights.bytes):
        return f"weights of shape {list(weights.shape)}"
    if not (image.fixed and output.fixed):
        return "its input's or output's shape is known only when it runs"
    if weights.shape[0] != output.shape[-1]:
        return "its output channels are not its filters"
    if any(tensor.shape != weights.shape[:1] for tensor in constants[1:]):
        return "its bias is not one value per filter"
    if weights.dtype in ("int4", "int2", "uint4"):
        return f"{weights.dtype} weights share bytes"
    if network.file.tensors[weights.index]["sparsity"] is not None:
        return "its weights are sparse"
    if op.kind == "CONV_2D" and image.shape[-1] != weights.shape[-1]:
        return "its filters are grouped: each reads some of the input channels only"
    if op.kind == "FULLY_CONNECTED" and _option(network, op, "weights_format"):
        return "its weights are stored shuffled"
    if not parity:
        return ""
    for tensor in constants:
        stored = network.tensors[_stored(network, tensor.index)].dtype
        if tensor.dtype == "float32" and stored not in ("float32", "float16"):
            return f"its weights are stored as {stored}"
    return why_not_coded(network, op, activation_of(network, op))


def _exact_parts(network: Network, op: Op, count: int, parity: int) -> tuple[str, tuple[int, ...]]:
    """("", parts that the op's sums are exact in) or (why there are none, ())."""
    bounds = bounds_of(network, op, lambda tensor, start, stop: read_rows(network, tensor, start, stop))
    try:
        return "", parts_of(bounds, coefficients(count, parity))
    except ValueError as error:
        return f"{error}; take fewer parities or slices, or cut it without parity", ()


def activation_of(network: Network, op: Op) -> str:
    """Name of the op's fused activation."""
    number = int(_option(network, op, "fused_activation_function"))
    return _ACTIVATIONS[number] if 0 <= number < len(_ACTIVATIONS) else str(number)


def _option(network: Network, op: Op, name: str) -> int:
    options = network.file.operators[op.index]["builtin_options"]
    known = options is not None and any(field and field.name == name for field in TABLES[options.name])
    return int(options[name]) if known else 0


def _stage(network: Network, op: Op, speeds: Speeds, parity: int, text: str, parts: tuple[int, ...]) -> Stage:
    target = op.outputs[0]
    filters = network.tensors[target].shape[-1]
    spans = proportional(filters, speeds)
    width = max(end - start for start, end in spans)
    ports = [make_port(network, target, None, span) for span in spans]
    ports += [_parity_port(network, target, width)] * parity
    widths = [port.shape[-1] for port in ports]
    if parity and network.tensors[target].dtype != "float32":
        planes = 2 if parts else 1
        ports = [
            Port(p.tensor, p.name, "float32", None, (*p.shape[:-1], planes * p.shape[-1]), p.channels) for p in ports
        ]
    inputs = tuple(make_port(network, tensor, None) for tensor in network.activations(op))
    pieces = tuple(
        Piece(index, inputs, (port,), op.macs // filters * width, f"slice {index}")
        for index, (port, width) in enumerate(zip(ports, widths, strict=True))
    )
    return Stage(
        kind="slices",
        spec=f"slices:{text}@{op.index}..{op.index}",
        first=op.index,
        last=op.index,
        pieces=pieces,
        inputs=network.activations(op),
        outputs=(target,),
        parity=parity,
        finish=activation_of(network, op) if parity else "",
        parts=parts,
    )


def _parity_port(network: Network, tensor: int, width: int) -> Port:
    value = network.tensors[tensor]
    return Port(tensor, value.name, value.dtype, None, (*value.array_shape[:-1], width))


def slice_file(network: Network, stage: Stage, piece: Piece) -> PieceFile:
    """The graph of one slice or parity."""
    op, writer = network.ops[stage.first], GraphWriter(network)
    port, constants = piece.outputs[0], [t for t in op.inputs[1:] if t >= 0]
    shape = (*network.tensors[port.tensor].shape[:-1], port.shape[-1])
    integers = port.dtype != network.tensors[port.tensor].dtype
    if integers:
        source, image = _dequantised(network, writer, op.inputs[0])
    else:
        source = image = writer.copy_tensor(op.inputs[0])
    if port.channels is None or integers:
        sums = [_summed(network, stage, piece, tensor) for tensor in constants]
        if stage.parts:
            arrays = [np.concatenate(list(one.blocks())) for one in sums]  # of an int8 layer, so small ones
            output = add_parts(network, writer, op, image, arrays, stage.parts, shape, port.name)
            return writer.finish([source], [output])
        weights = [writer.add_constant(f"sum_{number}", array) for number, array in enumerate(sums)]
    else:
        rows = _rows(network, op, port.channels)
        weights = [writer.copy_rows(tensor, *rows) for tensor in constants]
        if rows != port.channels:
            return _cropped(network, stage, writer, [image, *weights], rows[0], port)
    if stage.coded:
        output = writer.add_value(port.name, shape)
        writer.copy_op(op.index, [image, *weights], [output], fused_activation_function=0)
    else:
        output = writer.add_tensor(port.tensor, port.name, shape)
        writer.copy_op(op.index, [image, *weights], [output])
    return writer.finish([source], [output])


def _rows(network: Network, op: Op, channels: tuple[int, int]) -> tuple[int, int]:
    """The filters to compute for some output channels.

    One filter over one channel would run as a depthwise convolution, which sums in another order: then a
    neighbour is computed too.
    """
    filters = network.tensors[op.inputs[1]].shape
    if op.kind != "CONV_2D" or channels[1] - channels[0] > 1 or filters[-1] > 1 or filters[0] == 1:
        return channels
    start = min(channels[0], filters[0] - 2)
    return start, start + 2


def _cropped(
    network: Network, stage: Stage, writer: GraphWriter, operands: list[int], begins: int, port: Port
) -> PieceFile:
    """The graph of a slice of one filter that computes two, the first of them filter `begins`."""
    shape = network.tensors[port.tensor].shape[:-1]
    both = writer.add_tensor(port.tensor, f"{port.name}/both", (*shape, 2))
    writer.copy_op(stage.first, operands, [both], **({"fused_activation_function": 0} if stage.coded else {}))
    assert port.channels is not None
    begin = np.array((*[0] * len(shape), port.channels[0] - begins), np.int32)
    size = np.array((*shape, 1), np.int32)
    output = writer.add_tensor(port.tensor, port.name, (*shape, 1))
    inputs = [both, writer.add_constant("begin", begin), writer.add_constant("size", size)]
    writer.add_op("SLICE", _INT8_VERSION, inputs, [output], "SliceOptions")
    return writer.finish([operands[0]], [output])


def _dequantised(network: Network, writer: GraphWriter, tensor: int) -> tuple[int, int]:
    """(the piece's input, the same as float32 integers less the zero point)."""
    value = network.tensors[tensor]
    source = writer.add_value(value.name, value.shape, value.dtype, scale=1.0, zero_point=value.zero_point)
    image = writer.add_value(f"{value.name}/integers", value.shape)
    writer.add_op("DEQUANTIZE", _INT8_VERSION, [source], [image], "DequantizeOptions")
    return source, image


def _summed(network: Network, stage: Stage, piece: Piece, tensor: int) -> Blocks:
    """Weights or bias of a slice of a coded stage: its own rows, or a parity's sum of all slices' rows.

    float32; summed in float64 and rounded once, a few rows at a time, and only when the file is written: the sum reads
    all of the layer's weights, and who wants to know the size of a parity need not.
    """
    count, width = stage.needed, piece.outputs[0].shape[-1] // (2 if stage.parts else 1)
    factors = np.vstack([np.eye(count), coefficients(count, stage.parity)])[piece.index]
    spans = [p.outputs[0].channels or (0, 0) for p in stage.pieces[:count]]
    shape = width, *network.tensors[tensor].shape[1:]
    step = max(1, _CHUNK_BYTES // (8 * prod(shape[1:])))
    read_rows(network, tensor, 0, 1)  # a broken model is said to be one now

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, shape[0], step):
            chunk = np.zeros((min(step, shape[0] - start), *shape[1:]))
            for factor, (begin, end) in zip(factors, spans, strict=True):
                stop = min(end, begin + start + len(chunk))
                if factor and begin + start < stop:
                    with np.errstate(invalid="ignore"):  # a broken model's infinities
                        chunk[: stop - begin - start] += factor * read_rows(network, tensor, begin + start, stop)
            with np.errstate(invalid="ignore", over="ignore"):
                yield chunk.astype(np.float32)

    return Blocks(shape, np.dtype(np.float32), blocks)


def read_rows(network: Network, tensor: int, start: int, stop: int) -> np.ndarray:
    """Rows of constant weights or bias: real values, or integers less their zero point where quantised.

    Read from the file and not from its mapping, whose pages would count as this process's memory.
    """
    value = network.tensors[_stored(network, tensor)]
    dtype, row = np.dtype(value.dtype), prod(value.shape[1:])
    offset = network.file.buffer_span(value.buffer)[0] + start * row * dtype.itemsize
    rows = np.fromfile(network.path, dtype, (stop - start) * row, offset=offset)
    shaped = rows.reshape(stop - start, *value.shape[1:])
    if dtype.kind == "f":
        return shaped
    quantisation = network.file.tensors[value.index]["quantization"]
    zeros = quantisation["zero_point"] if quantisation is not None else None
    if zeros is None or not zeros.any():
        return shaped
    zeros = zeros[start:stop] if zeros.size > 1 else zeros
    real: np.ndarray = shaped - zeros.reshape(-1, *[1] * (shaped.ndim - 1))
    return real


def _stored(network: Network, tensor: int) -> int:
    """The tensor that the file holds, behind the DEQUANTIZE of float16 weights; -1 when there is none."""
    if tensor in network.producers:
        op = network.ops[network.producers[tensor]]
        tensor = op.inputs[0] if op.kind == "DEQUANTIZE" else -1
    return tensor if tensor >= 0 and network.tensors[tensor].buffer > 0 else -1
