# SPDX-License-Identifier: Apache-2.0
"""Chains in virtual time: where their pieces go, what is computed anew when something is lost, who waits for whom."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest
from chained import LOCAL, Tiles, chain
from pytest import approx
from virtual import Cluster, Faults

from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.run import events as e
from dnn_dist.run.chains import _lost
from dnn_dist.run.crew import estimated
from dnn_dist.run.notes import Note
from dnn_dist.run.report import Status
from dnn_dist.run.shape import PlanShape
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.state import SourceState
from dnn_dist.run.tasks import DispatcherSettings, Task
from dnn_dist.run.values import Feed, Route, Work
from dnn_dist.run.wire import TaskKey
from dnn_dist.run.worker import Worker
from dnn_dist.sim import Scenario, Source, simulate
from dnn_dist.sim.scenario import Load

THREE = chain(Tiles(3), Tiles(3), Tiles(3))  # 10 ms a piece
WELL = {Status.COMPLETE, Status.RECOMPUTED}


class Watched(Cluster):
    """A cluster that remembers what was sent, and may lose feeds."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.sent: list[tuple[float, str, Work]] = []
        super().__init__(*arguments, **options)

    def sending(self, source: str, work: Work, worker: str) -> None:
        super().sending(source, work, worker)
        self.sent.append((self.agenda.now, worker, work))

    def crew(self, frame: int) -> dict[tuple[int, int], str]:
        """Stage and piece -> the worker that it was given to first."""
        found: dict[tuple[int, int], str] = {}
        for _, worker, work in self.sent:
            if work.key.frame == frame and not work.again:
                found.setdefault((work.key.stage, work.key.piece), worker)
        return found

    def computed_again(self) -> list[TaskKey]:
        """Pieces that were computed more than once."""
        return sorted(key for key, times in Counter(key for _, key in self.computed).items() if times > 1)


# Placement ------------------------------------------------------------------------------------------------------------


def test_columns_stay_on_one_worker_and_equal_workers_have_one_each() -> None:
    cluster = Watched(3, THREE)
    reports = cluster.run(5, period=0.3)
    assert {report.status for report in reports} == {Status.COMPLETE}
    assert len(cluster.computed) == 5 * 9
    for frame in range(5):
        crew = cluster.crew(frame)
        assert all(crew[stage, piece] == crew[0, piece] for stage, piece in crew), "a column moved in mid-chain"
        assert len({crew[0, piece] for piece in range(3)}) == 3, "a worker has two columns, another none"
        assert crew == cluster.crew(0), "columns move from frame to frame for no reason"


def test_the_own_robot_is_first_among_equals() -> None:
    """Two columns for three workers: the source's own has one of them."""
    for own in ("w1", "w2", "w3"):
        plan = chain(Tiles(2), Tiles(2))
        robots = tuple(Robot(name, 1000.0) for name in ("w1", "w2", "w3"))
        fleet = Fleet(robots, (LinkRule((), Link(1e6)),))
        outcome = simulate(Scenario(fleet, (Source(own, Load(plan), frames=1),)))
        assert outcome.robots[own].tasks == 2


def test_a_slow_worker_gets_nothing_when_that_is_faster() -> None:
    cluster = Watched(3, THREE, speeds=[1000, 1000, 100])
    cluster.run(12, period=0.6, budget=0.6)
    assert set(cluster.crew(0).values()) == {"w1", "w2", "w3"}, "at first nobody is known to be slow"
    assert set(cluster.crew(11).values()) == {"w1", "w2"}
    assert cluster.reports[11].latency < cluster.reports[0].latency / 2


def test_workers_that_do_not_reach_each_other_share_no_chain() -> None:
    cluster = Watched(3, THREE, faults=Faults(events=[]))
    apart = [lambda a=a, b=b: cluster._part(a, b, False) for a, b in (("w1", "w3"), ("w3", "w1"))]
    cluster.calls = [(0.2, call) for call in apart]
    assert {report.status for report in cluster.run(5, period=0.3)} == {Status.COMPLETE}
    for frame in range(5):
        assert not {"w1", "w3"} <= set(cluster.crew(frame).values())


