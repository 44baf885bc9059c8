# SPDX-License-Identifier: Apache-2.0
"""Which plan new frames take, and when an installed one takes its place.

The first plan is in force at once. A later one comes into force when every worker that takes part and is heard has
made it ready or refuses it, one at least is ready, and the aggregator has it. After `switch_within` those that are
ready are enough, and with none it is withdrawn. A frame keeps its plan for life.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dnn_dist.plan.plan import takes_part
from dnn_dist.run.events import PlanInForce, PlanInstalled, PlanWithdrawn, PublishPlan
from dnn_dist.run.state import WorkerState
from dnn_dist.run.tasks import Books


@dataclass(slots=True)
class PlanSwitch:
    """See the module. `books.plan` is the plan in force."""

    books: Books
    next: str = ""  # installed, and not in force yet
    by: float = float("inf")  # s; see `switch_within`
    _told_at: dict[str, float] = field(default_factory=dict)  # plan -> when it was told in full, s

    def install(self, event: PlanInstalled, now: float) -> list[Any]:
        """A plan that frames may name from now on."""
        books = self.books
        actions: list[Any] = self._withdraw("another one was installed") if self.next not in ("", event.plan) else []
        books.plans[event.plan] = event.shape
        if books.plan in ("", event.plan):
            books.plan = event.plan
            return [*actions, PlanInForce(event.plan), *self._tell(event.plan, now)]
        self.next, self.by = event.plan, now + books.settings.switch_within
        return [*actions, *self._tell(event.plan, now)]

    def look(self, gathered: frozenset[str], now: float) -> list[Any]:
        """Put the next plan in force when it may be; withdraw it when it cannot be. `gathered`: the aggregator's."""
        plan, books = self.next, self.books
        if not plan:
            return []
        shape = books.plans[plan]
        heard = (view for view in books.workers.values() if not view.silent)
        part = [view for view in heard if takes_part(view.state.robot, shape.robots)]
        ready = [view for view in part if plan in view.state.plans]
        refuse = [view for view in part if plan in view.state.refused]
        alone = all(stage.local for stage in shape.stages)
        over = now >= self.by
        if plan in gathered and (alone or (ready and (over or len(ready) + len(refuse) == len(part)))):
            books.plan, self.next, self.by = plan, "", float("inf")
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
        in_use = {frame.plan for frame in books.frames.values()} | {books.plan, self.next}
        for plan in books.plans.keys() - in_use:
            del books.plans[plan]
            self._told_at.pop(plan, None)
            for view in books.workers.values():
                view.given = {form: last for form, last in view.given.items() if form[0] != plan}

    def tell_what_lacks(self, state: WorkerState, now: float) -> list[Any]:
        """Plans for new frames that a worker should have and has not, not too often."""
        actions: list[Any] = []
        for plan in filter(None, (self.next, self.books.plan)):
            part = takes_part(state.robot, self.books.plans[plan].robots)
            due = now >= self._told_at.get(plan, float("-inf")) + self.books.settings.plan_again
            if part and due and plan not in state.plans and plan not in state.refused:
                actions += self._tell(plan, now)
        return actions

    def tell_aggregator(self, gathered: frozenset[str], now: float) -> list[Any]:
        """The plan in force, where the aggregator takes no frames of it: it was restarted, perhaps."""
        plan = self.books.plan
        due = now >= self._told_at.get(plan, float("-inf")) + self.books.settings.plan_again
        return self._tell(plan, now) if plan and plan not in gathered and due else []

    def _tell(self, plan: str, now: float) -> list[Any]:
        self._told_at[plan] = now
        return [PublishPlan(plan)]
