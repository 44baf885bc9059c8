# SPDX-License-Identifier: Apache-2.0
"""A robot's worker in virtual time: what nodes/worker.py is on a robot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dnn_dist.run import dispatcher as d
from dnn_dist.run import gatherer as g
from dnn_dist.run import worker as w
from dnn_dist.run.notes import Note
from dnn_dist.run.wire import TaskKey
from dnn_dist.sim.board import Board
from dnn_dist.sim.outcome import Span
from dnn_dist.sim.processor import Job
from dnn_dist.sim.source import SLACK, SourceShell

if TYPE_CHECKING:
    from dnn_dist.sim.cluster import Cluster


@dataclass(slots=True)
class Ear:
    """A worker at a board: what it has read of it."""

    source: SourceShell
    board: Board
    delay: float  # s that a message takes to get here
    progress: bool  # of progress, not of the queue
    seen: int = 0  # number of the last message read


class WorkerShell:
    """The machine of one worker over its lives. Its name is its robot's."""

    def __init__(self, cluster: Cluster, robot: str) -> None:
        self.cluster, self.robot = cluster, robot
        self.agenda, self.air = cluster.agenda, cluster.air
        self.machine: w.Worker | None = None  # None: dead
        self.sources: dict[str, SourceShell] = {}
        self._ears: list[Ear] = []  # one for each board of each source
        self.tasks = 0  # computed
        self.held_bytes = self.most_held_bytes = 0  # of inputs that wait or are computed
        self.pieces: dict[str, set[tuple[int, int]]] = {}  # source -> (stage, piece) computed for it
        self._stopped: list[Callable[[], None]] | None = None  # what waits for a stopped process
        self._work: dict[TaskKey, d.SendWork] = {}
        self._served: set[str] = set()  # sources with tasks here, waiting, computed or answered: their progress matters
        self._began = 0.0  # s; of the task being computed
        self._job: Job | None = None
        self._ended: dict[TaskKey, tuple[float, str]] = {}  # computed, not sent -> (s, error)
        self._wake_at = float("inf")
        self._published_at = 0.0  # s; its last state
        self._runs_until = float("-inf")  # s; when the process died or stopped; inf: it runs
        self._look_at = float("inf")  # s; when a message that matters reaches this worker

    def reach(self, source: SourceShell) -> None:
        """This worker and a source hear each other."""
        self.sources[source.name] = source
        self.pieces[source.name] = set()
        for kind, robot in (("state", source.robot), ("progress", source.aggregator)):
            delay = self.air.mean_delay(robot, self.robot)
            self._ears.append(Ear(source, source.board[kind], delay, kind == "progress"))

    @property
    def hungry(self) -> bool:
        """True when it has room for tasks."""
        machine = self.machine
        return machine is not None and len(machine.held) + len(machine.outbox) <= machine.settings.prefetch

    # Lives

    def start(self) -> None:
        """A new process."""
        self.kill()
        self.machine = w.Worker(self.robot, self.robot, self.cluster.draw_session(), "model", self.cluster.worker)
        self._stopped, self._wake_at, self._look_at, self._runs_until = None, *(float("inf"),) * 3
        for ear in self._ears:
            ear.seen = 0
        self._work, self._ended, self.held_bytes = {}, {}, 0
        for source in self.sources.values():
            self.hear(w.SourceReachable(source.name, True))
            source.meet(self.robot)
            plan = w.PlanOffered(source.load.plan, source.load.shape.robots)  # latched: who comes late hears it too
            self.air.tell(source.robot, self.robot, f"{source.name} plan", self.hear, plan)

    def kill(self) -> None:
        """The process is gone, with all it held."""
        if self._job is not None and self.machine is not None:
            self.cluster.processors[self.robot].cancel(self._job)
            key = self.machine.held[0]
            end = self.agenda.now
            self.cluster.span(Span(self.robot, key.source, key.frame, key.stage, key.piece, self._began, end, "lost"))
        self.machine = self._job = self._stopped = None
        self._runs_until = min(self._runs_until, self.agenda.now)

    def stop(self) -> None:
        """The process stands still, and hears nothing."""
        if self._stopped is None and self.machine is not None:
            self._stopped = []
            self._runs_until = self.agenda.now
            self._freeze(True)

    def go(self) -> None:
        """The process goes on."""
        if self._stopped is not None:
            waiting, self._stopped = self._stopped, None
            self._runs_until = float("inf")
            self._freeze(False)
            for what in waiting:
                what()
            self.hear(w.Tick())

    def _freeze(self, frozen: bool) -> None:
        if self._job is not None:
            self.cluster.processors[self.robot].freeze(self._job, frozen)

    # Events

    def hear(self, event: Any) -> None:
        """A message, or the end of a computation."""
        if self.machine is None:
            return
        if self._stopped is not None:
            self._stopped.append(lambda: self.hear(event))
            return
        self._handle(event)

    def hear_work(self, work: d.SendWork) -> None:
        """A task arrived."""
        if self.machine is None:
            return
        if self._stopped is not None:
            self._stopped.append(lambda: self.hear_work(work))
            return
        self._served.add(work.key.source)
        if work.key not in self._work:
            self._work[work.key] = work
            self.held_bytes += self._bytes(work.key)
            self.most_held_bytes = max(self.most_held_bytes, self.held_bytes)
        self._handle(w.WorkArrived(work.key, work.plan, work.worker_session, work.number, work.budget))

    def _handle(self, event: Any) -> None:
        machine, now = self.machine, self.agenda.now
        assert machine is not None
        later = self._read_boards(machine, now)
        for action in machine.handle(event, now):
            _PERFORM[type(action)](self, action)
        for key in machine.outbox:  # they go out when progress tells that the one before has arrived
            self.sources[key.source].awaited[self.robot] = self
        if len(self._served) > 1 and not machine.held:
            self._served = {key.source for key in machine.answered}
        if later < self._look_at and (self.hungry or machine.outbox):
            self._look(later)
        if len(self._work) > len(machine.held) + len(machine.outbox):
            for key in [key for key in self._work if key not in machine.held and key not in machine.outbox]:
                self._drop_work(key)
                self._ended.pop(key, None)
        if machine.outbox or self.cluster.scenario.exact:
            self.beat()

    def beat(self) -> None:
        """Have the next heartbeat simulated."""
        machine = self.machine
        if machine is not None and (due := machine.next_wake()) < self._wake_at:
            self._wake_at = due
            self.agenda.at(due + SLACK, self._tick, due, machine)

    def last_beat(self, until: float) -> float:
        """When this worker sent its last heartbeat before the time `until` (s)."""
        beats = (min(until, self._runs_until) - self._published_at) // self.cluster.worker.heartbeat
        return self._published_at + max(0.0, beats) * self.cluster.worker.heartbeat

    def look_later(self, source: SourceShell) -> None:
        """What `source` has just hung up matters to this worker when it gets here."""
        now = self.agenda.now
        at = min(now + ear.delay for ear in self._ears if ear.source is source and ear.board.number > ear.seen)
        if at < self._look_at or self._look_at < now:
            self._look(at)

    def _look(self, at: float) -> None:
        self._look_at = at
        self.agenda.at(at, self._look_now, at, self.machine)

    def _look_now(self, at: float, machine: w.Worker) -> None:
        if at == self._look_at and machine is self.machine:
            self._look_at = float("inf")
            self.hear(w.Tick())

    def _read_boards(self, machine: w.Worker, now: float) -> float:
        """Take in what has reached this worker; when the next message will, in seconds."""
        soonest = float("inf")
        for ear in self._ears:
            if ear.board.number == ear.seen or (ear.progress and ear.source.name not in self._served):
                continue
            ear.seen, message, later = ear.board.read(ear.seen, ear.delay, now)
            if message is not None:
                for action in machine.hear(message, now):
                    _PERFORM[type(action)](self, action)
            soonest = min(soonest, later)
        return soonest

    def _tick(self, due: float, machine: w.Worker) -> None:
        if machine is not self.machine or self._wake_at != due:
            return
        self._wake_at = float("inf")
        if self._stopped is not None:
            self._stopped.append(lambda: self.hear(w.Tick()))
        elif (later := machine.next_wake()) <= self.agenda.now:
            self._handle(w.Tick())
        else:
            self._wake_at = later
            self.agenda.at(later + SLACK, self._tick, later, machine)

    def _bytes(self, key: TaskKey) -> int:
        return self.sources[key.source].load.shape.stages[key.stage].pieces[key.piece].bytes_in

    def _drop_work(self, key: TaskKey) -> d.SendWork:
        self.held_bytes -= self._bytes(key)
        return self._work.pop(key)

    # Actions

    def _compute(self, action: w.Compute) -> None:
        key, cluster = action.key, self.cluster
        load = self.sources[key.source].load
        cluster.computing(self.robot, key)
        self._began = self.agenda.now
        self.pieces[key.source].add((key.stage, key.piece))
        seconds = cluster.service(self.robot, load, key.stage, key.piece)
        self._job = cluster.processors[self.robot].start(seconds, self._computed, key)

    def _computed(self, key: TaskKey) -> None:
        self._job = None
        now, began = self.agenda.now, self._began
        self.tasks += 1
        self.cluster.span(Span(self.robot, key.source, key.frame, key.stage, key.piece, began, now, "task"))
        piece, plan = self.sources[key.source].load.shape.stages[key.stage].pieces[key.piece], self._work[key].plan
        error = self.cluster.draw_error()
        self._ended[key] = now - began, error
        self.hear(w.Computed(key, plan, now - began, piece.macs, error, piece.bytes_out))

    def _send_result(self, action: w.SendResult) -> None:
        key = action.key
        source, work = self.sources[key.source], self._drop_work(key)
        computed, error = self._ended.pop(key)
        size = 0 if error else source.load.shape.stages[key.stage].pieces[key.piece].bytes_out
        stolen = self.robot != source.aggregator
        result = g.ResultArrived(
            key, work.plan, self.robot, stolen, work.attempt, computed, size, error
        )
        source.bytes_out += size
        self.air.carry(self.robot, source.aggregator, size, f"{source.name} result", source.hear_result, result)

    def _publish(self, action: w.PublishWorker) -> None:
        self._published_at = self.agenda.now
        for source in self.sources.values():
            source.tell(action.state)

    def _build(self, action: w.BuildPlan) -> None:
        machine = self.machine

        def built() -> None:
            if self.machine is machine:
                self.hear(w.PlanBuilt(action.plan, on_demand=self.cluster.scenario.on_demand))

        self.agenda.at(self.agenda.now + self.cluster.build, built)

    def _nothing(self, action: Any) -> None:
        pass

    def _note(self, action: Note) -> None:
        self.cluster.notes.add(action)


_PERFORM: dict[type, Callable[[WorkerShell, Any], None]] = {
    w.BuildPlan: WorkerShell._build,
    w.DropPlan: WorkerShell._nothing,
    w.Compute: WorkerShell._compute,
    w.SendResult: WorkerShell._send_result,
    w.PublishWorker: WorkerShell._publish,
    Note: WorkerShell._note,
}
