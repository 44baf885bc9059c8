# SPDX-License-Identifier: Apache-2.0
"""The world of run/world.py as a node has it: the steady clock, topics, threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dnn_dist.errors import DnnDistError
from dnn_dist.nodes.lane import Lane, one_line
from dnn_dist.nodes.shell import NodePart, Shell
from dnn_dist.run.notes import Note
from dnn_dist.run.world import Done, Job, Loop


class RosWorld(NodePart):
    """One for each node."""

    def __init__(self, shell: Shell, pace: Callable[[], float]) -> None:
        """`pace`: million MACs a second; a job waits until a robot of that speed would be done. 0: full speed."""
        self._shell, self._pace = shell, pace
        self._routes: dict[type, list[Callable[[Any, str], None]]] = {}
        self._lanes: dict[str, Lane] = {}
        self.loop = Loop(self)
        shell.parts.append(self)

    def route(self, kind: type, send: Callable[[Any, str], None]) -> None:
        """Values of a type go this way too; `send(value, to)`."""
        self._routes.setdefault(kind, []).append(send)

    def now(self) -> float:
        return self._shell.now()

    def wake(self, when: float, call: Callable[[], None]) -> None:
        self._shell.wake_at(when, call)

    def send(self, value: Any, to: str = "") -> None:
        for send in self._routes.get(type(value), ()):
            send(value, to)

    def note(self, note: Note) -> None:
        self._shell.note(note)

    def caught(self, error: Exception, where: str) -> None:
        self._shell.net.caught(error, where)

    def run(self, job: Job, done: Done) -> None:
        pace, disturbance = self._pace(), self._shell.disturbance
        if disturbance and job.macs:
            pace = disturbance.pace(pace)

        def call() -> tuple[Any, float]:
            began = self.now()
            result = job.call()
            if pace and job.macs:
                time.sleep(max(0.0, began + job.macs / (pace * 1e6) - self.now()))
            return result, self.now() - began

        def ended(timed: tuple[Any, float] | None, error: Exception | None) -> None:
            if error is not None and not isinstance(error, DnnDistError):
                self.caught(error, f"running a job ({job.lane})")
            result, seconds = timed or (None, 0.0)
            done(result, "" if error is None else one_line(error), seconds)

        self.lane(job.lane).submit(call, ended)

    def lane(self, name: str) -> Lane:
        """The thread of this name, made when it is first needed."""
        if name not in self._lanes:
            self._lanes[name] = Lane(self._shell, name)
        return self._lanes[name]

    def stop(self) -> None:
        """End the threads."""
        for lane in self._lanes.values():
            lane.stop()
