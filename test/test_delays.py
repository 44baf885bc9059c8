# SPDX-License-Identifier: Apache-2.0
"""Delays as they are: what is kept of stages and links, the fleet that follows, and shares of a deadline in time."""

from dataclasses import replace

import numpy as np
import pytest

from dnn_dist.errors import ConfigError, PlanError
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot, link_text, parse_fleet, parse_link
from dnn_dist.plan.observed import observed_fleet
from dnn_dist.run.delays import KEPT, LEAST, Arrivals, measured_link
from dnn_dist.run.gathered import GathererSettings
from dnn_dist.run.shape import PieceShape, PlanShape, StageShape
from dnn_dist.run.shares import AGAIN, Shares, dataflow
from dnn_dist.run.shares import LEAST as KNOWN
from dnn_dist.sim import Load, Scenario, Source, simulate
from dnn_dist.yamlfile import read_yaml

LOCAL = StageShape(True, ())


def coded(needed: int, parities: int, macs: int = 1) -> StageShape:
    return StageShape(False, (PieceShape(100, 100, macs),) * (needed + parities), needed)


TWO = PlanShape((coded(4, 1, 9), coded(4, 1, 1), LOCAL))
"""Two coded stages, the first of which takes longer."""


def test_what_is_kept_of_a_stage_is_bounded_and_new():
    seen = Arrivals()
    for n in range(10 * KEPT):
        seen.note(float(n), came=n % 4 > 0)
    assert len(seen.seen) == KEPT and seen.count == 10 * KEPT and min(seen.came) >= 9 * KEPT
    seen.note(0.5, came=False, pieces=10**9)
    assert len(seen.seen) == KEPT and not seen.came
    assert str(seen) == f"0 of {KEPT} pieces came"


def test_a_link_is_measured_by_what_acknowledgements_took():
    rng = np.random.default_rng(0)
    sizes = rng.choice([20_000, 100_000, 400_000], KEPT)
    link = Link(7.5e6, latency=0.002, gamma=(2.0, 1e-3))
    took = [
        (float(2 * link.latency + size / link.bandwidth + d), int(size))
        for size, d in zip(sizes, rng.gamma(2, 1e-3, KEPT), strict=True)
    ]
    found = measured_link(took)
    assert found is not None and found.bandwidth == pytest.approx(link.bandwidth, rel=0.05)
    assert found.latency == pytest.approx(link.latency, abs=0.3e-3)
    assert found.mean_delay == pytest.approx(link.mean_delay, rel=0.2)
    assert found.seconds(100_000) == pytest.approx(link.seconds(100_000), rel=0.05)
    assert parse_link(link_text(found), "here") == found
    assert measured_link(took[: LEAST - 1]) is None
    one_size = measured_link([(0.01, 50_000)] * LEAST)
    assert one_size is not None and one_size.seconds(50_000) == pytest.approx(0.01)


def test_a_line_that_is_no_link_is_said_in_one():
    for text in ("", "[1]", "{bandwidth", "{bandwidth: 7}", "{bandwidth: 60 Mbit/s, speed: 1}"):
        with pytest.raises(ConfigError, match="here"):
            parse_link(text, "here")


def test_the_fleet_of_a_running_cluster_is_a_fleet_file(tmp_path):
    slow, fast = Link(1e6, 0.002, delays=(0.0, 0.001, 0.004)), Link(9e6, 0.001)
    links = {("front", "r2"): slow, ("front", "r3"): fast}
    fleet, said = observed_fleet({"r2": 1e9, "r3": 2.4e9, "r4": 0.0}, links)
    (path := tmp_path / "fleet.yaml").write_text(fleet.to_yaml())
    assert parse_fleet(read_yaml(path, "fleet file"), str(path)) == fleet
    assert fleet.names == ("front", "r2", "r3", "r4") and fleet.robot("r3").speed == 2.4e9
    assert fleet.link("r2", "front") == slow and fleet.link("front", "r3") == fast
    assert fleet.link("r2", "r3").bandwidth in (1e6, 9e6)
    assert [line.split(":")[0] for line in said[:2]] == ["robot front", "robot r4"] and len(said) == 3
    with pytest.raises(PlanError, match="no worker has computed"):
        observed_fleet({"r2": 0.0}, links)
    with pytest.raises(PlanError, match="no link is measured"):
        observed_fleet({"r1": 1e9, "r2": 1e9}, {})
    assert observed_fleet({"r1": 1e9}, {})[0].names == ("r1",)


