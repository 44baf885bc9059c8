# SPDX-License-Identifier: Apache-2.0
"""Ops around convolutions in tiles: equal to the whole bit for bit, for every size, grid and setting."""

import numpy as np
import pytest
from cutting import EXAMPLES, FIXTURES, assert_equal, run_stages
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from netbuilder import SAME, VALID, NetBuilder
from netops import NetOps

from dnn_dist.cut.spec import cut_network
from dnn_dist.cut.tiles import cut_tiles, front_end
from dnn_dist.errors import CutError
from dnn_dist.graph.schema import DTYPES
from dnn_dist.graph.tflite import read_network

CASTING = sorted((*FIXTURES.glob("pixels_*.tflite"), *FIXTURES.glob("*_edges.tflite")))
SIZES = st.integers(1, 24)
PAIRS = {n: st.tuples(st.integers(1, n), st.integers(1, n)) for n in (2, 3, 5)}
CHANNELS = st.sampled_from((1, 2, 3, 4, 8, 17))
DTYPE = st.sampled_from(("float32", "int8"))
POWERS = st.tuples(*[st.sampled_from((1, 2, 4))] * 2)

many = settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def check(net, outputs, data, folder) -> None:
    path = folder / "model.tflite"
    path.write_bytes(net.build(outputs))
    network = read_network(path)
    assert all(op.tileable for op in network.ops), [(op.kind, op.reason) for op in network.ops]
    shapes = [net.shape(t) for t in outputs]
    grid = [data.draw(st.integers(1, min(5, *(s[axis] for s in shapes)))) for axis in (1, 2)]
    assert_equal(network, (cut_tiles(network, (grid[0], grid[1]), last=len(network.ops) - 1),))


@many
@given(
    st.data(),
    DTYPE,
    SIZES,
    SIZES,
    CHANNELS,
    CHANNELS,
    PAIRS[5],
    PAIRS[3],
    st.sampled_from((SAME, VALID)),
    st.booleans(),
)
def test_transposed(folder, data, dtype, h, w, channels, filters, kernel, stride, padding, computed):
    assume(all(s <= k for s, k in zip(stride, kernel, strict=True)))
    filters *= 8 if computed and dtype == "float32" else 1
    channels += 12 if computed and dtype == "float32" else 0
    net = NetOps(dtype)
    check(net, [net.transposed(net.input(h, w, channels), filters, kernel, stride, padding, computed)], data, folder)


@many
@given(st.data(), DTYPE, SIZES, SIZES, CHANNELS, POWERS, st.booleans())
def test_bilinear(folder, data, dtype, h, w, channels, factor, half_pixel):
    net = NetOps(dtype)
    check(net, [net.bilinear(net.input(h, w, channels), factor, half_pixel)], data, folder)


@many
@given(st.data(), DTYPE, SIZES, SIZES, CHANNELS, CHANNELS, PAIRS[3], PAIRS[3], st.booleans())
def test_dilated(folder, data, dtype, h, w, channels, filters, kernel, dilation, depthwise):
    assume(all(d * (k - 1) < 2 * n for d, k, n in zip(dilation, kernel, (h, w), strict=True)))
    net = NetOps(dtype)
    check(net, [net.dilated(net.input(h, w, channels), filters, kernel, dilation, depthwise)], data, folder)


@many
@given(st.data(), DTYPE, SIZES, SIZES, CHANNELS, st.integers(1, 4), st.booleans())
def test_blocks(folder, data, dtype, h, w, channels, block, deeper):
    net = NetOps(dtype)
    if deeper:
        out = net.space_to_depth(net.input(h * block, w * block, channels), block)
    else:
        out = net.depth_to_space(net.input(h, w, channels * block**2), block)
    check(net, [out], data, folder)


@many
@given(st.data(), DTYPE, SIZES, SIZES, CHANNELS, PAIRS[3])
def test_slices_of_rows_and_columns(folder, data, dtype, h, w, channels, strides):
    net = NetOps(dtype)
    x = net.input(h, w, channels)
    begin = [data.draw(st.integers(0, n - 1)) for n in (h, w)]
    end = [data.draw(st.integers(b + 1, n)) for b, n in zip(begin, (h, w), strict=True)]
    if strides == (1, 1):
        out = net.slice(x, begin, [e - b for b, e in zip(begin, end, strict=True)])
    else:
        masks = [data.draw(st.sampled_from((0, 2, 4, 6))) for _ in range(2)]
        out = net.strided_slice(x, begin, end, strides, *masks)
    check(net, [out], data, folder)


