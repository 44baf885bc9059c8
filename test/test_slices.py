# SPDX-License-Identifier: Apache-2.0
"""Slices merged equal the whole bit for bit; with parities, any N of N + r pieces give the same."""

import tracemalloc
from itertools import combinations, pairwise

import numpy as np
import pytest
from cutting import EXAMPLES, FIXTURES, assert_equal, random_inputs, run_whole
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from netbuilder import NO_ACTIVATION, RELU, RELU6, RELU_N1_TO_1, SAME, VALID, NetBuilder

from dnn_dist.cut.build import build_piece, piece_size
from dnn_dist.cut.coding import MOST_CODED, MOST_PARITIES, coefficients
from dnn_dist.cut.exact import joined
from dnn_dist.cut.merge import merge, scatter
from dnn_dist.cut.shares import proportional
from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import CutError
from dnn_dist.graph.tflite import read_network
from dnn_dist.run.engine import Engine
from dnn_dist.shipped import find_model

DTYPE = st.sampled_from(("float32", "int8"))
ACTIVATION = st.sampled_from((NO_ACTIVATION, RELU, RELU6))
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
CHANNELS = st.sampled_from((1, 2, 3, 8, 17))
SPEEDS = st.lists(st.integers(1, 9), min_size=1, max_size=8)
MODELS = sorted((*FIXTURES.glob("*.tflite"), *FIXTURES.glob("zoo/*.tflite")))

many = settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@st.composite
def layers(draw):
    """A network of one convolution or fully connected layer, with an op after it."""
    net = NetBuilder(draw(DTYPE), draw(st.integers(0, 3)))
    height, width = draw(SIZES)
    x = net.input(height, width, draw(CHANNELS))
    filters = draw(st.integers(1, 40))
    if draw(st.booleans()):
        return net, net.unary("RELU", net.dense(x, filters, draw(ACTIVATION)))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    padding = VALID if kernel[0] <= height and kernel[1] <= width and draw(st.booleans()) else SAME
    stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    return net, net.unary("RELU", net.conv(x, filters, kernel, stride, padding=padding, activation=draw(ACTIVATION)))


def network_of(net: NetBuilder, output: int, folder):
    (folder / "model.tflite").write_bytes(net.build([output]))
    return read_network(folder / "model.tflite")


def text_of(speeds: list[int]) -> str:
    return ",".join(map(str, speeds)) if len(speeds) > 1 else "1"


@many
@given(layers(), SPEEDS)
def test_slices_equal_the_whole(folder, layer, speeds):
    network = network_of(*layer, folder)
    assume(len(speeds) <= network.tensors[network.ops[0].outputs[0]].shape[-1])
    assert_equal(network, cut_network(network, f"slices:{text_of(speeds)}@0"))


@many
@given(layers(), SPEEDS, st.integers(1, MOST_PARITIES))
def test_any_n_of_n_plus_r_give_the_same(folder, layer, speeds, parity):
    network = network_of(*layer, folder)
    assume(len(speeds) <= network.tensors[network.ops[0].outputs[0]].shape[-1])
    coded, local = cut_network(network, f"slices:{text_of(speeds)}+{parity}@0")
    assert (coded.needed, coded.parity) == (len(speeds), parity)
    assert_equal(network, (coded, local))
    assert worst_error(network, coded, random_inputs(network)) <= (1e-4 if coded.finish else 0)


def outputs_of(network, stage, tensors) -> dict[int, list[np.ndarray]]:
    return {
        piece.index: Engine(build_piece(network, stage, piece)).run(scatter(stage, piece, tensors))
        for piece in stage.pieces
    }


def worst_error(network, stage, tensors, sets: int = 40) -> float:
    """After losing as many pieces as may be lost, relative to the tensor's largest value."""
    received = outputs_of(network, stage, tensors)
    whole = merge(network, stage, received)
    lost_sets = list(combinations(received, stage.parity))
    order = np.random.default_rng(0).permutation(len(lost_sets))[:sets]
    worst = 0.0
    for number in order:
        kept = {index: outputs for index, outputs in received.items() if index not in lost_sets[number]}
        assert len(kept) == stage.needed
        for tensor, array in merge(network, stage, kept).items():
            exact = whole[tensor].astype(float)
            scale = np.abs(exact - network.tensors[tensor].zero_point).max()
            worst = max(worst, float(np.abs(array - exact).max() / (scale or 1)))
    return worst


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_converter_made(path):
    """Every layer that can be coded: equal without losses, int8 equal with losses too."""
    network = read_network(path)
    assert_equal(network, cut_network(network, "slices:3"))
    stages = cut_network(network, "slices:3,1,2+2")
    assert_equal(network, stages)
    for stage in stages[:8]:
        if stage.coded:
            exact = network.tensors[stage.outputs[0]].dtype != "float32"
            tensors = {t: random_array(network.tensors[t]) for t in stage.inputs}
            assert worst_error(network, stage, tensors, 4) <= (0 if exact else 1e-4)


