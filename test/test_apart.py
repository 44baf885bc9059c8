# SPDX-License-Identifier: Apache-2.0
"""Partition and aggregator on two robots run every plan: whoever merged a tensor sends it. In virtual time."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from arrays import ArrayCluster, network
from virtual import Cluster, Faults, shape

from dnn_dist.cut.spec import cut_network
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.run import events as e
from dnn_dist.run.dispatcher import Dispatcher
from dnn_dist.run.report import Status
from dnn_dist.run.state import Progress, StageProgress, WorkerState
from dnn_dist.run.values import Feed, Scatter
from dnn_dist.sim import Scenario, Source, random_faults, simulate, stages_load

PLANS = [
    "tiles:2x2@0..3;tiles:2x2@4..10",
    "tiles:2x2@0..3>tiles:2x2@4..10",
    "tiles:2x2@0..4;slices:2@5..7",
    "tiles:2x2@0..1;bands:2@2..4>tiles:2x2@5..8;layers:2@9..11",
    "local@0..1;tiles:2x2@2..10",
    "tiles:2x2@0..1;local@2..4;tiles:2x2@5..8>bands:2@9..11",
    "layers:4",
    "local",
]
SEEDS = range(int(os.environ.get("DNN_DIST_CHAOS", "200")) // 10)


@pytest.mark.parametrize("cut", PLANS)
def test_every_plan_is_exact_with_the_aggregator_elsewhere(cut: str) -> None:
    cluster = ArrayCluster(3, [cut], apart=True)
    reports = cluster.run(6, budget=2.0)
    assert [report.status for report in reports] == [Status.COMPLETE] * 6
    assert cluster.exact_frames == 6
    assert cluster.notes.counts.keys() <= {"worker joined", "source joined", "plan ready", "plan in force"}


def trouble(seed: int) -> Faults:
    rng = random.Random(seed)
    faults = random_faults(["w1", "w2", "w3"], 3.0, seed)
    return Faults(
        loss=rng.choice((0.0, 0.02, 0.1)),
        doubling=rng.choice((0.0, 0.1)),
        delay=(0.001, rng.choice((0.003, 0.03))),
        failing=rng.choice((0.0, 0.05)),
        events=[(fault.at, fault.kind, fault.robot, fault.factor) for fault in faults],
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_chaos_with_the_aggregator_elsewhere_breaks_no_law(seed: int) -> None:
    cut = PLANS[seed % len(PLANS)]
    cluster = ArrayCluster(3, [cut], seed, trouble(seed), apart=True)
    cluster.run(20, budget=1.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_frames_end_as_before_when_the_aggregator_is_restarted(seed: int) -> None:
    """Those that it had are counted; those after it are whole."""
    cluster = ArrayCluster(3, [PLANS[seed % len(PLANS)]], seed, apart=True)
    at = 0.3 + random.Random(seed).uniform(0.0, 1.0)
    cluster.calls.append((at, lambda: cluster.sources["cam"].restart_aggregator()))
    reports = cluster.run(20, budget=1.0)
    assert len(cluster.begun) - len(reports) <= 3
    assert {report.status for report in reports if cluster.begun[report.frame] > at + 0.2} == {Status.COMPLETE}


def test_as_much_travels_apart_as_together() -> None:
    def bytes_of(apart: bool) -> tuple[int, int]:
        cluster = Cluster(3, shape(6, stages=3), apart=apart)
        assert {report.status for report in cluster.run(5, budget=5.0)} == {Status.COMPLETE}
        return cluster.sources["cam"].bytes_in, cluster.sources["cam"].bytes_out

    assert bytes_of(apart=True) == bytes_of(apart=False)


@pytest.mark.parametrize("cut", PLANS[:5])
def test_the_simulator_runs_it_with_all_messages_or_with_those_that_matter(cut: str) -> None:
    load = stages_load(network(), cut_network(network(), cut), wire="float32")
    robots = Fleet(tuple(Robot(f"r{n}", 5e6, spread=0.1) for n in range(6)), (LinkRule((), Link(2e6, 0.001)),))
    source = Source("r0", load, frames=8, max_frames=2, aggregator="r5")
    workers = ("r0", "r1", "r2", "r3")
    short, exact = (simulate(Scenario(robots, (source,), workers=workers, exact=exact)) for exact in (False, True))
    assert short.statuses == exact.statuses and short.statuses["complete"] == 8
    assert short.latencies == pytest.approx(exact.latencies, rel=0.03)
    assert short.traffic == exact.traffic, "nothing is sent twice"


class Deaf(Cluster):
    """Some of the aggregator's feeds are lost."""

    lost = 0

    def __init__(self, *arguments: Any, lose: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lose = lose
        self.scatters: list[Scatter] = []

    def run(self, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        self.calls.append((0.0, self.cut))
        return super().run(*arguments, **options)

    def cut(self) -> None:
        source = self.sources["cam"]
        carry = source.carry

        def lossy(value: Any, to: str) -> None:
            if isinstance(value, Scatter):
                self.scatters.append(value)
            if isinstance(value, Feed) and self.lost < self.lose:
                self.lost += 1
                return
            carry(value, to)

        source.carry = lossy  # type: ignore[method-assign]


@pytest.mark.parametrize("lose", [1, 5, 12])
def test_what_does_not_come_is_asked_for_again_and_no_worker_is_blamed(lose: int) -> None:
    cluster = Deaf(3, shape(3, stages=2), lose=lose, apart=True)
    (report,) = cluster.run(1, budget=30.0)
    assert report.status in (Status.COMPLETE, Status.RECOMPUTED) and report.quality == 1
    assert cluster.lost == min(lose, cluster.lost) and len(cluster.scatters) >= 2
    assert "worker lost" not in cluster.notes.counts


# The dispatcher by itself


def dispatcher(apart: bool) -> Dispatcher:
    machine = Dispatcher("cam", "r1", 7, apart=apart)
    machine.handle(e.PlanInstalled("plan", shape(2, stages=2)), 0.0)
    for worker in ("w1", "w2"):
        machine.handle(e.WorkerReachable(worker, True), 0.0)
        hear(machine, worker, 0.0, room=9)
    machine.handle(e.FrameReady(0, "plan", 10.0), 0.0)
    return machine


def hear(machine: Dispatcher, worker: str, now: float, **said: Any) -> list[Any]:
    state = WorkerState(worker, worker, 1, int(now * 1000) + 1, plans=frozenset({"plan"}), offered_to="cam", **said)
    return machine.handle(e.WorkerHeard(state), now)


def progress(*settled: int, at: int, peers: frozenset[str] = frozenset()) -> e.ProgressHeard:
    stages = {(0, stage): StageProgress(settled=True) for stage in settled} | {(0, len(settled)): StageProgress()}
    return e.ProgressHeard(Progress("cam", 7, at, 0, stages, peers=peers))


def works(actions: list[Any]) -> list[tuple[int, int]]:
    return sorted((action.key.stage, action.key.piece) for action in actions if isinstance(action, e.SendWork))


def test_a_stage_begins_once_and_when_progress_says_that_all_before_are_settled() -> None:
    machine = dispatcher(apart=False)
    assert {stage for stage, _ in machine.frames[0].tasks} == {0}
    machine.handle(progress(at=1), 0.1)
    assert {stage for stage, _ in machine.frames[0].tasks} == {0}
    assert works(machine.handle(progress(0, at=2), 0.2)) == [(1, 0), (1, 1)]
    assert not works(machine.handle(progress(0, at=3), 0.3)), "once"
    assert not works(machine.handle(progress(0, 1, at=4), 0.4)), "the last one is local"
    assert not machine.frames[0].tasks


def test_the_aggregator_is_told_who_needs_what_it_merged_and_feeds_those_whom_it_has_met() -> None:
    machine = dispatcher(apart=True)
    assert not machine.frames[0].tasks[0, 0].leases, "the aggregator could feed nobody later"
    actions = machine.handle(progress(at=1, peers=frozenset({"w2"})), 0.1)
    assert works(actions) == [(0, 0), (0, 1)] and not [a for a in actions if isinstance(a, e.SendScatter)]
    actions = machine.handle(progress(0, at=2, peers=frozenset({"w2"})), 0.2)
    assert works(actions) == [(1, 0), (1, 1)]
    (scatter,) = [action for action in actions if isinstance(action, e.SendScatter)]
    assert scatter.frame == 0 and scatter.plan == "plan"
    assert sorted(scatter.routes) == [(1, 0, "w2", 1), (1, 1, "w2", 1)]
