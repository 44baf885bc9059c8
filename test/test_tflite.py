# SPDX-License-Identifier: Apache-2.0
"""Reading .tflite files: what they say, what cannot be tiled and why, and every kind of broken file."""

import random
import struct

import numpy as np
import pytest
from cutting import EXAMPLES, FIXTURES, assert_equal, random_inputs
from netbuilder import NetBuilder

from dnn_dist.cli.inspect import describe
from dnn_dist.cut.build import build_piece
from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import CutError, DnnDistError, ModelError
from dnn_dist.graph.flatbuffer import Table, pack
from dnn_dist.graph.tflite import read_network

ALL = sorted(FIXTURES.glob("*.tflite"))


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_agrees_with_the_runtime(path):
    """Shapes, types and scales of all tensors as LiteRT's interpreter sees them after a run."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    network = read_network(path)
    # The delegate that pieces run with keeps the shapes of what is between its own ops to itself
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    for tensor, array in random_inputs(network).items():
        interpreter.set_tensor(tensor, array[None])
    interpreter.invoke()
    for detail in interpreter.get_tensor_details():
        if detail["index"] >= len(network.tensors):
            continue  # the runtime adds some of its own
        tensor = network.tensors[detail["index"]]
        assert tensor.name == detail["name"]
        assert tensor.shape == tuple(detail["shape"])
        assert tensor.dtype == np.dtype(detail["dtype"]).name
        if tensor.scale is not None:
            assert (tensor.scale, tensor.zero_point) == detail["quantization"]
    assert [d["index"] for d in interpreter.get_input_details()] == list(network.inputs)
    assert [d["index"] for d in interpreter.get_output_details()] == list(network.outputs)


def test_constants_are_views_of_the_file():
    network = read_network(FIXTURES / "chain_float32.tflite")
    weights = network.constant(network.ops[0].inputs[1])
    assert weights.shape == (6, 3, 3, 3) and weights.dtype == np.float32
    assert not weights.flags.owndata and not weights.flags.writeable


def test_macs_and_bytes():
    network = read_network(FIXTURES / "chain_float32.tflite")
    first = network.ops[0]
    assert first.kind == "CONV_2D"
    assert first.macs == 41 * 37 * 6 * 27
    assert first.weight_bytes == 4 * (6 * 27 + 6)
    assert first.activation_bytes == 4 * (41 * 37 * 3 + 41 * 37 * 6)
    facts = describe(network)
    assert facts["macs"] == sum(op["macs"] for op in facts["ops"])
    assert facts["front"]["last"] == len(network.ops) - 1 and facts["front"]["macs_share"] == 1


def test_reasons_are_given():
    network = read_network(FIXTURES / "squeeze_float32.tflite")
    assert all(op.tileable != bool(op.reason) for op in network.ops)
    assert "whole rows" in next(op for op in network.ops if op.kind == "MEAN").reason


@pytest.mark.parametrize("seed", range(3))
def test_resize_that_tiles_would_change_is_refused(tmp_path, seed):
    net = NetBuilder(seed=seed)
    out = net.upsample(net.input(6, 7, 2), (2, 3), align=True)
    (tmp_path / "m.tflite").write_bytes(net.build([out]))
    (op,) = read_network(tmp_path / "m.tflite").ops
    assert not op.tileable and "align_corners" in op.reason


def test_a_stretched_operand_is_refused(tmp_path):
    net = NetBuilder()
    x, y = net.input(6, 7, 2), net.input(1, 7, 2)
    (tmp_path / "m.tflite").write_bytes(net.build([net.binary("ADD", x, y)]))
    (op,) = read_network(tmp_path / "m.tflite").ops
    assert not op.tileable and "broadcast" in op.reason


def test_weights_that_are_computed_are_refused(tmp_path):
    net = NetBuilder()
    x, weights = net.input(6, 7, 2), net.input(3, 3, 2)
    out = net.tensor((1, 6, 7, 1))
    bias = net.constant(np.zeros(1, np.float32))
    net.op("CONV_2D", [x, weights, bias], out, "Conv2DOptions", stride_h=1, stride_w=1)
    (tmp_path / "m.tflite").write_bytes(net.build([out]))
    (op,) = read_network(tmp_path / "m.tflite").ops
    assert not op.tileable and "weights" in op.reason


def test_integer_weights_on_float_activations_are_refused(tmp_path):
    """The runtime would quantise the activations of each tile by the tile's own range."""
    net = NetBuilder()
    x = net.input(6, 7, 2)
    weights = net.constant(np.ones((1, 1, 1, 2), np.int8), {"scale": np.float32([0.1]), "zero_point": np.int64([0])})
    out = net.tensor((1, 6, 7, 1))
    net.op("CONV_2D", [x, weights, -1], out, "Conv2DOptions", stride_h=1, stride_w=1)
    (tmp_path / "m.tflite").write_bytes(net.build([out]))
    (op,) = read_network(tmp_path / "m.tflite").ops
    assert not op.tileable and "int8 weights" in op.reason


