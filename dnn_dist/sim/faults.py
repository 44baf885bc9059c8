# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a simulated run, as a text or by a seed.

    faults  = fault *("," fault)
    fault   = ("kill" | "restart" | "stop" | "go") ROBOT "@" TIME     of its worker, in seconds after the first image
            | "slow" ROBOT "x" FACTOR "@" FROM ".." TO                every computation takes FACTOR times as long
            | "link" ROBOT ROBOT "x" FACTOR "@" FROM ".." TO          their link has FACTOR times its rate; 0: it is cut
            | "chaos:" SEED                                           kills, stops and slowness by seed, then recovery

Faults strike a robot's worker (`slow`: the whole robot; `link`: none). A source lives on: the laws are about what it
then does.
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dnn_dist.errors import DnnDistError

KINDS = ("kill", "restart", "stop", "go", "slow", "link")
_CURE = (
    'write for example "kill r2@3.0, restart r2@5, stop r3@1, go r3@2, slow r4 x5@2..6, link r1 r2 x0.1@3..4, chaos:7"'
)
_NUMBER = r"\d{1,9}(?:\.\d{0,9})?"
_POINT = re.compile(rf"(kill|restart|stop|go)\s+(\S+?)\s*@\s*({_NUMBER})", re.ASCII)
_SPAN = re.compile(rf"slow\s+(\S+)\s+x\s*({_NUMBER})\s*@\s*({_NUMBER})\s*\.\.\s*({_NUMBER})", re.ASCII)
_LINK = re.compile(rf"link\s+(\S+)\s+(\S+)\s+x\s*({_NUMBER})\s*@\s*({_NUMBER})\s*\.\.\s*({_NUMBER})", re.ASCII)
_CHAOS = re.compile(r"chaos:(\d{1,18})", re.ASCII)


class FaultError(DnnDistError):
    """A fault is not understood, or is for a robot that is not there."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that happens to a robot at a time, seconds after the first image."""

    at: float
    kind: str  # one of KINDS
    robot: str
    factor: float = 1.0  # slow: how many times as long; link: of its rate; 1 ends either
    other: str = ""  # link: the robot at its other end


def parse_faults(text: str, robots: Sequence[str], seconds: float = 10.0) -> tuple[Fault, ...]:
    """Faults by time. `seconds`: how long chaos lasts. Raises FaultError in one line."""
    faults: list[Fault] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if point := _POINT.fullmatch(part):
            faults.append(Fault(float(point[3]), point[1], point[2]))
        elif span := _SPAN.fullmatch(part):
            robot, factor, begin, end = span[1], *map(float, span.groups()[1:])
            if factor <= 0 or end <= begin:
                raise FaultError(f"fault '{part}': expected a factor above 0 and a time that passes; {_CURE}")
            faults += [Fault(begin, "slow", robot, factor), Fault(end, "slow", robot)]
        elif link := _LINK.fullmatch(part):
            factor, begin, end = map(float, link.groups()[2:])
            if end <= begin or link[1] == link[2]:
                raise FaultError(f"fault '{part}': expected two robots and a time that passes; {_CURE}")
            faults += [Fault(begin, "link", link[1], factor, link[2]), Fault(end, "link", link[1], other=link[2])]
        elif chaos := _CHAOS.fullmatch(part):
            faults += random_faults(robots, seconds, int(chaos[1]))
        else:
            raise FaultError(f"fault '{part}' is not understood; {_CURE}")
    check_faults(faults, robots)
    return tuple(sorted(faults, key=lambda fault: fault.at))


def check_faults(faults: Iterable[Fault], robots: Sequence[str]) -> None:
    """Raise FaultError when a fault is of an unknown kind, or of a robot that is not among `robots`."""
    for fault in faults:
        if fault.kind not in KINDS:
            raise FaultError(f"fault '{fault.kind}' of {fault.robot!r}: expected one of {', '.join(KINDS)}")
        for robot in filter(None, (fault.robot, fault.other)):
            if robot not in robots:
                near = difflib.get_close_matches(robot, robots, 1)
                known = f"did you mean {near[0]}?" if near else f"the fleet has {_some(robots)}"
                raise FaultError(f"fault '{fault.kind} {robot}': the fleet has no robot {robot!r}; {known}")


def random_faults(robots: Sequence[str], seconds: float, seed: int, every: float = 2.0) -> list[Fault]:
    """Kills, stops and slowness of robots by seed, one in `every` seconds on average, each over after a while."""
    rng = random.Random(f"{seed}/faults")
    faults: list[Fault] = []
    time = rng.expovariate(1 / every)
    while time < seconds:
        robot, lasts = rng.choice(list(robots)), rng.uniform(0.1, 2.0)
        kind, end = rng.choice((("kill", "restart"), ("stop", "go"), ("slow", "slow")))
        faults += [Fault(time, kind, robot, rng.choice((2.0, 5.0))), Fault(time + lasts, end, robot)]
        time += rng.expovariate(1 / every)
    return sorted(faults, key=lambda fault: fault.at)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")
