# SPDX-License-Identifier: Apache-2.0
"""Row bands, layer by layer: equal to the whole, high as the robots are fast, traffic as published."""

import numpy as np
import pytest
from cutting import EXAMPLES, FIXTURES, assert_equal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netbuilder import VALID, NetBuilder
from test_tiles import dags

from dnn_dist.cli.cost import cost
from dnn_dist.cut.bands import cut_bands, layers_of
from dnn_dist.cut.shares import least_time
from dnn_dist.cut.spec import cut_network
from dnn_dist.graph.tflite import read_network

MODELS = sorted((*FIXTURES.glob("*.tflite"), *FIXTURES.glob("zoo/*.tflite")))
SPEEDS = st.lists(st.sampled_from((1.0, 2.0, 3.5, 0.25)), min_size=1, max_size=7).map(tuple)
PUBLISHED = {1: 9.87, 2: 10.92, 3: 12.87, 4: 13.92, 5: 17.05, 6: 19.59}
"""MiB per frame for 1 to 6 devices, read off the paper's plot (DeepThings, Fig. 12)."""
READ_OFF = 0.08
"""MiB that such a reading may be off."""

many = settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("count", PUBLISHED)
def test_published_traffic(yolov2, count):
    facts = cost(yolov2, cut_network(yolov2, f"bands:{count}"))
    assert facts["bands_traffic_mib"] == pytest.approx(PUBLISHED[count], abs=READ_OFF)
    assert facts["work_ratio"] == 1
    assert facts["stages"] == 12  # convolutions of 1 x 1 look at their own row only


@pytest.mark.parametrize(
    ("grid", "traffic", "work"), [("3x3", 13.79, 1.529), ("4x4", 16.23, 1.845), ("5x5", 18.99, 2.196)]
)
def test_published_traffic_of_tiles(yolov2, grid, traffic, work):
    facts = cost(yolov2, cut_network(yolov2, f"tiles:{grid}"))
    assert facts["tile_traffic_mib"] == pytest.approx(traffic, abs=0.01)
    assert facts["work_ratio"] == pytest.approx(work, abs=0.001)


@pytest.mark.parametrize(
    ("cut", "saving", "by_layer"), [("tiles:3x3", 0.58, 0.69), ("tiles:5x5", 0.68, 0.79), ("bands:4", 0.61, 0.67)]
)
def test_published_savings_of_memory(yolov2, cut, saving, by_layer):
    facts = cost(yolov2, cut_network(yolov2, cut))
    assert facts["memory_saving"] == pytest.approx(saving, abs=0.01)
    assert facts["layer_memory_saving"] == pytest.approx(by_layer, abs=0.01)


def test_balanced_tiles_are_no_larger_than_published(yolov2):
    even, balanced = (cost(yolov2, cut_network(yolov2, f"tiles:5x5{b}"))["largest_piece_macs"] for b in ("", "b"))
    assert even == pytest.approx(0.110, abs=0.001) and balanced <= 0.0945


def test_two_groups_do_less_twice(yolov2):
    """Published: 2.20 in one group, 1.45 in two; where best to part them is the planner's choice."""
    ratios = [
        cost(yolov2, cut_network(yolov2, f"tiles:5x5@0..{end}+5x5@{end + 1}.."))["work_ratio"]
        for end in range(2, 26, 3)
    ]
    assert min(ratios) < 1.5


@many
@given(st.integers(1, 80), SPEEDS)
def test_bands_cover_once_and_no_robot_could_be_ready_sooner(height, speeds):
    spans = least_time(height, speeds)
    rows = np.concatenate([np.arange(start, end) for start, end in spans])
    assert (rows == np.arange(height)).all()
    slowest = max((end - start) / speed for (start, end), speed in zip(spans, speeds, strict=True))
    # anything faster than that could not finish all rows
    assert sum(int(np.ceil(slowest * speed - 1e-9)) - 1 for speed in speeds) < height


@many
@given(dags(), SPEEDS)
def test_bands_of_random_networks_equal_the_whole(folder, dag, speeds):
    net, outputs = dag
    (folder / "model.tflite").write_bytes(net.build(outputs))
    network = read_network(folder / "model.tflite")
    stages = cut_bands(network, speeds, "x")
    assert all(piece.outputs for stage in stages for piece in stage.pieces)
    assert_equal(network, stages)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_converter_made(path):
    network = read_network(path)
    first = next(op.index for op in network.ops if op.tileable and not op.folded)
    for robots in ("4", "3,1,2"):
        assert_equal(network, cut_network(network, f"bands:{robots}@{first}.."))


def test_fewer_rows_than_bands_are_fewer_pieces(folder):
    net = NetBuilder()
    x = net.conv(net.pool("MAX", net.input(20, 8, 2), (4, 2), (4, 2), VALID), 3, (3, 3))
    (folder / "small.tflite").write_bytes(net.build([x]))
    network = read_network(folder / "small.tflite")
    stages = cut_network(network, "bands:8")
    assert [len(stage.pieces) for stage in stages] == [5, 5]
    assert layers_of(network, 0, 1) == ((0, 0), (1, 1))
    assert_equal(network, stages)