@many
@given(st.data(), DTYPE, SIZES, SIZES, CHANNELS, st.integers(2, 3))
def test_split(folder, data, dtype, h, w, channels, parts):
    net = NetOps(dtype)
    first, *rest = net.split(net.input(h, w, channels * parts), parts)
    check(net, [net.unary("RELU", first), rest[-1]], data, folder)


@many
@given(st.data(), SIZES, SIZES, st.sampled_from((16, 32, 96)))
def test_normalisation_across_channels(folder, data, h, w, channels):
    net = NetOps()
    check(net, [net.lrn(net.input(h, w, channels))], data, folder)


@pytest.mark.parametrize(("channels", "filters"), [(2, 8), (32, 7)])
def test_sums_whose_order_depends_on_the_size_are_refused(tmp_path, channels, filters):
    """The kernel that takes an output shape computed while running; XNNPACK, for constant ones, has no such order."""
    for computed in (True, False):
        net = NetOps()
        out = net.transposed(net.input(8, 8, channels), filters, (1, 1), (1, 1), computed_shape=computed)
        op = build(tmp_path, net, [out]).ops[-1]
        assert op.tileable is not computed and ("1e-6" in op.reason) is computed


def test_powers_that_are_rounded_by_place_are_refused(tmp_path):
    net = NetOps()
    (op,) = build(tmp_path, net, [net.lrn(net.input(8, 8, 4))]).ops
    assert "multiple of 16" in op.reason


@many
@given(st.data(), DTYPE, SIZES, SIZES, CHANNELS, st.sampled_from(("MUL", "ADD", "SUB")))
def test_one_pixel_for_all(folder, data, dtype, h, w, channels, kind):
    net = NetOps(dtype)
    check(net, [net.binary(kind, net.input(h, w, channels), net.input(1, 1, channels))], data, folder)


@many
@given(st.data(), SIZES, SIZES, CHANNELS, CHANNELS, PAIRS[3])
def test_float16_weights(folder, data, h, w, channels, filters, kernel):
    net = NetOps()
    check(net, [net.float16_conv(net.input(h, w, channels), filters, kernel)], data, folder)


def build(tmp_path, net, outputs):
    (tmp_path / "m.tflite").write_bytes(net.build(outputs))
    return read_network(tmp_path / "m.tflite")


def test_constants_that_ops_make_are_constant(tmp_path):
    net = NetOps()
    x = net.float16_conv(net.input(6, 7, 2), 3, (3, 3))
    network = build(tmp_path, net, [net.transposed(x, 2, (3, 3), (2, 2), computed_shape=True)])
    assert [op.kind for op in network.ops if op.folded] == [
        "DEQUANTIZE",
        "DEQUANTIZE",
        "SHAPE",
        "STRIDED_SLICE",
        "PACK",
    ]
    assert [list(value) for value in network.values.values() if value.ndim] == [[1, 6, 7, 3], [1, 12, 14, 2]]
    assert network.live_before(5, 6) == (x,) == network.live_after(0, 4)
    assert network.ops[2].weight_bytes == 2 * (3 * 9 * 2 + 3)


def test_what_the_model_gives_is_not_folded(tmp_path):
    """An output that is the same in every run is still an output."""
    net = NetOps()
    half = net.constant(np.ones((1, 4, 4, 1), np.float16))
    one = net.tensor((1, 4, 4, 1))
    net.op("DEQUANTIZE", [half], one, "DequantizeOptions", version=2)
    out = net.binary("ADD", net.input(4, 4, 1), one)
    network = build(tmp_path, net, [one, out])
    assert not network.ops[0].folded
    (local,) = cut_network(network, "local")
    inputs = {net.inputs[0]: np.zeros((4, 4, 1), np.float32)}
    assert (run_stages(network, (local,), inputs)[out] == 1).all()


