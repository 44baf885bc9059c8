# SPDX-License-Identifier: Apache-2.0
"""Pipelines of groups: who has which stages, how fast they are, what a death costs, and when the planner takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations, pairwise, product
from pathlib import Path

import pytest
from chained import Tiles, chain
from netbuilder import NetBuilder
from pytest import approx
from test_chains import WELL, Watched
from virtual import Faults

from dnn_dist.cut.piece import Stage
from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import CutError
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.plan.policy import columns, groups, in_work
from dnn_dist.plan.predict import Circumstances, Predictor
from dnn_dist.plan.rules import GROUPS, ROBOT_A_FRAME, Goal
from dnn_dist.plan.schedule import Handling
from dnn_dist.plan.search import Choice, search
from dnn_dist.run.report import Status
from dnn_dist.run.shape import PlanShape
from dnn_dist.sim import Outcome, Scenario, Source, simulate, stages_load
from dnn_dist.sim.scenario import Load

WIRE = Link(bandwidth=100e6, latency=0.0002)
WIFI = Link(bandwidth=2e5, latency=0.001, medium="wifi")


def pipeline(*sizes: int, macs: Sequence[int] = ()) -> PlanShape:
    """Groups of so many robots, each with two stages of tiles; `macs` of a piece of each, else 20."""
    pairs = zip(sizes, macs or [20] * len(sizes), strict=True)
    return chain(*(Tiles(size, load, group=not n) for size, load in pairs for n in range(2)))


TWO = pipeline(2, 2)
"""Groups of two robots: stages 0 and 1, and 2 and 3."""


# Placement and repair -------------------------------------------------------------------------------------------------


def test_each_group_has_columns_of_its_own() -> None:
    plan = pipeline(3, 1, 2)
    assert groups(plan.stages, plan.chain(0)) == (range(0, 2), range(2, 4), range(4, 6))
    found = columns(plan.stages, plan.chain(0))
    of_group = [
        {found[s, p] for s in group for p in range(len(plan.stages[s].pieces))}
        for group in groups(plan.stages, plan.chain(0))
    ]
    assert [len(some) for some in of_group] == [3, 1, 2] and set().union(*of_group) == set(range(6))


def test_a_pipeline_asks_for_a_frame_in_each_group_and_one_on_its_way() -> None:
    stages = pipeline(3, 1, 2).stages
    assert [in_work(most, stages) for most in (0, 1, 9)] == [4, 1, 9]
    assert [in_work(most, chain(Tiles(3), Tiles(3)).stages, 2) for most in (0, 1)] == [2, 1]


def test_robots_of_one_group_have_no_stage_of_another() -> None:
    cluster = Watched(4, TWO, max_frames=3)
    assert {report.status for report in cluster.run(12, period=0.05, budget=0.9)} == {Status.COMPLETE}
    assert not cluster.computed_again() and not [work for _, _, work in cluster.sent if work.again]
    for frame in range(12):
        crew = cluster.crew(frame)
        front, rear = ({crew[stage, piece] for stage in of for piece in (0, 1)} for of in ((0, 1), (2, 3)))
        assert len(front) == len(rear) == 2 and not front & rear
        assert crew == cluster.crew(0), "groups change robots for no reason"


def test_the_heavy_group_has_the_fast_robots() -> None:
    plan = pipeline(2, 2, macs=(10, 40))
    cluster = Watched(4, plan, max_frames=3, speeds=[4000, 1000, 1000, 4000])
    reports = cluster.run(20, period=0.1, budget=1.0)
    assert {report.status for report in reports[4:]} == {Status.COMPLETE}
    crew = cluster.crew(19)
    assert {crew[2, 0], crew[2, 1]} == {"w1", "w4"}


@pytest.mark.parametrize("moment", [0.31, 0.33, 0.35, 0.37])
@pytest.mark.parametrize("piece", [(0, 1), (3, 0)])
def test_who_dies_in_a_group_is_replaced_and_nobody_else_computes_again(moment: float, piece: tuple[int, int]) -> None:
    """Whichever group it is in, with frames in all of them; then groups are dealt anew, and again when it is back."""
    calm = Watched(4, TWO, max_frames=3)
    calm.run(1)
    victim = calm.crew(0)[piece]
    faults = Faults(events=[(moment, "kill", victim), (1.5, "restart", victim)], delay=(0.001, 0.001))
    cluster = Watched(4, TWO, max_frames=3, faults=faults)
    reports = cluster.run(60, period=0.05, budget=2.0)
    assert {report.status for report in reports} <= WELL
    had = {key for name, key in cluster.computed if name == victim}
    assert set(cluster.computed_again()) <= had, "who lives computes nothing again"
    without = cluster.crew(max(work.key.frame for at, _, work in cluster.sent if at < 1.49))
    assert victim not in without.values() and len(set(without.values())) == 3
    last = cluster.crew(reports[-1].frame)
    assert victim in last.values() and len(set(last.values())) == 4, "a robot of four has two columns, one none"
    assert not {last[0, p] for p in (0, 1)} & {last[2, p] for p in (0, 1)}


# Throughput -----------------------------------------------------------------------------------------------------------


def flow(plan: PlanShape, robots: int, max_frames: int = 0) -> tuple[float, Outcome]:
    """Frames a second while the pipeline is full, on so many robots of 1000 MAC/s and a gateway; and the run."""
    names = tuple(f"w{number}" for number in range(robots))
    fleet = Fleet(tuple(Robot(name, 1000.0) for name in (*names, "gateway")), (LinkRule((), Link(1e6, 0.0005)),))
    source = Source("gateway", Load(plan), frames=60, max_frames=max_frames, deadline=60.0)
    outcome = simulate(Scenario(fleet, (source,), workers=names))
    assert {frame.report.status for frame in outcome.frames} == {Status.COMPLETE}
    ended = sorted(frame.reported for frame in outcome.frames)
    return 40 / (ended[52] - ended[12]), outcome


@pytest.mark.parametrize(
    ("sizes", "macs"), [((2, 2), (20, 20)), ((3, 1), (10, 30)), ((1, 2, 1), (40, 20, 30)), ((1, 1, 1, 1, 1), (20,) * 5)]
)
def test_a_pipeline_of_groups_is_as_fast_as_its_slowest_group(sizes: tuple[int, ...], macs: tuple[int, ...]) -> None:
    """Two stages of each group; with as many frames in work as the plan asks for."""
    rate, outcome = flow(pipeline(*sizes, macs=macs), sum(sizes))
    assert rate == approx(1000 / (2 * max(macs)), rel=0.07)
    busy = sorted(use.busy for name, use in outcome.robots.items() if name != "gateway")
    assert busy == approx(
        sorted(60 * 2 * load / 1000 for load, size in zip(macs, sizes, strict=True) for _ in range(size))
    )


def test_one_frame_at_a_time_leaves_all_groups_but_one_idle() -> None:
    many, one = (flow(pipeline(2, 2, 2), 6, most)[0] for most in (0, 1))
    assert many > 2.5 * one


# The planner ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Convolutions with most of the work in front and most of the weights behind."""
    net = NetBuilder()
    x = net.input(48, 48, 3)
    for filters, strides in ((16, (1, 1)), (16, (2, 2)), (32, (1, 1)), (32, (2, 2)), (64, (1, 1)), (64, (2, 2))):
        x = net.conv(x, filters, (3, 3), strides)
    path = Path(tmp_path_factory.mktemp("groups"), "groups.tflite")
    path.write_bytes(net.build([net.dense(net.dense(x, 64), 10)]))
    return read_network(path)


