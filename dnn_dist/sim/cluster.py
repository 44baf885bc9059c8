# SPDX-License-Identifier: Apache-2.0
"""The cluster of a scenario: robots, links, sources, and what is counted on the way."""

from __future__ import annotations

import gc
from collections.abc import Callable

from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.sim.agenda import Agenda
from dnn_dist.sim.air import Air
from dnn_dist.sim.faults import Fault
from dnn_dist.sim.outcome import Outcome, RobotUse
from dnn_dist.sim.process import Hub
from dnn_dist.sim.robot import WorkerRun
from dnn_dist.sim.scenario import Scenario, patient
from dnn_dist.sim.source import SourceRun


class Cluster(Hub):
    """All processes of one run. `run` it once."""

    worker_class = WorkerRun
    source_class = SourceRun

    def __init__(self, scenario: Scenario, air: Callable[[Agenda], Air] | None = None) -> None:
        """`air`: other links than the fleet's; for tests."""
        super().__init__(scenario, air)
        fleet, default = scenario.fleet, DispatcherSettings()
        computing = fleet.names if scenario.workers is None else scenario.workers
        self.workers = {name: self.worker_class(self, name) for name in computing}
        self.sources: dict[str, SourceRun] = {}
        for source in scenario.sources:
            name = source.name or source.robot
            name = name if name not in self.sources else f"{name}_{len(self.sources)}"
            reached = tuple(n for n in computing if source.workers is None or n in source.workers)
            settings = source.dispatcher
            if (settings.transit, settings.lifespan) == (default.transit, default.lifespan):
                settings = patient(fleet, source, reached, settings)
            run = self.sources[name] = self.source_class(self, source, name, settings)
            for worker in reached:
                run.workers[worker] = self.workers[worker]
                self.workers[worker].reach(run)

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
        elif fault.robot in self.workers and fault.kind != "link":  # of links the air knows
            worker = self.workers[fault.robot]
            {"kill": worker.kill, "restart": worker.start, "stop": worker.stop, "go": worker.go}[fault.kind]()

    def source_done(self) -> None:
        self.agenda.ended = all(source.done for source in self.sources.values())

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
        loads = {id(load): load for source in self.sources.values() for load in source.loads.values()}
        for source in self.sources.values():
            for load in source.loads.values():
                ready = pieces.setdefault(id(load), set())
                ready |= worker.pieces.get((source.name, load.plan), set()) if worker else set()
                if source.aggregator_robot == name and load is source.source.load:
                    stages = enumerate(load.shape.stages)
                    ready |= {(index, 0) for index, stage in stages if stage.local and stage.pieces}
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
