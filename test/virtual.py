# SPDX-License-Identifier: Apache-2.0
"""One source and its workers in the simulator, over links that lose, double and delay, with faults by seed.

The laws of "what always holds" are checked after every event; a test states which of them it is about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.run.gatherer import GathererSettings
from dnn_dist.run.report import FrameReport, Status
from dnn_dist.run.shape import PieceShape, PlanShape, StageShape
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.run.values import Work
from dnn_dist.run.wire import TaskKey
from dnn_dist.sim import cluster
from dnn_dist.sim.agenda import Agenda
from dnn_dist.sim.air import Air
from dnn_dist.sim.faults import Fault
from dnn_dist.sim.outcome import FrameRun
from dnn_dist.sim.scenario import Load, Scenario, Seconds, Source

LOCAL = StageShape(True, (PieceShape(0, 0, 2),))  # 2 ms at the gateway


def shape(pieces: int = 9, stages: int = 1, macs: int = 10, parity: int = 0, replicas: int = 1) -> PlanShape:
    """A plan of equal pieces with a local end; each stage has `pieces` data pieces and `parity` more."""
    piece = PieceShape(bytes_in=100, bytes_out=50, macs=macs)
    stage = StageShape(False, (piece,) * (pieces + parity), needed=pieces if parity else None, replicas=replicas)
    return PlanShape((*(stage for _ in range(stages)), LOCAL))


@dataclass
class Faults:
    """What goes wrong between and in the robots; probabilities a message."""

    loss: float = 0.0
    doubling: float = 0.0
    delay: tuple[float, float] = (0.001, 0.003)  # s, uniform
    failing: float = 0.0  # computations that end in an error
    events: list[tuple[Any, ...]] = field(default_factory=list)  # as Fault has them: (s, kind, worker), or a factor too
    cuts: list[tuple[float, float]] = field(default_factory=list)  # (from, to): no message arrives, all links are cut

    def healed_at(self, now: float) -> float:
        """When links are there again; `now` where they are."""
        return max((end for begin, end in self.cuts if begin <= now < end), default=now)


@dataclass(eq=False)
class UnderWay:
    """Work that has not arrived."""

    worker: str
    bytes: int


class BadAir(Air):
    """Every message, tensors too, is delayed, perhaps lost for good, perhaps doubled. One topic keeps its order.

    When links are cut a tensor is sent again for a lifespan; then it is lost, as any other message is at once.
    """

    def __init__(self, fleet: Fleet, agenda: Agenda, seed: int, faults: Faults, lifespan: float) -> None:
        super().__init__(fleet, agenda, seed)
        self.faults, self.lifespan = faults, lifespan
        self.under_way: list[UnderWay] = []

    def tell(self, a: str, b: str, kind: str, deliver: Callable[..., None], *args: Any) -> float:
        return self._send(a, b, kind, 0.0, deliver, args)

    def _send(
        self, a: str, b: str, kind: str, lifespan: float, deliver: Callable[..., None], args: tuple[Any, ...]
    ) -> float:
        now, healed_at = self._agenda.now, self.faults.healed_at(self._agenda.now)
        too_old = healed_at > now and healed_at + self.faults.delay[1] > now + lifespan
        if self._random.random() < self.faults.loss or too_old:
            return float("inf")
        time = 0.0
        for _ in range(1 + (self._random.random() < self.faults.doubling)):
            time = self._arrive(a, b, kind, healed_at + self._random.uniform(*self.faults.delay), deliver, args)
        return time

    def carry(self, a: str, b: str, size: int, kind: str, deliver: Callable[..., None], *args: Any) -> float:
        if a == b:  # images, which are no messages between robots
            return super().carry(a, b, size, kind, deliver, *args)
        if not kind.endswith("work"):
            return self._send(a, b, kind, self.lifespan, deliver, args)
        work = UnderWay(b, size)

        def arrive(*args: Any) -> None:
            if work in self.under_way:
                self.under_way.remove(work)
            deliver(*args)

        time = self._send(a, b, kind, self.lifespan, arrive, args)
        if time < float("inf"):
            self.under_way.append(work)
        return time


class Cluster(cluster.Cluster):
    """One source and its workers. `run(frames, period, budget)` returns when all is quiet."""

    def __init__(
        self,
        workers: int,
        plan: PlanShape | None = None,
        seed: int = 0,
        faults: Faults | None = None,
        dispatcher: DispatcherSettings | None = None,
        speeds: list[float] | None = None,
        on_demand: bool = False,
        seconds: Seconds | None = None,
        worker: WorkerSettings | None = None,
    ) -> None:
        """`speeds` in MAC/s; `seconds` that pieces take where MACs do not say it."""
        names = [f"w{number + 1}" for number in range(workers)]
        robots = [Robot(name, speed) for name, speed in zip(names, speeds or [1000.0] * workers, strict=True)]
        self.fleet = Fleet((*robots, Robot("gateway", 1000.0)), (LinkRule((), Link(float("inf"))),))
        self.bad, self.seed, self.on_demand, self.seconds = faults or Faults(), seed, on_demand, seconds
        self.limits = worker or WorkerSettings()
        self.plan, self.settings = plan or shape(), dispatcher or DispatcherSettings()
        self.computed: list[tuple[str, TaskKey]] = []
        self.begun: dict[int, float] = {}  # frame -> s
        self.held: dict[int, list[tuple[int, int]]] = {}  # frame -> merged (stage, piece), doubled merges would show
        self.reports: list[FrameReport] = []
        self.reported_at: dict[int, float] = {}

    def run(self, frames: int, period: float = 0.1, budget: float = 0.5) -> list[FrameReport]:  # type: ignore[override]
        """Reports in their order, when all is quiet."""
        source = Source(
            "gateway",
            Load(self.plan, self.seconds),
            frames=frames,
            rate=1 / period,
            start=0.3,
            deadline=budget,
            max_frames=frames,
            dispatcher=self.settings,
            gatherer=GathererSettings(),
            name="cam",
        )
        scenario = Scenario(
            self.fleet,
            (source,),
            workers=self.fleet.names[:-1],
            faults=tuple(Fault(*event) for event in self.bad.events),
            seed=self.seed,
            worker=self.limits,
            on_demand=self.on_demand,
            failing=self.bad.failing,
            warm_up=0.0,
            exact=True,
        )
        lifespan = self.settings.lifespan
        super().__init__(scenario, lambda agenda: BadAir(self.fleet, agenda, self.seed, self.bad, lifespan))
        cam = self.sources["cam"]
        self.dispatcher, self.gatherer = cam.partition.machine, cam.aggregator.machine
        self.most_steps = 3000 * (frames + 10)
        super().run(self.check)
        self.agenda.ended = False
        self.agenda.run(0.3 + frames * period + 2 * budget, self.check)
        self.check_end(frames, budget)
        return self.reports

    def exact(self, frame: int) -> bool:
        """True when nothing is missing in what the frame was reported with."""
        return any(r.frame == frame and r.status <= Status.RECOMPUTED for r in self.reports)

    # What the simulator tells

    def announced(self, source: str, frame: int) -> None:
        self.begun[frame] = self.agenda.now

    def kept(self, key: TaskKey) -> None:
        self.held.setdefault(key.frame, []).append((key.stage, key.piece))

    def computing(self, robot: str, key: TaskKey) -> None:
        self.computed.append((robot, key))

    def report(self, run: FrameRun) -> None:
        super().report(run)
        self.reports.append(run.report)
        self.reported_at[run.report.frame] = self.agenda.now

    # Laws

    def check(self) -> None:
        """What holds after every event."""
        assert self.agenda.steps < self.most_steps, "the machines chase their own tails"
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
                assert not (given_up and key in queue), "a task that was given up goes out again"
        for view in self.dispatcher.workers.values():
            for key, lease in view.leases.items():
                assert self.dispatcher.frames[key.frame].tasks[key].leases[view.name] is lease
        assert sum(lease.bytes_in_flight for lease in leases) <= self.dispatcher.settings.window or len(leases) == 1
        for run in self.workers.values():
            if run.part is not None:
                machine = run.part.machine
                held, outbox = machine.held, machine.outbox
                assert len(held) + len(outbox) <= machine.settings.max_held
                assert machine.expires.keys() == {*held, *outbox}
                assert {*machine.unready} <= {*held}
                assert len(held) == len(set(held)), "a worker holds a task twice"

    def sending(self, source: str, work: Work, worker: str) -> None:
        """What holds when work is sent: what has not arrived, given up or not, is in the window, or this one alone."""
        size = self.plan.stages[work.key.stage].pieces[work.key.piece].bytes_in
        views = self.dispatcher.workers
        sizes = [size, *(way.bytes for way in self.air.under_way if not views[way.worker].silent)]
        assert sum(sizes) <= self.settings.window or len(sizes) == 1, "the window is exceeded"

    def check_end(self, frames: int, budget: float) -> None:
        """What holds when all is quiet."""
        assert sorted(self.reported_at) == sorted(self.begun), "a frame was not reported"
        dropped = self.sources["cam"].dropped  # while the window was full
        assert len(self.reports) + dropped == frames, "an image was lost"
        for number, at in self.reported_at.items():
            assert at <= self.begun[number] + budget + 1e-4, f"frame {number} was reported late"
        assert not self.gatherer.frames and not self.dispatcher.frames and not self.dispatcher.queue
        assert not any(view.leases for view in self.dispatcher.workers.values()), "a lease outlived its frame"