def test_a_dilated_convolution_is_not_split(tmp_path):
    net = NetOps()
    x = net.conv(net.input(16, 16, 2), 4, (3, 3))
    network = build(tmp_path, net, [net.dilated(x, 4, (3, 3), (2, 2))])
    spread, dense, last = network.ops[1:]
    assert last.inner == (spread.index, dense.index) and spread.part_of == dense.part_of == last.index
    assert sum(op.macs for op in network.ops[1:]) == 16 * 16 * 4 * 9 * 4
    with pytest.raises(CutError, match="dilated"):
        cut_tiles(network, (2, 2), 0, 2)
    with pytest.raises(CutError, match="dilated"):
        cut_tiles(network, (2, 2), 2, 3)
    assert cut_tiles(network, (2, 2), 0).last == 3


def test_work_on_a_batch_is_not_tiled(tmp_path):
    """A batch that no op gathers again: the file may say 1 where the runtime has 4."""
    net = NetOps()
    out = net.dilated(net.input(8, 8, 2), 4, (3, 3), (2, 2))
    network = build(tmp_path, net, [int(net.operators[1]["outputs"][0]), out])
    assert [op.tileable for op in network.ops] == [False] * 3
    assert "batch" in network.ops[1].reason


@pytest.mark.parametrize(("factor", "says"), [((3, 3), "powers of two"), ((2, 2), "align_corners")])
def test_bilinear_that_tiles_would_change_is_refused(tmp_path, factor, says):
    net = NetOps()
    out = net.bilinear(net.input(6, 7, 2), factor, half_pixel=False, align=factor == (2, 2))
    (op,) = build(tmp_path, net, [out]).ops
    assert says in op.reason


@pytest.mark.parametrize("by_product", [True, False])
@pytest.mark.parametrize("mean", [True, False])
def test_sums_of_squares_are_not_cut_apart(folder, mean, by_product):
    """The runtime squares and sums in one step; what is squared apart has other last bits."""
    net = NetOps()
    total = net.power(net.conv(net.input(16, 16, 3), 32, (3, 3)), mean, by_product)
    path = folder / "model.tflite"
    path.write_bytes(net.build([net.conv(total, 8, (1, 1))]))
    network = read_network(path)
    assert network.ops[1].part_of == 2
    with pytest.raises(CutError):
        cut_tiles(network, (2, 2), last=1)
    for cut in ("tiles:2x2", "layers:3", "tiles:auto", "slices:2@0"):
        assert_equal(network, cut_network(network, cut))
    with pytest.raises(CutError):
        cut_network(network, "layers:4")


def test_a_square_that_others_read_is_rounded_for_itself(folder):
    net = NetOps()
    x = net.input(8, 8, 4)
    square = net.binary("MUL", x, x)
    path = folder / "model.tflite"
    path.write_bytes(net.build([square, net.excite(square)]))
    network = read_network(path)
    assert network.ops[0].part_of is None
    assert_equal(network, cut_network(network, "tiles:2x2@0..0"))


@pytest.mark.parametrize("path", CASTING, ids=lambda path: path.stem)
def test_changes_of_type_at_the_front_are_tiled(path):
    """From the model's own input on, in bytes or float32, to the last op of the front."""
    network = read_network(path)
    assert network.ops[0].kind in ("CAST", "QUANTIZE")
    end = front_end(network)
    for cut in ("tiles:3x2", "tiles:2x2@0", "tiles:2x3@0..1", f"tiles:2x2b@0..{end}", "bands:3"):
        stages = cut_network(network, cut)
        assert stages[0].first == 0 and stages[0].kind in cut
        assert_equal(network, stages)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_casts_between_any_two_types(folder, dtype):
    net = NetBuilder()
    x = net.unary("RELU", net.conv(net.input(9, 11, 3), 4, (3, 3)))
    there = net.op("CAST", [x], net.tensor((1, 9, 11, 4)), "CastOptions")
    net.tensors[there]["type"] = DTYPES.index(dtype)
    back = net.op("CAST", [there], net.tensor((1, 9, 11, 4)), "CastOptions")
    (folder / "model.tflite").write_bytes(net.build([net.conv(back, 4, (3, 3))]))
    network = read_network(folder / "model.tflite")
    assert all(op.tileable for op in network.ops)
    for cut in ("tiles:3x2", "tiles:3x2@0..2;tiles:2x3", "tiles:3x2@2;tiles:2x3"):
        assert_equal(network, cut_network(network, cut))
