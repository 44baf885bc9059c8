# SPDX-License-Identifier: Apache-2.0
"""Task assignment: the exact answer is that of trying all, and never worse than the greedy one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise, product

import pytest
from cutting import FIXTURES
from hypothesis import given, settings
from hypothesis import strategies as st

from dnn_dist.errors import PlanError
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.fleet import Robot
from dnn_dist.plan.task_assignment import (
    VGG16_PI3,
    Layer,
    Pipeline,
    Task,
    exact,
    greedy,
    message_seconds,
    pipeline_of,
)

LAYERS = st.builds(Layer, st.floats(0.01, 2), st.integers(1, 50), st.integers(0, 200_000), st.booleans())
PIPELINES = st.builds(Pipeline, st.lists(LAYERS, min_size=1, max_size=6).map(tuple), st.sampled_from([30, 60, 1000]))


def everything(pipeline: Pipeline, devices: int) -> Iterator[tuple[Task, ...]]:
    """All contiguous divisions with all variants that fit."""
    count = len(pipeline.layers)
    for tasks in range(1, min(count, devices) + 1):
        for inner in combinations(range(1, count), tasks - 1):
            spans = list(pairwise((0, *inner, count)))
            for used in product(range(1, devices + 1), repeat=tasks):
                if sum(used) <= devices:
                    choices = [pipeline.variants(*span, n) for span, n in zip(spans, used, strict=True)]
                    yield from (way for way in product(*choices) if all(map(pipeline.fits, way)))


@settings(deadline=None)
@given(PIPELINES, st.integers(1, 4))
def test_exact_is_the_best_of_all(pipeline: Pipeline, devices: int) -> None:
    ways = list(everything(pipeline, devices))
    if not ways:
        with pytest.raises(PlanError, match="too few"):
            exact(pipeline, devices)
        return
    found = exact(pipeline, devices)
    assert found.interval == pytest.approx(min(pipeline.assignment(way).interval for way in ways))
    assert found.devices <= devices
    assert [task.end for task in found.tasks[:-1]] == [task.first for task in found.tasks[1:]]
    assert all(pipeline.fits(task) for task in found.tasks)


@settings(deadline=None)
@given(PIPELINES, st.integers(1, 6))
def test_greedy_covers_all_layers_and_is_never_better(pipeline: Pipeline, devices: int) -> None:
    try:
        found = greedy(pipeline, devices)
    except PlanError:
        return
    assert (found.tasks[0].first, found.tasks[-1].end) == (0, len(pipeline.layers))
    assert all(a.end == b.first for a, b in pairwise(found.tasks))
    assert found.devices <= devices
    if all(map(pipeline.fits, found.tasks)):
        assert exact(pipeline, devices).interval <= found.interval * (1 + 1e-9)


def test_the_published_profile_of_vgg16() -> None:
    # 224x224x3 and the outputs of the 16 layers after pooling, float32; the paper: 0.87 and 1.08 frames/s on 8 and 10
    pixels = (224, 112, 112, 56, 56, 56, 28, 28, 28, 14, 14, 14, 7)
    channels = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    sizes = (*(c * p**2 for c, p in zip(channels, pixels, strict=True)), 4096, 4096, 1000)
    layers = tuple(Layer(s, 1, 4 * size, False) for s, size in zip(VGG16_PI3, sizes, strict=True))
    pipeline = Pipeline(layers, input=4 * 3 * 224**2, message=lambda size: 0.08)
    for devices, published in ((8, 0.87), (10, 1.08)):
        rates = [1 / assign(pipeline, devices).interval for assign in (greedy, exact)]
        assert rates[0] == pytest.approx(published, rel=0.1)
        assert rates[1] >= rates[0]


def test_a_layer_that_fits_no_device_is_divided_or_refused() -> None:
    layers = (Layer(1.0, 10, 0), Layer(1.0, 100, 0, True))
    found = greedy(Pipeline(layers, 60), 3)
    assert found.tasks[1] == Task(1, 2, 2, "model parallel")
    with pytest.raises(PlanError, match="cannot be divided"):
        greedy(Pipeline((Layer(1.0, 100, 0),), 60), 3)
    with pytest.raises(PlanError, match="too few"):
        greedy(Pipeline(layers, 60), 0)


def test_messages_as_published() -> None:
    assert message_seconds(1000) == pytest.approx(0.0022)


@pytest.mark.parametrize("name", ["zoo/vgg16_float32", "zoo/mobilenet_v2_int8"])
def test_a_network_as_a_pipeline(name: str) -> None:
    network = read_network(FIXTURES / f"{name}.tflite")
    pipeline = pipeline_of(network, Robot("pi", 1e8), lambda size: size / 1e8)
    assert sum(layer.seconds for layer in pipeline.layers) == pytest.approx(network.macs / 1e8)
    one, four = exact(pipeline, 1), exact(pipeline, 4)
    assert four.interval <= one.interval
    assert exact(pipeline, 4).interval <= greedy(pipeline, 4).interval * (1 + 1e-9)
