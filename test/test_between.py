# SPDX-License-Identifier: Apache-2.0
"""The cut between a robot and a server: equal to the whole, predicted as reckoned, and what the planner says of it."""

from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest
from cutting import EXAMPLES, FIXTURES, assert_equal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_dags import drawn_network

from dnn_dist.cut.spec import cut_network, filled
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.between import between
from dnn_dist.plan.cost import op_seconds
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.plan.policy import alike, columns, deal, keep_sides
from dnn_dist.plan.predict import Circumstances, Predictor
from dnn_dist.plan.rules import Goal
from dnn_dist.plan.schedule import Handling, schedule
from dnn_dist.plan.search import SIDED, search
from dnn_dist.run.shape import PlanShape

NOTHING = Handling(0.0, float("inf"))  # messages cost the gateway no time
many = settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def siamese():
    return read_network(FIXTURES / "zoo" / "siamese_float32.tflite")


def fleet(robot: float, server: float, megabits: float, others: int = 0) -> Fleet:
    """Speeds in million MACs a second; `others` are as slow as the robot."""
    robots = [Robot("pi", 1e6 * robot), Robot("server", 1e6 * server)]
    robots += [Robot(f"other{number}", 1e6 * robot) for number in range(others)]
    return Fleet(tuple(robots), (LinkRule((), Link(megabits * 125e3)),))


@many
@given(st.data())
def test_a_divided_network_equals_the_whole(folder, data):
    network = drawn_network(data.draw, folder)
    megabits = data.draw(st.sampled_from((0.001, 0.01, 0.1, 1.0, 10.0, 1000.0)))
    pi, server = fleet(1, data.draw(st.sampled_from((0.5, 2, 20))), megabits).robots
    found = between(network, pi, server, Link(megabits * 125e3), "float32")
    assert_equal(network, cut_network(network, found.cut))


@pytest.mark.parametrize("megabits", [0.05, 0.3, 1.0, 3.0, 30.0])
def test_the_schedule_of_a_cut_takes_what_the_division_says(siamese, megabits):
    """Where messages cost nothing but their time on the link."""
    robots = fleet(50, 500, megabits)
    found = between(siamese, *robots.robots, robots.link("pi", "server"), "float32")
    given = Circumstances(robots, "pi", handling=NOTHING)
    predicted = Predictor(siamese, given)(cut_network(siamese, found.cut), ("server", "pi"))
    assert predicted.latency == pytest.approx(found.division.makespan, rel=0.02)


def test_a_front_stays_on_the_sources_robot_and_a_rest_on_one_other(siamese):
    stages = cut_network(siamese, "front@9..12>front@0..3>rest@13..17>rest@4..8>rest@18..21")
    shape = PlanShape.of(siamese, stages, "float32")
    assert columns(shape.stages, range(5)) == {(0, 0): 0, (1, 0): 0, (2, 0): 1, (3, 0): 1, (4, 0): 1}
    sides = {0: "front", 1: "rest"}

    def dealt(speeds, own):
        seconds = alike([90.0, 10.0], speeds)
        keep_sides(seconds, sides, own)
        return deal(seconds)

    assert dealt([1.0, 100.0, 1.0], [0]) == (0, 1)  # though all would be done sooner on the server
    assert dealt([1.0, 100.0, 200.0], [0]) == (0, 2)
    assert dealt([1.0, 1.0], [0]) == (0, 1)
    assert dealt([1.0], [0]) == (0, 0)  # alone, it computes the rest too
    assert dealt([1.0, 2.0], []) == (1, 0)  # nobody has a worker where the image is


@pytest.mark.parametrize("others", [0, 3])
def test_the_planner_gives_the_rest_to_a_server_and_says_in_which_order(siamese, others):
    choice = search(siamese, Circumstances(fleet(50, 2000, 3.0, others), "pi"), Goal())
    assert choice.best.family == SIDED and choice.best.workers == ("server", "pi")
    assert choice.best.cut.startswith("front@") and ">rest@" in choice.best.cut
    (told,) = [line for line in choice.why if line.startswith("front and rest")]
    assert "from robot to server" in told and ("above the bound" in told or "only order" in told)
    assert set(choice.best.prediction.busy) == {"pi", "server"}


def test_a_front_may_hold_ops_from_behind_its_rests():
    """Nothing becomes local between its stages, and a plan of them is no faster than two robots can be."""
    interleaved = 0
    for name in ("resnet50_float32", "inception_v3_int8", "mobilenet_v3_float32"):
        network = read_network(FIXTURES / "zoo" / f"{name}.tflite")
        for megabits in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0):
            robots = fleet(50, 100, megabits)
            stages = cut_network(network, between(network, *robots.robots, robots.link("pi", "server"), "float32").cut)
            interleaved += any(one.last > other.first for one, other in pairwise(stages))
            assert filled(network, [one for one in stages if one.distributed], 0, len(network.ops) - 1) == stages
            predicted = Predictor(network, Circumstances(robots, "pi", handling=NOTHING))(stages, ("server", "pi"))
            assert sum(op_seconds(network, robots.robots[0])) / 3 <= predicted.latency < inf
    assert interleaved


def test_what_never_ends_takes_for_ever(siamese):
    """A piece that waits for what nobody makes."""
    robots = fleet(50, 500, 3.0)
    given = Circumstances(robots, "pi")
    stages = cut_network(siamese, between(siamese, *robots.robots, robots.link("pi", "server"), "float32").cut)
    loads = list(Predictor(siamese, given).load(stages))
    (last,) = loads[-1].pieces
    loads[-1] = replace(loads[-1], pieces=(replace(last, feeds={**last.feeds, (9, 9): 1}),))
    for frames in (1, 8):
        timeline = schedule(loads, Predictor(siamese, given).site(("server", "pi")), frames)
        assert timeline.latency == timeline.interval == inf


def test_a_server_over_a_bad_link_is_given_nothing(siamese):
    choice = search(siamese, Circumstances(fleet(5000, 10_000, 0.01), "pi"), Goal())
    assert choice.best.robots == ("pi",) and not any(line.startswith("front and rest") for line in choice.why)
