# SPDX-License-Identifier: Apache-2.0
"""A cluster in virtual time whose links are cut and heal: what was sent meanwhile arrives late, or not any more, as
with DDS. The three machines, a heap of events, and faults by seed.

The laws of "what always holds" are checked after every event; a test states which of them it is about.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dnn_dist.run import dispatcher as d
from dnn_dist.run import gatherer as g
from dnn_dist.run import worker as w
from dnn_dist.run.notes import Note, Notebook
from dnn_dist.run.report import FrameReport, Status
from dnn_dist.run.shape import PieceShape, PlanShape, StageShape

PLAN = "plan"


def shape(pieces: int = 9, stages: int = 1, macs: int = 10, parity: int = 0, replicas: int = 1) -> PlanShape:
    """A plan of equal pieces with a local end; each stage has `pieces` data pieces and `parity` more."""
    piece = PieceShape(bytes_in=100, bytes_out=50, macs=macs)
    stage = StageShape(False, (piece,) * (pieces + parity), needed=pieces if parity else None, replicas=replicas)
    return PlanShape((*(stage for _ in range(stages)), StageShape(True, ())))


@dataclass
class Faults:
    """What goes wrong between and in the robots; probabilities a message."""

    loss: float = 0.0
    doubling: float = 0.0
    delay: tuple[float, float] = (0.001, 0.003)  # s, uniform
    failing: float = 0.0  # computations that end in an error
    events: list[tuple[float, str, str]] = field(
        default_factory=list
    )  # (time, "kill" | "restart" | "stop" | "go", worker)
    cuts: list[tuple[float, float]] = field(default_factory=list)  # (from, to): no message arrives, all links are cut

    def healed_at(self, now: float) -> float:
        """When links are there again; `now` where they are."""
        return max((end for begin, end in self.cuts if begin <= now < end), default=now)


class Cluster:
    """One source and its workers. `run(frames, period, budget)` returns when all is quiet."""

    def __init__(
        self,
        workers: int,
        plan: PlanShape | None = None,
        seed: int = 0,
        faults: Faults | None = None,
        dispatcher: d.DispatcherSettings | None = None,
        speeds: list[float] | None = None,
        on_demand: bool = False,
    ) -> None:
        self.random = random.Random(seed)
        self.faults = faults or Faults()
        self.plan = plan or shape()
        self.on_demand = on_demand  # workers make a piece ready when they are first given it
        self.now = 0.0
        self.heap: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.dispatcher = d.Dispatcher("cam", "r1", 7, dispatcher)
        self.gatherer = g.Gatherer("cam")
        self.speeds = {f"w{i + 1}": (speeds[i] if speeds else 1000.0) for i in range(workers)}  # MAC/s
        self.workers: dict[str, w.Worker] = {}
        self.stopped: dict[str, list[Callable[[], None]]] = {}  # events that wait for a stopped worker
        self.reports: list[FrameReport] = []
        self.reported_at: dict[int, float] = {}
        self.announced: dict[int, float] = {}
        self.held: dict[int, list[tuple[int, int]]] = {}  # frame -> merged (stage, piece), doubled merges would show
        self.notes = Notebook()
        self.computed: list[tuple[str, Any]] = []
        self.attempts: dict[tuple[str, Any], int] = {}  # (worker, task) -> try, as the work's message said
        self._wakes: dict[Any, float] = {}
        self._arrivals: dict[str, float] = {}
        self.under_way: dict[tuple[str, int], int] = {}  # (worker, work number) -> bytes that have not arrived
        for name in self.speeds:
            self.start(name)
        for at, what, name in self.faults.events:
            self.at(at, lambda what=what, name=name: getattr(self, what)(name))
        self.perform_source(self.dispatcher.handle(d.PlanInstalled(PLAN, self.plan), 0.0))
        self.perform_source(self.gatherer.handle(g.PlanInstalled(PLAN, self.plan), 0.0))

    # Time

    def at(self, time: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.heap, (time, next(self.order), what))

    def send(self, what: Callable[[], None], topic: str, lifespan: float = 0.0) -> bool:
        """A message: delayed, perhaps lost or doubled. One topic keeps its order, as DDS does; topics overtake.

        When links are cut it is sent again for `lifespan` (s). False: it will not arrive.
        """
        healed_at = self.faults.healed_at(self.now)
        too_old = healed_at > self.now and healed_at + self.faults.delay[1] > self.now + lifespan
        if self.random.random() < self.faults.loss or too_old:
            return False
        for _ in range(1 + (self.random.random() < self.faults.doubling)):
            arrival = max(healed_at + self.random.uniform(*self.faults.delay), self._arrivals.get(topic, 0.0))
            self._arrivals[topic] = arrival
            self.at(arrival, what)
        return True

    def wake(self, machine: Any, tick: Callable[[], None]) -> None:
        """Have the machine ticked when it asks to be; one pending tick a machine."""
        due = max(machine.next_wake(), self.now)
        if due == float("inf") or self._wakes.get(id(machine), float("inf")) <= due:
            return
        self._wakes[id(machine)] = due

        def fire() -> None:
            if self._wakes.get(id(machine)) == due:
                del self._wakes[id(machine)]
                tick()

        self.at(due + 1e-6, fire)

    # Source

    def source(self, machine: Any, event: Any) -> None:
        self.perform_source(machine.handle(event, self.now))

    def perform_source(self, actions: list[Any]) -> None:
        for action in actions:
            match action:
                case d.SendWork():
                    lifespan = self.dispatcher.settings.patience.lifespan
                    if self.send(lambda a=action: self.deliver(a), f"work to {action.worker}", lifespan):
                        piece = self.plan.stages[action.key.stage].pieces[action.key.piece]
                        self.under_way[action.worker, action.number] = piece.bytes_in
                    self.check_window()
                case d.PublishSource():
                    for name in self.speeds:
                        self.send(
                            lambda s=action.state, n=name: self.at_worker(n, w.SourceHeard(s)),
                            f"source to {name}",
                        )
                case g.Keep():
                    self.held.setdefault(action.key.frame, []).append((action.key.stage, action.key.piece))
                case g.RunLocal():
                    done = g.LocalDone(action.frame, action.stage, 0.002)
                    self.at(self.now + 0.002, lambda e=done: self.source(self.gatherer, e))
                case g.HandOver():
                    frame = self.gatherer.frames[action.frame]
                    self.source(self.dispatcher, d.StageReady(action.frame, action.stage, PLAN, frame.deadline))
                case g.Publish():
                    self.reports.append(action.report)
                    self.reported_at[action.report.frame] = self.now
                case g.PublishProgress():
                    self.source(self.dispatcher, d.ProgressHeard(action.progress))
                    for name in self.speeds:
                        topic = f"progress to {name}"
                        self.send(lambda p=action.progress, n=name: self.at_worker(n, w.ProgressHeard(p)), topic)
                case Note():
                    self.notes.add(action)
        for machine in (self.dispatcher, self.gatherer):
            module = d if machine is self.dispatcher else g
            self.wake(machine, lambda m=machine, t=module.Tick: self.source(m, t()))

    # Workers

    def start(self, name: str) -> None:
        worker = w.Worker(name, f"r{name[1:]}", self.random.getrandbits(63) | 1, "model")
        self.workers[name] = worker
        self.stopped.pop(name, None)
        for event in (w.PlanOffered(PLAN), w.PlanBuilt(PLAN, on_demand=self.on_demand), w.SourceReachable("cam", True)):
            self.perform_worker(name, worker, worker.handle(event, self.now))
        self.source(self.dispatcher, d.WorkerReachable(name, True))

    restart = start

    def kill(self, name: str) -> None:
        self.workers.pop(name, None)

    def stop(self, name: str) -> None:
        self.stopped.setdefault(name, [])

    def go(self, name: str) -> None:
        for what in self.stopped.pop(name, []):
            what()

    def at_worker(self, name: str, event: Any, worker: w.Worker | None = None) -> None:
        """An event at a worker; `worker` names the life it is meant for, if it matters."""
        if name in self.stopped:
            self.stopped[name].append(lambda: self.at_worker(name, event, worker))
            return
        alive = self.workers.get(name)
        if alive is None or (worker is not None and alive is not worker):
            return
        self.perform_worker(name, alive, alive.handle(event, self.now))

    def perform_worker(self, name: str, worker: w.Worker, actions: list[Any]) -> None:
        for action in actions:
            match action:
                case w.Compute():
                    self.computed.append((name, action.key))
                    macs = self.plan.stages[action.key.stage].pieces[action.key.piece].macs
                    seconds = macs / self.speeds[name]
                    error = "by chance" if self.random.random() < self.faults.failing else ""
                    done = w.Computed(action.key, seconds, macs, error)
                    self.at(self.now + seconds, lambda e=done: self.at_worker(name, e, worker))
                case w.SendResult():
                    attempt = self.attempts[name, action.key]
                    topic, lifespan = f"result of {name}", worker.settings.lifespan
                    self.send(lambda k=action.key, a=attempt: self.answer(name, k, a), topic, lifespan)
                case w.PublishWorker():
                    self.send(
                        lambda s=action.state: self.hear(s),
                        f"state of {name}",
                    )
                case Note():
                    self.notes.add(action)
        self.wake(worker, lambda: self.at_worker(name, w.Tick(), worker))

    def hear(self, state: Any) -> None:
        self.source(self.dispatcher, d.WorkerHeard(state))
        self.source(self.gatherer, g.WorkerHeard())

    def deliver(self, work: d.SendWork) -> None:
        self.under_way.pop((work.worker, work.number), None)
        self.attempts[work.worker, work.key] = work.attempt
        self.at_worker(work.worker, w.WorkArrived(work.key, work.plan, work.worker_session, work.number))

    def answer(self, name: str, key: Any, attempt: int) -> None:
        self.source(self.gatherer, g.ResultArrived(key, PLAN, name, name != "w1", attempt, 0.01, 50))

    # Run

    def frame(self, number: int, budget: float) -> None:
        self.announced[number] = self.now
        self.source(self.gatherer, g.FrameAnnounced(7, number, PLAN, budget))
        self.source(self.dispatcher, d.StageReady(number, 0, PLAN, self.now + budget))

    def run(self, frames: int, period: float = 0.1, budget: float = 0.5, start: float = 0.3) -> list[FrameReport]:
        for number in range(frames):
            self.at(start + number * period, lambda n=number: self.frame(n, budget))
        end = start + frames * period + 2 * budget
        steps = 0
        while self.heap and self.heap[0][0] <= end:
            self.now, _, what = heapq.heappop(self.heap)
            what()
            self.check()
            steps += 1
            assert steps < 3000 * (frames + 10), "the machines chase their own tails"
        self.check_end(frames, budget)
        return self.reports

    def exact(self, frame: int) -> bool:
        """True when nothing is missing in what the frame was reported with."""
        return any(r.frame == frame and r.status <= Status.RECOMPUTED for r in self.reports)

    # Laws

    def check(self) -> None:
        """What holds after every event."""
        numbers = [report.frame for report in self.reports]
        assert len(numbers) == len(set(numbers)), "a frame was reported twice"
        for frame, merged in self.held.items():
            assert len(merged) == len(set(merged)), f"frame {frame}: a piece was merged twice"
        leases = [lease for view in self.dispatcher.workers.values() for lease in view.leases.values()]
        queue = self.dispatcher.queue
        assert len(queue) == len(set(queue)), "a task is queued twice"
        for number, frame in self.dispatcher.frames.items():
            for key, task in frame.tasks.items():
                assert key.frame == number and len(task.leases) <= task.copies, "a task has more copies than wanted"
                given_up = task.attempt >= self.dispatcher.settings.max_attempts
                assert key in queue if task.wanting and not given_up else True, "a task is forgotten"
        for view in self.dispatcher.workers.values():
            for key, lease in view.leases.items():
                assert self.dispatcher.frames[key.frame].tasks[key].leases[view.name] is lease
        assert sum(lease.bytes_in_flight for lease in leases) <= self.dispatcher.settings.window or len(leases) == 1
        for worker in self.workers.values():
            assert len(worker.held) + len(worker.outbox) <= worker.settings.max_held
            assert worker.expires.keys() == {*worker.held, *worker.outbox}
            assert len(worker.held) == len(set(worker.held)), "a worker holds a task twice"

    def check_window(self) -> None:
        """What holds when work was sent: what has not arrived, given up or not, is in the window, or this one alone."""
        views = self.dispatcher.workers
        sizes = [size for (worker, _), size in self.under_way.items() if not views[worker].silent]
        assert sum(sizes) <= self.dispatcher.settings.window or len(sizes) == 1, "the window is exceeded"

    def check_end(self, frames: int, budget: float) -> None:
        """What holds when all is quiet."""
        assert sorted(self.reported_at) == list(range(frames)), "a frame was not reported"
        for number, at in self.reported_at.items():
            assert at <= self.announced[number] + budget + 1e-4, f"frame {number} was reported late"
        assert not self.gatherer.frames and not self.dispatcher.frames and not self.dispatcher.queue
        assert not any(view.leases for view in self.dispatcher.workers.values()), "a lease outlived its frame"
