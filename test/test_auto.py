# SPDX-License-Identifier: Apache-2.0
"""Sequences of tiled stages for whole networks, and balanced grids: laws on every converter-made fixture."""

from itertools import pairwise

import pytest
from cutting import EXAMPLES, FIXTURES, assert_equal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netbuilder import RELU, SAME
from netops import NetOps

from dnn_dist.cut.auto import MOST_WORK, auto_stages, tileable_ranges
from dnn_dist.cut.spec import cut_network
from dnn_dist.cut.tiles import cut_tiles
from dnn_dist.errors import CutError
from dnn_dist.graph.tflite import read_network

ALL = [*sorted(FIXTURES.glob("*.tflite")), *sorted((FIXTURES / "zoo").glob("*.tflite"))]
each = pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)


def share(network, stages) -> float:
    tiled = sum(network.macs_of(s.first, s.last) for s in stages if s.distributed)
    return tiled / network.macs


@each
@pytest.mark.parametrize("grid", [(2, 2), (1, 3)])
def test_auto_equals_the_whole(path, grid):
    network = read_network(path)
    stages = auto_stages(network, grid)
    assert [op for s in stages for op in range(s.first, s.last + 1)] == list(range(len(network.ops)))
    assert_equal(network, stages)
    for stage in stages:
        if stage.distributed and stage.last > stage.first:
            work = sum(piece.macs for piece in stage.pieces) / network.macs_of(stage.first, stage.last)
            assert work <= MOST_WORK or not _can_be_shorter(network, grid, stage)


def _can_be_shorter(network, grid, stage) -> bool:
    """Whether a group from the same start can end earlier: a bound cannot be held by a single op."""
    for last in range(stage.first, stage.last):
        try:
            cut_tiles(network, grid, stage.first, last)
        except CutError:
            continue
        return True
    return False


@each
def test_ranges_are_maximal_and_apart(path):
    network = read_network(path)
    ranges = tileable_ranges(network)
    held = {op for first, last in ranges for op in range(first, last + 1)}
    assert all(network.ops[op].tileable for op in held)
    assert all(op.index in held or not op.tileable or op.folded for op in network.ops)
    assert all(after - before > 1 for (_, before), (after, _) in pairwise(ranges))


@pytest.mark.parametrize(
    ("name", "least"),
    [("vgg16", 0.9), ("resnet50", 0.9), ("mobilenet_v2", 0.9), ("yolov2", 0.9), ("efficientnet_b0", 0.8),
     ("mobilenet_v3", 0.8), ("unet", 0.9), ("densenet", 0.9), ("inception_v3", 0.9)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_most_of_the_work_is_distributed(name, least, dtype):
    network = read_network(FIXTURES / "zoo" / f"{name}_{dtype}.tflite")
    assert share(network, auto_stages(network)) >= least


def test_float16_weights_change_nothing():
    """The same network with its weights in half the bytes is cut in as much."""
    shares = [
        share(network, auto_stages(network))
        for network in (read_network(FIXTURES / "zoo" / f"resnet50_{t}.tflite") for t in ("float32", "float16"))
    ]
    assert shares[0] == pytest.approx(shares[1])


def test_a_tighter_bound_makes_more_groups():
    network = read_network(FIXTURES / "zoo" / "vgg16_float32.tflite")
    counts = [len(auto_stages(network, most_work=bound)) for bound in (1.1, 1.5, 99)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]


def test_nothing_to_tile_is_said(tmp_path):
    net = NetOps()
    out = net.conv(net.input(1, 1, 2), 2, (1, 1))
    (tmp_path / "m.tflite").write_bytes(net.build([out]))
    with pytest.raises(CutError, match="no range of ops"):
        auto_stages(read_network(tmp_path / "m.tflite"))


def test_the_text_of_a_sequence_cuts_it_again():
    network = read_network(FIXTURES / "zoo" / "mobilenet_v3_int8.tflite")
    stages = auto_stages(network, (2, 2), balanced=True)
    assert cut_network(network, ";".join(stage.spec for stage in stages)) == stages


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.integers(6, 40),
    st.integers(6, 40),
    st.integers(1, 6),
    st.integers(1, 6),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_balanced_tiles_are_never_dearer(tmp_path_factory, height, width, rows, columns, kernels):
    net = NetOps()
    x = net.input(height, width, 2)
    for kernel in kernels:
        x = net.conv(x, 3, (kernel, kernel), padding=SAME, activation=RELU)
    path = tmp_path_factory.mktemp("m") / "m.tflite"
    path.write_bytes(net.build([x]))
    network = read_network(path)
    even, balanced = (cut_tiles(network, (rows, columns), balanced=b) for b in (False, True))
    assert max(p.macs for p in balanced.pieces) <= max(p.macs for p in even.pieces)
    boxes = [piece.outputs[0].region for piece in balanced.pieces]
    assert sum(box.size for box in boxes) == height * width and not any(box.empty for box in boxes)
    assert all((a & b).empty for a in boxes for b in boxes if a is not b)
