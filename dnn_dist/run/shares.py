# SPDX-License-Identifier: Apache-2.0
"""A frame's deadline shared among its plan's chains of stages, by what their pieces took of late.

Each chain is waited for until its share ends; what is late by then is filled in. Shares are the starts of actors in the
quality model of plan/quality.py: an actor merges a chain's pieces and runs the local stages behind it, a channel is
all that a piece goes through from the stage's beginning to its result. `Shares` collects, and says when it is time to
solve again; solving takes tens of milliseconds, so the caller does that beside everything else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dnn_dist.errors import DnnDistError
from dnn_dist.plan.deadlines import best, uniform
from dnn_dist.plan.delay import Measured
from dnn_dist.plan.quality import Channel, Coded, Dataflow
from dnn_dist.run.delays import KEPT, Arrivals
from dnn_dist.run.shape import PlanShape

LEAST = 24
"""Pieces of each chain that must have come before shares are solved by quality."""
AGAIN = KEPT
"""Further pieces, of all chains, after which it is time to solve again."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a solver is given: values, so that it may run in another thread."""

    plan: str
    way: str  # quality | uniform
    budget: float  # s, from a frame's announcement to its report
    flow: Dataflow
    chains: tuple[int, ...]  # the first stage of each

    def solve(self) -> Solved:
        """PlanError in one line when the budget is less than computing takes, DnnDistError where SciPy is missing."""
        try:
            starts = best(self.flow, self.budget) if self.way == "quality" else uniform(self.flow, self.budget)
            quality = float(self.flow.quality(starts)) if self.way == "quality" else None
        except ImportError as error:
            text = f"shares by quality need SciPy: {error}; install it, or set deadlines: uniform"
            raise DnnDistError(text) from None
        return Solved(self, dict(zip(self.chains, starts[1:].tolist(), strict=True)), quality)


@dataclass(frozen=True, slots=True)
class Solved:
    """Shares of a plan."""

    problem: Problem
    until: dict[int, float]  # chain -> s after a frame's announcement, to which it is waited for
    quality: float | None  # that the model expects; None: it was not asked for


@dataclass(frozen=True, slots=True)
class SharesSolved:
    """For the gatherer: a solver has ended; with None when it failed."""

    solved: Solved | None


@dataclass(slots=True)
class Shares:
    """See the module. A chain goes by the number of its first stage."""

    arrivals: dict[tuple[str, int], Arrivals] = field(default_factory=dict)  # (plan, chain)
    solved: dict[str, Solved] = field(default_factory=dict)  # plan -> its shares
    _solving: bool = False
    _seen: dict[tuple[str, str], int] = field(default_factory=dict)  # (plan, way) -> pieces seen when last solved

    def note(self, plan: str, chain: int, seconds: float, came: bool, pieces: int = 1) -> None:
        """So many pieces came so long after the chain's beginning, or were waited for no longer."""
        if pieces:
            self.arrivals.setdefault((plan, chain), Arrivals()).note(seconds, came, pieces)

    def until(self, plan: str, chain: int, budget: float, way: str) -> float | None:
        """Seconds after the announcement to which a chain is waited for; None while that is not known.

        For a budget that was not solved for, in proportion: the next solution will be for such a one.
        """
        solved = self.solved.get(plan)
        if solved is None or solved.problem.way != way:
            return None
        return solved.until[chain] * budget / solved.problem.budget

    def problem(
        self, plan: str, shape: PlanShape, local: dict[int, float], budget: float, guard: float, way: str
    ) -> Problem | None:
        """What to solve now, if anything. `local`: seconds of each local stage; `guard`: kept free before the deadline.

        A plan of one chain has nothing to share.
        """
        chains = tuple(chain.start for chain in shape.chains if not shape.stages[chain.start].local)
        seen = [self.arrivals.get((plan, chain), Arrivals()) for chain in chains]
        total, known = sum(one.count for one in seen), self._seen.get((plan, way))
        if self._solving or len(chains) < 2 or budget == float("inf"):
            return None
        if way == "quality" and min(len(one.came) for one in seen) < LEAST:
            return None
        if known is not None and total - known < AGAIN:
            return None
        self._solving, self._seen[plan, way] = True, total
        return Problem(plan, way, budget, dataflow(shape, seen, local, guard), chains)

    def take(self, solved: Solved | None) -> None:
        """The solver has ended; None: it failed, and what was known stays."""
        self._solving = False
        if solved is not None:
            self.solved[solved.problem.plan] = solved

    def health(self) -> dict[str, str]:
        """For diagnostics: what pieces took, and until when they are waited for."""
        said = {f"plan {plan} stage {chain}": str(seen) for (plan, chain), seen in self.arrivals.items()}
        for plan, solved in self.solved.items():
            until = ", ".join(f"stage {chain} to {1e3 * end:.0f} ms" for chain, end in solved.until.items())
            expected = "" if solved.quality is None else f"; quality {solved.quality:.3f} is expected"
            budget = 1e3 * solved.problem.budget
            said[f"plan {plan} shares"] = f"{solved.problem.way}: {until} of {budget:.0f}{expected}"
        return said

    def keep(self, plans: dict[str, PlanShape]) -> None:
        """Forget what is known of other plans."""
        self.arrivals = {key: seen for key, seen in self.arrivals.items() if key[0] in plans}
        self.solved = {plan: solved for plan, solved in self.solved.items() if plan in plans}
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] in plans}


def dataflow(shape: PlanShape, seen: list[Arrivals], local: dict[int, float], guard: float) -> Dataflow:
    """A plan as the quality model has it. `seen`: of each chain of distributed stages.

    The pieces of a chain have one distribution, since any worker may have any of them. Without parity one channel
    then stands for all.
    """
    seconds, channels, coded = [0.0], list[Channel](), list[Coded]()
    arrivals = iter(seen)
    for chain in shape.chains:
        stage = shape.stages[chain.start]
        if stage.local:
            seconds[-1] += local.get(chain.start, 0.0)
            continue
        one, actor, first = next(arrivals), len(seconds), len(channels)
        # Where none has come yet shares are even ones, which ask for no distribution.
        delay = one.delay() if one.came else Measured((0.0,))
        channels += [Channel(actor - 1, actor, delay) for _ in (stage.pieces if stage.coded else (chain,))]
        if stage.coded:  # it is a chain by itself
            coded.append(Coded(tuple((n,) for n in range(first, len(channels))), stage.enough))
        seconds.append(0.0)
    seconds[-1] += guard
    return Dataflow(tuple(seconds), tuple(channels), tuple(coded))