@pytest.mark.parametrize("max_held", [1, 64])
def test_one_worker_alone_computes_a_chain_however_many_pieces_it_has(max_held: int) -> None:
    plan = chain(*(Tiles(30, 1) for _ in range(4)))
    cluster = Watched(1, plan, worker=WorkerSettings(max_held=max_held))
    assert {report.status for report in cluster.run(3, period=0.5)} == {Status.COMPLETE}
    assert not cluster.computed_again() and "work refused" not in cluster.notes.counts


def test_speeds_of_stages_where_few_were_measured() -> None:
    assert estimated({0: [0.0, 0.0], 1: [0.0, 0.0]}) == {0: [1.0, 1.0], 1: [1.0, 1.0]}
    pipeline = estimated({0: [2000.0, 0.0], 1: [0.0, 30.0]})
    assert pipeline == {0: approx([2000, 2000]), 1: approx([30, 30])}, "one layer's MACs are not another's"
    half = estimated({0: [1000.0, 500.0, 1000.0], 1: [0.0, 50.0, 0.0], 2: [0.0, 0.0, 0.0]})
    assert half[0] == [1000, 500, 1000] and half[1] == approx([100, 50, 100])
    assert half[2][0] == approx(2 * half[2][1])


def test_stages_of_a_pipeline_stay_on_their_robots_however_unlike_their_layers_are() -> None:
    """The layers of one take a hundred times as long for their MACs."""
    plan = chain(*(Tiles(1, 10, group=True) for _ in range(4)))
    cluster = Watched(4, plan, seconds=lambda robot, stage, piece: (0.01, 0.02, 0.1, 0.01, 0.002)[stage], max_frames=4)
    cluster.run(30, period=0.11, budget=2.0)
    assert all(cluster.crew(frame) == cluster.crew(0) for frame in range(30) if cluster.crew(frame))


# Repair ---------------------------------------------------------------------------------------------------------------


def test_undisturbed_nothing_is_sent_or_computed_twice() -> None:
    for plan in (THREE, chain(*(Tiles(1, group=True) for _ in range(4))), chain(Tiles(4), Tiles(2, skip=0), Tiles(3))):
        cluster = Watched(4, plan, max_frames=2)
        assert {report.status for report in cluster.run(10, period=0.1, budget=0.9)} == {Status.COMPLETE}
        assert not cluster.computed_again()
        assert not [work for _, _, work in cluster.sent if work.again]


@pytest.mark.parametrize("moment", [0.305, 0.315, 0.325, 0.335])
def test_only_what_is_needed_is_computed_anew(moment: float) -> None:
    """A worker dies in the first, second or third stage, or when all is computed but its last result."""
    faults = Faults(events=[(moment, "kill", "w2")], delay=(0.001, 0.001))
    cluster = Watched(3, THREE, faults=faults)
    reports = cluster.run(1, budget=3.0)
    assert reports[0].status in WELL
    before = {key for name, key in cluster.computed if name == "w2"}
    again = {(key.stage, key.piece) for key in cluster.computed_again()}
    assert again <= {(key.stage, key.piece) for key in before}, "who lives computes nothing again"
    stage = max((key.stage for key in before), default=0)
    if stage == 2 and moment < 0.33:
        assert (0, 1) in again, "its own last tile needs its second, and that its first"


def test_what_lives_on_feeds_again_those_that_are_computed_anew() -> None:
    faults = Faults(events=[(0.318, "kill", "w2")], delay=(0.001, 0.001))
    cluster = Watched(3, THREE, faults=faults)
    cluster.run(1, budget=3.0)
    asked = [(worker, work) for _, worker, work in cluster.sent if work.again]
    assert asked and {worker for worker, _ in asked} <= {"w1", "w3"}
    for _, work in asked:
        takers = cluster.plan.stages[work.key.stage].pieces[work.key.piece].takers
        assert {(route.stage, route.piece) for route in work.routes} <= set(takers)
        assert {route.worker for route in work.routes} <= {"w1", "w3"}


