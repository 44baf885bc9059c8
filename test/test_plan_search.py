# SPDX-License-Identifier: Apache-2.0
"""The search against an exhaustive enumeration; laws of the policy, and what a redundant plan survives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise, product
from pathlib import Path

import pytest
from cutting import FIXTURES
from netbuilder import NetBuilder

from dnn_dist.cut.bands import cut_bands
from dnn_dist.cut.feeds import chains
from dnn_dist.cut.layers import layer_starts
from dnn_dist.cut.local import cut_local, whole_stage
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.slices import cut_slices
from dnn_dist.cut.spec import cut_network, cut_text
from dnn_dist.cut.tiles import cut_tiles
from dnn_dist.errors import CutError, PlanError
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.plan.predict import Circumstances, Predictor
from dnn_dist.plan.rules import ONE_ROBOT, Goal
from dnn_dist.plan.schedule import Handling
from dnn_dist.plan.search import Choice, search

WIRE = Link(bandwidth=100e6, latency=0.0002)
WIFI = Link(bandwidth=5e6, latency=0.002, medium="wifi")
SLOW = Link(bandwidth=1e4, latency=0.5, medium="radio")


@cache
def model(name: str) -> Network:
    return read_network(FIXTURES / f"{name}_float32.tflite")


def fleet(*speeds: float, link: Link = WIRE, memory: int | None = None) -> Fleet:
    robots = tuple(Robot(f"r{n}", speed, 1e-4, memory) for n, speed in enumerate(speeds, 1))
    return Fleet(robots, (LinkRule((), link),))


def circumstances(robots: Fleet, max_frames: int = 1) -> Circumstances:
    """Messages cost nothing but their way: otherwise one robot would be best for networks as small as these."""
    return Circumstances(robots, robots.names[0], max_frames=max_frames, handling=Handling())


def find(network: Network, robots: Fleet, goal: Goal | None = None, max_frames: int = 1) -> Choice:
    return search(network, circumstances(robots, max_frames), goal or Goal())


# The whole space, one plan after the other ----------------------------------------------------------------------------


Cut = Callable[[], tuple[Stage, ...]]


@cache
def every_stage(network: Network, first: int, last: int, speeds: tuple[float, ...]) -> tuple[Stage, ...]:
    """Every single stage for ops first..last that gives workers of these speeds about two pieces each or fewer."""
    return tuple(_every_stage(network, first, last, speeds))


def _every_stage(network: Network, first: int, last: int, speeds: tuple[float, ...]) -> Iterator[Stage]:
    yield cut_local(network, first, last)
    yield whole_stage(network, "layers", f"layers:1@{first}..{last}", first, last)
    most, attempts = 2 * len(speeds) + 1, list[Cut]()
    for grid in product(range(1, most + 1), repeat=2):
        if 1 < grid[0] * grid[1] <= most:
            attempts.append(lambda grid=grid: (cut_tiles(network, grid, first, last),))
    counts = [str(count) for count in range(2, len(speeds) + 1)]
    for text in [*counts, *([",".join(f"{s / speeds[-1]:.3g}" for s in speeds)] if speeds[0] > speeds[-1] else [])]:
        shares = tuple(map(float, text.split(","))) if "," in text else (1.0,) * int(text)
        attempts.append(lambda text=text, shares=shares: cut_bands(network, shares, text, first, last))
        if first == last:
            attempts.append(lambda text=text, shares=shares: cut_slices(network, shares, 0, text, first, last))
            attempts.append(lambda text=text, shares=shares: cut_slices(network, shares, 1, f"{text}+1", first, last))
    for cut in attempts:
        with suppress(CutError):  # this range cannot be cut so
            if len(stages := cut()) == 1:  # more are a composition
                yield stages[0]


def best_of_all(network: Network, robots: Fleet, goal: Goal, max_frames: int = 1) -> float:
    """The goal's least value with gathered boundaries: every composition of the ops, every stage, every set of workers.

    Each plan is predicted as a whole. A plan is only left out when its beginning alone is worse than the best whole one
    found (what is added takes time and memory); for latency, with the least time that the rest can take.
    """
    predictor = Predictor(network, circumstances(robots, max_frames))
    starts = (*layer_starts(network, 0, len(network.ops) - 1), len(network.ops))
    best = math.inf
    for workers in (w for size in range(1, len(robots.names) + 1) for w in combinations(robots.names, size)):
        table = {}
        for a, b in combinations(starts, 2):
            speeds = tuple(sorted((predictor.speeds[name] for name in workers), reverse=True))
            stages = every_stage(network, a, b - 1, speeds)
            table[a, b] = sorted((predictor.cost((s,), workers).latency, n, s) for n, s in enumerate(stages))
        rest = {starts[-1]: 0.0}  # the least that ops from here to the end can take
        for a in reversed(starts[:-1]):
            rest[a] = min(table[a, b][0][0] + rest[b] for b in starts if b > a)
        stack: list[tuple[int, tuple[Stage, ...], float]] = [(0, (), 0.0)]
        while stack:
            place, before, spent = stack.pop()
            if place == starts[-1]:
                best = min(best, goal.value(predictor(cut_network(network, cut_text(before)), workers)))
                continue
            for after in (b for b in starts if b > place):
                for cost, _, stage in reversed(table[place, after]):
                    whole = (*before, stage)
                    least = spent + cost + rest[after]
                    if goal.objective != "latency":
                        least = goal.value(predictor(whole, workers))
                    if least < best * (1 - 1e-9):
                        stack.append((after, whole, spent + cost))
    return best


def best_chain(network: Network, robots: Fleet) -> float:
    """The least latency of a chain from the first op on, wherever it ends, with the rest at a worker or the gateway:
    every set of places for direct boundaries, every grid and bands for every set of workers, a kind for each chain.
    """
    predictor = Predictor(network, circumstances(robots))
    starts = (*layer_starts(network, 0, len(network.ops) - 1), len(network.ops))
    best = math.inf
    for workers in (w for size in range(2, len(robots.names) + 1) for w in combinations(robots.names, size)):
        speeds = sorted((predictor.speeds[name] for name in workers), reverse=True)
        bands = ",".join(f"{speed / speeds[-1]:.3g}" for speed in speeds)
        grids = [f"{r}x{c}" for r in range(1, 5) for c in range(1, 5) if r * c == len(workers)]
        for kind in (*(f"tiles:{grid}" for grid in grids), f"bands:{bands}"):
            for count in range(1, len(starts)):
                for inner in powerset(starts[1:count]):
                    ends = (0, *inner, starts[count])
                    chained = ">".join(f"{kind}@{a}..{b - 1}" for a, b in pairwise(ends))
                    rest = f">layers:1@{ends[-1]}.." if ends[-1] < starts[-1] else ""
                    for text in {chained, chained + rest}:
                        with suppress(CutError):
                            best = min(best, predictor(cut_network(network, text), workers).latency)
    return best


def powerset(items: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return (chosen for size in range(len(items) + 1) for chosen in combinations(items, size))


FLEETS = {
    "four alike, wires": fleet(20e6, 20e6, 20e6, 20e6),
    "three unlike, wires": fleet(10e6, 40e6, 20e6),
    "two, Wi-Fi": fleet(20e6, 20e6, link=WIFI),
    "slow gateway, Wi-Fi": fleet(5e6, 50e6, 20e6, link=WIFI),
}
CASES = [
    *(("squeeze", robots) for robots in FLEETS),
    ("siamese", "four alike, wires"),
    ("chain", "three unlike, wires"),
    ("pyramid", "slow gateway, Wi-Fi"),
    ("mobile", "two, Wi-Fi"),
]


@pytest.mark.parametrize(("name", "robots"), CASES)
def test_latency_is_within_five_per_cent_of_all_plans(name: str, robots: str) -> None:
    network = model(name)
    chosen = find(network, FLEETS[robots]).best.prediction.latency
    assert chosen <= 1.05 * best_of_all(network, FLEETS[robots], Goal())


@pytest.mark.parametrize("link", [WIRE, WIFI], ids=["wires", "Wi-Fi"])
@pytest.mark.parametrize("name", ["chain", "siamese"])
def test_it_is_within_five_per_cent_of_all_chains(name: str, link: Link) -> None:
    network, robots = model(name), fleet(20e6, 20e6, 20e6, link=link)
    assert find(network, robots).best.prediction.latency <= 1.05 * best_chain(network, robots)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Three layers, so that all plans can be looked at where nothing adds up."""
    net = NetBuilder()
    x = net.conv(net.conv(net.input(16, 16, 3), 16, (3, 3), (2, 2)), 32, (3, 3))
    path = Path(tmp_path_factory.mktemp("small"), "small.tflite")
    path.write_bytes(net.build([net.dense(x, 10)]))
    return read_network(path)


