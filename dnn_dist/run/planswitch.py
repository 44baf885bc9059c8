# SPDX-License-Identifier: Apache-2.0
"""Which plan new frames take, and when an installed one takes its place.

The first plan is in force at once. A later one comes into force when every worker that takes part and is heard has
made it ready or refuses it, one at least is ready, and the aggregator has it. After `switch_within` those that are
ready are enough, and with none it is withdrawn. A frame keeps its plan for life.
Plans for links of certain rates stay installed, and come into force as run/bylink.py says; any other plan ends that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dnn_dist.plan.plan import takes_part
from dnn_dist.run.bylink import ByLink
from dnn_dist.run.events import PlanInForce, PlanInstalled, PlanWithdrawn, PublishPlan
from dnn_dist.run.notes import Note
from dnn_dist.run.state import WorkerState
from dnn_dist.run.tasks import Books


@dataclass(slots=True)
class PlanSwitch:
    """See the module. `books.plan` is the plan in force."""

    books: Books
    next: str = ""  # installed, and not in force yet
    by: float = float("inf")  # s; see `switch_within`
    by_link: ByLink = field(init=False)
    _link_due: float = float("inf")
    _told_at: dict[str, float] = field(default_factory=dict)  # plan -> when it was told in full, s

    def __post_init__(self) -> None:
        self.by_link = ByLink(self.books)

    @property
    def wanted(self) -> tuple[str, ...]:
        """Plans that workers should have for new frames."""
        plans = (self.next, self.books.plan, *(rung.plan for rung in self.by_link.rungs))
        return tuple(dict.fromkeys(filter(None, plans)))

    @property
    def due(self) -> float:
        """Until then nothing follows by time alone, s."""
        return min(self.by, self._link_due)

    def install(self, event: PlanInstalled, now: float) -> list[Any]:
        """A plan that frames may name from now on."""
        books = self.books
        actions: list[Any] = self._withdraw("another one was installed") if self.next not in ("", event.plan) else []
        books.plans[event.plan] = event.shape
        if event.rate is not None:
            self.by_link.add(event.plan, event.rate)
            return [*actions, *self._tell(event.plan, now)]
        if books.plan in ("", event.plan):
            books.plan = event.plan
            return [*actions, PlanInForce(event.plan), *self._tell(event.plan, now)]
        self.next, self.by = event.plan, now + books.settings.switch_within
        return [*actions, *self._tell(event.plan, now)]

    def look(self, gathered: frozenset[str], now: float) -> list[Any]:
        """Choose by link, and put the next plan in force when it may be. `gathered`: plans that the aggregator has."""
        chosen = self.by_link.look(gathered, now) if self.by_link.rungs else []
        self._link_due = self.by_link.due(now) if self.by_link.rungs else float("inf")
        return [*chosen, *self._look_at_next(gathered, now)] if self.next else chosen

    def _look_at_next(self, gathered: frozenset[str], now: float) -> list[Any]:
        """Put the next plan in force when it may be; withdraw it when it cannot be."""
        plan, books = self.next, self.books
        shape = books.plans[plan]
        heard = (view for view in books.workers.values() if not view.silent)
        part = [view for view in heard if takes_part(view.state.robot, shape.robots)]
        ready = [view for view in part if plan in view.state.plans]
        refuse = [view for view in part if plan in view.state.refused]
        alone = all(stage.local for stage in shape.stages)
        over = now >= self.by
        if plan in gathered and (alone or (ready and (over or len(ready) + len(refuse) == len(part)))):
            books.plan, self.next, self.by = plan, "", float("inf")
            if self.by_link.place is None:
                self.by_link.rungs.clear()
            self.drop_unused()
            return [PlanInForce(plan)]
        if part and len(refuse) == len(part) and not alone:
            names = ", ".join(sorted(view.name for view in refuse)[:8])
            return self._withdraw(f"refused by every worker: {names}; their logs say why")
        if over:
            lacks = f"none of {len(part)} workers is ready" if plan in gathered else "the aggregator has not taken it"
            return self._withdraw(f"{lacks} after {books.settings.switch_within:g} s")
        return []

    def _withdraw(self, why: str) -> list[Any]:
        plan, self.next, self.by = self.next, "", float("inf")
        self.drop_unused()
        return [PlanWithdrawn(plan, why)]

    def drop_unused(self) -> None:
        """Forget plans that nobody needs any more."""
        books = self.books
        in_use = {frame.plan for frame in books.frames.values()} | {*self.wanted}
        for plan in books.plans.keys() - in_use:
            del books.plans[plan]
            self._told_at.pop(plan, None)
            for view in books.workers.values():
                view.given = {form: last for form, last in view.given.items() if form[0] != plan}

    def tell_what_lacks(self, state: WorkerState, now: float) -> list[Any]:
        """Plans for new frames that a worker should have and has not, not too often."""
        actions: list[Any] = []
        for plan in self.wanted:
            part = takes_part(state.robot, self.books.plans[plan].robots)
            due = now >= self._told_at.get(plan, float("-inf")) + self.books.settings.plan_again
            if part and due and plan not in state.plans and plan not in state.refused:
                actions += self._tell(plan, now)
        return actions

    def tell_aggregator(self, gathered: frozenset[str], now: float) -> list[Any]:
        """Plans of new frames that the aggregator does not take: it was restarted, perhaps."""
        late = now - self.books.settings.plan_again
        lacks = [plan for plan in self.wanted if plan not in gathered and plan != self.next]
        return [
            action
            for plan in lacks
            if self._told_at.get(plan, float("-inf")) <= late
            for action in self._tell(plan, now)
        ]

    def lacks(self, state: WorkerState) -> bool:
        """Whether a worker has not all plans of new frames."""
        return not state.plans.issuperset(self.wanted)

    def refusal(self, known: frozenset[str], state: WorkerState) -> list[Note]:
        """What there is to say when a worker has come to refuse a plan; `known`: those that it had refused before."""
        refused = sorted((state.refused - known) & self.books.plans.keys())
        text = f"worker {state.worker!r} cannot serve plan {', '.join(refused)}: its model is {state.model[:12]}"
        text += "; see its log, and give every robot the same file"
        return [Note("plan refused by worker", text, about=state.worker)] if refused else []

    def _tell(self, plan: str, now: float) -> list[Any]:
        self._told_at[plan] = now
        return [PublishPlan(plan)]