def fleet(count: int, link: Link = WIRE, memory: int | None = None, speeds: Sequence[float] = ()) -> Fleet:
    each = speeds or [20e6] * count
    return Fleet(tuple(Robot(f"r{n}", speed, 1e-4, memory) for n, speed in enumerate(each, 1)), (LinkRule((), link),))


def circumstances(robots: Fleet) -> Circumstances:
    return Circumstances(robots, "r1", max_frames=0, alone=len(robots.names), handling=Handling())


def find(network: Network, robots: Fleet, deadline: float | None = None) -> Choice:
    return search(network, circumstances(robots), Goal("throughput", deadline))


def of_family(choice: Choice, family: str):  # type: ignore[no-untyped-def]
    return next(candidate for candidate in choice.alternatives if candidate.family == family)


def test_whole_frames_where_they_fit_and_nobody_waits_for_one(network: Network) -> None:
    choice = find(network, fleet(4))
    assert choice.best.family == ROBOT_A_FRAME
    line = next(line for line in choice.why if line.startswith("a robot a frame: "))
    assert "; a pipeline of groups: " in line


def test_groups_where_a_frame_may_not_take_as_long_as_one_robot(network: Network) -> None:
    alone = network.macs / 20e6
    choice = find(network, fleet(4), deadline=0.9 * alone)
    assert choice.best.family == GROUPS and choice.best.prediction.latency <= 0.9 * alone
    assert any(line.startswith("groups, since one robot takes too long for a frame") for line in choice.why)
    assert choice.best.prediction.throughput * alone > 3, "of four robots"


