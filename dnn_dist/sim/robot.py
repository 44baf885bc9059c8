# SPDX-License-Identifier: Apache-2.0
"""A robot's worker in virtual time, over its lives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dnn_dist.run.computer import Computer
from dnn_dist.run.events import PeersReachable, SourceReachable, StatesHeard, Tick
from dnn_dist.run.notes import Note
from dnn_dist.run.shape import PieceShape, PlanShape
from dnn_dist.run.state import WorkerState
from dnn_dist.run.values import Feed, Result, Work
from dnn_dist.run.wire import TaskKey
from dnn_dist.run.workshop import Pieces
from dnn_dist.run.world import Job
from dnn_dist.sim.board import Board
from dnn_dist.sim.outcome import Span
from dnn_dist.sim.process import Hub, Process
from dnn_dist.sim.scenario import Load
from dnn_dist.sim.sizes import SizePieces
from dnn_dist.sim.source import SourceRun


@dataclass(slots=True)
class Ear:
    """A worker at a board: what it has read of it."""

    source: SourceRun
    board: Board
    robot: str  # that it hangs on
    delay: float  # s that a message takes to get here
    progress: bool  # of progress, not of the queue
    seen: int = 0  # number of the last message read


class WorkerRun(Process):
    """The process of one worker. Its name is its robot's."""

    def __init__(self, hub: Hub, robot: str) -> None:
        super().__init__(hub, robot)
        hub.workers[robot] = self
        self.part: Computer | None = None  # None: dead
        self.sources: dict[str, SourceRun] = {}
        self._ears: list[Ear] = []  # one for each board of each source
        self.tasks = 0  # computed
        self.most_held_bytes = 0  # of inputs that wait or are computed
        # source, plan -> (stage, piece) computed for it
        self.pieces: defaultdict[tuple[str, str], set[tuple[int, int]]] = defaultdict(set)
        self._published_at = 0.0  # s; its last state
        self._runs_until = float("-inf")  # s; when the process died or stopped; inf: it runs
        self._look_at = float("inf")  # s; when a message that matters reaches this worker
        self._later = float("inf")  # s; when the newest message that was not read gets here
        self._asked: tuple[float, Callable[[], None]] | None = None  # the call that was last asked for

    def reach(self, source: SourceRun) -> None:
        """This worker and a source hear each other."""
        self.sources[source.name] = source
        for kind, robot in (("state", source.robot), ("progress", source.aggregator_robot)):
            delay = self.air.mean_delay(robot, self.robot)
            self._ears.append(Ear(source, source.board[kind], robot, delay, kind == "progress"))

    def make_pieces(self) -> Pieces:
        """What computes; for tests."""
        return SizePieces(self._shape, self.hub.scenario.on_demand)

    @property
    def hungry(self) -> bool:
        """True when it has room for tasks."""
        return self.part is not None and self.part.hungry

    # Lives

    def start(self) -> None:
        """A new process."""
        self.kill()
        limits = self.hub.scenario.worker
        settings = type(limits)(**{**vars(limits), "worker": self.robot, "robot": self.robot})
        session = self.hub.draw_session()
        self.part = Computer(self, self.loop, session, "model", self.make_pieces(), settings)
        self._look_at = self._runs_until = float("inf")
        for ear in self._ears:
            ear.seen = 0
        self.part.post(Tick())
        self.part.post(PeersReachable(self._peers()))
        for source in self.sources.values():
            self.hear(SourceReachable(source.name, True))
            source.meet(self.robot)
            for plan in source.partition.offers():  # latched: who comes late hears them too
                self.air.tell(source.robot, self.robot, f"{source.name} plan", self.hear, plan)

    def _peers(self) -> frozenset[str]:
        """Workers that have a source in common with this one."""
        return frozenset(name for source in self.sources.values() for name in source.workers if name != self.robot)

    def kill(self) -> None:
        super().kill()
        self.part, self._asked = None, None
        self._runs_until = min(self._runs_until, self.agenda.now)

    def stop(self) -> None:
        if self.part is not None:
            self._runs_until = min(self._runs_until, self.agenda.now)
            super().stop()

    def go(self) -> None:
        if self.part is not None:
            self._runs_until = float("inf")
            super().go()
            self.hear(Tick())

    # The world

    def wake(self, when: float, call: Callable[[], None]) -> None:
        # Only what is more than a heartbeat is simulated.
        self._asked = when, call
        if self.hub.scenario.exact or (self.part is not None and self.part.sending):
            super().wake(when, call)

    def beat(self) -> None:
        """Have the next heartbeat simulated."""
        if self._asked is not None:
            super().wake(*self._asked)

    def last_beat(self, until: float) -> float:
        """When this worker sent its last heartbeat before the time `until` (s)."""
        heartbeat = self.hub.scenario.worker.heartbeat
        beats = (min(until, self._runs_until) - self._published_at) // heartbeat
        return self._published_at + max(0.0, beats) * heartbeat

    def send(self, value: Any, to: str = "") -> None:
        if isinstance(value, WorkerState):
            self._published_at = self.agenda.now
            for source in self.sources.values():
                source.tell(value)
        elif isinstance(value, Feed):
            receiver = self.hub.workers.get(to)
            if receiver is None:
                self.note(Note("unknown peer", f"feed {value.key}: worker {to!r} was not met", about=to))
                return
            self.air.carry(self.robot, to, value.boxes, f"{value.key.source} feed", receiver.hear, value)
        elif isinstance(value, Result):
            source, key = self.sources[to], value.key
            size = 0 if value.error else self._piece(key, value.plan).bytes_out
            source.bytes_out += size
            target = source.aggregator_robot
            self.air.carry(self.robot, target, size, f"{source.name} result", source.hear_result, value)

    def _load(self, source: str, plan: str) -> Load:
        return self.sources[source].loads[plan]

    def _shape(self, plan: str) -> PlanShape:
        return next(source.loads[plan].shape for source in self.sources.values() if plan in source.loads)

    def _piece(self, key: TaskKey, plan: str) -> PieceShape:
        return self._load(key.source, plan).shape.stages[key.stage].pieces[key.piece]

    def seconds(self, job: Job) -> float:
        key = job.key
        if key is None:
            return self.hub.scenario.build
        if job.lane == "prepare":
            assert self.part is not None, "a process that runs a job is alive"
            return 0.0 if self.part.ready(key, job.plan) else self.hub.scenario.prepare
        self.hub.computing(self.robot, key)
        self.pieces[key.source, job.plan].add((key.stage, key.piece))
        seconds = self.hub.service(self.robot, self._load(key.source, job.plan), key.stage, key.piece)
        macs = self._piece(key, job.plan).macs
        in_full = job.macs != macs > 0  # a tile without its strips has more to do
        return seconds * job.macs / macs if in_full else seconds

    def failure(self, job: Job) -> str:
        return self.hub.draw_error() if job.lane == "compute" else ""

    def ended(self, job: Job, began: float) -> None:
        key = job.key
        if job.lane == "compute" and key is not None:
            self.tasks += 1
            now = self.agenda.now
            self.hub.span(Span(self.robot, key.source, key.frame, key.stage, key.piece, began, now, "task"))

    # What is heard

    def hear(self, value: Any) -> None:
        """A message arrives."""
        if self.part is None:
            return
        if type(value) is Feed and self.part.lacks_more(value) and self._stopped is None and not self._lag:
            self.part.post(value)  # nothing follows, so nothing else is read or said
            return
        self.deliver(self.part, value)
        if isinstance(value, Work) and self.part is not None:
            held = sum(self._piece(key, self.part.plan_of(key)).bytes_in for key in self.part.tasks)
            self.most_held_bytes = max(self.most_held_bytes, held)

    def before(self) -> None:
        part = self.part
        if part is None or self.hub.scenario.exact:
            return
        self._later = self._read_boards(part)

    def after(self) -> None:
        part = self.part
        if part is None or self.hub.scenario.exact:
            return
        if part.sending:  # results go out when progress tells that the one before has arrived
            for source in part.awaiting:
                self.sources[source].awaited[self.robot] = self
        if self._later < self._look_at and (part.sending or part.hungry):
            self._look(self._later)

    def look_later(self, source: SourceRun) -> None:
        now = self.agenda.now
        at = min(now + ear.delay for ear in self._ears if ear.source is source and ear.board.number > ear.seen)
        if at < self._look_at or self._look_at < now:
            self._look(at)

    def _look(self, at: float) -> None:
        self._look_at = at
        self.agenda.at(at, self._look_now, at, self._life)

    def _look_now(self, at: float, life: int) -> None:
        if at == self._look_at and life == self._life:
            self._look_at = float("inf")
            self.hear(Tick())

    def _read_boards(self, part: Computer) -> float:
        """Take in what has reached this worker; when the next message will, in seconds."""
        now, soonest, states = self.agenda.now, float("inf"), []
        news = [
            ear
            for ear in self._ears
            if ear.board.number != ear.seen and not self.air.cut(ear.robot, self.robot)
        ]
        served = part.serves if news else ()
        for ear in news:
            if ear.progress and ear.source.name not in served:
                continue
            ear.seen, state, later = ear.board.read(ear.seen, ear.delay, now)
            if state is not None:
                states.append(state)
            soonest = min(soonest, later)
        if states:
            part.take(StatesHeard(tuple(states), later=True))
        return soonest