@pytest.mark.parametrize("objective", ["throughput", "memory"])
def test_other_objectives_too(small: Network, objective: str) -> None:
    goal, robots, frames = Goal(objective), fleet(10e6, 30e6), 2 if objective == "throughput" else 1
    chosen = goal.value(find(small, robots, goal, frames).best.prediction)
    assert chosen <= 1.05 * best_of_all(small, robots, goal, frames)


# Laws -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chain", "siamese"])
def test_latencies_of_uncoded_chains_add_up(name: str) -> None:
    network, robots = model(name), FLEETS["slow gateway, Wi-Fi"]
    predictor = Predictor(network, Circumstances(robots, "r1", max_frames=1))
    for cut in ("local", "layers:2", "layers:2g", "tiles:2x2@0..0", "slices:2", "layers:1@0..0;slices:3@5..5"):
        stages = cut_network(network, cut)
        parts = [predictor.cost(stages[c.start : c.stop], robots.names).latency for c in chains(stages)]
        assert predictor(stages, robots.names).latency == pytest.approx(sum(parts))


@pytest.mark.parametrize("name", ["chain", "squeeze"])
def test_where_one_robot_is_faster_it_says_so(name: str) -> None:
    choice = find(model(name), fleet(20e6, 20e6, 20e6, link=SLOW))
    assert (choice.best.family, choice.best.robots) == (ONE_ROBOT, ("r1",))
    assert any(line.startswith("one robot is faster: r1") for line in choice.why)
    assert all(c.prediction.latency >= choice.best.prediction.latency for c in choice.alternatives)