def random_array(tensor) -> np.ndarray:
    rng = np.random.default_rng(1)
    if tensor.dtype == "float32":
        return rng.normal(0, 1, tensor.array_shape).astype(np.float32)
    limits = np.iinfo(tensor.dtype)
    return rng.integers(limits.min, limits.max, tensor.array_shape, endpoint=True).astype(tensor.dtype)


@pytest.mark.parametrize("parity", [1, 2, 3])
@pytest.mark.parametrize("count", range(1, MOST_CODED + 1))
def test_every_code_recovers_within_its_bound(folder, count, parity):
    net = NetBuilder(seed=count)
    x = net.input(12, 12, 32)
    network = network_of(net, net.dense(x, 8 * count, NO_ACTIVATION), folder)
    (stage,) = cut_network(network, f"slices:{count}+{parity}")
    assert worst_error(network, stage, random_inputs(network), 200) <= 1e-4


@pytest.mark.parametrize("parity", [1, 2, 3])
def test_every_square_part_of_a_code_is_regular(parity):
    matrix = coefficients(MOST_CODED, parity)
    for size in range(1, parity + 1):
        for rows in combinations(range(parity), size):
            for columns in combinations(range(MOST_CODED), size):
                assert abs(np.linalg.det(matrix[np.ix_(rows, columns)])) > 0.5


def test_too_few_are_refused_or_filled(folder):
    net = NetBuilder()
    network = network_of(net, net.conv(net.input(5, 6, 3), 8, (3, 3)), folder)
    (stage,) = cut_network(network, "slices:4+1")
    inputs = random_inputs(network)
    received = outputs_of(network, stage, inputs)
    kept = {index: received[index] for index in (0, 2, 4)}
    with pytest.raises(ValueError, match="3 of 4"):
        merge(network, stage, kept)
    last = {stage.outputs[0]: np.full((5, 6, 8), 7, np.float32)}
    filled = merge(network, stage, kept, last)[stage.outputs[0]]
    whole = run_whole(network, inputs)[stage.outputs[0]]
    assert (filled[..., 0:2] == whole[..., 0:2]).all() and (filled[..., 4:6] == whole[..., 4:6]).all()
    assert (filled[..., 2:4] == 7).all() and (filled[..., 6:] == 7).all()


def test_the_size_of_a_parity_is_known_without_reading_weights(folder):
    """Every worker asks for the size of all pieces, and a parity is the sum of all of a layer's weights."""
    net = NetBuilder()
    network = network_of(net, net.dense(net.conv(net.input(8, 8, 3), 32, (3, 3)), 1024), folder)
    stage = next(stage for stage in cut_network(network, "slices:3+1@1") if stage.distributed)
    parity = stage.pieces[-1]
    tracemalloc.start()
    try:
        size = piece_size(network, stage, parity)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size / 4
    assert size == len(build_piece(network, stage, parity))


def test_what_cannot_be_sliced_or_coded_is_said(folder):
    net = NetBuilder()
    x = net.depthwise(net.conv(net.input(6, 6, 4), 4, (1, 1), activation=4), 1, (3, 3))
    network = network_of(net, x, folder)
    for text, reason in {
        "slices:2@1": "each of its output channels reads one input channel",
        "slices:2+1@0": "TANH cannot be taken off",
        "slices:5@0": "4 output channels for 5 slices",
    }.items():
        with pytest.raises(CutError, match=reason):
            cut_network(network, text)
    dynamic = read_network(FIXTURES / "zoo" / "vgg16_dynamic.tflite")
    hybrid = next(op for op in dynamic.ops if op.kind == "FULLY_CONNECTED" and op.weight_bytes > 1000)
    with pytest.raises(CutError, match="each run has a scale of its own"):
        cut_network(dynamic, f"slices:2+1@{hybrid.index}")


@many
@given(st.integers(0, 300), st.lists(st.integers(1, 20), min_size=1, max_size=12))
def test_shares_cover_once_in_proportion(size, speeds):
    spans = proportional(size, tuple(map(float, speeds)))
    assert [spans[0][0], spans[-1][1]] == [0, size] and len(spans) == len(speeds)
    assert all(end == start for (_, end), (start, _) in pairwise(spans))
    if size >= len(speeds):
        assert all(start < end for start, end in spans)
    if size >= 20 * len(speeds) * max(speeds):
        assert all(abs(e - s - size * v / sum(speeds)) <= 1 for (s, e), v in zip(spans, speeds, strict=True))


