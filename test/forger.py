# SPDX-License-Identifier: Apache-2.0
"""Values of random content in the right session, posted into the parts of simulated processes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol

from dnn_dist.cut.feeds import AGGREGATOR
from dnn_dist.run.shape import PieceShape
from dnn_dist.run.state import StageProgress, WorkerState
from dnn_dist.run.values import Feed, Result, Route, Scatter, Work
from dnn_dist.run.wire import TaskKey
from dnn_dist.sim.robot import WorkerRun
from dnn_dist.sim.source import SourceRun

KEPT = {"worker", "source", "inputs", "outputs", "boxes"}
"""Fields that are not changed."""


class Parties(Protocol):
    """Whom a forger writes to."""

    sources: dict[str, SourceRun]
    workers: dict[str, WorkerRun]


class Forger:
    """Posts values of random content in the right session: one that was said, with some fields changed."""

    def __init__(self, cluster: Parties, rng: random.Random) -> None:
        self._cluster, self._rng = cluster, rng

    def strike(self) -> None:
        """One value, into one process."""
        cluster, rng = self._cluster, self._rng
        source = cluster.sources[rng.choice(list(cluster.sources))]
        worker = cluster.workers[rng.choice(list(cluster.workers))]
        if worker.part is None:
            return
        states = self._worker_state, self._source_state, self._progress
        of_tasks = self._work, self._again, self._feed, self._scatter, self._result
        value = rng.choice((*states, *of_tasks))(source, worker)
        if value is None:
            return
        names = [name for name in value._fields if name not in KEPT]
        changed = {name: self._change(getattr(value, name)) for name in rng.sample(names, rng.randint(0, 3))}
        value = value._replace(**changed)
        home, gatherers = source._processes
        if isinstance(value, WorkerState):
            process, part = rng.choice(((home, source.partition), (gatherers, source.aggregator)))
            process.deliver(part, value)
        elif isinstance(value, (Result, Scatter)):
            gatherers.deliver(source.aggregator, value)
        elif isinstance(value, (Work, Feed)) or rng.random() < 0.5:
            if value.key.source in worker.sources if isinstance(value, (Work, Feed)) else True:
                worker.deliver(worker.part, value)
        else:
            home.deliver(source.partition, value)

    def _worker_state(self, source: SourceRun, worker: WorkerRun) -> Any:
        view = source.partition.machine.workers.get(worker.robot)
        return view and view.state._replace(sequence=view.state.sequence + self._rng.choice((0, 1, 50)))

    def _source_state(self, source: SourceRun, worker: WorkerRun) -> Any:
        view = worker.part.machine.sources.get(source.name)
        return view and view.state._replace(sequence=view.state.sequence + self._rng.choice((0, 1, 50)))

    def _progress(self, source: SourceRun, worker: WorkerRun) -> Any:
        known = source.partition.machine._progress
        return known and known._replace(sequence=known.sequence + self._rng.choice((0, 1, 50)))

    def _key(self, source: SourceRun) -> TaskKey:
        frame = max(0, source.announced - self._rng.choice((0, 1, 1, 2, 5)))
        return TaskKey(source.name, source.session, frame, self._rng.randrange(3), self._rng.randrange(5))

    def _work(self, source: SourceRun, worker: WorkerRun) -> Any:
        plan = self._rng.choice(sorted(source.loads))
        number = worker.part.machine.seen.get((source.name, source.session), 0) + self._rng.choice((0, 1, 2))
        return Work(self._key(source), plan, worker.part.machine.session, number, 0, 0.3, 100)

    def _route(self) -> Route:
        other = self._cluster.workers[self._rng.choice(list(self._cluster.workers))]
        session = other.part.machine.session if other.part is not None else 1
        return Route(self._rng.randrange(4), self._rng.randrange(5), other.robot, session)

    def _again(self, source: SourceRun, worker: WorkerRun) -> Any:
        routes = tuple(self._route() for _ in range(self._rng.randrange(3)))
        work, here = self._work(source, worker), [*worker.part.machine.held, *worker.part.machine.residence.kept]
        key = self._rng.choice(here) if here and self._rng.random() < 0.8 else work.key
        return work._replace(key=key, routes=routes, again=self._rng.random() < 0.8)

    def _feed(self, source: SourceRun, worker: WorkerRun) -> Any:
        machine, rng = worker.part.machine, self._rng
        plan, key = rng.choice(sorted(source.loads)), self._key(source)
        if machine.held and rng.random() < 0.7:
            key = rng.choice(machine.held)
        stages = source.loads[plan].shape.stages
        piece_ = stages[key.stage].pieces[key.piece] if self._known(stages, key) else PieceShape(0, 0, 0)
        feeds = {**piece_.feeds, AGGREGATOR: piece_.merged}
        (stage, piece), size = rng.choice(sorted(feeds.items())) if feeds else ((0, 0), 40)
        return Feed(key, stage, piece, plan, rng.choice(list(self._cluster.workers)), 1, machine.session, size)

    def _scatter(self, source: SourceRun, worker: WorkerRun) -> Any:
        routes = tuple(self._route() for _ in range(self._rng.randrange(3)))
        frame, plan = self._key(source).frame, self._rng.choice(sorted(source.loads))
        return Scatter(source.name, source.session, frame, plan, routes)

    def _known(self, stages: Any, key: TaskKey) -> bool:
        return key.stage < len(stages) and key.piece < len(stages[key.stage].pieces)

    def _result(self, source: SourceRun, worker: WorkerRun) -> Any:
        plan, session = self._rng.choice(sorted(source.loads)), worker.part.machine.session
        return Result(self._key(source), plan, worker.robot, session, 0, 0.0, 0.01, "", 50)

    def _change(self, value: Any) -> Any:
        rng = self._rng
        match value:
            case TaskKey():
                name = rng.choice(("session", "frame", "stage", "piece"))
                return value._replace(**{name: self._change(getattr(value, name))})
            case StageProgress():
                return StageProgress(frozenset(range(rng.randrange(6))), rng.random() < 0.5)
            case bool():
                return not value
            case int():
                return rng.choice((0, 1, value + 1, max(0, value - 1), 2**16 - 1, 2**32 - 1, 2**63 - 1))
            case float():
                return rng.choice((0.0, 1e-9, 0.5, 1e30))
            case str():
                return rng.choice(("", "plan", "cam", "w1", "another"))
            case tuple():
                return rng.choice(((), value[:1], value * 2))
            case frozenset():
                return rng.choice((frozenset(), value | {self._key(next(iter(self._cluster.sources.values())))})) \
                    if not value or isinstance(next(iter(value)), TaskKey) else frozenset()
            case Mapping():
                return {key: self._change(one) for key, one in value.items() if rng.random() < 0.7}
        return value
