# SPDX-License-Identifier: Apache-2.0
"""Cuts between a robot and a server by the rate of their link: which is best from which rate on, as a text.

    by_link = step *("|" step)
    step    = RATE CUT             from so many Mbit/s of tensors on; ascending

as in `1.5 front@0..4>rest | 9 rest`: the gateway's parameter `by_link`, or a key of that name in a plan file. Below the
first, and without a server, the parameter `cut` holds, or the plan: the robot alone. What switches is run/bylink.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from dnn_dist.cut.piece import Stage
from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import PlanError
from dnn_dist.graph.network import Network
from dnn_dist.plan.between import between
from dnn_dist.plan.fleet import Fleet, LinkRule
from dnn_dist.plan.predict import Circumstances, Predictor
from dnn_dist.yamlfile import parse_yaml, quoted

ALONE = "front"
"""All on the robot."""
MEGABIT = 125e3  # bytes
RATES = tuple(MEGABIT * 10 ** (step / 6) for step in range(-9, 19))
"""Bytes/s at which cuts are looked for: 0.03 to 1 000 Mbit/s."""
MOST = 4
"""Steps; all plans stay ready at the workers."""
GAIN = 0.05
"""A step that saves no more of a frame than this at any rate is left out."""
_STEP = re.compile(r"(\d{1,6}(?:\.\d{0,6})?)\s+(\S.*)", re.ASCII | re.DOTALL)


class Step(NamedTuple):
    """A cut, and the rate from which it is the best."""

    rate: float  # bytes/s
    cut: str


def is_by_link(text: str) -> bool:
    """Whether a text names steps, and not one cut."""
    return text.strip()[:1].isdigit()


def parse_by_link(text: str) -> tuple[Step, ...]:
    """The steps that a text names; empty: none. PlanError in one line when it is not understood."""
    found: list[Step] = []
    for part in text.split("|") if text.strip() else []:
        step = _STEP.fullmatch(part.strip())
        if step is None or not float(step[1]) > 0:
            cure = "write Mbit/s and a cut, as in '1.5 front@0..4>rest | 9 rest'"
            raise PlanError(f"by_link: {part.strip()[:80]!r} is no step; {cure}")
        found.append(Step(float(step[1]) * MEGABIT, step[2]))
    if any(later.rate <= step.rate for step, later in pairwise(found)):
        raise PlanError("by_link: the Mbit/s of its steps do not rise; write the lowest first")
    if len(found) > MOST:
        raise PlanError(f"by_link: {len(found)} steps, expected at most {MOST}: workers keep all of them ready")
    return tuple(found)


def read_by_link(path: Path) -> tuple[Step, ...]:
    """The steps that a plan file (`Plan.read`) names beside its plan."""
    text = parse_yaml(path.read_text(encoding="utf-8")).get("by_link", "")
    if not isinstance(text, str):
        raise PlanError(f"{path}: by_link is {quoted(text)}, expected a text, as in '1.5 front@0..4>rest | 9 rest'")
    return parse_by_link(text)


def by_link_text(steps: Sequence[Step]) -> str:
    """The text of these steps."""
    return " | ".join(f"{step.rate / MEGABIT:.3g} {step.cut}" for step in steps)


def step_for(steps: Sequence[Step], rate: float, alone: str = ALONE) -> str:
    """The cut for a link of this rate (bytes/s)."""
    return next((step.cut for step in reversed(steps) if step.rate <= rate), alone)


def with_rate(fleet: Fleet, own: str, server: str, rate: float) -> Fleet:
    """The fleet, its link between these two of another rate (bytes/s)."""
    rule = LinkRule((frozenset((own,)), frozenset((server,))), replace(fleet.link(own, server), bandwidth=rate))
    return replace(fleet, links=(*fleet.links, rule))


def seconds_at(network: Network, given: Circumstances, server: str, stages: Sequence[Stage], rate: float) -> float:
    """The predicted latency of these stages between the gateway's robot and this one, by a link of this rate."""
    there = replace(given, fleet=with_rate(given.fleet, given.gateway, server, rate))
    return Predictor(network, there)(stages, (server, given.gateway)).latency


def best_by_link(network: Network, given: Circumstances, server: str) -> tuple[Step, ...]:
    """The steps for the gateway's robot and this one, whatever the rate of their link; other links are not used.

    At each of RATES the cut that is best with overlap (plan/between.py), and of all these the one whose whole plan is
    done soonest. Then those that hardly save anything go, and where two meet the rate is found by bisection.
    """
    fleet, own = given.fleet, given.gateway
    robots, link = (fleet.robot(own), fleet.robot(server)), fleet.link(own, server)
    cuts = dict.fromkeys([ALONE])
    for rate in RATES:
        cuts[between(network, *robots, replace(link, bandwidth=rate), given.wire).cut] = None
    stages = {cut: cut_network(network, cut) for cut in cuts}

    def seconds(cut: str, rate: float) -> float:
        return seconds_at(network, given, server, stages[cut], rate)

    table = {cut: [seconds(cut, rate) for rate in RATES] for cut in cuts}
    kept = _worthwhile(table)
    won = [min(kept, key=lambda cut: table[cut][n]) for n in range(len(RATES))]
    steps: list[Step] = []
    for n in range(1, len(RATES)):
        if won[n] != won[n - 1]:
            steps.append(Step(_meet(seconds, won[n - 1], won[n], RATES[n - 1], RATES[n]), won[n]))
    return tuple(steps)


def _worthwhile(table: dict[str, list[float]]) -> list[str]:
    """Of cuts with their seconds at each rate those without which some rate would be much the worse, and ALONE."""
    kept = list(table)

    def saves(cut: str) -> float:
        others = [one for one in kept if one != cut]
        return max(min(table[one][n] for one in others) / table[cut][n] - 1 for n in range(len(table[cut])))

    while len(kept) > 1:
        least = min((cut for cut in kept if cut != ALONE), key=saves)
        if saves(least) > GAIN and len(kept) <= 1 + MOST:
            break
        kept.remove(least)
    return kept


def _meet(seconds: Callable[[str, float], float], slow: str, fast: str, low: float, high: float) -> float:
    """The rate from which `fast` is the better one."""
    for _ in range(12):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if seconds(fast, middle) <= seconds(slow, middle) else (middle, high)
    return high