def test_a_plan_is_a_dataflow_of_its_chains():
    seen = Arrivals()
    seen.note(0.01, came=True, pieces=KNOWN)
    tiles = StageShape(False, (PieceShape(1, 1, 1),) * 6)
    shape = PlanShape((LOCAL, coded(3, 2), LOCAL, tiles, replace(tiles, direct=True), LOCAL))
    flow = dataflow(shape, [seen, seen], {0: 0.1, 2: 0.2, 5: 0.3}, guard=0.01)
    assert flow.seconds == pytest.approx((0.1, 0.2, 0.31))
    assert [(one.source, one.target) for one in flow.channels] == [(0, 1)] * 5 + [(1, 2)]
    assert [(len(group.slices), group.needed) for group in flow.coded] == [(5, 3)]


def test_shares_are_asked_for_when_there_is_something_to_go_by():
    pytest.importorskip("scipy")
    shares = Shares()
    ask = ("plan", TWO, {2: 0.01}, 0.5, 0.01)
    assert shares.problem(*ask, "quality") is None
    assert shares.problem("plan", PlanShape((coded(4, 1), LOCAL)), {}, 0.5, 0.0, "uniform") is None  # nothing to share
    assert shares.problem("plan", TWO, {}, float("inf"), 0.0, "uniform") is None
    even = shares.problem(*ask, "uniform")
    assert even is not None and shares.problem(*ask, "uniform") is None  # while one is being solved
    shares.take(even.solve())
    assert shares.until("plan", 0, 0.5, "uniform") == pytest.approx(0.24)
    assert shares.until("plan", 1, 0.25, "uniform") == pytest.approx(0.24)
    assert shares.until("plan", 0, 0.5, "quality") is None
    for stage, seconds in ((0, 0.2), (1, 0.02)):
        for n in range(KNOWN):
            shares.note("plan", stage, seconds * (1 + n / KNOWN), came=True)
    problem = shares.problem(*ask, "quality")
    assert problem is not None
    solved = problem.solve()
    shares.take(solved)
    assert solved.until[0] > 0.35 and solved.until[1] == pytest.approx(0.48) and solved.quality > 0.5
    assert shares.problem(*ask, "quality") is None
    shares.note("plan", 0, 0.2, came=True, pieces=AGAIN)
    assert shares.problem(*ask, "quality") is not None
    assert "stage 0 to" in shares.health()["plan plan shares"]
    shares.keep({})
    assert not shares.health()


def run(way: str, deadline: float, seed: int = 0):
    """Two coded stages of unlike length over links of Gamma(2, 4 ms), in virtual time; who is late is late."""
    fleet = Fleet(
        tuple(Robot(f"r{n}", speed=1000.0, spread=0.3) for n in range(1, 7)),
        (LinkRule((), Link(bandwidth=1e8, gamma=(2.0, 0.004))),),
    )
    load = Load(TWO, lambda robot, stage, piece: (0.045, 0.005, 0.002)[stage])
    source = Source(
        "r1",
        load,
        frames=150,
        rate=4.0,
        deadline=deadline,
        workers=tuple(f"r{n}" for n in range(2, 7)),
        gatherer=GathererSettings(deadlines=way),
    )
    return simulate(Scenario(fleet, (source,), workers=source.workers, seed=seed))


def test_shares_by_quality_are_at_least_as_good_as_even_ones_at_every_deadline():
    """In virtual time; `bench/deadlines.py` does it on real nodes."""
    pytest.importorskip("scipy")
    qualities = {way: [run(way, 0.08 + 0.02 * n).quality for n in range(5)] for way in ("uniform", "quality")}
    even, optimised = (np.array(qualities[way]) for way in ("uniform", "quality"))
    assert np.all(optimised >= even - 0.01), qualities
    assert np.sum(optimised > even + 0.03) >= 2, qualities