def large_sums(kind: str, channels: int) -> tuple[NetBuilder, int]:
    """An int8 layer whose sums grow beyond 2^24 and mostly fall back, so that a rounding on the way shows."""
    net = NetBuilder("int8", seed=channels)
    x = net.input(6, 5, channels)
    net.tensors[x]["quantization"] = {"scale": np.float32([0.02]), "zero_point": np.array([-128])}
    y = net.conv(x, 12, (3, 3), activation=NO_ACTIVATION) if kind == "CONV_2D" else net.dense(x, 12, NO_ACTIVATION)
    op = net.operators[-1]
    weights, bias = (net.tensors[t] for t in op["inputs"][1:3])
    shape = tuple(weights["shape"].tolist())
    values = net.rng.integers(120, 128, shape) * np.where(np.arange(shape[-1]) < shape[-1] // 2, 1, -1)
    net.buffers[weights["buffer"]]["data"] = values.astype(np.int8).view(np.uint8).reshape(-1)
    biases = net.rng.integers(-300_000, 300_000, 12).astype(np.int32)
    net.buffers[bias["buffer"]]["data"] = biases.view(np.uint8).reshape(-1)
    scale = np.full_like(weights["quantization"]["scale"], 0.01)
    weights["quantization"] = {**weights["quantization"], "scale": scale}
    # 5 000 of the accumulator are a quantum: what is left of sums of tens of millions is mostly within int8
    net.tensors[y]["quantization"] = {"scale": np.float32([1.0]), "zero_point": np.array([3])}
    return net, y


@pytest.mark.parametrize("kind", ["CONV_2D", "FULLY_CONNECTED"])
@pytest.mark.parametrize("text", ["3+1", "2,1,3+2", "4+3"])
def test_int8_is_exact_beyond_what_float32_holds(folder, kind, text):
    net, y = large_sums(kind, 600 if kind == "CONV_2D" else 100)
    network = network_of(net, y, folder)
    (stage,) = cut_network(network, f"slices:{text}")
    inputs = random_inputs(network)
    assert stage.parts[-1] == network.tensors[network.ops[0].inputs[1]].shape[-1]
    received = outputs_of(network, stage, inputs)
    data = [joined(received[index][0]) for index in range(stage.needed)]
    exact = accumulators(network, inputs)
    assert (np.concatenate(data, axis=-1).reshape(exact.shape) == exact).all()
    assert_equal(network, (stage,))
    assert worst_error(network, stage, inputs) == 0


def accumulators(network, inputs) -> np.ndarray:
    """What a layer sums up, in int64."""
    op = network.ops[0]
    weights, bias = (network.constant(t).astype(np.int64) for t in op.inputs[1:])
    x = inputs[op.inputs[0]].astype(np.int64) - network.tensors[op.inputs[0]].zero_point
    if op.kind == "FULLY_CONNECTED":
        return weights @ x.reshape(-1) + bias
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    return np.einsum("yxcij,oijc->yxo", windows, weights) + bias


def test_sums_that_fit_are_carried_in_one(folder):
    net = NetBuilder("int8")
    network = network_of(net, net.conv(net.input(5, 6, 3), 8, (3, 3)), folder)
    (stage,) = cut_network(network, "slices:4+1")
    assert stage.parts == () and [p.outputs[0].shape for p in stage.pieces] == [(5, 6, 2)] * 5


def test_sums_that_no_part_holds_are_refused_with_the_bound(folder):
    net, y = large_sums("CONV_2D", 2)
    bias = net.tensors[net.operators[-1]["inputs"][2]]
    net.buffers[bias["buffer"]]["data"] = np.full(12, 2**24, np.int32).view(np.uint8).reshape(-1)
    network = network_of(net, y, folder)
    with pytest.raises(CutError, match=r"op 0 CONV_2D .*sums of a parity may reach \d+ .* exact up to 16777216; take"):
        cut_network(network, "slices:3+1@0")
    assert_equal(network, cut_network(network, "slices:3@0"))


@pytest.mark.parametrize("zero_point", [-128, -127, -10, 0, 3])
@pytest.mark.parametrize("levels", [63.5, 64.5, 126.5, 127.5, 254.5, 255.0])
@pytest.mark.parametrize("activation", [RELU6, RELU_N1_TO_1])
def test_activations_clamp_where_the_runtime_does(folder, activation, levels, zero_point):
    """Also where the limit lies between two quanta, as it does when a converter chose the scale by it."""
    net = NetBuilder("int8")
    y = net.conv(net.input(9, 8, 4), 8, (3, 3), activation=activation)
    scale = np.float32([6 / levels])
    net.tensors[y]["quantization"] = {"scale": scale, "zero_point": np.array([zero_point])}
    network = network_of(net, y, folder)
    assert_equal(network, cut_network(network, "slices:2+1"))


def test_the_shipped_int8_detector_in_coded_slices(folder):
    """Sums in parts, RELU6 between two quanta, every kind of layer that a detector has."""
    network = read_network(find_model("warehouse_int8.tflite"))
    stages = cut_network(network, "slices:4+1")
    assert any(stage.parts for stage in stages)
    assert_equal(network, stages)