def test_the_dead_piece_that_nobody_needs_any_more_is_let_be() -> None:
    """All tiles of the last stage are being computed: the first stages of the dead worker are of no use."""
    cluster = Watched(3, chain(Tiles(3), Tiles(2, 100)), faults=Faults(events=[(0.35, "kill", "w3")]))
    reports = cluster.run(1, budget=3.0)
    assert reports[0].status in WELL and not cluster.computed_again()


def test_a_lost_feed_is_asked_for_again_and_then_the_piece_moves() -> None:
    """Two workers lose their link for good, and nobody tells them."""
    faults = Faults(parted=[(0.0, 100.0, "w1", "w2")])
    cluster = Watched(3, THREE, faults=faults)
    reports = cluster.run(1, budget=20.0)
    assert reports[0].status in WELL
    again = [at for at, _, work in cluster.sent if work.again]
    moved = [at for at, _, work in cluster.sent if work.attempt > 0 and not work.again]
    assert again and moved and min(again) < min(moved)


def test_a_lost_feed_costs_one_more_message_when_the_link_is_back() -> None:
    faults = Faults(parted=[(0.0, 0.5, "w1", "w2")])
    cluster = Watched(3, THREE, faults=faults)
    reports = cluster.run(1, budget=20.0)
    assert reports[0].status is Status.COMPLETE, "nothing moved"
    assert not cluster.computed_again()


def test_a_dead_link_costs_the_later_frames_little() -> None:
    """The workers learn that they do not reach each other: they no longer share a chain."""
    cluster = Watched(3, THREE)
    for a, b in (("w1", "w2"), ("w2", "w1")):
        cluster.calls.append((1.0, lambda a=a, b=b: cluster._part(a, b, False)))
    reports = cluster.run(20, period=0.2, budget=0.5)
    assert {report.status for report in reports if report.frame > 8} == {Status.COMPLETE}


def test_nothing_is_computed_anew_for_a_piece_that_was_given_up() -> None:
    plan = chain(Tiles(2), Tiles(2, reach=0))
    tasks = {(s, p): Task(TaskKey("cam", 7, 0, s, p), 0.0) for s in (0, 1) for p in (0, 1)}
    assert _lost(plan, tasks) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    tasks[1, 0].given_up = True
    assert _lost(plan, tasks) == [(0, 1), (1, 1)]
    tasks[1, 1].given_up = True
    assert _lost(plan, tasks) == []


# The window -----------------------------------------------------------------------------------------------------------


def test_a_chain_that_the_window_does_not_take_waits_and_holds_nothing() -> None:
    settings = DispatcherSettings(window=350)
    cluster = Watched(3, THREE, dispatcher=settings, max_frames=4)
    reports = cluster.run(8, period=0.01, budget=3.0)
    assert {report.status for report in reports} == {Status.COMPLETE}
    works = [work for _, _, work in cluster.sent]
    frames = [work.key.frame for work in works]
    assert frames == sorted(frames), "a chain goes out as a whole, oldest first"
    assert not cluster.computed_again()


def rates(seed: int, sources: int, frames: int = 24) -> list[float]:
    """Frames a second of each source while all have frames, on a fleet, a plan and links by seed."""
    rng = random.Random(seed)
    count = rng.randint(2, 6)
    speeds = [rng.choice((0.5e3, 1e3, 1e3, 2e3)) for _ in range(count)]
    names = [f"w{number}" for number in range(count)]
    robots = [Robot(name, speed, overhead=0.001, spread=0.1) for name, speed in zip(names, speeds, strict=True)]
    robots += [Robot("g1", 1e3), Robot("g2", 1e3)]
    fleet = Fleet(tuple(robots), (LinkRule((), Link(1e5, 0.002, loss=rng.choice((0, 0.02)))),))
    tiles = (Tiles(rng.choice((count, count + 1, 2 * count)), rng.choice((10, 30))) for _ in range(rng.randint(2, 4)))
    layers = (Tiles(1, rng.choice((10, 30)), group=True) for _ in range(rng.randint(2, count)))
    load = Load(chain(*(tiles if rng.random() < 0.75 else layers)))
    settings = DispatcherSettings(window=rng.choice((1000, 4_000_000)))
    open_, homes = rng.choice((1, 2, 3)), ("w0", "w1") if rng.random() < 0.5 else ("g1", "g2")
    cameras = tuple(
        Source(home, load, frames=frames, max_frames=open_, deadline=60.0, dispatcher=settings)
        for home in homes[:sources]
    )
    outcome = simulate(Scenario(fleet, cameras, workers=tuple(names), seed=seed))
    assert {run.report.quality for run in outcome.frames} == {1.0}
    ended = [sorted(run.reported for run in outcome.frames if run.source == camera.robot) for camera in cameras]
    last, begun = min(times[-1] for times in ended), 5
    return [(sum(at <= last for at in times) - begun - 1) / (last - times[begun]) for times in ended]


