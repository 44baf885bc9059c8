# SPDX-License-Identifier: Apache-2.0
"""Sources and their workers in the simulator, over links that lose, double and delay, with faults by seed.

The laws of "what always holds" are checked after every event; a test states which of them it is about.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bad_air import BadAir, Faults
from forger import Forger

from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.run.chains import _lost
from dnn_dist.run.dispatcher import Dispatcher
from dnn_dist.run.events import PeersReachable, Tick
from dnn_dist.run.gathered import GathererSettings
from dnn_dist.run.report import FrameReport, Status
from dnn_dist.run.shape import PieceShape, PlanShape, StageShape
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.state import WorkerState
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.run.values import Installed, Result, Work
from dnn_dist.run.wire import TaskKey
from dnn_dist.run.worker import Worker
from dnn_dist.sim import cluster
from dnn_dist.sim.faults import Fault
from dnn_dist.sim.outcome import FrameRun
from dnn_dist.sim.robot import WorkerRun
from dnn_dist.sim.scenario import Load, Scenario, Seconds, Source
from dnn_dist.sim.source import SourceRun

LOCAL = StageShape(True, (PieceShape(0, 0, 2),))  # 2 ms at the gateway


def shape(pieces: int = 9, stages: int = 1, macs: int = 10, parity: int = 0, replicas: int = 1) -> PlanShape:
    """A plan of equal pieces with a local end; each stage has `pieces` data pieces and `parity` more."""

    def stage(number: int) -> StageShape:
        piece = PieceShape(bytes_in=100, bytes_out=50, macs=macs, merged=100 if number else 0)
        return StageShape(False, (piece,) * (pieces + parity), needed=pieces if parity else None, replicas=replicas)

    return PlanShape((*map(stage, range(stages)), LOCAL))


class MortalSource(SourceRun):
    """A source that may die, with all its processes."""

    dead = False
    hub: Any

    def die(self) -> None:
        self.dead = True
        for process in set(self._processes):
            process.kill()

    def restart_aggregator(self) -> None:
        """Its process, which is not the partition's, is killed, and started at once."""
        self._processes[1].kill()
        self.aggregator = self._make_aggregator()
        self._tell_aggregator(Tick())
        for offer in self.partition.offers():
            self._tell_aggregator(Installed(self.make_store(self.loads[offer.plan], images=False)))
        self._tell_aggregator(PeersReachable(frozenset(self.workers)))

    def carry(self, value: Any, to: str) -> None:
        if not self.dead:
            super().carry(value, to)

    def meet(self, worker: str) -> None:
        if not self.dead:
            super().meet(worker)

    def hear_result(self, result: Result) -> None:
        if not self.dead:
            super().hear_result(result)

    def tell(self, state: WorkerState) -> None:
        if not self.dead:
            super().tell(state)

    def _tell_aggregator(self, value: Any) -> None:
        if not self.dead:
            super()._tell_aggregator(value)

    def look(self) -> None:
        super().look()
        if not self.dead:
            self.hub.check_source(self.hub.ledgers[self.name], self.partition.machine)

    def _click(self) -> None:
        if not self.dead:
            super()._click()

    def _hear_image(self, picture: Any) -> None:
        if not self.dead:
            super()._hear_image(picture)

    def _hear_worker(self, state: WorkerState) -> None:
        if not self.dead:
            super()._hear_worker(state)


class WatchedWorker(WorkerRun):
    """A worker of which the laws are checked whenever something has happened in it."""

    hub: Any

    def after(self) -> None:
        super().after()
        if self.part is not None:
            self.hub.check_worker(self.part.machine)


@dataclass
class Ledger:
    """What the simulator told of one source. Frames by number."""

    begun: dict[int, float] = field(default_factory=dict)  # frame -> s
    held: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # merged (stage, piece); doubles would show
    reports: list[FrameReport] = field(default_factory=list)
    reported_at: dict[int, float] = field(default_factory=dict)  # frame -> s


