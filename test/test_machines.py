# SPDX-License-Identifier: Apache-2.0
"""The three state machines together, in virtual time: the laws hold whatever the robots do."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest
from virtual import Cluster, Faults, shape

from dnn_dist.plan.fleet import Robot
from dnn_dist.run import events as e
from dnn_dist.run import gatherer as g
from dnn_dist.run import worker as w
from dnn_dist.run.dispatcher import Dispatcher
from dnn_dist.run.events import FrameReady, PlanInstalled, ProgressHeard, SendWork, Tick, WorkerHeard, WorkerReachable
from dnn_dist.run.notes import Note
from dnn_dist.run.report import Status
from dnn_dist.run.shape import PieceShape, PlanShape, StageShape
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.state import Progress, SourceState, WorkerState
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.run.values import Work
from dnn_dist.run.wire import TaskKey

STEALING = DispatcherSettings()
SHARING = DispatcherSettings(mode="sharing")

ALWAYS = DispatcherSettings(redundancy="always")


@pytest.mark.parametrize("settings", [STEALING, SHARING], ids=["stealing", "sharing"])
@pytest.mark.parametrize("workers", [1, 2, 4, 12])
def test_undisturbed_frames_are_complete(settings: DispatcherSettings, workers: int) -> None:
    cluster = Cluster(workers, dispatcher=settings)
    reports = cluster.run(20)
    assert {report.status for report in reports} == {Status.COMPLETE}
    assert all(report.quality == 1 and report.came == report.pieces == 9 for report in reports)
    assert len(cluster.computed) == 20 * 9, "each piece is computed once"
    # of the 9 pieces of a frame; stealing tries those first of whom no speed is known
    part = workers if settings.stealing else min(9, workers)
    assert len({name for name, _ in cluster.computed}) == part, "every worker takes part"


def test_faster_workers_do_more_by_stealing() -> None:
    cluster = Cluster(2, shape(16), speeds=[1000, 250])
    cluster.run(20, period=0.5, budget=0.5)
    done = [sum(name == worker for name, _ in cluster.computed) for worker in ("w1", "w2")]
    assert done[0] > 2 * done[1]


def test_sharing_follows_the_weights() -> None:
    cluster = Cluster(2, shape(8), dispatcher=DispatcherSettings(mode="sharing", shares=(("w1", 3.0), ("w2", 1.0))))
    cluster.run(5, period=0.3)
    assert sum(name == "w1" for name, _ in cluster.computed) == 5 * 6


def test_sharing_follows_the_speeds_measured_at_each_stage() -> None:
    """One is three times as fast in the first stage, the other in the second; over all they are alike."""

    def seconds(robot: Robot, stage: int, piece: int) -> float:
        return 0.002 if stage == 2 else 0.01 if (robot.name, stage) in (("w1", 0), ("w2", 1)) else 0.03

    cluster = Cluster(2, shape(8, stages=2), dispatcher=SHARING, seconds=seconds)
    cluster.run(6, period=1.0)
    by_w1 = [sum(name == "w1" and (k.frame, k.stage) == (5, stage) for name, k in cluster.computed) for stage in (0, 1)]
    assert by_w1 == [6, 2]


def test_several_distributed_stages_follow_each_other() -> None:
    reports = Cluster(4, shape(4, stages=3)).run(10, period=0.3)
    assert {(report.status, report.pieces, report.came) for report in reports} == {(Status.COMPLETE, 12, 12)}


@pytest.mark.parametrize("settings", [STEALING, SHARING], ids=["stealing", "sharing"])
def test_a_killed_worker_costs_no_frame(settings: DispatcherSettings) -> None:
    cluster = Cluster(4, faults=Faults(events=[(1.005, "kill", "w2")]), dispatcher=settings)
    reports = cluster.run(20, period=0.2)
    assert {report.status for report in reports} <= {Status.COMPLETE, Status.RECOMPUTED}
    disturbed = [report.frame for report in reports if report.status is Status.RECOMPUTED]
    assert 0 < len(disturbed) <= 3, "only frames near the kill are touched"


def pieces_by_worker(cluster: Cluster, first: int) -> dict[str, set[tuple[int, int]]]:
    """(stage, piece) that each worker computed from frame `first` on."""
    given: dict[str, set[tuple[int, int]]] = {}
    for name, key in cluster.computed:
        if key.frame >= first:
            given.setdefault(name, set()).add((key.stage, key.piece))
    return given


@pytest.mark.parametrize("plan", [shape(4, parity=1), shape(5)], ids=["coded", "tiles"])
def test_large_pieces_stay_where_they_are(plan: PlanShape) -> None:
    """Each worker reads the weights of its own pieces, and of no other's, frame after frame."""
    most = {}
    for on_demand in (True, False):
        cluster = Cluster(5, plan, speeds=[600, 700, 800, 900, 1000], on_demand=on_demand, dispatcher=ALWAYS)
        cluster.run(100, period=0.03)  # the fastest come first, once their speeds are known
        most[on_demand] = max(len(pieces) for pieces in pieces_by_worker(cluster, 0).values())
    assert most[True] == 1
    assert most[False] > 1, "it would be so without any rule"


