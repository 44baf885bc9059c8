# SPDX-License-Identifier: Apache-2.0
"""Random DAGs cut at random: whatever is cut, and wherever, the merged pieces equal the whole bit for bit.

Branches, residuals, concatenations, strides, pads, dilations in one op and in three, transposed convolutions,
squeeze-and-excite, float16 weights; cut as one range, as several, balanced, or as `auto_stages` finds best.
"""

import os
from pathlib import Path

import pytest
from cutting import assert_equal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netbuilder import SAME, VALID
from netops import NetOps

from dnn_dist.cut.auto import auto_stages
from dnn_dist.cut.local import cut_local
from dnn_dist.cut.tiles import cut_tiles, fits, is_closed, largest_grid
from dnn_dist.errors import CutError
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network

EXAMPLES = int(os.environ.get("DNN_DIST_EXAMPLES", "200"))
PAIRS = {n: st.tuples(st.integers(1, n), st.integers(1, n)) for n in (2, 3, 4)}
CHANNELS = st.sampled_from((1, 2, 3, 4, 8, 17))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@st.composite
def dags(draw) -> tuple[NetOps, list[int]]:
    """A network of up to ten ops (a dilation may be three) with branches that meet again, and its outputs."""
    net = NetOps(draw(st.sampled_from(("float32", "int8"))), draw(st.integers(0, 3)))
    made = [net.input(draw(st.integers(5, 28)), draw(st.integers(5, 28)), draw(st.sampled_from((1, 3))))]
    for _ in range(draw(st.integers(2, 10))):
        x = draw(st.sampled_from(made[-3:]))
        made.append(draw(st.sampled_from(_STEPS))(draw, net, x, made))
    read = {int(t) for op in net.operators for t in op["inputs"]}
    return net, [t for t in made[1:] if t not in read]


def drawn_network(draw, folder: Path) -> Network:
    """Such a network, read from a file in this folder."""
    net, outputs = draw(dags())
    path = folder / "dag.tflite"
    path.write_bytes(net.build(outputs))
    return read_network(path)


def _padding(draw, net, x, kernel):
    _, height, width, _ = net.shape(x)
    return draw(st.sampled_from((SAME, VALID))) if kernel[0] <= height and kernel[1] <= width else SAME


def _conv(draw, net, x, _made):
    kernel, stride = draw(PAIRS[4]), draw(PAIRS[3])
    padding = _padding(draw, net, x, kernel)
    dilation = draw(PAIRS[3]) if stride == (1, 1) and padding == SAME else (1, 1)
    if net.dtype == "float32" and stride == (1, 1) and draw(st.booleans()):
        return net.float16_conv(x, draw(CHANNELS), kernel)
    return net.conv(x, draw(CHANNELS), kernel, stride, dilation, padding)


def _depthwise(draw, net, x, _made):
    kernel = draw(PAIRS[4])
    return net.depthwise(x, 1, kernel, draw(PAIRS[3]), (1, 1), _padding(draw, net, x, kernel))


def _pool(draw, net, x, _made):
    # LiteRT 2.3 runs a 1x1 maximum behind a clamp on memory that nobody wrote, also in the whole model.
    kernel = draw(PAIRS[4].filter(lambda pair: pair != (1, 1)))
    return net.pool(
        draw(st.sampled_from(("MAX", "AVERAGE"))), x, kernel, draw(PAIRS[3]), _padding(draw, net, x, kernel)
    )


def _unary(draw, net, x, _made):
    return net.unary(draw(st.sampled_from(("RELU6", "LEAKY_RELU", "HARD_SWISH", "LOGISTIC"))), x)


def _pad(draw, net, x, _made):
    return net.pad(x, *draw(st.tuples(*[st.integers(0, 3)] * 4)))


def _enlarge(draw, net, x, made):
    _, height, width, _ = net.shape(x)
    if height * width > 300:
        return _unary(draw, net, x, made)
    choice = draw(st.sampled_from(("nearest", "bilinear", "transposed")))
    if choice == "nearest":
        return net.upsample(x, draw(PAIRS[3]))
    if choice == "bilinear":
        return net.bilinear(x, draw(st.sampled_from(((2, 2), (1, 2), (4, 1)))))
    return net.transposed(x, draw(st.sampled_from((4, 8))), (3, 3), draw(PAIRS[3]), computed_shape=draw(st.booleans()))


def _dilated(draw, net, x, _made):
    _, height, width, _ = net.shape(x)
    if min(height, width) < 4:
        return net.unary("RELU", x)
    return net.dilated(x, draw(CHANNELS), draw(PAIRS[3]), draw(PAIRS[2]), draw(st.booleans()))


def _excite(_draw, net, x, _made):
    return net.excite(x)


def _join(draw, net, x, made):
    _, height, width, channels = net.shape(x)
    others = [t for t in made if net.shape(t)[1:3] == (height, width)]
    other = draw(st.sampled_from(others))
    if net.shape(other)[3] == channels and draw(st.booleans()):
        # XNNPACK sums squares, x * x before a mean, in another order than it sums products
        return net.binary("ADD" if other == x else draw(st.sampled_from(("ADD", "MUL"))), x, other)
    return net.concat([x, other if net.dtype == "float32" else x])  # integers of one scale only


_STEPS = (_conv, _conv, _depthwise, _pool, _unary, _pad, _enlarge, _dilated, _excite, _join, _join)


def _cut(draw, network):
    """Stages that cover the network, cut in one of all ways."""
    grid = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    if draw(st.booleans()):
        try:
            return auto_stages(
                network,
                grid,
                balanced=draw(st.booleans()),
                most_work=draw(st.sampled_from((1.2, 1.5, 9.0))),
                least_share=0,
            )
        except CutError:
            pass
    stages, done, count = [], 0, len(network.ops)
    while done < count:
        ends = [
            last
            for last in range(done, count)
            if all(op.tileable for op in network.ops[done : last + 1])
            and is_closed(network, done, last)
            and fits(grid, largest_grid(network, network.live_after(done, last)))
        ]
        if ends:
            stages.append(cut_tiles(network, grid, done, draw(st.sampled_from(ends)), draw(st.booleans())))
        else:
            last = done
            while not is_closed(network, done, last) or not network.live_after(done, last):
                last += 1
            stages.append(cut_local(network, done, last))
        done = stages[-1].last + 1
    return tuple(stages)


@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), dags())
def test_any_cut_of_any_dag_gives_what_the_whole_gives(folder, data, dag):
    net, outputs = dag
    path = folder / "model.tflite"
    path.write_bytes(net.build(outputs))
    network = read_network(path)
    assert_equal(network, _cut(data.draw, network), seed=data.draw(st.integers(0, 3), "seed"))