@pytest.mark.parametrize("seed", range(int(os.environ.get("DNN_DIST_PAIRS", "12"))))
def test_chains_of_two_sources_do_not_block_each_other(seed: int) -> None:
    (alone,), both = rates(seed, 1), rates(seed, 2)
    assert sum(both) >= 0.9 * alone and min(both) >= 0.4 * alone


# Pipelines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", [3, 6, 10])
def test_a_pipeline_is_as_fast_as_its_slowest_stage_and_costs_the_gateway_no_more(stages: int) -> None:
    macs = [10 + 5 * (number % 3) for number in range(stages)]
    plan = chain(*(Tiles(1, m, group=True) for m in macs))
    robots = (*(Robot(f"w{number}", 1000.0) for number in range(stages)), Robot("gateway", 1000.0))
    fleet = Fleet(robots, (LinkRule((), Link(1e6, 0.0005)),))
    frames, open_ = 30 * stages, min(16, 3 * stages)
    source = Source("gateway", Load(plan), frames=frames, max_frames=open_, deadline=60.0)
    outcome = simulate(Scenario(fleet, (source,), workers=tuple(f"w{number}" for number in range(stages))))
    ended = sorted(run.reported for run in outcome.frames)
    first, last = frames // 3, frames - open_
    rate = (last - first) / (ended[last] - ended[first])
    assert rate == approx(1000 / max(macs), rel=0.1)
    gateway = outcome.robots["gateway"]
    assert (gateway.sent, gateway.received) == (100 * frames, 50 * frames), "one input and one output a frame"


# What a worker takes --------------------------------------------------------------------------------------------------


MAKER = (0, 0)
KEY = TaskKey("cam", 7, 0, 1, 0)
ROLE = e.Role(awaits=frozenset({MAKER}), feeds=frozenset({(2, 0)}))


def worker(**settings: Any) -> Worker:
    machine = Worker("w1", "r1", 1, "model", WorkerSettings(**settings))
    for event in (e.PlanOffered("plan"), e.PlanBuilt("plan"), e.StatesHeard((SourceState("cam", "r1", 7, 1),))):
        machine.handle(event, 0.0)
    return machine


def work(number: int, key: TaskKey = KEY, **fields: Any) -> e.WorkArrived:
    return e.WorkArrived(key, "plan", 1, number, **{"budget": 1.0, "role": ROLE, **fields})


def kinds(actions: list[Any]) -> set[str]:
    return {action.kind if isinstance(action, Note) else type(action).__name__ for action in actions}


@pytest.mark.parametrize("early", [False, True])
def test_a_piece_waits_for_its_feeds_which_may_overtake_its_work(early: bool) -> None:
    machine, feed = worker(), e.FeedArrived(KEY, MAKER, "plan")
    first, second = (feed, work(1)) if early else (work(1), feed)
    assert "Compute" not in kinds(machine.handle(first, 0.1))
    assert "Compute" in kinds(machine.handle(second, 0.2))
    assert not machine.residence.early and not machine.residence.waiting


def test_a_feed_of_another_plan_does_for_no_work() -> None:
    machine = worker()
    machine.handle(e.FeedArrived(KEY, MAKER, "another"), 0.1)
    assert "Compute" not in kinds(machine.handle(work(1), 0.2))
    assert machine.residence.waiting == {KEY: {MAKER}} and not machine.residence.early