def test_a_death_moves_no_piece_but_the_dead_ones() -> None:
    """With parity nobody reads anything; without, one worker takes up what is missing and keeps it."""
    for plan, taken_up in ((shape(4, parity=1), 0), (shape(5), 1)):
        killed = Faults(events=[(2.005, "kill", "w2")])
        cluster = Cluster(5, plan, faults=killed, on_demand=True, dispatcher=ALWAYS)
        reports = cluster.run(30, period=0.3, budget=1.0)
        assert {report.quality for report in reports} == {1.0}
        before, after = pieces_by_worker(cluster, 0), pieces_by_worker(cluster, 15)
        assert sum(len(pieces) for pieces in before.values()) == 5 + taken_up
        assert sum(len(pieces) for pieces in after.values()) == 4 + taken_up


def test_a_large_piece_waits_for_who_has_it_but_not_for_long() -> None:
    """Its holder is slow: another takes the piece over rather than let it wait."""
    cluster = Cluster(2, shape(2), speeds=[1000, 10], on_demand=True)
    cluster.run(5, period=0.3, budget=2.9)
    given = pieces_by_worker(cluster, 1)
    assert given["w1"] == {(0, 0), (0, 1)} and len(given["w2"]) == 1


def test_a_stopped_worker_comes_back_and_is_used_again() -> None:
    cluster = Cluster(2, faults=Faults(events=[(1.005, "stop", "w2"), (2.5, "go", "w2")]))
    reports = cluster.run(40, period=0.2)
    assert {report.status for report in reports} <= {Status.COMPLETE, Status.RECOMPUTED}
    last = {name for name, key in cluster.computed if key.frame >= 30}
    assert last == {"w1", "w2"}


def test_no_worker_at_all_gives_reports_without_result() -> None:
    cluster = Cluster(1, faults=Faults(events=[(0.1, "kill", "w1")]))
    assert {report.status for report in cluster.run(5)} == {Status.NO_RESULT}


def test_too_slow_workers_give_filled_frames_with_their_quality() -> None:
    reports = Cluster(1, speeds=[40.0]).run(3, period=1.5, budget=1.0)
    assert {report.status for report in reports} == {Status.FILLED}
    assert all(0 < report.quality < 1 and report.came + report.filled == 9 for report in reports)
    assert all(report.quality == pytest.approx(report.came / 9) for report in reports)


def test_failing_computations_go_elsewhere() -> None:
    cluster = Cluster(3, faults=Faults(failing=0.1), seed=3)
    assert {report.status for report in cluster.run(20)} <= {Status.COMPLETE, Status.RECOMPUTED}
    assert cluster.notes.counts["task failed"] > 0


