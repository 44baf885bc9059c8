# SPDX-License-Identifier: Apache-2.0
"""Tiles cover exactly once, and merged they equal the whole bit for bit: every op, size, kernel and grid."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from cutting import EXAMPLES, FIXTURES, assert_equal
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from netbuilder import NO_ACTIVATION, RELU, RELU6, SAME, VALID, NetBuilder

from dnn_dist.cut.build import build_piece
from dnn_dist.cut.spec import cut_network
from dnn_dist.cut.tiles import cut_tiles, split, tile_regions
from dnn_dist.errors import CutError
from dnn_dist.graph.tflite import read_network
from dnn_dist.graph.tileable import UNARY

SIZES = st.integers(1, 40)
PAIRS = {n: st.tuples(st.integers(1, n), st.integers(1, n)) for n in (3, 4, 7)}
CHANNELS = st.sampled_from((1, 2, 3, 4, 8, 17))
DTYPE = st.sampled_from(("float32", "int8"))
PADDING = st.sampled_from((SAME, VALID))
ACTIVATION = st.sampled_from((NO_ACTIVATION, RELU, RELU6))
INT8_UNARY = ("RELU", "RELU6", "LEAKY_RELU", "PRELU", "LOGISTIC", "TANH", "HARD_SWISH")
FLOAT_UNARY = tuple(sorted(UNARY - {"QUANTIZE", "DEQUANTIZE"}))
BINARY = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE")
GRIDS = ("1x1", "2x2", "3x3", "4x4", "5x5", "1x5", "4x2", "3x5")

many = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@many
@given(SIZES, SIZES, st.integers(1, 40), st.integers(1, 40))
def test_tiles_cover_exactly_once(height, width, rows, columns):
    assume(rows <= height and columns <= width)
    count = np.zeros((height, width), int)
    for region in tile_regions(height, width, (rows, columns)):
        assert not region.empty
        count[region.slices] += 1
    assert (count == 1).all()


@given(SIZES, st.integers(1, 40))
def test_tile_sizes_differ_by_one_at_most(size, parts):
    lengths = {end - start for start, end in split(size, parts)}
    assert max(lengths) - min(lengths) <= 1


def check(builder: NetBuilder, outputs, data, folder: Path) -> None:
    """Any grid that fits: the merged tiles equal the whole."""
    path = folder / "model.tflite"
    path.write_bytes(builder.build(outputs))
    network = read_network(path)
    shapes = [builder.shape(t) for t in outputs]
    rows = data.draw(st.integers(1, min(6, *(s[1] for s in shapes))), "rows")
    columns = data.draw(st.integers(1, min(6, *(s[2] for s in shapes))), "columns")
    assert all(op.tileable for op in network.ops), [(op.kind, op.reason) for op in network.ops]
    stage = cut_tiles(network, (rows, columns), last=len(network.ops) - 1)
    assert_equal(network, (stage,), seed=data.draw(st.integers(0, 3), "seed"))


def fits(builder: NetBuilder, x, kernel, dilation, padding) -> bool:
    _, height, width, _ = builder.shape(x)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    return padding == SAME or (reach[0] <= height and reach[1] <= width)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@many
@given(st.data(), DTYPE, SIZES, SIZES, CHANNELS, CHANNELS, PAIRS[7], PAIRS[3], PAIRS[3], PADDING, ACTIVATION)
def test_convolution(
    folder, data, dtype, h, w, channels, filters, kernel, stride, dilation, padding, activation
):
    assume(dilation == (1, 1) or stride == (1, 1))  # as TensorFlow has it
    net = NetBuilder(dtype)
    x = net.input(h, w, channels)
    assume(fits(net, x, kernel, dilation, padding))
    check(net, [net.conv(x, filters, kernel, stride, dilation, padding, activation)], data, folder)


@many
@given(
    st.data(),
    DTYPE,
    SIZES,
    SIZES,
    CHANNELS,
    st.integers(1, 2),
    PAIRS[7],
    PAIRS[3],
    PAIRS[3],
    PADDING,
    ACTIVATION,
)
def test_depthwise(
    folder, data, dtype, h, w, channels, multiplier, kernel, stride, dilation, padding, activation
):
    assume(dilation == (1, 1) or stride == (1, 1))
    net = NetBuilder(dtype)
    x = net.input(h, w, channels)
    assume(fits(net, x, kernel, dilation, padding))
    check(net, [net.depthwise(x, multiplier, kernel, stride, dilation, padding, activation)], data, folder)


@many
@given(
    st.data(), st.sampled_from(("MAX", "AVERAGE")), DTYPE, SIZES, SIZES, CHANNELS, PAIRS[7], PAIRS[3], PADDING
)
def test_pool(folder, data, kind, dtype, h, w, channels, kernel, stride, padding):
    net = NetBuilder(dtype)
    x = net.input(h, w, channels)
    assume(fits(net, x, kernel, (1, 1), padding))
    check(net, [net.pool(kind, x, kernel, stride, padding)], data, folder)


@many
@given(
    st.data(),
    DTYPE,
    SIZES,
    SIZES,
    CHANNELS,
    st.tuples(*[st.integers(0, 5)] * 4),
    st.sampled_from((None, 3.0)),
)
def test_pad(folder, data, dtype, h, w, channels, amounts, value):
    net = NetBuilder(dtype)
    check(net, [net.pad(net.input(h, w, channels), *amounts, value=value)], data, folder)


@many
@given(st.data(), DTYPE, st.integers(1, 12), st.integers(1, 12), CHANNELS, PAIRS[4], st.booleans())
def test_upsample(folder, data, dtype, h, w, channels, factor, half_pixel):
    net = NetBuilder(dtype)
    check(net, [net.upsample(net.input(h, w, channels), factor, half_pixel)], data, folder)


@many
@given(st.data(), DTYPE, SIZES, SIZES, CHANNELS)
def test_unary(folder, data, dtype, h, w, channels):
    kind = data.draw(st.sampled_from(FLOAT_UNARY if dtype == "float32" else INT8_UNARY))
    net = NetBuilder(dtype)
    check(net, [net.unary(kind, net.input(h, w, channels))], data, folder)


@pytest.mark.parametrize("kind", FLOAT_UNARY)
def test_every_unary_op_once(folder, kind):
    net = NetBuilder()
    path = folder / "model.tflite"
    path.write_bytes(net.build([net.unary(kind, net.input(17, 23, 3))]))
    network = read_network(path)
    assert_equal(network, (cut_tiles(network, (2, 3), last=0),))


@many
@given(st.data(), st.sampled_from(BINARY), DTYPE, SIZES, SIZES, CHANNELS, st.booleans())
def test_binary(folder, data, kind, dtype, h, w, channels, constant):
    assume(dtype == "float32" or kind in ("ADD", "SUB", "MUL"))
    net = NetBuilder(dtype)
    x = net.input(h, w, channels)
    out = net.per_channel(kind, x) if constant else net.binary(kind, x, net.input(h, w, channels))
    check(net, [out], data, folder)


@st.composite
def dags(draw):
    """A random DAG of up to eight ops with branches that meet again; (builder, outputs)."""
    net = NetBuilder(draw(DTYPE), draw(st.integers(0, 3)))
    made = [net.input(draw(st.integers(6, 40)), draw(st.integers(6, 40)), draw(st.sampled_from((1, 3))))]
    for _ in range(draw(st.integers(2, 8))):
        x = draw(st.sampled_from(made[-3:]))
        _, height, width, channels = net.shape(x)
        kernel, stride = draw(PAIRS[4]), draw(PAIRS[3])
        padding = draw(PADDING) if fits(net, x, kernel, (1, 1), VALID) else SAME
        choice = draw(
            st.sampled_from(("conv", "conv", "depthwise", "pool", "unary", "pad", "up", "join", "join"))
        )
        if choice == "conv":
            dilation = draw(PAIRS[3]) if stride == (1, 1) and padding == SAME else (1, 1)
            made.append(net.conv(x, draw(CHANNELS), kernel, stride, dilation, padding))
        elif choice == "depthwise":
            made.append(net.depthwise(x, 1, kernel, stride, (1, 1), padding))
        elif choice == "pool":
            made.append(net.pool(draw(st.sampled_from(("MAX", "AVERAGE"))), x, kernel, stride, padding))
        elif choice == "unary":
            made.append(net.unary(draw(st.sampled_from(("RELU6", "LEAKY_RELU", "HARD_SWISH"))), x))
        elif choice == "pad":
            made.append(net.pad(x, *draw(st.tuples(*[st.integers(0, 3)] * 4))))
        elif choice == "up" and height * width < 400:
            made.append(net.upsample(x, draw(PAIRS[3])))
        else:
            others = [t for t in made if net.shape(t)[1:3] == (height, width)]
            alike = [t for t in others if net.shape(t)[3] == channels]
            other = draw(st.sampled_from(others))
            if other in alike and draw(st.booleans()):
                made.append(net.binary(draw(st.sampled_from(("ADD", "MUL"))), x, other))
            elif net.dtype == "float32":
                made.append(net.concat([x, other]))
            else:
                made.append(net.concat([x, x]))
    read = {int(t) for op in net.operators for t in op["inputs"]}
    return net, [t for t in made[1:] if t not in read]


@many
@given(st.data(), dags())
def test_dag(folder, data, dag):
    net, outputs = dag
    check(net, outputs, data, folder)


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.tflite")), ids=lambda path: path.stem)
def test_converter_made(path):
    network = read_network(path)
    for grid in GRIDS:
        stages = cut_network(network, f"tiles:{grid}")
        assert [op for s in stages for op in range(s.first, s.last + 1)] == list(range(len(network.ops)))
        assert_equal(network, stages)


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.tflite")), ids=lambda path: path.stem)
def test_any_range_of_ops(path):
    """@first..last for every range that can be tiled: several live tensors at both ends, no fixed place."""
    network = read_network(path)
    real = [op for op in network.ops if op.tileable and not op.folded]
    ends = [op.index for op in real if network.tensors[op.outputs[0]].height > 1]
    tried = 0
    for first, last in itertools.combinations_with_replacement(ends, 2):
        if (first * 7 + last) % 5 == 0 and all(n in ends for n in range(first, last + 1)):
            assert_equal(network, cut_network(network, f"tiles:2x2@{first}..{last}"))
            tried += 1
    assert tried


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*_int8.tflite")), ids=lambda path: path.stem)
def test_equal_forms_share_one_file(path):
    network = read_network(path)
    stage = cut_network(network, "tiles:4x4")[0]
    by_form = {}
    for piece in stage.pieces:
        built = build_piece(network, stage, piece)
        assert by_form.setdefault(piece.form, built) == built == build_piece(network, stage, piece)
    assert len(set(by_form.values())) == len(by_form)


def test_even_grid_has_nine_forms_at_most(folder):
    net = NetBuilder()
    x = net.input(48, 64, 3)
    for filters in (4, 6, 8):
        x = net.pool("MAX", net.conv(x, filters, (3, 3)), (2, 2), (2, 2), VALID)
    (folder / "even.tflite").write_bytes(net.build([x]))
    network = read_network(folder / "even.tflite")
    stage = cut_tiles(network, (6, 4))
    # rows 0 and 5 of 6 and columns 0 and 3 of 4 touch a border; one row further in, the crop may as well
    assert len(stage.pieces) == 24
    assert len({piece.form for piece in stage.pieces}) <= 9


def test_too_fine_grid_names_the_largest(folder):
    network = read_network(FIXTURES / "residual_float32.tflite")
    with pytest.raises(CutError, match="up to 16x20"):
        cut_tiles(network, (40, 40), last=11)


WRONG = """
tiles|tiles:|tiles:3|tiles:0x3|tiles:3x|tiles:axb|tiles:-1x2|tiles:3x3 x|tiles:99999x1|tiles:99x99
tiles:3x3@|tiles:3x3@9..2|tiles:3x3@0..99|tiles:3x3@99..|tiles:17x1@0..11|tiles:3x3@0..14
tiles:3x3;|;tiles:3x3|tiles:2x2@0..3;local@2..9|tiles:2x2@4..6;tiles:2x2@1..3
"""


@pytest.mark.parametrize("text", ["", "\n", *re.split(r"[|\n]", WRONG.strip())])
def test_wrong_cuts_are_one_line(text):
    network = read_network(FIXTURES / "residual_float32.tflite")
    with pytest.raises(CutError) as caught:
        cut_network(network, text)
    assert "\n" not in str(caught.value)


def test_a_plan_for_one_robot_is_the_whole_model():
    network = read_network(FIXTURES / "squeeze_int8.tflite")
    (stage,) = cut_network(network, "local")
    assert build_piece(network, stage, stage.pieces[0]) == network.path.read_bytes()
    assert not stage.distributed