class Cluster(cluster.Cluster):
    """Sources and their workers. `run(frames, period, budget)` returns when all is quiet.

    Sources are named cam, cam2, ...; `dispatcher`, `gatherer`, `reports`, ... are those of the first.
    """

    worker_class, source_class = WatchedWorker, MortalSource
    storm = float("inf")  # s; when the last forged value is posted, at the latest

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
        sources: int = 1,
        others: Sequence[PlanShape] = (),
        switches: Sequence[float] = (),
        restarts: Sequence[float] = (),
        max_frames: int = 0,
        apart: bool = False,
        by_link: Sequence[tuple[float, PlanShape]] = (),
        **options: float,
    ) -> None:
        """`speeds` in MAC/s; `seconds` that pieces take where MACs do not say it. `apart`: aggregators have robots of
        their own.

        At each time of `switches` (s) some source is asked for some plan of `others`, or for its first one. At each of
        `restarts` some source is killed and starts anew. `max_frames` in work at once; 0: as many as there are.
        `options` are the scenario's: lag, build, prepare, in seconds.
        """
        names = [f"w{number + 1}" for number in range(workers)]
        homes = ["gateway", *(f"gateway{number + 1}" for number in range(1, sources))]
        robots = [Robot(name, speed) for name, speed in zip(names, speeds or [1000.0] * workers, strict=True)]
        self.elsewhere = {home: f"{home}_2" if apart else home for home in homes}
        robots += [Robot(home, 1000.0) for home in sorted({*self.elsewhere, *self.elsewhere.values()})]
        self.fleet = Fleet(tuple(robots), (LinkRule((), Link(float("inf"))),))
        self.bad, self.seed, self.on_demand, self.seconds = faults or Faults(), seed, on_demand, seconds
        self.limits, self.options = worker or WorkerSettings(), options
        self.plan, self.settings = plan or shape(), dispatcher or DispatcherSettings()
        self.homes = {f"cam{number + 1}" if number else "cam": home for number, home in enumerate(homes)}
        self.switches, self.restarts, self.max_frames = list(switches), list(restarts), max_frames
        self.asked: list[list[str]] = []  # for each plan asked for: the answers to that
        self.shapes = (self.plan, *others)
        self.by_link = [
            (rate, Load(shape, seconds, plan=f"link{number}")) for number, (rate, shape) in enumerate(by_link)
        ]
        self.calls: list[tuple[float, Callable[[], None]]] = []  # (s, what to call then)
        self.computed: list[tuple[str, TaskKey]] = []
        self.ledgers = {name: Ledger() for name in self.homes}
        first = self.ledgers["cam"]
        self.begun, self.held = first.begun, first.held
        self.reports, self.reported_at = first.reports, first.reported_at

    def loads(self) -> list[Load]:
        """The plans; the first is in force at first."""
        return [
            Load(shape, self.seconds, plan=f"plan{number}" if number else "plan")
            for number, shape in enumerate(self.shapes)
        ]

    def run(self, frames: int, period: float = 0.1, budget: float = 0.5) -> list[FrameReport]:  # type: ignore[override]
        """Reports of the first source in their order, when all is quiet."""
        loads = self.loads()
        sources = tuple(
            Source(
                home,
                loads[0],
                frames=frames,
                rate=1 / period,
                start=0.3,
                deadline=budget,
                max_frames=self.max_frames or frames,
                dispatcher=self.settings,
                gatherer=GathererSettings(),
                name=name,
                aggregator=self.elsewhere[home],
                by_link=tuple(self.by_link),
            )
            for name, home in self.homes.items()
        )
        scenario = Scenario(
            self.fleet,
            sources,
            workers=tuple(name for name in self.fleet.names if not name.startswith("gateway")),
            faults=tuple(Fault(*event) for event in self.bad.events),
            seed=self.seed,
            worker=self.limits,
            on_demand=self.on_demand,
            failing=self.bad.failing,
            warm_up=0.0,
            exact=True,
            **self.options,  # type: ignore[arg-type]
        )
        lifespan = self.settings.lifespan
        super().__init__(scenario, lambda agenda: BadAir(self.fleet, agenda, self.seed, self.bad, lifespan))
        cam = self.sources["cam"]
        self.dispatcher, self.gatherer = cam.partition.machine, cam.aggregator.machine
        end = 0.3 + frames * period + 2 * budget
        self.most_steps = (3000 * (frames + 10) + 100 * self.bad.forged) * len(self.sources)
        for when, call in self.calls:
            self.agenda.at(when, call)
        rng = random.Random(f"{self.seed}/tests")
        for at in self.switches:
            self.agenda.at(at, self._switch, self.sources[rng.choice(list(self.sources))], rng.choice(loads))
        for at in self.restarts:
            self.agenda.at(at, lambda: self._restart(rng.choice(list(self.sources))))
        for begin, end_, a, b in self.bad.parted:
            if rng.random() < self.bad.told:
                for at, reachable in ((begin, False), (end_, True)):
                    self.agenda.at(at, self._part, a, b, reachable)
                    self.agenda.at(at, self._part, b, a, reachable)
        if self.bad.forged:
            strike = self.make_forger(rng)
            for _ in range(self.bad.forged):
                self.agenda.at(rng.uniform(0.0, min(self.storm, 0.3 + frames * period)), strike)
        super().run(self.check)
        end = max(end, *[r + frames * period + 2 * budget for r in self.restarts], 0.0)
        if self.switches:
            building = self.options.get("build", 0.0) * (len(self.switches) + 1)  # one after the other
            end = max(end, max(self.switches) + building + self.settings.switch_within + 1.0)
        end += 2 * self.limits.remember
        while self.agenda.pending(end):
            self.agenda.ended = False
            self.agenda.run(end, self.check)
        for worker in self.workers.values():
            self._check_idle(worker)
        for name in self.sources:
            self.check_end(name, frames, budget)
        return self.reports

    def make_forger(self, rng: random.Random) -> Callable[[], None]:
        """What posts one forged value."""
        return Forger(self, rng).strike

    def _switch(self, source: SourceRun, load: Load) -> None:
        answers: list[str] = []
        self.asked.append(answers)
        source.set_plan(load, answers.append)

    def _part(self, a: str, b: str, reachable: bool) -> None:
        if a != b:
            part = self.workers[a].part
            if part is not None:
                peers = part.machine.peers
                self.workers[a].hear(PeersReachable(peers | {b} if reachable else peers - {b}))

    def _restart(self, name: str) -> None:
        """The source of this name is killed, and starts anew with all its frames to come."""
        old = self.sources[name]
        old.die()
        self.ledgers[name] = ledger = Ledger()
        if name == "cam":
            self.reports, self.reported_at = ledger.reports, ledger.reported_at
        self.asked.clear()
        self.air.under_way[:] = [way for way in self.air.under_way if way.source != name]
        camera = replace(old.source, start=self.agenda.now)
        run = self.sources[name] = self.source_class(self, camera, name, self.settings)
        for worker in old.workers.values():
            run.workers[worker.robot] = worker
            worker.reach(run)
        run.loads.update(old.loads)
        run.begin()
        for worker in run.workers.values():
            run.meet(worker.robot)

    def exact(self, frame: int) -> bool:
        """True when nothing is missing in what the frame was reported with."""
        return any(r.frame == frame and r.status <= Status.RECOMPUTED for r in self.reports)

    # What the simulator tells

    def announced(self, source: str, frame: int) -> None:
        self.ledgers[source].begun[frame] = self.agenda.now

    def kept(self, key: TaskKey) -> None:
        self.ledgers[key.source].held.setdefault(key.frame, []).append((key.stage, key.piece))

    def computing(self, robot: str, key: TaskKey) -> None:
        self.computed.append((robot, key))

    def draw_error(self) -> str:
        return "" if self.agenda.now >= self.bad.calm else super().draw_error()

    def report(self, run: FrameRun) -> None:
        super().report(run)
        ledger = self.ledgers[run.source]
        ledger.reports.append(run.report)
        ledger.reported_at[run.report.frame] = self.agenda.now

    # Laws

    def check(self) -> None:
        """What holds after every event."""
        assert self.agenda.steps < self.most_steps, "the machines chase their own tails"

    def check_source(self, ledger: Ledger, machine: Dispatcher) -> None:
        assert len(ledger.reports) == len(ledger.reported_at), "a frame was reported twice"
        for frame in machine.frames:
            merged = ledger.held.get(frame, [])
            assert len(merged) == len(set(merged)), f"frame {frame}: a piece was merged twice"
        leases = [lease for view in machine.workers.values() for lease in view.leases.values()]
        queue = machine.queue
        waiting = set(queue)
        assert len(queue) == len(waiting), "a task is queued twice"
        for number, frame in machine.frames.items():
            for task in frame.tasks.values():
                key = task.key
                assert key.frame == number and len(task.leases) <= task.copies, "a task has more copies than wanted"
                given_up = task.attempt >= machine.settings.max_attempts
                if task.wanting and not given_up and key not in waiting:
                    assert self._idle(machine, key), f"task {key} is forgotten"
                assert not (given_up and key in waiting), "a task that was given up goes out again"
        for view in machine.workers.values():
            for key, lease in view.leases.items():
                assert machine._books.task(key).leases[view.name] is lease
        if not any(machine._books.chained(lease.key) for lease in leases):  # a chain goes out as a whole
            assert sum(lease.bytes_in_flight for lease in leases) <= machine.settings.window or len(leases) == 1
        assert len(machine._books.unfed) <= 100 and len(machine._chains._crews) <= 20

    def _idle(self, machine: Dispatcher, key: TaskKey) -> bool:
        """Whether nobody needs a piece of a chain, or another one of it waits: both will be placed then."""
        frame, shape = machine.frames[key.frame], machine._books.shape(key)
        chain = {maker: t for maker, t in frame.tasks.items() if maker[0] in shape.chain(key.stage)}
        lost = (key.stage, key.piece) in _lost(shape, chain)
        return machine._books.chained(key) and (not lost or any(t.key in machine.queue for t in chain.values()))

    def _check_idle(self, run: WorkerRun) -> None:
        """What holds of a worker when all frames have ended long ago."""
        part = run.part
        if part is None or run._stopped is not None or part.machine.computing or self.bad.forged:
            return
        residence = part.machine.residence
        kept = {"kept": residence.kept, "early": residence.early, "waiting": residence.waiting, "fed": part._fed}
        kept |= {"roles": residence._roles, "held": part.machine.held, "outbox": part.machine.outbox}
        kept |= {"tasks": part._tasks, "answered": part.machine.answered, "unreported": part._unreported}
        assert not any(kept.values()), f"{run.robot} still has {[k for k, v in kept.items() if v]}"

    def check_worker(self, machine: Worker) -> None:
        held, outbox = machine.held, machine.outbox
        alone = sum(key not in machine.residence._roles for key in held)
        assert alone <= machine.settings.max_held and len(held) + len(outbox) <= machine.settings.max_chained
        assert machine.expires.keys() == {*held}
        assert {*machine.unready} <= {*held}
        assert len(held) == len(set(held)), "a worker holds a task twice"

    def sending(self, source: str, work: Work, worker: str) -> None:
        """What holds when work is sent: what has not arrived, given up or not, is in the window, or this one alone."""
        if self.bad.forged:
            return  # the source was told that it has arrived
        run = self.sources[source]
        if run.loads[work.plan].shape.stages[work.key.stage].chained:
            return  # a chain goes out as a whole
        piece = run.loads[work.plan].shape.stages[work.key.stage].pieces[work.key.piece]
        size = piece.bytes_in - (piece.merged if run.aggregator_robot != run.robot else 0)
        views = run.partition.machine.workers
        ways = (way for way in self.air.under_way if way.source == source)
        sizes = [size, *(way.bytes for way in ways if not views[way.worker].silent)]
        assert sum(sizes) <= self.settings.window or len(sizes) == 1, "the window is exceeded"

    def check_end(self, name: str, frames: int, budget: float) -> None:
        """What holds when all is quiet."""
        ledger, source = self.ledgers[name], self.sources[name]
        lost = ledger.begun.keys() - ledger.reported_at.keys()
        assert lost <= {frame for _, frame in source.partition.machine.orphans}, "a frame was not reported"
        reported = len(ledger.reports) + len(lost)
        assert reported + source.dropped == frames, "an image was lost"  # dropped: the window was full
        # s at most, after it was begun
        heard = self.bad.delay[1] + self.options.get("lag", 0.0) if source.aggregator_robot != source.robot else 0.0
        for number, at in ledger.reported_at.items():
            assert at <= ledger.begun[number] + heard + budget + 1e-4, f"frame {number} was reported late"
        for merged in ledger.held.values():
            assert len(merged) == len(set(merged)), "a piece was merged twice"
        gatherer, dispatcher = source.aggregator.machine, source.partition.machine
        assert not gatherer.frames and not dispatcher.frames and not dispatcher.queue
        assert not any(view.leases for view in dispatcher.workers.values()), "a lease outlived its frame"
        assert all(len(answers) == 1 for answers in self.asked), f"asked for a plan, and answered: {self.asked}"
        assert len(dispatcher.plans) <= 2 + len(self.by_link), "plans that nobody needs are kept"