def test_custom_and_unknown_ops_end_the_front(tmp_path):
    net = NetBuilder()
    x = net.conv(net.input(8, 8, 2), 3, (3, 3))
    out = net.tensor((1, 8, 8, 3))
    net.op("CUSTOM", [x], out)
    net.codes[-1]["custom_code"] = "MyOwn"
    later = net.tensor((1, 8, 8, 3))
    net.op("RELU", [out], later)
    net.codes[-1].update(deprecated_builtin_code=127, builtin_code=9999)
    (tmp_path / "m.tflite").write_bytes(net.build([later]))
    network = read_network(tmp_path / "m.tflite")
    assert [op.kind for op in network.ops] == ["CONV_2D", "CUSTOM:MyOwn", "UNKNOWN_9999"]
    tiles, local = cut_network(network, "tiles:2x2")
    assert (tiles.last, local.first, local.last) == (0, 1, 2)
    assert build_piece(network, local, local.pieces[0])


def wire(net: NetBuilder, op: int, field: str, values) -> bytes:
    net.operators[op][field] = np.array(values, np.int32)
    return net.build([int(net.operators[-1]["outputs"][0])])


def two_ops() -> NetBuilder:
    net = NetBuilder()
    net.unary("RELU", net.unary("RELU", net.input(4, 4, 1)))
    return net


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"hello, world", "no .tflite"),
        (b"\x18\0\0\0TFL3", "damaged"),
        (wire(two_ops(), 0, "inputs", [2]), "cycle"),
        (wire(two_ops(), 0, "inputs", [1]), "cycle"),
        (wire(two_ops(), 0, "inputs", [77]), "tensor 77"),
        (wire(two_ops(), 0, "inputs", [-2]), "tensor -2"),
        (wire(two_ops(), 1, "outputs", [1]), "another origin"),
        (wire(two_ops(), 1, "outputs", [0]), "a cycle"),
        (bytes(pack({"version": 3}, "Model", b"TFL3")), "no graph"),
        (bytes(pack({"subgraphs": [{}]}, "Model", b"TFL3")), "no output"),
    ],
)
def test_broken_files(tmp_path, content, says):
    path = tmp_path / "broken.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=says) as caught:
        read_network(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        read_network(tmp_path / "none.tflite")
    with pytest.raises(ModelError, match="cannot be read"):
        read_network(tmp_path)


def read_and_cut(path) -> None:
    """All that happens before the runtime sees a file."""
    try:
        network = read_network(path)
        describe(network)
        for text in ("tiles:2x3", "tiles:1x2@0..1"):
            for stage in cut_network(network, text):
                build_piece(network, stage, stage.pieces[-1])
    except DnnDistError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["pyramid_int8", "residual_float32"])
def test_truncated_files(tmp_path, name):
    content = (FIXTURES / f"{name}.tflite").read_bytes()
    path = tmp_path / "cut.tflite"
    for length in [*range(0, 400, 3), *range(400, len(content), 61)]:
        path.write_bytes(content[:length])
        read_and_cut(path)


