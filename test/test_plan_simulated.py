# SPDX-License-Identifier: Apache-2.0
"""The cost model against the simulator, which runs the live cluster's own machines: they agree, and on what is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import pytest
from cutting import FIXTURES

from dnn_dist.cut.piece import Stage
from dnn_dist.cut.spec import cut_network
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.plan.predict import Circumstances, Prediction, Predictor
from dnn_dist.plan.rules import ONE_ROBOT, Goal
from dnn_dist.plan.schedule import Handling
from dnn_dist.plan.search import search
from dnn_dist.sim import Scenario, Source, simulate, stages_load

NETWORK = read_network(FIXTURES / "chain_float32.tflite")
WIRE = Link(bandwidth=10e6, latency=0.0005)
WIFI = Link(bandwidth=2e6, latency=0.002, medium="wifi")
RADIO = Link(bandwidth=2e4, latency=0.2, medium="radio")
QUICK = Handling()
"""Messages cost nothing but their way, as in the simulator."""
SINGLE = ["local", "tiles:3x3@0..4", "bands:3@0..3", "slices:3", "slices:2+1@3..6", "layers:3"]
DIRECT = ["tiles:1x3@0..1>tiles:1x3@2..4", "tiles:3x1@0..0>bands:3@1..4;local", "tiles:2x2@0..1>layers:1@2.."]
REUSE = ["tiles:3x3r@0..4", "tiles:5x4r@0..2;tiles:2x2@3..4", "tiles:3x2r@0..2>tiles:3x2r@3..4"]
CUTS = [*SINGLE, "layers:3g", "tiles:2x2@0..1;slices:3@5..6", *DIRECT, *REUSE]


def fleet(link: Link, *speeds: float) -> Fleet:
    robots = tuple(Robot(f"r{n}", speed, 1e-3) for n, speed in enumerate(speeds, 1))
    return Fleet(robots, (LinkRule((), link),))


def simulated(
    network: Network, stages: Sequence[Stage], robots: Fleet, workers: tuple[str, ...], in_work: int = 1
) -> float:
    """Mean latency of a frame, s."""
    # as plans are written: the fastest robot first
    named = tuple(sorted(workers, key=lambda name: -robots.robot(name).speed))
    source = Source("r1", stages_load(network, stages, robots=named), frames=12 * in_work, max_frames=in_work)
    outcome = simulate(Scenario(robots, (source,), workers=workers))
    return fmean(frame.report.latency for frame in outcome.frames[2:])


@pytest.mark.parametrize("robots", [fleet(WIRE, 2e6, 2e6, 2e6), fleet(WIFI, 2e6, 1e6, 4e6)], ids=["wire", "wifi"])
@pytest.mark.parametrize("cut", CUTS)
def test_predictions_are_what_the_machines_do(cut: str, robots: Fleet) -> None:
    stages = cut_network(NETWORK, cut)
    given = Circumstances(robots, "r1", max_frames=1, handling=QUICK)
    predicted = Predictor(NETWORK, given)(stages, robots.names).latency
    assert predicted == pytest.approx(simulated(NETWORK, stages, robots, robots.names), rel=0.1)


@pytest.mark.parametrize("robots", [fleet(WIRE, 2e6, 2e6, 2e6), fleet(WIFI, 2e6, 1e6, 4e6)], ids=["wire", "wifi"])
@pytest.mark.parametrize("cut", [DIRECT[0], "layers:3"])
def test_two_frames_in_work_fill_each_others_waits_as_predicted(cut: str, robots: Fleet) -> None:
    stages = cut_network(NETWORK, cut)
    predicted = Predictor(NETWORK, Circumstances(robots, "r1", max_frames=2, handling=QUICK))(stages, robots.names)
    assert predicted.latency == pytest.approx(simulated(NETWORK, stages, robots, robots.names, 2), rel=0.1)


def test_where_one_robot_is_faster_the_simulator_agrees() -> None:
    robots = fleet(RADIO, 2e6, 2e6, 2e6)
    choice = search(NETWORK, Circumstances(robots, "r1", handling=QUICK), Goal())
    assert choice.best.family == ONE_ROBOT
    alone = simulated(NETWORK, choice.best.stages, robots, choice.best.workers or robots.names)
    divided = [c for c in choice.alternatives if len(c.robots) > 1]
    assert divided
    assert all(alone < simulated(NETWORK, c.stages, robots, c.workers) for c in divided)


def test_the_simulator_can_have_the_last_word() -> None:
    robots = fleet(WIRE, 2e6, 2e6, 2e6)
    given = Circumstances(robots, "r1", handling=QUICK)
    predictor = Predictor(NETWORK, given)

    def evaluate(stages: Sequence[Stage], workers: tuple[str, ...], replicas: int) -> Prediction:
        told = predictor(stages, workers, replicas)
        return replace(told, latency=simulated(NETWORK, stages, robots, workers or robots.names))

    by_simulator, by_model = search(NETWORK, given, Goal(), evaluate).best, search(NETWORK, given, Goal()).best
    assert by_simulator.prediction.latency == pytest.approx(by_model.prediction.latency, rel=0.1)
