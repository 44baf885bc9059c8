# SPDX-License-Identifier: Apache-2.0
"""Trouble by seed: which worker is killed, stopped, let go or disturbed, and when. The same seed, the same trouble.

The schedule is a pure function; `Chaos` carries it out on a supervisor's processes. Messages are disturbed in the nodes
themselves, which read DNN_DIST_DISTURB (see nodes/disturb.py).
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from dnn_dist.cli.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that happens to one process."""

    at: float  # s since the beginning
    what: str  # kill | stop | go
    process: str

    def __str__(self) -> str:
        return f"{self.at:5.2f} s  {self.what:4}  {self.process}"


def schedule(seed: int, seconds: float, workers: Sequence[str], others: Sequence[str] = ()) -> list[Trouble]:
    """What happens within `seconds`: about one trouble a second. `others`, e.g. a gateway, are seldom killed.

    One worker is always spared, so that what happens to the others can be made up for; what is stopped is let go.
    """
    rng = random.Random(seed)
    spared = rng.choice(list(workers))
    victims = [name for name in workers if name != spared]
    troubles: list[Trouble] = []
    at = rng.uniform(0.2, 1.0)
    while at < seconds and victims:
        if others and rng.random() < 0.1:
            troubles.append(Trouble(at, "kill", rng.choice(list(others))))
        elif rng.random() < 0.5:
            troubles.append(Trouble(at, "kill", rng.choice(victims)))
        else:
            name, length = rng.choice(victims), rng.uniform(0.1, 1.5)
            troubles += [Trouble(at, "stop", name), Trouble(min(at + length, seconds), "go", name)]
        at += rng.expovariate(1.0)
    return sorted(troubles, key=lambda trouble: trouble.at)


def disturbance(seed: int) -> dict[str, str]:
    """The environment in which nodes disturb the messages that they receive, some more, some less."""
    rng = random.Random(seed)
    loss, doubling, delay = rng.choice([0, 0.01, 0.05]), rng.choice([0, 0.05]), rng.choice([0, 0.005, 0.02])
    return {"DNN_DIST_DISTURB": f"seed={seed},loss={loss},doubling={doubling},delay={delay}"}


class Chaos:
    """Carries a schedule out; call `look` often."""

    def __init__(self, supervisor: Supervisor, troubles: Sequence[Trouble]) -> None:
        self._supervisor = supervisor
        self._left = list(troubles)
        self.done: list[Trouble] = []

    @property
    def over(self) -> bool:
        """True when everything has happened."""
        return not self._left

    def look(self, seconds: float) -> None:
        """Do what is due `seconds` after the beginning. What is not running at that moment is left alone."""
        while self._left and self._left[0].at <= seconds:
            trouble = self._left.pop(0)
            child = self._supervisor.running.get(trouble.process)
            if child is None:
                continue
            number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "go": signal.SIGCONT}[trouble.what]
            with suppress(ProcessLookupError):
                os.kill(child.pid, number)
            self.done.append(trouble)

    def end(self) -> None:
        """Let go whatever is still stopped, so that it can end."""
        for child in self._supervisor.running.values():
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGCONT)