def test_a_strong_robot_gets_it_all_if_the_way_is_short() -> None:
    best = find(model("chain"), fleet(1e6, 1e12)).best
    assert best.cut.split("@")[0] in ("layers:1", "rest")  # which are the same here
    assert (best.robots, best.family) == (("r2",), ONE_ROBOT)


@pytest.mark.parametrize("name", ["zoo/inception_v3", "zoo/unet"])
def test_robots_may_be_so_unlike_that_some_have_no_rows(name: str) -> None:
    """The bands of such robots are fewer for tensors with few rows, and tensors that go over one boundary differ."""
    speeds = (25e6, 25e6, 25e6, 5e6, 4.5e6, 5.5e6, 100e6)
    network = model(name)
    choice = find(network, fleet(*speeds, link=Link(1e8, 1e-5)))
    least = 0.9 * network.macs / sum(speeds)  # tiles pass over pixels that nobody reads
    assert all(least < candidate.prediction.latency < math.inf for candidate in choice.alternatives)


def test_more_robots_are_never_slower_and_less_loss_never_either() -> None:
    network = model("squeeze")
    speeds = [20e6, 20e6, 20e6, 20e6]
    latencies = [find(network, fleet(*speeds[:count])).best.prediction.latency for count in (1, 2, 3, 4)]
    assert all(b <= a * 1.01 for a, b in pairwise(latencies))


def test_the_deadline_bounds_what_memory_may_cost(small: Network) -> None:
    robots = fleet(20e6, 20e6, 20e6)
    free = find(small, robots, Goal("memory")).best.prediction
    fast = find(small, robots).best.prediction
    middle = (free.latency + fast.latency) / 2
    within = find(small, robots, Goal("memory", deadline=middle)).best.prediction
    assert within.latency <= middle
    assert free.memory <= 1.02 * within.memory <= 1.02**2 * fast.memory  # a hundredth is as good


def test_a_network_too_large_for_one_robot_is_divided(small: Network) -> None:
    whole = Predictor(small, Circumstances(fleet(20e6), "r1")).whole_memory
    robots = fleet(20e6, 20e6, 20e6, link=SLOW, memory=int(0.8 * whole))
    choice = find(small, robots)
    assert not choice.best.prediction.too_small
    assert choice.best.cut != "local"
    nothing = find(small, fleet(20e6, 20e6, memory=10))
    assert nothing.best.prediction.too_small
    assert any("no plan fits" in line for line in nothing.why)


@pytest.mark.parametrize("tolerate", [1, 2])
@pytest.mark.parametrize("link", [WIRE, WIFI])
def test_a_tolerant_plan_survives_every_loss(tolerate: int, link: Link) -> None:
    choice = find(model("squeeze"), fleet(*[20e6] * 4, link=link), Goal(tolerate=tolerate))
    for candidate in choice.alternatives:
        for stage in (stage for stage in candidate.stages if stage.distributed):
            workers = len(candidate.workers)
            if stage.coded:  # each piece with another worker
                assert stage.parity >= tolerate and len(stage.pieces) <= workers
            else:
                assert candidate.replicas > tolerate and workers > tolerate
    assert any("parity" in line or "no worker is needed" in line for line in choice.why)


def test_wrong_goals_are_one_line() -> None:
    for wrong in ({"objective": "speed"}, {"tolerate": 4}, {"tolerate": -1}, {"deadline": 0.0}):
        with pytest.raises(PlanError, match="expected"):
            Goal(**wrong)


def test_the_evaluator_has_the_last_word(small: Network) -> None:
    robots = fleet(20e6, 20e6)
    given = Circumstances(robots, "r1", max_frames=1)
    predictor = Predictor(small, given)
    asked = []

    def slow_links(stages, workers, replicas=1):  # type: ignore[no-untyped-def]
        asked.append(cut_text(stages))
        told = predictor(stages, workers, replicas)
        return replace(told, latency=told.latency + 1000 * told.traffic)

    assert search(small, given, Goal()).best.cut != "local"
    assert search(small, given, Goal(), slow_links).best.prediction.traffic == 0
    assert len(asked) < 12


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_stages_are_those_of_the_text(objective: str) -> None:
    network, robots = model("squeeze"), fleet(20e6, 10e6, 20e6)
    for candidate in find(network, robots, Goal(objective), 3).alternatives:
        assert candidate.stages == cut_network(network, candidate.cut)
