# SPDX-License-Identifier: Apache-2.0
"""A source in virtual time: what nodes/partition.py, aggregator.py and gateway.py are on a robot."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from dnn_dist.run import dispatcher as d
from dnn_dist.run import gatherer as g
from dnn_dist.run import worker as w
from dnn_dist.run.notes import Note
from dnn_dist.run.state import WorkerState
from dnn_dist.run.wire import TaskKey
from dnn_dist.sim.board import Board
from dnn_dist.sim.outcome import FrameRun, Span
from dnn_dist.sim.scenario import Source

if TYPE_CHECKING:
    from dnn_dist.sim.cluster import Cluster
    from dnn_dist.sim.robot import WorkerShell

SLACK = 1e-6
"""Seconds by which a tick comes later than asked for, so that rounding does not make it come too early."""


class SourceShell:
    """Dispatcher and gatherer, images in, reports out."""

    def __init__(self, cluster: Cluster, source: Source, name: str, settings: d.DispatcherSettings) -> None:
        self.cluster, self.source, self.name = cluster, source, name
        self.agenda, self.air, self.load = cluster.agenda, cluster.air, source.load
        self.robot = source.robot
        self.aggregator = source.aggregator or source.robot
        self.session = cluster.draw_session()
        self.dispatcher = d.Dispatcher(name, source.robot, self.session, settings)
        self.gatherer = g.Gatherer(name, source.gatherer)
        self.workers: dict[str, WorkerShell] = {}  # robot -> its worker
        self.board: dict[str, Board] = {"state": Board(), "progress": Board()}
        self.images = 0  # taken by the camera
        self.dropped = 0
        self.ended = 0  # frames reported
        self.bytes_in = self.bytes_out = 0  # of work and results, on links or not
        self._frame = 0
        self._open: dict[int, float] = {}  # frame -> deadline, s
        self._begun: dict[int, tuple[float, float]] = {}  # frame -> image taken, frame announced, s
        self._waiting: float | None = None  # when the image that waits was taken, s
        self._arrived = 0.0  # when it came, s
        self._coming = False  # an image is on its way from the camera's robot
        self._local: deque[g.RunLocal] = deque()  # the first runs
        self._local_began = 0.0
        self._sent: dict[int, dict[TaskKey, list[WorkerShell]]] = {}  # frame -> tasks not done -> who was sent them
        self._in_vain: dict[str, WorkerShell] = {}  # robot -> its worker, which may hold what nobody wants any more
        self.awaited: dict[str, WorkerShell] = {}  # robot -> its worker, whose next result waits for progress
        self._queued = 0  # as last told
        # What workers say and nothing follows from: worker -> (arrives, s; what it says; what arrived before, unread)
        self._inbox: dict[str, tuple[float, WorkerState, WorkerState | None]] = {}
        self._listen_at = float("inf") if cluster.scenario.exact else float("-inf")  # s; to the workers' heartbeats
        self._wakes = {"d": float("inf"), "g": float("inf")}

    def begin(self) -> None:
        """Start the machines, and the camera later."""
        plan = self.load.plan
        self._gather(g.PlanInstalled(plan, self.load.shape))
        self._dispatch(d.PlanInstalled(plan, self.load.shape))
        self.agenda.at(self.source.start, self._click)

    @property
    def done(self) -> bool:
        """True when every image was reported or dropped."""
        return self.images >= self.source.frames and not (self._begun or self._coming or self._waiting is not None)

    @property
    def unreported(self) -> int:
        """Frames announced and not reported."""
        return len(self._begun)

    # Images

    def _click(self) -> None:
        self.images += 1
        self._coming = True
        now, camera = self.agenda.now, self.source.camera or self.robot
        self.air.carry(camera, self.robot, self.source.image_bytes, f"{self.name} image", self._hear_image, now)
        if self.source.rate is not None and self.images < self.source.frames:
            self.agenda.at(self.source.start + self.images / self.source.rate, self._click)

    def _hear_image(self, taken: float) -> None:
        self._coming = False
        if self._waiting is not None:
            self.dropped += 1
        self._waiting, self._arrived = taken, self.agenda.now
        self._take_newest()

    def _take_newest(self) -> None:
        if len(self._open) >= self.source.max_frames:
            return
        if self._waiting is None:
            if self.source.rate is None and 0 < self.images < self.source.frames and not self._coming:
                self._click()
            return
        if self._open and self.dispatcher.full():
            return
        taken, self._waiting = self._waiting, None
        now, number = self.agenda.now, self._frame
        deadline = self._arrived + self.source.deadline
        self._frame += 1
        self._open[number], self._begun[number] = deadline, (taken, now)
        announcement = g.FrameAnnounced(self.session, number, self.load.plan, max(0.0, deadline - now))
        self.cluster.announced(self, number)
        if self.aggregator == self.robot:
            self._gather(announcement)
        else:
            self.air.tell(self.robot, self.aggregator, f"{self.name} frame", self._gather, announcement)
        if number in self._open:
            self._dispatch(d.StageReady(number, 0, self.load.plan, deadline))

    # Machines

    def tell(self, state: WorkerState) -> None:
        """A worker says how it is. What matters here arrives as an event; the rest is read with the next one."""
        if self.cluster.scenario.exact or self._matters(state):
            self.air.tell(state.robot, self.robot, "worker state", self.hear_worker, state)
            return
        now, unread = self.agenda.now, self._inbox.get(state.worker)
        before = unread[1] if unread is not None and unread[0] <= now else None
        self._inbox[state.worker] = now + self.air.mean_delay(state.robot, self.robot), state, before

    def _matters(self, state: WorkerState) -> bool:
        """True when the dispatcher may do something on hearing this, beyond noting that the worker is alive."""
        view = self.dispatcher.workers.get(state.worker)
        if view is None or view.silent or view.leases or view.state.session != state.session:
            return True
        return bool(self.dispatcher.queue) and state.room > 0 and state.offered_to == self.name

    def hear_worker(self, state: WorkerState) -> None:
        """A worker's state arrived."""
        self.gatherer.hear_worker(self.agenda.now)
        if self.dispatcher.hear(state, self.agenda.now):
            self._wake("d", self.dispatcher.workers[state.worker].due, self._tick_dispatcher)
        else:
            self._dispatch(d.WorkerHeard(state))

    def _read_inbox(self) -> None:
        now = self.agenda.now
        under_way: dict[str, tuple[float, WorkerState, WorkerState | None]] = {}
        for worker, (at, newest, before) in self._inbox.items():
            state: WorkerState | None = newest
            if at > now:
                under_way[worker], state = (at, newest, None), before
            if state is not None and not self.dispatcher.hear(state, now):
                self._perform_dispatcher(d.WorkerHeard(state))
        self._inbox = under_way

    def meet(self, worker: str) -> None:
        """A worker has been started that this source reaches."""
        self._dispatch(d.WorkerReachable(worker, True))

    def hear_result(self, event: g.ResultArrived) -> None:
        """A result arrived at the aggregator."""
        self._gather(event)

    def _perform_dispatcher(self, event: Any) -> None:
        if self.agenda.now >= self._listen_at:
            self._listen()
        for action in self.dispatcher.handle(event, self.agenda.now):
            _PERFORM[type(action)](self, action)

    def _listen(self) -> None:
        """Hear the heartbeats that said nothing new, and so were not simulated one by one."""
        now, dispatcher = self.agenda.now, self.dispatcher
        patience, longest = dispatcher.settings.patience, 0.0
        for worker, view in dispatcher.workers.items():
            delay = self.air.mean_delay(worker, self.robot)
            longest = max(longest, delay)
            heard = self.workers[worker].last_beat(now - delay) + delay
            self.gatherer.hear_worker(heard)
            if heard > view.heard_at and not view.silent:
                view.heard_at = heard
                view.set_due(now, patience)
        # Soon enough that nobody's silence ends between two times of listening.
        self._listen_at = now + max(0.0, patience.worker_timeout - self.cluster.worker.heartbeat - longest) / 2

    def _lost(self) -> None:
        """Workers that were taken for gone are heard again with their next heartbeat, if they live."""
        for worker, view in self.dispatcher.workers.items():
            if view.silent:
                self.workers[worker].beat()

    def _dispatch(self, event: Any) -> None:
        if self._inbox:
            self._read_inbox()
        self._perform_dispatcher(event)
        if self._inbox and self.dispatcher.queue:  # now they matter
            for at, state, _ in self._inbox.values():
                self.agenda.at(at, self.hear_worker, state)
            self._inbox.clear()
        self._wake("d", self.dispatcher.next_wake(), self._tick_dispatcher)
        self._take_newest()

    def _gather(self, event: Any) -> None:
        if self.agenda.now >= self._listen_at:
            self._listen()
        for action in self.gatherer.handle(event, self.agenda.now):
            _PERFORM[type(action)](self, action)
        self._wake("g", self.gatherer.next_wake(), self._tick_gatherer)

    def _wake(self, which: str, due: float, tick: Callable[[float], None]) -> None:
        if due < self._wakes[which]:
            self._wakes[which] = due
            self.agenda.at(due + SLACK, tick, due)

    def _tick_dispatcher(self, due: float) -> None:
        if self._wakes["d"] != due:
            return
        self._wakes["d"] = float("inf")
        if self.agenda.now >= self._listen_at:
            self._listen()
        if self.dispatcher.next_wake() <= self.agenda.now:
            self._dispatch(d.Tick())
        else:
            self._wake("d", self.dispatcher.next_wake(), self._tick_dispatcher)

    def _tick_gatherer(self, due: float) -> None:
        if self._wakes["g"] != due:
            return
        self._wakes["g"] = float("inf")
        if self.gatherer.next_wake() <= self.agenda.now:
            self._gather(g.Tick())
        else:
            self._wake("g", self.gatherer.next_wake(), self._tick_gatherer)

    # Actions of the dispatcher

    def _send_work(self, action: d.SendWork) -> None:
        self.cluster.sending(self, action)
        worker = self.workers[action.worker]
        size = self.load.shape.stages[action.key.stage].pieces[action.key.piece].bytes_in
        self.bytes_in += size
        self._sent.setdefault(action.key.frame, {}).setdefault(action.key, []).append(worker)
        self.air.carry(self.robot, worker.robot, size, f"{self.name} work", worker.hear_work, action)

    def _publish_source(self, action: d.PublishSource) -> None:
        event, queued = w.SourceHeard(action.state), action.state.queued
        if self.cluster.scenario.exact:
            for worker in self.workers.values():
                self.air.tell(self.robot, worker.robot, f"{self.name} state", worker.hear, event)
            return
        self.board["state"].put(self.agenda.now, event)
        if queued or self._queued:
            for worker in self.workers.values():
                if worker.hungry:
                    worker.look_later(self)
        self._queued = queued

    def _publish_plan(self, action: d.PublishPlan) -> None:
        offered = w.PlanOffered(action.plan, self.load.shape.robots)
        for worker in self.workers.values():
            self.air.tell(self.robot, worker.robot, f"{self.name} plan", worker.hear, offered)

    def _release(self, action: d.ReleaseFrame) -> None:
        self._open.pop(action.frame, None)

    # Actions of the gatherer

    def _keep(self, action: g.Keep) -> None:
        self.cluster.kept(self, action.key)
        sent = self._sent.get(action.key.frame, {}).pop(action.key, ())
        if len(sent) > 1:
            self._give_up(sent)

    def _nothing(self, action: Any) -> None:
        pass

    def _settled(self, action: g.Settled) -> None:
        sent = self._sent.get(action.frame, {})
        for key in [key for key in sent if key.stage == action.stage]:
            self._give_up(sent.pop(key))

    def _give_up(self, workers: Iterable[WorkerShell]) -> None:
        """These may hold a task that nobody wants any more; the next progress says so."""
        self._in_vain.update((worker.robot, worker) for worker in workers)

    def _run_local(self, action: g.RunLocal) -> None:
        self._local.append(action)
        if len(self._local) == 1:
            self._start_local()

    def _start_local(self) -> None:
        stage = self._local[0].stage
        pieces = range(len(self.load.shape.stages[stage].pieces))
        seconds = sum(self.cluster.service(self.aggregator, self.load, stage, piece) for piece in pieces)
        self._local_began = self.agenda.now
        self.cluster.processors[self.aggregator].start(seconds, self._end_local)

    def _end_local(self) -> None:
        local = self._local.popleft()
        now, began = self.agenda.now, self._local_began
        if now > began:
            self.cluster.span(Span(self.aggregator, self.name, local.frame, local.stage, 0, began, now, "local"))
        if self._local:
            self._start_local()
        self._gather(g.LocalDone(local.session, local.frame, local.stage, now - began))

    def _hand_over(self, action: g.HandOver) -> None:
        if action.frame in self._open:
            event = d.StageReady(action.frame, action.stage, self.load.plan, self._open[action.frame])
            self._dispatch(event)

    def _publish(self, action: g.Publish) -> None:
        taken, announced = self._begun.pop(action.report.frame)
        self.ended += 1
        for workers in self._sent.pop(action.report.frame, {}).values():
            self._give_up(workers)
        self.cluster.report(FrameRun(self.name, taken, announced, self.agenda.now, action.report))
        if self.done:
            self.cluster.source_done()

    def _publish_progress(self, action: g.PublishProgress) -> None:
        heard = d.ProgressHeard(action.progress)
        if self.aggregator == self.robot:
            self._dispatch(heard)
        else:
            self.air.tell(self.aggregator, self.robot, f"{self.name} progress", self._dispatch, heard)
        event = w.ProgressHeard(action.progress)
        if self.cluster.scenario.exact:
            for worker in self.workers.values():
                self.air.tell(self.aggregator, worker.robot, f"{self.name} progress", worker.hear, event)
            return
        self.board["progress"].put(self.agenda.now, event)
        for worker in (self._in_vain | self.awaited).values():
            worker.look_later(self)
        self._in_vain.clear()
        self.awaited.clear()

    def _note(self, action: Note) -> None:
        self.cluster.notes.add(action)
        if action.warn:
            self._lost()


_PERFORM: dict[type, Callable[[SourceShell, Any], None]] = {
    d.SendWork: SourceShell._send_work,
    d.PublishSource: SourceShell._publish_source,
    d.PublishPlan: SourceShell._publish_plan,
    d.ReleaseFrame: SourceShell._release,
    g.Keep: SourceShell._keep,
    g.Fill: SourceShell._nothing,
    g.Settled: SourceShell._settled,
    g.RunLocal: SourceShell._run_local,
    g.HandOver: SourceShell._hand_over,
    g.Publish: SourceShell._publish,
    g.PublishProgress: SourceShell._publish_progress,
    Note: SourceShell._note,
}
