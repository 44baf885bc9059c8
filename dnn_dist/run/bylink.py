# SPDX-License-Identifier: Apache-2.0
"""Which of several plans new frames take, by the rate of the link from the source's robot to a server.

Each plan of the list is best from a rate on; the first needs no link: the robot alone. All stay installed, and workers
keep them ready, so that a switch is a word.

  The rate is that of what goes over the link anyway (run/linkrate.py).
  A plan stays while the rate is within its range, a quarter more at each end; else the plan comes whose range it is,
  when three messages in a row say so.
  What the server will not have in time comes home (run/lastcall.py).
  No server is heard, or what is under way to it is much later than at the lowest rate: the robot alone, at once.
  A message that says that the plan should change is followed by a probe. Else one goes out a second after the last
  message by which the rate is known. A probe is two works without a task, one without bytes and one of as many as take
  PROBE seconds at the rate in question: at most a twentieth of the link at the lowest rate of the list, where the plan
  in force leaves it to itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dnn_dist.run import lastcall
from dnn_dist.run.events import PlanInForce, SendProbe
from dnn_dist.run.fleetview import WorkerView
from dnn_dist.run.lease import silence
from dnn_dist.run.linkrate import SMALL, Meter
from dnn_dist.run.tasks import Books

MARGIN = 1.25
"""How far the rate may be outside of the range of the plan in force."""
PROBE = 0.05
"""Seconds that a probe takes."""
EVERY = 1.0
"""Seconds from what was measured last to a probe."""
AGREE = 3
"""Messages in a row that ask for a plan."""
IN_A_ROW = 6
"""Probes that follow each other at once while their rates say something else than the one before."""
OVERDUE = 2.0
"""What is under way is late when it takes so many times what it would at the lowest rate, and `worker_timeout` more: a
link that has just got worse has queues of its own, and much is sent twice.
"""
MOST = 256_000
"""Bytes of a probe."""


class Rung(NamedTuple):
    """A plan, and the rate from which it is the best."""

    rate: float  # bytes/s
    plan: str


@dataclass(slots=True)
class ByLink:
    """See the module. Of rates in bytes/s."""

    books: Books
    rungs: list[Rung] = field(default_factory=list)  # by rate; the first is for no link
    why: str = ""  # the plan in force is
    since: float = 0.0  # s; when it came into force
    switches: int = 0
    _heard: tuple[str, float] | None = None  # worker, and when the newest rate was measured that was judged
    _says: int | None = None  # the rung that this rate asks for
    _agree: int = 0  # messages in a row that did
    _decided: tuple[int, str] | None = None  # rung and why: comes into force as soon as it may
    _probed_at: float = float("-inf")  # s
    _in_a_row: int = 0

    def add(self, plan: str, rate: float) -> None:
        """A plan was installed that is for links from this rate on."""
        if not self.rungs:
            self.rungs.append(Rung(0.0, self.books.plan))
        self.rungs = sorted({*self.rungs, Rung(rate, plan)})

    @property
    def place(self) -> int | None:
        """Where the plan in force stands in the list; None: it is none of it, since somebody asked for another."""
        return next((n for n, rung in enumerate(self.rungs) if rung.plan == self.books.plan), None)

    def concerns(self, view: WorkerView) -> bool:
        """Whether something may follow from what a worker says of the link to it."""
        return bool(self.rungs) and view.meter.awaits

    def look(self, gathered: frozenset[str], now: float) -> list[Any]:
        """Choose, and probe. `gathered`: plans that the aggregator has."""
        return [*lastcall.last_calls(self.books, now), *self._choose(gathered, now)]

    def _choose(self, gathered: frozenset[str], now: float) -> list[Any]:
        if (place := self.place) is None:
            return []
        view = self._server(now)
        if view is None:
            self._says = self._heard = None
            for lost in self._elsewhere():
                lost.meter = Meter()  # the link will not be what it was
            self._decide(0, "no server is heard", place)
            return self._switch(place, gathered, now)
        slack, lowest = self.books.settings.worker_timeout, self.rungs[1].rate / OVERDUE
        view.meter.forget(now - max(self.books.settings.lifespan, slack + 2 * view.meter.backlog / lowest))
        if (most := view.meter.most(now, slack)) < lowest:
            self._decide(0, f"{view.name} is sent less than {megabits(most)}", place)
        elif view.meter.rate and self._heard != (view.name, view.meter.at):
            self._judge(view, place)
        switched = self._switch(place, gathered, now)
        return [*switched, *self._probe(view, now)]

    def due(self, now: float) -> float:
        """When there is something to do by time alone, s."""
        called = lastcall.due(self.books, now)
        if self.place is None or (view := self._server(now)) is None:
            return called
        return min(called, now + 0.25 * EVERY if view.meter.awaits else self._probe_at(view))

    def _elsewhere(self) -> list[WorkerView]:
        return [view for view in self.books.workers.values() if not self.books.at_home(view)]

    def _server(self, now: float) -> WorkerView | None:
        """The worker elsewhere that is heard, has a plan of the list, and the best link. A work that it did not
        acknowledge is no silence: it may be slow on its way.
        """
        plans, settings = [rung.plan for rung in self.rungs[1:]], self.books.settings
        heard = [view for view in self._elsewhere() if now - view.heard_at <= silence(view.state, settings)]
        able = [view for view in heard if any(view.has_built(plan, now) for plan in plans)]
        return max(able, key=lambda view: (view.meter.rate, view.name), default=None)

    def _judge(self, view: WorkerView, place: int) -> None:
        before, rate = self._says, view.meter.rate
        self._heard = view.name, view.meter.at
        self._says = self._best(rate, place)
        self._agree = self._agree + 1 if self._says == before else 1
        if self._says == place:
            self._decided, self._in_a_row = None, 0
        elif self._agree >= AGREE:
            self._decide(self._says, f"{view.name} is sent {megabits(rate)}", place)

    def _best(self, rate: float, place: int) -> int:
        """The rung for a rate, when this one is in force."""
        above = self.rungs[place + 1].rate if place + 1 < len(self.rungs) else float("inf")
        if self.rungs[place].rate / MARGIN <= rate < above * MARGIN:
            return place
        return max(n for n, rung in enumerate(self.rungs) if rung.rate <= rate)

    def _decide(self, rung: int, why: str, place: int) -> None:
        if rung != place and (self._decided is None or self._decided[0] != rung):
            self._decided = rung, why
        elif rung == place:
            self._decided = None

    def _switch(self, place: int, gathered: frozenset[str], now: float) -> list[Any]:
        """Put what was decided in force, if its frames will be computed."""
        if self._decided is None:
            return []
        rung, why = self._decided
        plan = self.rungs[rung].plan
        if plan not in gathered or not any(view.serves(plan, now) for view in self.books.workers.values()):
            return []
        self.books.plan, self.why, self.since, self._decided = plan, why, now, None
        self._says, self._in_a_row = None, 0
        self.switches += 1
        return [PlanInForce(plan, f"{why}; switch {self.switches} by link")]

    def _probe_at(self, view: WorkerView) -> float:
        meter = view.meter
        doubt = meter.rate > 0 and self._says not in (None, self.place) and self._in_a_row < IN_A_ROW
        pause = EVERY * max(1.0, SMALL / (PROBE * self.rungs[1].rate))
        return float("-inf") if doubt else max(meter.at, self._probed_at) + pause

    def _probe(self, view: WorkerView, now: float) -> list[Any]:
        meter, place = view.meter, self.place
        if place is None or meter.awaits or now < (at := self._probe_at(view)):
            return []
        rate = self.rungs[max(1, place)].rate
        if at == float("-inf") and meter.rate:
            rate = min(meter.rate, MARGIN * self.rungs[-1].rate)
        self._in_a_row = self._in_a_row + 1 if at == float("-inf") else 0
        self._probed_at, size = now, round(min(MOST, max(SMALL, PROBE * rate)))
        sent = []
        for bytes_in in (0, size):
            meter.sent(view.next_number, bytes_in, now)
            sent.append(SendProbe(view.name, view.state.session, view.next_number, bytes_in))
            view.next_number += 1
        return sent


def megabits(rate: float) -> str:
    """Bytes/s as people say them."""
    return f"{8e-6 * rate:.3g} Mbit/s"
