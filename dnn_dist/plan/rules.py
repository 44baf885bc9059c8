# SPDX-License-Identifier: Apache-2.0
"""What is wanted of a plan, what a candidate would do, and an ordered list of rules that picks one and says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dnn_dist.cut.piece import Stage
from dnn_dist.errors import PlanError
from dnn_dist.graph.network import Network
from dnn_dist.plan.coverage import Division, extras_needed
from dnn_dist.plan.plan import MOST_REPLICAS
from dnn_dist.plan.predict import Prediction
from dnn_dist.plan.units import brief

OBJECTIVES = ("latency", "throughput", "memory")
TIE = 0.01
"""Predictions that are this close count as equal; then fewer robots win."""
_LISTED = 16
ONE_ROBOT = "one robot"
"""Family of the plans in which one robot computes everything."""
ROBOT_A_FRAME, GROUPS = "a robot a frame", "pipeline of groups"
"""Families of plans for throughput: each robot computes whole frames, or each group of robots a part of each."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted."""

    objective: str = "latency"  # least latency, most throughput, or least memory at the robot that needs most
    deadline: float | None = None  # s; a frame's latency has to stay within
    tolerate: int = 0  # workers that may fail at once without a piece being lost

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise PlanError(f"objective is {self.objective!r}, expected one of {', '.join(OBJECTIVES)}")
        if not 0 <= self.tolerate < MOST_REPLICAS:
            raise PlanError(f"tolerate is {self.tolerate}, expected 0 to {MOST_REPLICAS - 1} workers that may fail")
        if self.deadline is not None and not self.deadline > 0:
            raise PlanError(f"deadline is {self.deadline:g} s, expected a time above 0, e.g. 0.2")

    def value(self, prediction: Prediction) -> float:
        """What is to be small."""
        if self.objective == "throughput":
            return 1 / prediction.throughput
        return prediction.latency if self.objective == "latency" else float(prediction.memory)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One plan, and what it would do."""

    family: str
    cut: str  # as in a plan file
    stages: tuple[Stage, ...]
    workers: tuple[str, ...]  # robots that have workers
    replicas: int
    prediction: Prediction

    @property
    def robots(self) -> tuple[str, ...]:
        """Those that compute anything, or would when somebody is late."""
        return self.workers if redundant(self.stages, self.replicas) else tuple(self.prediction.busy)


def redundant(stages: Sequence[Stage], replicas: int) -> bool:
    """Whether workers that have nothing to do are there for those that are late or fail."""
    return replicas > 1 or any(stage.coded for stage in stages)


# Rules ----------------------------------------------------------------------------------------------------------------

Rule = Callable[[Sequence[Candidate], Goal], Sequence[Candidate]]


def fitting(candidates: Sequence[Candidate], goal: Goal) -> Sequence[Candidate]:
    """Plans that every robot has the memory for."""
    return [c for c in candidates if not c.prediction.too_small]


def in_time(candidates: Sequence[Candidate], goal: Goal) -> Sequence[Candidate]:
    """Plans within the deadline."""
    return [c for c in candidates if goal.deadline is None or c.prediction.latency <= goal.deadline]


def best(candidates: Sequence[Candidate], goal: Goal) -> Sequence[Candidate]:
    """Plans that serve the objective best, or as good as."""
    limit = (1 + TIE) * min(goal.value(c.prediction) for c in candidates)
    return [c for c in candidates if goal.value(c.prediction) <= limit]


def fewest_robots(candidates: Sequence[Candidate], goal: Goal) -> Sequence[Candidate]:
    """Plans that need the fewest robots."""
    least = min(len(c.robots) for c in candidates)
    return [c for c in candidates if len(c.robots) == least]


def least_traffic(candidates: Sequence[Candidate], goal: Goal) -> Sequence[Candidate]:
    """Plans that send the fewest bytes."""
    least = min(c.prediction.traffic for c in candidates)
    return [c for c in candidates if c.prediction.traffic == least]


def simplest(candidates: Sequence[Candidate], goal: Goal) -> Sequence[Candidate]:
    """The plan of the fewest stages; of equals the first that was thought of."""
    return [min(candidates, key=lambda c: (len(c.stages), len(c.workers)))]


RULES: tuple[Rule, ...] = (fitting, in_time, best, fewest_robots, least_traffic, simplest)
"""Rules in order; each passes on what it likes of what the ones before it left, or everything if it likes nothing."""


def choose(candidates: Sequence[Candidate], goal: Goal) -> tuple[Candidate, tuple[str, ...]]:
    """The candidate that the policy picks, and a line for each rule that could not be held."""
    why = []
    for rule in RULES:
        liked = rule(candidates, goal)
        if not liked:
            why.append(_BROKEN[rule])
        candidates = liked or candidates
    return candidates[0], tuple(why)


_BROKEN: dict[Rule, str] = {
    fitting: "no plan fits the robots' memory; this one is the best of those that do not",
    in_time: "no plan is predicted to meet the deadline; this one comes nearest by the objective",
}


def remarks(chosen: Candidate, candidates: Sequence[Candidate], goal: Goal) -> tuple[str, ...]:
    """Why the chosen plan, in words, against the best of the others."""
    others = sorted((c for c in candidates if c is not chosen), key=lambda c: goal.value(c.prediction))
    if not others:
        return ("there is no other plan",)
    other = others[0]
    if chosen.family == ONE_ROBOT:
        who = chosen.robots[0] if chosen.robots else "the gateway"
        spread = next((c for c in others if c.family != ONE_ROBOT), other)
        verb = {"latency": "faster", "throughput": "enough: it gives more frames", "memory": "smaller"}[goal.objective]
        if goal.value(spread.prediction) <= goal.value(chosen.prediction):
            verb = "as good, to a hundredth"
        divided = f"the best division ({spread.family}) {_figure(spread, goal)}"
        return (f"one robot is {verb}: {who} alone {_figure(chosen, goal)}, {divided}",)
    alone = next((c for c in others if c.family == ONE_ROBOT), None)
    lines = [f"{chosen.family} on {len(chosen.robots)} robots: {_figure(chosen, goal)}"]
    if alone is not None:
        lines.append(f"one robot ({', '.join(alone.robots)}): {_figure(alone, goal)}")
    if other is not alone:
        lines.append(f"next best, {other.family}: {_figure(other, goal)}")
    return ("; ".join(lines),)


def pipelining(chosen: Candidate, candidates: Sequence[Candidate], goal: Goal) -> Iterator[str]:
    """Why groups or why a robot a frame, where both were looked at: memory, latency, or what the link lets through."""
    families = {candidate.family: candidate for candidate in candidates}
    if goal.objective != "throughput" or not {ROBOT_A_FRAME, GROUPS} <= families.keys():
        return
    whole, groups = families[ROBOT_A_FRAME].prediction, families[GROUPS].prediction
    told = [
        f"{p.throughput:.3g} frames/s, a frame takes {brief(p.latency)}, a robot needs {p.memory / 1e6:.3g} MB"
        for p in (whole, groups)
    ]
    if chosen.family == ROBOT_A_FRAME:
        yield f"a robot a frame: {told[0]}; a pipeline of groups: {told[1]}"
    elif chosen.family == GROUPS:
        if whole.too_small:
            why = f"the model is too large for {len(whole.too_small)} robots"
        elif goal.deadline is not None and whole.latency > goal.deadline:
            why = f"one robot takes too long for a frame (deadline {brief(goal.deadline)})"
        else:
            why = f"window and link keep {len(whole.busy)} robots busy with whole frames"
        yield f"groups, since {why}: a robot a frame {told[0]}; the groups {told[1]}"


def direct_boundaries(chosen: Candidate, gathered: Prediction) -> Iterator[str]:
    """Which boundaries are direct, and what that is worth: against the same stages, gathered."""
    before = [str(stage.first) for stage in chosen.stages if stage.direct]
    if before:
        prediction = chosen.prediction
        ops = ", ".join(before[:_LISTED]) + (", ..." if len(before) > _LISTED else "")
        figures = [f"{brief(p.latency)} and {p.traffic / 1e6:.3g} MB" for p in (prediction, gathered)]
        where = f"direct boundaries before op{'s' if len(before) > 1 else ''} {ops}"
        yield f"{where}: {figures[0]} a frame; the same stages gathered: {figures[1]}"


def on_reuse(network: Network, chosen: Candidate, candidates: Sequence[Candidate]) -> Iterator[str]:
    """Why tiles lend each other strips, or why they do not: work and traffic against the best of the other kind."""
    reusing = any(stage.reuses for stage in chosen.stages)
    others = [c for c in candidates if any(stage.reuses for stage in c.stages) is not reusing]
    others = [c for c in others if c.family != ONE_ROBOT] or others
    others = [c for c in others if not c.prediction.too_small] or others
    if not others or not any(stage.distributed for stage in chosen.stages):
        return
    other = min(others, key=lambda c: c.prediction.latency)
    with_, without = (chosen, other) if reusing else (other, chosen)
    taken = "taken" if reusing else "not taken"
    figures = [
        f"{brief(c.prediction.latency)}, {_work(network, c):.2f} x the work and {c.prediction.traffic / 1e6:.3g} MB"
        for c in (with_, without)
    ]
    yield f"reuse of overlapped tiles is {taken}: {figures[0]} with it; {without.family}, without: {figures[1]}"


def _work(network: Network, candidate: Candidate) -> float:
    """MACs of all pieces against the network's."""
    return sum(piece.macs for stage in candidate.stages for piece in stage.pieces) / max(1, network.macs)


def redundancy(chosen: Candidate, goal: Goal) -> Iterator[str]:
    """What tolerating failures costs in devices, against copies alone (2MR)."""
    if not goal.tolerate:
        return
    coded = [stage for stage in chosen.stages if stage.coded]
    copied = any(stage.distributed and not stage.coded for stage in chosen.stages)
    if coded:
        group = Division(widest := max(stage.needed for stage in coded), (widest,) if widest > 1 else ())
        extras, copies = (extras_needed(group, goal.tolerate, coded) for coded in (True, False))
        yield f"parity: any {goal.tolerate} of {widest} + {extras} may fail; copies would take {widest} + {copies}"
    if copied:
        yield f"pieces without parity run on {chosen.replicas} workers each, which costs time and no extra devices"
    if not coded and not copied:
        yield "no worker is needed, so that none can be missed; the gateway's robot itself must live"


def _figure(candidate: Candidate, goal: Goal) -> str:
    prediction = candidate.prediction
    small = " (does not fit its memory)" if prediction.too_small else ""
    if goal.objective == "throughput":
        return f"{prediction.throughput:.3g} frames/s{small}"
    if goal.objective == "memory":
        return f"{prediction.memory / 1e6:.3g} MB{small}"
    return brief(prediction.latency) + small