def test_the_window_bounds_bytes_on_the_way() -> None:
    # Cluster.check holds the bound after every event; here only that it does not cost a frame.
    settings = DispatcherSettings(window=310)
    assert {r.status for r in Cluster(4, dispatcher=settings).run(5, period=0.3)} == {Status.COMPLETE}


def test_parity_hides_a_killed_worker_at_once() -> None:
    """4 + 1 coded pieces over five workers, one killed in mid-frame: decoded as soon as the four others have come."""
    killed = Faults(events=[(1.02, "kill", "w2")])
    cluster = Cluster(5, shape(4, parity=1, macs=50), faults=killed, dispatcher=ALWAYS)
    reports = cluster.run(20, period=0.2)
    assert {report.status for report in reports} <= {Status.COMPLETE, Status.DECODED}
    assert all(report.quality == 1 and report.recomputed == report.filled == 0 for report in reports)
    usual = sorted(report.latency for report in reports)[len(reports) // 2]
    disturbed = next(report for report in reports if report.frame == 4)  # began at 1.1 s, after the kill
    assert disturbed.latency < 1.2 * usual


def test_a_surplus_piece_keeps_no_survivor_from_the_next_stage() -> None:
    """4 + 1 pieces on the four workers that are left, stage after stage: as fast as before the kill."""
    faults = Faults(events=[(20.35, "kill", "w3")])
    reports = Cluster(5, shape(4, stages=4, parity=1, macs=50), faults=faults).run(40, period=1.0, budget=0.9)
    before, after = (sorted(r.latency for r in part)[len(part) // 2] for part in (reports[:20], reports[22:]))
    assert after < 1.05 * before


def test_a_local_first_stage_is_no_task() -> None:
    plan = shape(4)
    cluster = Cluster(2, PlanShape((StageShape(True, (PieceShape(0, 0, 10),)), *plan.stages)))
    assert {report.status for report in cluster.run(5, period=0.3)} == {Status.COMPLETE}
    assert {key.stage for _, key in cluster.computed} == {1}


def test_two_parities_survive_two_deaths() -> None:
    events = [(1.02, "kill", "w2"), (1.03, "kill", "w3")]
    plan = shape(4, stages=2, parity=2, macs=50)
    reports = Cluster(6, plan, faults=Faults(events=events), dispatcher=ALWAYS).run(20, period=0.3)
    assert {report.status for report in reports} <= {Status.COMPLETE, Status.DECODED}


def test_parity_hides_a_straggler() -> None:
    def p99(parity: int) -> float:
        cluster = Cluster(5, shape(5 - parity, parity=parity, macs=50), speeds=[1000, 1000, 1000, 1000, 200])
        return max(report.latency for report in cluster.run(20, period=0.4))

    assert p99(0) > 2 * p99(1)


def test_a_replica_answers_for_a_killed_worker() -> None:
    cluster = Cluster(4, shape(2, replicas=2, macs=50), faults=Faults(events=[(1.02, "kill", "w2")]))
    reports = cluster.run(20, period=0.2)
    assert {report.status for report in reports} == {Status.COMPLETE}


@pytest.mark.parametrize("plan", [shape(4, parity=1, macs=50), shape(4, replicas=2, macs=50)], ids=["parity", "copies"])
def test_a_healthy_fleet_does_not_pay_for_redundancy_on_demand(plan: PlanShape) -> None:
    """What a fleet pays at most: what is late by chance, `risk` of all pieces, and the first frame's."""

    def pieces(settings: DispatcherSettings | None) -> int:
        cluster = Cluster(5, plan, dispatcher=settings)
        assert {report.status for report in cluster.run(40, period=0.4)} <= {Status.COMPLETE, Status.DECODED}
        return len(cluster.computed)

    assert pieces(None) < 1.15 * 40 * 4 < pieces(ALWAYS)


def test_spares_are_called_for_stragglers_and_no_sooner() -> None:
    """One piece in twenty takes ten times as long: a parity, or a second copy, ends the frame long before."""

    chance = random.Random(1)
    struck = [(0.3 + 0.8 * frame, f"w{n}") for frame in range(200) for n in range(1, 7) if chance.random() < 0.05]
    slow = [(at + after, "slow", worker, factor) for at, worker in struck for after, factor in ((0, 10.0), (0.45, 1.0))]

    def latencies(plan: PlanShape) -> list[float]:
        settings = DispatcherSettings(lease_factor=100.0)
        cluster = Cluster(6, plan, faults=Faults(events=sorted(slow)), dispatcher=settings)
        return sorted(report.latency for report in cluster.run(200, period=0.8, budget=0.7))

    coded, copied, plain = (latencies(shape(4, macs=50, **own)) for own in ({"parity": 1}, {"replicas": 2}, {}))
    for some in (coded, copied):
        assert some[int(0.99 * len(some))] < plain[int(0.99 * len(plain))] / 2
        assert some[len(some) // 2] < 1.05 * plain[len(plain) // 2]


def test_a_flapping_worker_is_left_out_longer_and_longer_but_comes_back() -> None:
    events = [(1 + 0.3 * k, "restart", "w2") for k in range(12)]
    cluster = Cluster(3, faults=Faults(events=events))
    cluster.run(80, period=0.2)
    view = cluster.dispatcher.workers["w2"]
    assert len(view.failures) >= 5
    mean = sum(name == "w2" and 5 < key.frame < 20 for name, key in cluster.computed)
    assert mean < 15 * 3 / 2, "while it flaps it gets less than its share"
    assert any(name == "w2" for name, key in cluster.computed if key.frame >= 70), "it is never left out for ever"


def test_speeds_are_remembered_of_the_stages_computed_last_and_not_of_dropped_plans() -> None:
    worker = w.Worker("w1", "r1", 1, "model", WorkerSettings(max_plans=2, max_speeds=3))
    number = 0

    def compute(plan: str, stage: int, seconds: float, macs: int = 100) -> None:
        nonlocal number
        number += 1
        key = TaskKey("cam", 7, number, stage, 0)
        worker.handle(e.WorkArrived(key, plan, 1, number), 0.0)
        worker.handle(e.Computed(key, plan, seconds, macs), 0.0)

    for plan in ("a", "b"):
        worker.handle(e.PlanOffered(plan), 0.0)
        worker.handle(e.PlanBuilt(plan), 0.0)
    compute("a", 0, 1.0)
    compute("b", 0, 0.1)
    compute("a", 1, 0.5, macs=0)
    compute("b", 0, 0.2)
    assert worker.speeds.of_stage == {("a", 0): 100.0, ("a", 1): 2.0, ("b", 0): pytest.approx(0.8 * 1000 + 0.2 * 500)}
    compute("b", 1, 1.0)
    assert list(worker.speeds.of_stage) == [("a", 1), ("b", 0), ("b", 1)]
    worker.handle(e.PlanOffered("c"), 0.0)  # in the place of the first
    assert list(worker.speeds.of_stage) == [("b", 0), ("b", 1)]


class Unlike(Cluster):
    """Four workers and a plan of two stages of which one takes ten times as long for the same MACs.

    The usual time of a piece is long beside the shortest lease, so that measured speeds decide.
    """

    def __init__(self, usual: Sequence[float], pieces: int = 4, faults: Faults | None = None) -> None:
        """`usual`: seconds of a piece by stage."""
        plan = shape(pieces, stages=2, macs=100)
        super().__init__(4, plan, faults=faults, seconds=lambda robot, stage, piece: (*usual, 0.002)[stage])
        self.tries: dict[TaskKey, list[float]] = {}  # s, when it was sent
        self.begins: dict[tuple[str, TaskKey], float] = {}  # (worker, task) -> s

    def sending(self, source: str, work: Work, worker: str) -> None:
        super().sending(source, work, worker)
        self.tries.setdefault(work.key, []).append(self.agenda.now)

    def computing(self, robot: str, key: TaskKey) -> None:
        super().computing(robot, key)
        self.begins.setdefault((robot, key), self.agenda.now)


UNLIKE = [(0.2, 2.0), (2.0, 0.2)]
FRAMES, PERIOD = 6, 20.0


@pytest.mark.parametrize("pieces", [3, 4, 9])
@pytest.mark.parametrize("usual", UNLIKE)
def test_no_lease_of_a_healthy_worker_ends_early_however_unlike_the_stages_are(
    usual: tuple[float, float], pieces: int
) -> None:
    cluster = Unlike(usual, pieces)
    assert {report.status for report in cluster.run(FRAMES, PERIOD, PERIOD)} == {Status.COMPLETE}
    assert not {"task sent again", "worker lost"} & cluster.notes.counts.keys()
    assert len(cluster.computed) == FRAMES * 2 * pieces, "each piece is computed once"


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("usual", UNLIKE)
def test_a_lost_task_is_found_in_a_small_multiple_of_its_stages_usual_time(
    usual: tuple[float, float], stage: int
) -> None:
    """In the last frame a worker gets stuck half way through a task, and goes on to say that it lives."""
    healthy = Unlike(usual)
    healthy.run(FRAMES, PERIOD, PERIOD)
    worker, lost = next(at for at in healthy.begins if (at[1].frame, at[1].stage) == (FRAMES - 1, stage))
    stuck = healthy.begins[worker, lost] + usual[stage] / 2
    cluster = Unlike(usual, faults=Faults(events=[(stuck, "slow", worker, 1e6)]))
    cluster.run(FRAMES, PERIOD, PERIOD)
    assert cluster.begins[worker, lost] == healthy.begins[worker, lost], "until then the runs are the same"
    patience = STEALING
    bound = patience.lease_factor * usual[stage] + patience.lease_min + patience.transit
    assert cluster.tries[lost][1] - cluster.begins[worker, lost] <= bound


def test_the_same_seed_gives_the_same_run() -> None:
    def run() -> list[object]:
        faults = Faults(loss=0.1, doubling=0.1, delay=(0.001, 0.02), events=[(0.7, "kill", "w1")])
        cluster = Cluster(3, seed=5, faults=faults)
        return [cluster.run(10), cluster.computed]

    assert run() == run()


def test_a_worker_lost_once_is_not_blamed_again_for_coming_back() -> None:
    """Its silence was the failure; the new session that ends it is none. One that was not missed is blamed for it."""
    machine = Dispatcher("cam", "r1", 7)

    def heard(worker: str, session: int, now: float) -> None:
        machine.handle(WorkerHeard(WorkerState(worker, worker, session, int(1000 * now))), now)

    for tenth in range(1, 21):
        heard("w1", 1, tenth / 10)
        if tenth in (1, 20):
            heard("w2", tenth, tenth / 10)
    assert machine.workers["w2"].failures == deque([0.7]), "silent for more than half a second"
    heard("w1", 2, 2.05)
    assert len(machine.workers["w1"].failures) == 1


@pytest.mark.parametrize("ahead", [0.0, 500.0, -500.0])
def test_two_workers_of_one_name_are_told_and_one_of_them_serves(ahead: float) -> None:
    """Their clocks may be alike, as on one machine, or not: `ahead` (s) is how much longer the second's robot runs."""
    machine = Dispatcher("cam", "r1", 1)
    said, believed = [], []
    for tenth in range(1, 100):
        now = tenth / 10
        for session, since, offset in ((11, 0.0, 0.0), (22, 1.0, ahead)):
            if now >= since:
                state = WorkerState("w", "w", session, int(1000 * (now + 1000 + offset)) + session % 2)
                actions = machine.handle(WorkerHeard(state), now)
                said += [a for a in actions if isinstance(a, Note) and a.kind == "two workers of one name"]
        believed.append(machine.workers["w"].state.session)
    assert said and "name of its own" in said[0].text
    assert len(set(believed[20:])) == 1, "they do not take turns"


def test_of_two_workers_of_one_name_the_survivor_serves_on() -> None:
    """The second dies: the first, whose session had ended for us, is believed again, and not once only."""
    machine = Dispatcher("cam", "r1", 1)
    for tenth in range(1, 100):
        now = tenth / 10
        for session in (11, 22) if 10 < tenth < 30 else (11,):
            machine.handle(WorkerHeard(WorkerState("w", "w", session, 1000 * tenth + session)), now)
        machine.handle(Tick(), now)
    view = machine.workers["w"]
    assert (view.state.session, view.heard_at, view.silent) == (11, now, False)


def test_a_late_message_of_a_former_self_makes_no_twin() -> None:
    machine = Dispatcher("cam", "r1", 1)
    for tenth in range(1, 200):
        session = 11 if tenth < 20 or tenth % 50 == 0 else 22
        late = 5000 if session == 11 and tenth >= 20 else 0
        actions = machine.handle(WorkerHeard(WorkerState("w", "w", session, 100_000 + 100 * tenth - late)), tenth / 10)
        assert not [a for a in actions if isinstance(a, Note) and "one name" in a.kind]


@pytest.mark.parametrize("settings", [STEALING, SHARING], ids=["stealing", "sharing"])
@pytest.mark.parametrize("prefetch", [0, 1])
@pytest.mark.parametrize("plan", [shape(6), shape(6, replicas=2)], ids=["single", "replicas"])
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_that_take_one_task_at_a_time_get_them_all(
    settings: DispatcherSettings, prefetch: int, plan: PlanShape, workers: int
) -> None:
    """Over links that take no time, so that whoever sends again what was refused would do so for ever."""
    faults, limits = Faults(delay=(0.0, 0.0)), WorkerSettings(prefetch=prefetch, max_held=1)
    cluster = Cluster(workers, plan, faults=faults, dispatcher=settings, worker=limits)
    assert {report.status for report in cluster.run(5, period=0.5)} <= {Status.COMPLETE, Status.RECOMPUTED}
    if settings.stealing and plan.stages[0].replicas == 1:
        assert "work refused" not in cluster.notes.counts, "no more room is offered than there is"


@pytest.mark.parametrize("settings", [STEALING, SHARING], ids=["stealing", "sharing"])
def test_what_always_fails_is_given_up(settings: DispatcherSettings) -> None:
    """Also where the task wants a second copy all the time."""
    cluster = Cluster(2, shape(3, replicas=2), faults=Faults(failing=1.0), dispatcher=settings)
    assert {report.status for report in cluster.run(3)} == {Status.NO_RESULT}
    assert cluster.notes.counts["task failed"] <= 3 * 3 * (DispatcherSettings().max_attempts + 1), "and one more copy"


@pytest.mark.parametrize(("preparing", "patient"), [(False, 0.5), (True, 2.0)])
def test_a_worker_that_reads_weights_may_be_silent_for_longer_but_not_for_ever(preparing: bool, patient: float) -> None:
    """The runtime packs weights without letting go of the interpreter, so it neither speaks nor listens."""
    machine = source_with_frames(1)
    machine.handle(WorkerReachable("w1", True), 0.9)
    state = WorkerState("w1", "r1", 1, 1, plans=frozenset({"plan"}), room=2, offered_to="cam", preparing=preparing)
    sent = [action for action in machine.handle(WorkerHeard(state), 1.0) if isinstance(action, SendWork)]
    assert len(sent) == 1

    def lost(now: float) -> list[str]:
        return [action.kind for action in machine.handle(Tick(), now) if isinstance(action, Note) and action.warn]

    times = [1.0 + 0.05 * step for step in range(1, 60)]
    told = [now for now in times if lost(now)]
    assert told and 1.0 + patient - 0.05 < told[0] < 1.0 + patient + 0.1


# Robots that start anew -----------------------------------------------------------------------------------------------


OLD = Progress("cam", 7, 500_000_000, oldest_open=3, aggregator=11)
NEW = Progress("cam", 7, 20_000, oldest_open=5, aggregator=12)  # its robot's steady clock began anew


def source_with_frames(frames: int) -> Dispatcher:
    machine = Dispatcher("cam", "r1", 7)
    machine.handle(PlanInstalled("plan", shape(1)), 0.9)
    for frame in range(frames):
        machine.handle(FrameReady(frame, "plan", float("inf")), 0.9)
    return machine


def test_a_dispatcher_believes_the_progress_of_an_aggregator_whose_robot_was_rebooted() -> None:
    """After a silence; until then a lower sequence is an old message that was held up."""
    machine = source_with_frames(10)

    def open_from(progress: Progress, now: float) -> int:
        machine.handle(ProgressHeard(progress), now)
        return min(machine.frames)

    assert open_from(OLD, 1.0) == 3
    assert open_from(NEW, 1.3) == 3
    assert open_from(OLD._replace(sequence=499_999_999, oldest_open=9), 1.6) == 3, "the same session grows"
    assert open_from(NEW, 1.7) == 5
    assert open_from(NEW._replace(sequence=20_001, oldest_open=6), 1.8) == 6


def test_a_dispatcher_that_stood_still_takes_nobody_for_rebooted() -> None:
    machine = source_with_frames(10)
    machine.handle(ProgressHeard(OLD), 1.0)
    machine.handle(ProgressHeard(NEW), 6.0)
    assert min(machine.frames) == 3


def test_a_worker_believes_the_progress_of_an_aggregator_whose_robot_was_rebooted() -> None:
    machine = w.Worker("w1", "r1", 1, "model")
    machine.handle(e.StatesHeard((SourceState("cam", "r1", 7, 1),)), 1.0)

    def known(progress: Progress, now: float) -> Progress | None:
        machine.handle(e.StatesHeard((progress,)), now)
        return machine.sources["cam"].progress

    assert known(OLD, 1.0) is OLD
    assert known(NEW, 1.9) is OLD
    assert known(NEW, 2.1) is NEW


# Sources and workers that come and go ---------------------------------------------------------------------------------


def source_state(source: str, sequence: int = 1, **fields: Any) -> e.StatesHeard:
    return e.StatesHeard((SourceState(source, f"robot_of_{source}", 7, sequence, **fields),))


def test_a_worker_that_knows_too_many_sources_forgets_silent_ones() -> None:
    """Not those that it holds or has answered something for, nor those that it still hears."""
    machine = w.Worker("w1", "r1", 1, "model", WorkerSettings(max_sources=4, max_plans=1, remember=60.0))
    machine.handle(e.PlanOffered("plan"), 0.0)
    machine.handle(e.PlanBuilt("plan"), 0.0)
    for source in ("held", "answered", "heard", "gone"):
        machine.handle(source_state(source, plan="plan"), 0.0)
    for number, source in enumerate(("answered", "held")):
        machine.handle(e.WorkArrived(TaskKey(source, 7, 0, 0, 0), "plan", 1, 1), 0.1)
        if not number:
            machine.handle(e.Computed(TaskKey(source, 7, 0, 0, 0), "plan", 0.01, 100), 0.2)
    machine.handle(source_state("new"), 0.9)
    assert "new" not in machine.sources, "all were heard a moment ago"
    machine.handle(source_state("heard", 2), 1.5)
    machine.handle(source_state("new"), 1.6)
    assert machine.sources.keys() == {"held", "answered", "heard", "new"}
    machine.handle(source_state("newer"), 1.7)
    assert "newer" not in machine.sources


def test_a_worker_serves_as_many_sources_as_ever_come_one_after_the_other() -> None:
    machine = w.Worker("w1", "r1", 1, "model", WorkerSettings(max_sources=4))
    for number in range(40):
        actions = machine.handle(source_state(f"s{number}"), 2.0 * number)
        assert not [action for action in actions if isinstance(action, Note) and action.warn]
        assert f"s{number}" in machine.sources


def test_work_numbers_go_on_where_a_worker_last_saw_them() -> None:
    """It may be a worker that was forgotten here: numbers begun anew it would take for doubled, and we the work for
    acknowledged and lost.
    """
    seen = {("cam", 7): 4, ("cam", 6): 9, ("rear", 7): 8}
    state = WorkerState("w1", "r1", 1, 1, plans=frozenset({"plan"}), room=1, offered_to="cam", seen=seen)
    machine = source_with_frames(1)
    machine.handle(WorkerReachable("w1", True), 0.9)
    actions = machine.handle(WorkerHeard(state), 1.0)
    assert [action.number for action in actions if isinstance(action, SendWork)] == [5]


def test_a_local_stage_of_before_a_restart_does_not_end_the_new_frame_of_its_number() -> None:
    machine = g.Gatherer("cam")
    machine.handle(e.PlanInstalled("plan", PlanShape(shape(1).stages[1:])), 0.0)
    machine.handle(e.FrameAnnounced(7, 0, "plan", 1.0), 0.0)
    began = machine.handle(e.FrameAnnounced(8, 0, "plan", 1.0), 0.1)
    assert [(a.session, a.frame) for a in began if isinstance(a, e.RunLocal)] == [(8, 0)]
    for error in ("", "failed"):
        actions = machine.handle(e.LocalDone(7, 0, "plan", 0, 0.1, error), 0.2)
        assert [a.kind for a in actions if isinstance(a, Note)] == ["late local stage"] and 0 in machine.frames
    actions = machine.handle(e.LocalDone(8, 0, "plan", 0, 0.1), 0.3)
    assert [a.report.status for a in actions if isinstance(a, e.Publish)] == [Status.COMPLETE]


# Whom workers offer their room ----------------------------------------------------------------------------------------


def offers(workers: int, sources: dict[str, int], robot: str = "") -> dict[str, int]:
    """How many workers offer their room to each of these sources, of which each has so many tasks waiting."""
    offered = dict.fromkeys(sources, 0)
    for number in range(workers):
        machine = w.Worker(f"w{number}", robot or f"r{number}", 1, "model")
        for event in (e.PlanOffered("plan"), e.PlanBuilt("plan")):
            machine.handle(event, 0.0)
        for source, queued in sources.items():
            machine.handle(e.SourceReachable(source, True), 0.0)
            machine.handle(source_state(source, plan="plan", queued=queued), 0.0)
        said = machine.handle(e.Tick(), 0.5)
        offered[next(action.state.offered_to for action in said if isinstance(action, e.PublishWorker))] += 1
    return offered


@pytest.mark.parametrize("queued", [0, 5])
@pytest.mark.parametrize("names", [("front", "rear"), ("cam1", "cam2"), ("a", "b"), ("r1", "r2")])
def test_workers_spread_over_sources_with_equal_queues(names: tuple[str, str], queued: int) -> None:
    assert min(offers(8, dict.fromkeys(names, queued)).values()) >= 2
    assert min(offers(8, dict.fromkeys((*names, "third"), queued)).values()) >= 1


def test_the_own_robot_comes_first_then_the_longest_queue() -> None:
    assert offers(8, {"front": 3, "rear": 4}) == {"front": 0, "rear": 8}
    assert offers(8, {"front": 3, "rear": 4}, robot="robot_of_front") == {"front": 8, "rear": 0}
    assert offers(8, {"front": 0, "rear": 1}, robot="robot_of_front") == {"front": 0, "rear": 8}
    assert offers(8, {"front": 0, "rear": 0}, robot="robot_of_front") == {"front": 8, "rear": 0}