def test_feeds_for_works_that_never_come_are_let_go() -> None:
    machine = worker(max_early=10, remember=2.0)
    for frame in range(30):
        machine.handle(e.FeedArrived(KEY._replace(frame=frame, source="nobody"), MAKER, "plan"), 0.1)
        assert len(machine.residence.early) <= 10
    machine.handle(e.Tick(), 2.2)
    assert not machine.residence.early


def test_a_task_that_expires_takes_its_feeds_with_it_though_no_source_speaks() -> None:
    machine = worker()
    machine.handle(work(1), 0.1)
    machine.handle(e.Tick(), 1.2)
    assert not machine.held and not machine.residence.waiting and not machine.residence._roles


def test_waiting_pieces_take_no_room_of_others() -> None:
    machine = worker(max_held=2, prefetch=1)
    for piece in range(5):
        machine.handle(work(1 + piece, KEY._replace(piece=piece)), 0.1)
    alone = KEY._replace(stage=0)
    assert "Compute" in kinds(machine.handle(work(9, alone, role=e.Role()), 0.2))


def test_what_is_kept_for_others_is_bounded() -> None:
    machine = worker(max_chained=8)
    for frame in range(20):
        key = KEY._replace(frame=frame, stage=0)
        machine.handle(work(frame + 1, key, role=e.Role(feeds=frozenset({(1, 0)}), reports=False)), 0.1)
        machine.handle(e.Computed(key, "plan", 0.01, 10), 0.1)
    assert len(machine.residence.kept) == 8


def test_a_held_piece_takes_new_routes_with_whatever_work() -> None:
    machine = worker()
    machine.handle(work(1), 0.1)
    assert "Reroute" in kinds(machine.handle(work(2, again=True), 0.2))
    assert {"Reroute", "doubled work"} <= kinds(machine.handle(work(3), 0.2))
    assert "Reroute" not in kinds(machine.handle(work(3), 0.3)), "the same message once more"
    assert "foreign work" in kinds(machine.handle(work(4, KEY._replace(piece=5), again=True), 0.3))


def test_forged_works_and_feeds_are_told_in_one_line_and_change_nothing() -> None:
    """Routes to pieces that take nothing, peers that nobody met, boxes that are none of the plan's."""
    cluster = Watched(2, THREE)

    def forge() -> None:
        run = cluster.workers["w1"]
        session, source = run.part.machine.session, cluster.sources["cam"].session
        key = TaskKey("cam", source, 0, 0, 0)
        for number, route in enumerate((Route(2, 2, "w2", 1), Route(9, 9, "w2", 1), Route(1, 0, "nobody", 1))):
            run.hear(Work(key, "plan", session, 1000 + number, 0, 1.0, (), (route,), again=True))
        good = Feed(TaskKey("cam", source, 0, 1, 0), 0, 0, "plan", "w2", 1, session, 40)
        for change in (
            {"boxes": 41},
            {"stage": 7},
            {"plan": "another"},
            {"receiver_session": 5},
            {"key": good.key._replace(stage=9)},
            {"key": good.key._replace(source="nobody")},
        ):
            run.hear(good._replace(**change))

    cluster.calls = [(0.3045, forge)]
    assert cluster.run(2, period=0.5)[1].status is Status.COMPLETE
    assert cluster.notes.counts["bad message"] == 7


def test_ticks_of_a_source_with_an_open_chain_come_no_faster_than_its_heartbeat() -> None:
    cluster = Watched(1, chain(Tiles(1, 3000), Tiles(1)))
    cluster.run(1, budget=5.0)
    assert cluster.agenda.steps < 3000


def test_a_plan_without_chains_is_as_before() -> None:
    plan = PlanShape((*chain(Tiles(3), Tiles(3, direct=False)).stages[:-1], LOCAL))
    assert not any(stage.chained for stage in plan.stages)
    assert {report.status for report in Watched(2, plan).run(3)} == {Status.COMPLETE}