def test_groups_where_the_model_is_too_large_for_a_robot(network: Network) -> None:
    """Each robot holds the weights of its own group alone."""
    whole = Predictor(network, circumstances(fleet(4))).whole_memory
    memory = int(0.8 * whole)
    robots = fleet(6, Link(bandwidth=5e5, latency=0.002, medium="wifi"), memory)
    choice = find(network, robots)
    assert choice.best.family == GROUPS and not choice.best.prediction.too_small
    assert any(line.startswith("groups, since the model is too large for 6 robots") for line in choice.why)
    assert set(choice.best.prediction.robot_memory) == set(robots.names)
    source = Source("r1", stages_load(network, choice.best.stages), frames=8, deadline=60.0)
    outcome = simulate(Scenario(robots, (source,), workers=choice.best.workers))
    assert all(0 < use.memory <= memory for use in outcome.robots.values())


def every_pipeline(network: Network, robots: int) -> Iterator[tuple[Stage, ...]]:
    """All pipelines of two groups or more with one stage each, of one tile a robot, or whole for one robot."""
    starts = tuple(op.index for op in network.ops if op.macs)
    for count in range(2, robots + 1):
        for inner in combinations(starts[1:], count - 1):
            places = (0, *inner, len(network.ops))
            for sizes in product(range(1, robots + 1), repeat=count):
                if sum(sizes) > robots:
                    continue
                kinds = [["layers:1"] if n == 1 else [f"tiles:1x{n}", f"tiles:{n}x1"] for n in sizes]
                for chosen in product(*kinds):
                    spans = zip(chosen, pairwise(places), strict=True)
                    with suppress(CutError):  # not all can be tiled
                        yield cut_network(network, ">>".join(f"{kind}@{a}..{b - 1}" for kind, (a, b) in spans))


@pytest.mark.parametrize(
    "robots", [fleet(3), fleet(3, WIFI), fleet(3, speeds=(40e6, 20e6, 20e6))], ids=["wire", "Wi-Fi", "unlike"]
)
def test_it_is_within_five_per_cent_of_all_pipelines_of_fused_tiles(network: Network, robots: Fleet) -> None:
    predictor = Predictor(network, circumstances(robots))
    best = max(predictor(stages, robots.names).throughput for stages in every_pipeline(network, 3))
    assert of_family(find(network, robots), GROUPS).prediction.throughput >= 0.95 * best


@pytest.mark.parametrize("link", [WIRE, WIFI], ids=["wire", "Wi-Fi"])
@pytest.mark.parametrize("count", [3, 6])
def test_what_is_predicted_of_groups_is_what_the_machines_do(network: Network, link: Link, count: int) -> None:
    robots = fleet(count, link)
    plan = of_family(find(network, robots), GROUPS)
    source = Source("r1", stages_load(network, plan.stages, robots=plan.workers), frames=60, deadline=60.0)
    outcome = simulate(Scenario(robots, (source,), workers=plan.workers))
    ended = sorted(frame.reported for frame in outcome.frames)
    assert 40 / (ended[52] - ended[12]) == approx(plan.prediction.throughput, rel=0.1)


def test_a_predictor_tells_a_pipeline_from_a_chain_of_the_same_stages(network: Network) -> None:
    robots = fleet(4)
    texts = ["tiles:2x2@0..2>tiles:2x2@3..5;local", "tiles:2x2@0..2>>tiles:2x2@3..5;local"]
    predictor = Predictor(network, circumstances(robots))
    for text in texts:
        stages = cut_network(network, text)
        assert predictor(stages, robots.names) == Predictor(network, circumstances(robots))(stages, robots.names)


def test_gathered_stages_are_no_groups(network: Network) -> None:
    stages = tuple(replace(stage, direct=False, group=False) for stage in cut_network(network, "layers:3"))
    assert stages == cut_network(network, "layers:3g") and in_work(0, stages) == 1
