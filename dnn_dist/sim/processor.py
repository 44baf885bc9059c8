# SPDX-License-Identifier: Apache-2.0
"""A robot's processor in virtual time: the worker and the local stages of a source share it.

`cores` jobs run at full speed; with more jobs than that each gets an equal part, as an operating system does it. A
slowdown of 5 makes every second five; a frozen process's job stands still and takes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dnn_dist.sim.agenda import Agenda


@dataclass(slots=True, eq=False)
class Job:
    """One computation."""

    left: float  # s at full speed
    done: Callable[..., None]
    args: tuple[Any, ...]
    frozen: bool = False


class Processor:
    """See the module's rules."""

    def __init__(self, agenda: Agenda, cores: float = 1.0) -> None:
        self._agenda, self._cores = agenda, cores
        self._jobs: list[Job] = []
        self._slowdown = 1.0
        self._since = agenda.now  # s; `left` of the jobs is as of then
        self._plan = 0  # number of the expected end that counts
        self.busy = 0.0  # s in which at least one job ran

    def start(self, seconds: float, done: Callable[..., None], *args: Any) -> Job:
        """Compute for `seconds` at full speed, then call `done(*args)`."""
        self._catch_up()
        job = Job(seconds, done, args)
        self._jobs.append(job)
        self._expect()
        return job

    def cancel(self, job: Job) -> None:
        """The process that computed this is dead."""
        self._catch_up()
        if job in self._jobs:
            self._jobs.remove(job)
        self._expect()

    def freeze(self, job: Job, frozen: bool) -> None:
        """The process is stopped, or goes on."""
        self._catch_up()
        job.frozen = frozen
        self._expect()

    def slow(self, slowdown: float) -> None:
        """From now on a second of work takes `slowdown` seconds."""
        self._catch_up()
        self._slowdown = slowdown
        self._expect()

    def _rate(self, running: int) -> float:
        return min(1.0, self._cores / running) / self._slowdown

    def _catch_up(self) -> None:
        now = self._agenda.now
        running = [job for job in self._jobs if not job.frozen]
        if running and now > self._since:
            done = (now - self._since) * self._rate(len(running))
            self.busy += now - self._since
            for job in running:
                job.left -= done
        self._since = now

    def _expect(self) -> None:
        self._plan += 1
        running = [job.left for job in self._jobs if not job.frozen]
        if running:
            seconds = max(0.0, min(running)) / self._rate(len(running))
            self._agenda.at(self._agenda.now + seconds, self._end, self._plan)

    def _end(self, plan: int) -> None:
        if plan != self._plan:
            return
        self._catch_up()
        # Of equal jobs rounding may leave a trace; that of the first is nought by definition.
        first = min((job for job in self._jobs if not job.frozen), key=lambda job: job.left)
        self._jobs.remove(first)
        self._expect()
        first.done(*first.args)
