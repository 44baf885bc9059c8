# SPDX-License-Identifier: Apache-2.0
"""Faults that were found in version 0.1, each by its number in the list; through messages, in virtual time.

Those that need processes are in test_faults_live.py; 2 is test_ondemand.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

pytest.importorskip("dnn_dist.msg", reason="messages are not built")
pytest.importorskip("rclpy", reason="no ROS 2 here")

from arrays import Photo, network
from messaged import MessageCluster, MessageSource, MessageWorker
from rclpy.serialization import deserialize_message
from virtual import Cluster, Faults, shape

from dnn_dist import msg
from dnn_dist.cut.digest import pieces_digest
from dnn_dist.nodes import convert
from dnn_dist.plan.plan import Pixels, Plan
from dnn_dist.run.events import SourceReachable, WorkerReachable
from dnn_dist.run.gathered import GathererSettings
from dnn_dist.run.report import Status
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.state import Progress
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.run.values import PlanText, Result, Work
from dnn_dist.run.wire import TaskKey
from dnn_dist.run.workshop import Pieces, Workshop
from dnn_dist.settings import WorkerSettings as Declared
from dnn_dist.sim.process import SLACK

CUT = "tiles:2x2@0..4;slices:2+1@5"
CUTS = (CUT, "tiles:3x3@0..3;layers:2@4..11", "slices:2+1@0..1;tiles:1x2@2..4")
PERIOD, BUDGET = 0.2, 0.6
WHOLE = {Status.COMPLETE, Status.DECODED, Status.RECOMPUTED}


def cluster_of(workers: int = 2, cuts: tuple[str, ...] = (CUT,), **options: Any) -> MessageCluster:
    """A cluster that speaks by messages."""
    return MessageCluster((), workers, cuts, limit=60.0, **options)


def hear(cluster: MessageCluster, message: Any) -> None:
    """A message arrives at all who listen to its topic."""
    read: dict[type, Callable[[Any], Any]] = {
        msg.Work: convert.read_work,
        msg.Progress: convert.read_progress,
        msg.Plan: convert.read_plan,
        msg.WorkerState: convert.read_worker,
        msg.SourceState: convert.read_source,
        msg.Frame: lambda m: convert.read_frame(m, Photo(0.0, header=m.header)),
    }
    cluster._deliver(read[type(message)](message))


@pytest.mark.parametrize(("stage", "piece"), [(0, 4), (1, 3), (2, 0), (3, 0), (65535, 65535)])
def test_fault_4_work_for_a_piece_that_is_none_is_named_and_not_held(stage: int, piece: int) -> None:
    """Of the right plan and sessions, in the midst of others."""
    cluster = cluster_of(workers=1)
    key = TaskKey("cam", 0, 2, stage, piece)

    def send() -> None:
        source, worker = cluster.sources["cam"], cluster.workers["w1"].part
        here = key._replace(session=source.session)
        number = worker.machine.seen.get(("cam", source.session), 0) + 1
        work = Work(here, source.partition.plan, worker.machine.session, number, 0, 30.0, [])
        hear(cluster, convert.work_message(work))
        assert here not in worker.machine.held and here not in worker.tasks

    cluster.calls = [(0.3 + 2 * PERIOD + 0.01 * tenth, send) for tenth in range(5)]
    reports = cluster.run(8, PERIOD, BUDGET)
    assert {report.status for report in reports} <= WHOLE
    assert cluster.notes.counts["bad message"] == 5 and "piece" in cluster.notes.texts["bad message"]


def test_fault_6_progress_that_closes_frames_which_were_not_begun_is_not_believed() -> None:
    """Workers would drop all work as late."""
    cluster = cluster_of()

    def send() -> None:
        source = cluster.sources["cam"]
        machine = source.aggregator.machine
        clock = int(1000 * cluster.agenda.now) + 1
        progress = Progress("cam", source.session, clock, 2**32 - 1, {}, machine.aggregator, machine.plans)
        hear(cluster, convert.progress_message(progress))

    cluster.calls = [(0.3 + 2.5 * PERIOD, send)]
    reports = cluster.run(12, PERIOD, BUDGET)
    assert {report.status for report in reports[4:]} <= WHOLE
    assert "4294967295" in cluster.notes.texts["broken progress"]
    assert cluster.notes.counts["late work"] < 20 if "late work" in cluster.notes.counts else True


def test_fault_7_building_another_sources_plan_delays_no_lease() -> None:
    """All workers build for two seconds, while they compute for the first source."""
    cluster = Cluster(3, shape(6, macs=10), sources=2, others=[shape(4)], build=2.0)
    cluster.calls = [(1.0, lambda: cluster.sources["cam2"].set_plan(cluster.loads()[1]))]
    reports = cluster.run(60, period=0.1, budget=0.5)
    assert cluster.sources["cam2"].partition.plan == "plan1", "it was built meanwhile, and is in force"
    built = [report for report in reports if cluster.begun[report.frame] > 3.0]
    assert len(built) > 20 and {report.status for report in built} == {Status.COMPLETE}
    assert not {"task sent again", "worker lost"} & cluster.notes.counts.keys()


class Deaf(MessageSource):
    """A source that gets no result of frame 0."""

    def hear_result(self, result: Result) -> None:
        if result.key.frame:
            super().hear_result(result)


class DeafCluster(MessageCluster):
    """See `Deaf`. Two frames begin at once."""

    source_class = Deaf

    def __init__(self) -> None:
        settings, limits = DispatcherSettings(transit=0.025), WorkerSettings(transit=0.005)
        faults = Faults(delay=(0.001, 0.001))
        super().__init__((), 2, CUTS[1:2], 0, faults, settings, worker=limits, limit=60.0)
        self.again: list[float] = []  # s; when a task of frame 0 was sent again

    def sending(self, source: str, work: Work, worker: str) -> None:
        super().sending(source, work, worker)
        if work.key.frame == 0 and work.attempt:
            self.again.append(self.agenda.now)


def test_fault_8_tensors_stay_until_nobody_can_send_them() -> None:
    """Two frames end in one step: of the first nothing came, the second is filled in and goes on to its next stage. At
    that moment leases of the first end as well, so that the dispatcher, told of the second, hands out its tasks.
    """
    undisturbed = DeafCluster()
    undisturbed.run(2, period=1e-7, budget=1.5)
    together = 0
    for at in sorted(set(undisturbed.again))[:10]:
        cluster = DeafCluster()
        cluster.run(2, period=1e-7, budget=at - SLACK - 1e-8 - 0.3 + GathererSettings().guard)
        together += cluster.notes.counts.get("filled in", 0)
    assert together > 2


MEMORY = 30_000  # bytes: room for some pieces of a plan, and not for those of two


class Measured(Workshop):
    """Pieces whose memory is looked at: of all engines that are there, whatever the books say."""

    def ready_bytes(self) -> list[int]:
        return [pieces.sizes[form] for pieces in self._sets.values() for form in pieces._engines]


class SmallWorker(MessageWorker):
    """A worker with little memory for pieces."""

    workshop: Measured

    def make_pieces(self) -> Pieces:
        self.workshop = Measured(network(), Declared(prepared=0.0, memory=MEMORY / 1e6))
        return self.workshop


class SmallCluster(MessageCluster):
    """See `SmallWorker`."""

    worker_class = SmallWorker
    most = 0  # bytes ready at once
    plans_ready = 0  # at once

    def check(self) -> None:
        super().check()
        shop = self.workers["w1"].workshop  # type: ignore[attr-defined]
        ready = shop.ready_bytes()
        assert sum(ready) <= MEMORY or len(ready) == 1, "more is ready than there is memory for"
        self.most = max(self.most, sum(ready))
        self.plans_ready = max(self.plans_ready, len(shop._sets))


def test_fault_9_memory_is_the_workers_not_each_plans() -> None:
    cluster = SmallCluster((), 1, CUTS, 3, on_demand=True, limit=60.0)
    loads = cluster.loads()
    cluster.calls = [
        (0.4 + 0.5 * turn, lambda turn=turn: cluster.sources["cam"].set_plan(loads[turn % 3])) for turn in range(1, 7)
    ]
    reports = cluster.run(20, PERIOD, BUDGET)
    assert len({report.plan for report in reports}) == cluster.plans_ready == 3
    assert cluster.most > MEMORY / 2, "else the limit was never met"


def test_fault_9_offered_plans_are_remembered_within_bounds() -> None:
    limits = WorkerSettings(max_plans=4)
    cluster = cluster_of(workers=1, worker=limits, on_demand=True)
    plans = [Plan(network().sha256, CUT, pixels=Pixels(1 / 255, float(number))) for number in range(60)]

    def offer(plan: Plan) -> None:
        digest = pieces_digest(network(), plan.stages(network()))
        hear(cluster, convert.plan_message(PlanText("cam", 1, plan.hash, plan.to_yaml(), digest)))
        part = cluster.workers["w1"].part
        assert max(len(part._offered), len(part.machine.plans), len(part._pieces._sets)) <= 2 * limits.max_plans

    cluster.calls = [(0.5 + 0.05 * number, lambda plan=plan: offer(plan)) for number, plan in enumerate(plans)]
    reports = cluster.run(25, PERIOD, BUDGET)
    assert {report.status for report in reports} <= WHOLE


def test_fault_10_a_late_announcement_of_a_former_session_ends_nothing() -> None:
    cluster = MessageCluster({msg.Frame}, 2, (CUT,), limit=60.0)
    former = 4711

    def announce(frame: int) -> None:
        plan = cluster.sources["cam"].partition.plan
        hear(cluster, msg.Frame(source="cam", session=former, frame=frame, plan=plan, budget=0.1, height=8, width=8))

    cluster.calls = [(0.1, lambda: announce(0))]
    cluster.calls += [(0.31 + PERIOD * frame, lambda frame=frame: announce(frame)) for frame in range(1, 9)]
    cluster.run(10, PERIOD, BUDGET)
    ours = [outcome.report for outcome in cluster.outcomes if outcome.frame.session != former]
    assert [report.frame for report in ours] == list(range(10))
    assert {report.status for report in ours} <= WHOLE
    assert cluster.notes.counts["late announcement"] == 8


class Altered(MessageSource):
    """A source that derives other pieces than its workers."""

    def make_store(self, load: Any, **where: bool) -> Any:
        store = super().make_store(load, **where)
        store.pieces_digest = "0" * 16
        return store


class AlteredCluster(MessageCluster):
    """See `Altered`."""

    source_class = Altered


def test_fault_24_a_plan_of_other_pieces_is_refused() -> None:
    cluster = AlteredCluster((), 2, (CUT,), limit=60.0)
    reports = cluster.run(5, PERIOD, BUDGET)
    assert {report.status for report in reports} == {Status.NO_RESULT} and not cluster.computed
    assert "install one version" in cluster.notes.texts["plan refused"]
    assert "cannot serve" in cluster.notes.texts["plan refused by worker"]


def test_fault_24_a_worker_of_another_version_is_named_at_once_and_gets_no_work() -> None:
    cluster = cluster_of()
    said_at: list[float] = []

    def speak() -> None:
        sent = deserialize_message(cluster.wire.said[msg.WorkerState][-1], msg.WorkerState)
        sent.worker, sent.version = "w9", "9.9.9"
        sent.room, sent.offered_to, sent.sequence = 9, "cam", int(1000 * cluster.agenda.now)
        hear(cluster, sent)
        if "9.9.9" in cluster.notes.texts.get("another version", ""):
            said_at.append(cluster.agenda.now)

    def meet() -> None:
        source = cluster.sources["cam"]
        source._processes[0].deliver(source.partition, WorkerReachable("w9", True))

    cluster.calls = [(0.2, meet), *((0.5 + 0.2 * turn, speak) for turn in range(10))]
    reports = cluster.run(10, PERIOD, BUDGET)
    assert said_at[0] == 0.5 and "'w9'" in cluster.notes.texts["another version"]
    assert {report.status for report in reports} <= WHOLE
    assert not any("w9" in report.workers for report in reports)


def test_two_kinds_of_machine_are_named_once_and_both_get_work() -> None:
    cluster = cluster_of()

    def speak(worker: str) -> None:
        sent = deserialize_message(cluster.wire.said[msg.WorkerState][-1], msg.WorkerState)
        sent.worker, sent.machine = worker, "pdp11"
        sent.room, sent.offered_to, sent.sequence = 0, "", int(1000 * cluster.agenda.now)
        hear(cluster, sent)

    times = [(0.5 + 0.2 * turn, worker) for turn in range(5) for worker in ("w8", "w9")]
    cluster.calls = [(at, partial(speak, worker)) for at, worker in times]
    reports = cluster.run(10, PERIOD, BUDGET)
    assert cluster.notes.counts["two kinds of machine"] == 1
    assert "'w8' is 'pdp11'" in cluster.notes.texts["two kinds of machine"]
    assert cluster.notes.counts["worker joined"] >= 4 and {report.status for report in reports} <= WHOLE


def test_fault_24_a_source_of_another_version_is_named_at_once_and_its_work_refused() -> None:
    cluster = cluster_of(workers=1)
    said_at: list[float] = []

    def speak() -> None:
        sent = deserialize_message(cluster.wire.said[msg.SourceState][-1], msg.SourceState)
        sent.version, sent.sequence = "9.9.9", int(1000 * cluster.agenda.now) + 1
        sent.source, sent.queued = "other", 100
        hear(cluster, sent)
        worker = cluster.workers["w1"].part
        if "9.9.9" in cluster.notes.texts.get("another version", ""):
            said_at.append(cluster.agenda.now)
        number = worker.machine.seen.get(("other", sent.session), 0) + 1
        key = TaskKey("other", sent.session, 0, 0, 0)
        worker.post(Work(key, sent.plan, worker.machine.session, number, 0, 30.0, []))
        assert key not in worker.machine.held
        assert worker.machine._views.offered_to(worker.machine.plans, cluster.agenda.now) != "other"

    def meet() -> None:
        cluster.workers["w1"].part.post(SourceReachable("other", True))

    cluster.calls = [(0.2, meet), *((0.5 + 0.2 * turn, speak) for turn in range(10))]
    reports = cluster.run(10, PERIOD, BUDGET)
    assert said_at[0] == 0.5 and "'other'" in cluster.notes.texts["another version"]
    assert {report.status for report in reports} <= WHOLE
    assert "another version" in cluster.notes.texts["work refused"]
