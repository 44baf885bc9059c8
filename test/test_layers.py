# SPDX-License-Identifier: Apache-2.0
"""Pipelines: least bottleneck, closed fronts, all live tensors carried; equal to the whole."""

from itertools import combinations

import numpy as np
import pytest
from cutting import EXAMPLES, FIXTURES, assert_equal, random_inputs, run_whole
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_tiles import dags

from dnn_dist.cut.layers import cut_layers, cut_points, layer_starts
from dnn_dist.cut.shares import contiguous
from dnn_dist.cut.spec import cut_network
from dnn_dist.graph.tflite import read_network

MODELS = sorted((*FIXTURES.glob("*.tflite"), *FIXTURES.glob("zoo/*.tflite")))
many = settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@many
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), min_size=1, max_size=9),
    st.lists(st.sampled_from((1.0, 2.0, 0.5)), min_size=1, max_size=4),
)
def test_least_bottleneck_then_fewest_bytes(layers, speeds):
    """Against every way there is."""
    costs, burdens = zip(*layers, strict=True)
    robots = len(speeds)
    if robots > len(layers):
        return

    def price(ends):
        spans = list(zip((0, *ends), (*ends, len(costs)), strict=True))
        slowest = max(sum(costs[a:b]) / speed for (a, b), speed in zip(spans, speeds, strict=True))
        return slowest, sum(burdens[end - 1] for end in ends)

    best = min(price(ends) for ends in combinations(range(1, len(costs)), robots - 1))
    found = contiguous(costs, burdens, tuple(speeds))
    assert [found[0][0], found[-1][1]] == [0, len(costs)]
    assert price(tuple(end for _, end in found[:-1])) == pytest.approx(best)


@many
@given(st.data(), dags())
def test_random_networks_equal_the_whole(folder, data, dag):
    net, outputs = dag
    (folder / "model.tflite").write_bytes(net.build(outputs))
    network = read_network(folder / "model.tflite")
    robots = data.draw(st.integers(1, len(network.ops)))
    stages = cut_layers(network, (1.0,) * robots, str(robots))
    assert len(stages) == robots and all(len(stage.pieces) == 1 for stage in stages)
    assert_equal(network, stages)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_converter_made(path):
    network = read_network(path)
    for robots in ("2", "5", "1,4,2"):
        assert_equal(network, cut_network(network, f"layers:{robots}"))


@pytest.mark.parametrize("path", MODELS[::3], ids=lambda path: path.stem)
def test_a_front_is_closed_and_carries_all_that_is_live(path):
    """Front and rest run apart: the rest is given what the cut point names, and nothing else."""
    network = read_network(path)
    inputs = random_inputs(network)
    whole = run_whole(network, inputs)
    points = {point.after: point for point in cut_points(network)}
    starts = layer_starts(network, 0, len(network.ops) - 1)
    for start in starts[1 :: max(1, len(starts) // 3)]:
        point = points[start - 1]
        front, rest = cut_network(network, f"layers:1@0..{point.after};layers:1")
        assert set(rest.inputs) <= set(point.tensors)
        assert set(point.tensors) <= set(front.outputs) | set(network.inputs)
        assert point.bytes == sum(network.tensors[t].bytes for t in point.tensors)
    assert all(np.isfinite(array.astype(float)).all() for array in whole.values())