@pytest.mark.parametrize("name", ["pyramid_int8", "residual_float32", "mobile_int8"])
def test_flipped_bytes(tmp_path, name):
    content = (FIXTURES / f"{name}.tflite").read_bytes()
    path = tmp_path / "flipped.tflite"
    rng = random.Random(0)
    for _ in range(10 * EXAMPLES):
        broken = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 8))):
            broken[rng.randrange(len(broken))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        path.write_bytes(broken)
        read_and_cut(path)


@pytest.mark.parametrize("value", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x00FFFFFF])
def test_overwritten_words(tmp_path, value):
    """Lengths, counts and offsets that lie; every aligned word in turn over the tests."""
    content = (FIXTURES / "siamese_int8.tflite").read_bytes()
    path = tmp_path / "words.tflite"
    for place in range(8 if value % 2 else 12, len(content) - 4, 16):
        broken = bytearray(content)
        struct.pack_into("<I", broken, place, value)
        path.write_bytes(broken)
        read_and_cut(path)


def test_a_file_that_unfolds_without_end_is_refused(tmp_path):
    """100,000 ops that are one op, which reads 100,000 tensors that are one tensor."""
    count = 100_000
    out = bytearray(
        pack({"subgraphs": [{"tensors": [{"name": "n" * 60_000, "shape": np.int32([1])}]}]}, "Model", b"TFL3")
    )
    graph = Table.root(bytes(out), "Model")["subgraphs"][0]
    tensor = graph["tensors"][0]._position
    vector = len(out) + -len(out) % 4
    out.extend(bytes(vector - len(out)) + struct.pack("<I", count) + bytes(4 * count))
    # FlatBuffers point forward only: a copy of the tensor after the vector, and every entry to it
    copied = len(out)
    out.extend(pack({"name": "n" * 60_000, "shape": np.int32([1])}, "Tensor", b"TFL3"))
    (inner,) = struct.unpack_from("<I", out, copied)
    for index in range(count):
        struct.pack_into("<I", out, vector + 4 + 4 * index, copied + inner - (vector + 4 + 4 * index))
    place = graph._place(0)
    struct.pack_into("<I", out, place, vector - place)
    assert tensor < vector
    (tmp_path / "bomb.tflite").write_bytes(out)
    with pytest.raises(ModelError, match="unfold"):
        read_network(tmp_path / "bomb.tflite")


def test_a_piece_is_read_back():
    """Pieces are models too: the same reader and the same laws hold for them."""
    network = read_network(FIXTURES / "mobile_int8.tflite")
    stage = cut_network(network, "tiles:2x2")[0]
    assert all(len(build_piece(network, stage, piece)) for piece in stage.pieces)


def test_pieces_of_pieces(tmp_path):
    network = read_network(FIXTURES / "mobile_float32.tflite")
    stage = cut_network(network, "tiles:2x2")[0]
    path = tmp_path / "piece.tflite"
    path.write_bytes(build_piece(network, stage, stage.pieces[3]))
    piece = read_network(path)
    assert all(op.tileable or op.kind == "SLICE" for op in piece.ops)
    assert_equal(piece, cut_network(piece, "tiles:2x2"))


def test_an_op_that_runs_another_graph_is_not_copied(tmp_path):
    net = NetBuilder()
    x = net.conv(net.input(8, 8, 2), 3, (3, 3))
    out = net.tensor((1, 8, 8, 3))
    net.op("WHILE", [x], out, "WhileOptions", cond_subgraph_index=1, body_subgraph_index=2)
    (tmp_path / "m.tflite").write_bytes(net.build([out]))
    network = read_network(tmp_path / "m.tflite")
    tiles, local = cut_network(network, "tiles:2x2")
    assert build_piece(network, tiles, tiles.pieces[0])
    with pytest.raises(CutError, match="another graph"):
        build_piece(network, local, local.pieces[0])
