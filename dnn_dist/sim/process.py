# SPDX-License-Identifier: Apache-2.0
"""The world of run/world.py in virtual time: a process on a robot, and what all processes of a run share."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from math import log, sqrt
from typing import Any

from dnn_dist.errors import DnnDistError
from dnn_dist.run.notes import Note, Notebook
from dnn_dist.run.values import Work
from dnn_dist.run.wire import TaskKey
from dnn_dist.run.world import Done, Job, Loop, Part
from dnn_dist.sim.agenda import Agenda
from dnn_dist.sim.air import Air
from dnn_dist.sim.changes import Changes
from dnn_dist.sim.outcome import FrameRun, Span
from dnn_dist.sim.processor import Job as Running
from dnn_dist.sim.processor import Processor
from dnn_dist.sim.scenario import Load, Scenario

SLACK = 1e-6
"""Seconds by which a call comes later than asked for, so that rounding does not make it come too early."""


class Hub:
    """What the processes of one run share; the methods without a body are for tests."""

    def __init__(self, scenario: Scenario, air: Callable[[Agenda], Air] | None = None) -> None:
        """`air`: other links than the fleet's; for tests."""
        fleet = scenario.fleet
        self.scenario = scenario
        self.agenda = Agenda(-scenario.warm_up)
        self.air = air(self.agenda) if air else Air(fleet, self.agenda, scenario.seed, Changes(scenario.faults))
        self.notes = Notebook()
        self.trace: list[Span] = []
        self.frames: list[FrameRun] = []
        self.workers: dict[str, Any] = {}  # robot -> its worker
        self.processors = {name: Processor(self.agenda, scenario.cores) for name in fleet.names}
        self._random = random.Random(f"{scenario.seed}/cluster")
        self._robots = {robot.name: robot for robot in fleet.robots}
        self._services = {name: random.Random(f"{scenario.seed}/{name}") for name in fleet.names}
        self._means: dict[tuple[str, int, int, int], float] = {}

    def draw_session(self) -> int:
        """A session of a process that starts."""
        return self._random.getrandbits(63) | 1

    def draw_error(self) -> str:
        """Why a computation failed; nearly always empty."""
        failing = self.scenario.failing
        return "by chance" if failing and self._random.random() < failing else ""

    def draw_lag(self) -> float:
        """Seconds for which a process is busy with other things before it takes what came."""
        return self._random.uniform(0.0, self.scenario.lag) if self.scenario.lag else 0.0

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

    def span(self, span: Span) -> None:
        """A computation has ended."""
        if len(self.trace) < self.scenario.trace:
            self.trace.append(span)

    def announced(self, source: str, frame: int) -> None:
        """A frame begins."""

    def sending(self, source: str, work: Work, worker: str) -> None:
        """A task is sent to a worker."""

    def kept(self, key: TaskKey) -> None:
        """A result is used."""

    def computing(self, robot: str, key: TaskKey) -> None:
        """A computation begins."""

    def report(self, run: FrameRun) -> None:
        """A frame has ended."""
        self.frames.append(run)

    def source_done(self) -> None:
        """A source has nothing more to do."""


