# SPDX-License-Identifier: Apache-2.0
"""The cluster of a scenario: robots, links, sources, and what is counted on the way."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from math import log, sqrt

from dnn_dist.run.dispatcher import SendWork
from dnn_dist.run.fleetview import Patience
from dnn_dist.run.notes import Notebook
from dnn_dist.run.wire import TaskKey
from dnn_dist.sim.agenda import Agenda
from dnn_dist.sim.air import Air
from dnn_dist.sim.faults import Fault
from dnn_dist.sim.outcome import FrameRun, Outcome, RobotUse, Span
from dnn_dist.sim.processor import Processor
from dnn_dist.sim.robot import WorkerShell
from dnn_dist.sim.scenario import Load, Scenario, patient
from dnn_dist.sim.source import SourceShell


class Cluster:
    """Shells around the machines of one run. `run` it once."""

    def __init__(self, scenario: Scenario, air: Callable[[Agenda], Air] | None = None) -> None:
        """`air`: other links than the fleet's; for tests."""
        self.scenario, fleet = scenario, scenario.fleet
        self.worker, self.build = scenario.worker, scenario.build
        self.agenda = Agenda(-scenario.warm_up)
        self.air = air(self.agenda) if air else Air(fleet, self.agenda, scenario.seed)
        self.notes = Notebook()
        self.frames: list[FrameRun] = []
        self.trace: list[Span] = []
        self._random = random.Random(f"{scenario.seed}/cluster")
        self._robots = {robot.name: robot for robot in fleet.robots}
        self._services = {name: random.Random(f"{scenario.seed}/{name}") for name in fleet.names}
        self._means: dict[tuple[str, int, int, int], float] = {}
        self.processors = {name: Processor(self.agenda, scenario.cores) for name in fleet.names}
        computing = fleet.names if scenario.workers is None else scenario.workers
        self.workers = {name: WorkerShell(self, name) for name in computing}
        self.sources: dict[str, SourceShell] = {}
        for source in scenario.sources:
            name = source.name or source.robot
            name = name if name not in self.sources else f"{name}_{len(self.sources)}"
            reached = tuple(n for n in computing if source.workers is None or n in source.workers)
            settings = source.dispatcher
            if settings.patience == Patience():
                settings = patient(fleet, source, reached, settings)
            shell = self.sources[name] = SourceShell(self, source, name, settings)
            for worker in reached:
                shell.workers[worker] = self.workers[worker]
                self.workers[worker].reach(shell)

    def run(self, after: Callable[[], None] | None = None) -> Outcome:
        """Simulate until every image has been reported or dropped; `after` is called after every event."""
        for source in self.sources.values():
            source.begin()
        for worker in self.workers.values():
            worker.start()
        for fault in self.scenario.faults:
            self.agenda.at(fault.at, self._strike, fault)
        collecting = gc.isenabled()
        gc.disable()  # a run makes no cycles to speak of, and looking for them takes a third of the time
        try:
            self.agenda.run(self.scenario.limit, after)
        finally:
            if collecting:
                gc.enable()
        return self._outcome()

    def _strike(self, fault: Fault) -> None:
        if fault.kind == "slow":
            self.processors[fault.robot].slow(fault.factor)
        elif fault.robot in self.workers:
            worker = self.workers[fault.robot]
            {"kill": worker.kill, "restart": worker.start, "stop": worker.stop, "go": worker.go}[fault.kind]()

    # What the shells draw and tell

    def draw_session(self) -> int:
        """A session of a process that starts."""
        return self._random.getrandbits(63) | 1

    def draw_error(self) -> str:
        """Why a computation failed; nearly always empty."""
        failing = self.scenario.failing
        return "by chance" if failing and self._random.random() < failing else ""

    def service(self, robot: str, load: Load, stage: int, piece: int) -> float:
        """Seconds that a piece takes this time: lognormal around the mean, with the robot's spread."""
        key = (robot, id(load), stage, piece)
        mean = self._means.get(key)
        if mean is None:
            mean = self._means[key] = load.time(self._robots[robot], stage, piece)
        spread = self._robots[robot].spread
        if not spread or not mean:
            return mean
        variance = log(1 + spread * spread)
        return self._services[robot].lognormvariate(log(mean) - variance / 2, sqrt(variance))

    def announced(self, source: SourceShell, frame: int) -> None:
        """A frame begins; for tests."""

    def sending(self, source: SourceShell, work: SendWork) -> None:
        """A task is sent to a worker; for tests."""

    def kept(self, source: SourceShell, key: TaskKey) -> None:
        """A result is used; for tests."""

    def computing(self, robot: str, key: TaskKey) -> None:
        """A computation begins; for tests."""

    def report(self, run: FrameRun) -> None:
        """A frame has ended."""
        self.frames.append(run)

    def source_done(self) -> None:
        """A source has nothing more to do."""
        self.agenda.ended = all(source.done for source in self.sources.values())

    def span(self, span: Span) -> None:
        """A computation has ended."""
        if len(self.trace) < self.scenario.trace:
            self.trace.append(span)

    def _outcome(self) -> Outcome:
        seconds = max((run.reported for run in self.frames), default=self.agenda.now)
        links = self.air.carried
        sent, received = dict.fromkeys(self._robots, 0), dict.fromkeys(self._robots, 0)
        for (a, b), carried in links.items():
            sent[a] += carried.sent
            received[b] += carried.bytes
        return Outcome(
            frames=tuple(self.frames),
            seconds=seconds,
            images=sum(source.images for source in self.sources.values()),
            dropped=sum(source.dropped for source in self.sources.values()),
            unreported=sum(source.unreported for source in self.sources.values()),
            robots={name: self._use(name, seconds, sent[name], received[name]) for name in self._robots},
            links=links,
            traffic=sum(carried.bytes for carried in links.values()),
            resent=sum(carried.sent - carried.bytes for carried in links.values()),
            tasks=sum(worker.tasks for worker in self.workers.values()),
            notes=dict(sorted(self.notes.counts.items())),
            trace=tuple(self.trace),
            faults=self.scenario.faults,
            events=self.agenda.steps,
        )

    def _memory(self, name: str) -> int:
        worker = self.workers.get(name)
        pieces: dict[int, set[tuple[int, int]]] = {}  # sources with the same load share what is ready
        for source in self.sources.values():
            ready = pieces.setdefault(id(source.load), set())
            ready |= worker.pieces.get(source.name, set()) if worker else set()
            if source.aggregator == name:
                stages = enumerate(source.load.shape.stages)
                ready |= {(index, 0) for index, stage in stages if stage.local and stage.pieces}
        loads = {id(source.load): source.load for source in self.sources.values()}
        sizes = [load.memory(pieces[key]) for key, load in loads.items() if load.memory is not None and pieces[key]]
        return sum(sizes) + (worker.most_held_bytes if worker else 0)

    def _use(self, name: str, seconds: float, sent: int, received: int) -> RobotUse:
        robot, worker, busy = self._robots[name], self.workers.get(name), self.processors[name].busy
        energy = None
        if robot.idle is not None and robot.busy is not None:
            energy = robot.idle * max(0.0, seconds - busy) + robot.busy * busy
        return RobotUse(
            tasks=worker.tasks if worker else 0,
            busy=busy,
            energy=energy,
            memory=self._memory(name),
            sent=sent,
            received=received,
        )