class Process:
    """A world: one process over its lives. `send` and `seconds` are its kind's."""

    def __init__(self, hub: Hub, robot: str) -> None:
        self.hub, self.robot = hub, robot
        self.agenda, self.air = hub.agenda, hub.air
        self.loop = Loop(self)
        self._life = 0  # counts; calls and jobs of an earlier one are void
        self._due: dict[Callable[[], None], float] = {}  # call -> when it was last asked for, s
        self._entered: dict[Callable[[], None], float] = {}  # call -> the earliest of its entries in the agenda, s
        self._lanes: dict[str, deque[tuple[Job, Done]]] = {}  # the first of each runs
        self._running: dict[str, tuple[Running, float, Job]] = {}  # lane -> (at the processor, since s, job)
        self._stopped: list[Callable[[], None]] | None = None  # what waits for a stopped process
        self._lag = hub.scenario.lag
        self._lagging_until = 0.0  # s; what came before is not taken earlier

    # The world

    def now(self) -> float:
        return self.agenda.now

    def wake(self, when: float, call: Callable[[], None]) -> None:
        self._due[call] = when
        if when < self._entered.get(call, float("inf")):
            self._entered[call] = when
            self.agenda.at(when + SLACK, self._ring, when, call, self._life)

    def _ring(self, entered: float, call: Callable[[], None], life: int) -> None:
        if life != self._life or self._entered.get(call) != entered:
            return
        del self._entered[call]
        due = self._due[call]
        if due > self.agenda.now:
            self.wake(due, call)
        elif self._stopped is not None:
            self._stopped.append(call)
        else:
            self.before()
            call()
            self.after()

    def send(self, value: Any, to: str = "") -> None:
        raise NotImplementedError

    def note(self, note: Note) -> None:
        self.hub.notes.add(note)

    def caught(self, error: Exception, where: str) -> None:
        raise error  # a fault of ours, in a test or a figure

    def run(self, job: Job, done: Done) -> None:
        lane = self._lanes.setdefault(job.lane, deque())
        lane.append((job, done))
        if len(lane) == 1:
            self._start(job.lane)

    def _start(self, lane: str) -> None:
        job, _ = self._lanes[lane][0]
        seconds = self.seconds(job)
        if job.lane == "prepare":  # reading takes no processor to speak of
            self.agenda.at(self.agenda.now + seconds, self._ended, lane, self.agenda.now, self._life)
            return
        running = self.hub.processors[self.robot].start(seconds, self._ended, lane, self.agenda.now, self._life)
        self._running[lane] = running, self.agenda.now, job

    def _ended(self, lane: str, began: float, life: int) -> None:
        if life != self._life:
            return
        if self._stopped is not None:
            self._stopped.append(lambda: self._ended(lane, began, life))
            return
        self._running.pop(lane, None)
        job, done = self._lanes[lane].popleft()
        seconds, result, error = self.agenda.now - began, None, self.failure(job)
        if not error:
            try:
                result = job.call()
            except DnnDistError as found:
                error = str(found)
        self.ended(job, began)
        if self._lanes[lane]:
            self._start(lane)
        self.before()
        done(result, error, seconds)
        self.after()

    # What kinds of processes say

    def seconds(self, job: Job) -> float:
        """How long a job takes."""
        raise NotImplementedError

    def failure(self, job: Job) -> str:
        """Why a job fails, if it does."""
        return ""

    def ended(self, job: Job, began: float) -> None:
        """A job has ended that began at `began` (s)."""

    def before(self) -> None:
        """Something will be taken: now is the time for what was left out."""

    def after(self) -> None:
        """It was taken: what that was left out matters now?"""

    # From outside

    def deliver(self, part: Part, value: Any) -> None:
        """A value arrives."""
        if not self._lag:
            self._take(part, value, self._life)
            return
        self._lagging_until = max(self._lagging_until, self.agenda.now + self.hub.draw_lag())
        self.agenda.at(self._lagging_until, self._take, part, value, self._life)

    def _take(self, part: Part, value: Any, life: int) -> None:
        if life != self._life:
            return
        if self._stopped is not None:
            self._stopped.append(lambda: self._take(part, value, life))
            return
        self.before()
        part.post(value)
        self.after()

    def kill(self) -> None:
        """The process is gone, with all it held."""
        for running, began, job in self._running.values():
            self.hub.processors[self.robot].cancel(running)
            key = job.key
            if key is not None:
                end = self.agenda.now
                self.hub.span(Span(self.robot, key.source, key.frame, key.stage, key.piece, began, end, "lost"))
        self._life += 1
        self._stopped = None
        self.loop = Loop(self)
        for memory in (self._due, self._entered, self._lanes, self._running):
            memory.clear()

    def stop(self) -> None:
        """The process stands still, and hears nothing."""
        if self._stopped is None:
            self._stopped = []
            self._freeze(True)

    def go(self) -> None:
        """The process goes on."""
        if self._stopped is not None:
            waiting, self._stopped = self._stopped, None
            self._freeze(False)
            for what in waiting:
                what()

    def _freeze(self, frozen: bool) -> None:
        for running, _, _ in self._running.values():
            self.hub.processors[self.robot].freeze(running, frozen)
