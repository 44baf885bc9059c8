# SPDX-License-Identifier: Apache-2.0
"""Chains of a source: stages joined by direct boundaries are placed as a whole, and repaired piece by piece.

All works of a chain go out at once: those of its first pieces with their tensors, the others almost empty. Each says
where its feeds go. A chain that the window does not take waits, and holds nothing meanwhile.
A piece that was computed is kept by its worker until the chain is settled. What a lost worker had is computed anew as
far as somebody still needs it: its feeds are sent again by those who keep them, or come of pieces that are computed
anew themselves, back to the chain's own inputs, which the source keeps.
A piece whose feeds do not come although all who give them have answered is fed once more; then it goes elsewhere.
A tile can do without strips of its neighbours (cut/reuse.py): nothing is computed anew for them. Where they do not
come, or a neighbour was lost that nobody computes again since its result is there, the tile is computed in full.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from dnn_dist.cut.feeds import Maker, lenders
from dnn_dist.plan.policy import columns, window_takes
from dnn_dist.run.crew import Columns, crew_of, travelling
from dnn_dist.run.events import SendScatter, SendWork
from dnn_dist.run.fleetview import WorkerView
from dnn_dist.run.lease import Lease, LeaseState
from dnn_dist.run.lineage import needed
from dnn_dist.run.sending import awaited, send, send_again, send_alone, send_aside
from dnn_dist.run.shape import PlanShape
from dnn_dist.run.tasks import Books, Task
from dnn_dist.run.values import Route
from dnn_dist.run.wire import TaskKey

Tasks = dict[Maker, Task]

MEASURE = 5.0
"""Seconds after which a worker that was slow is given a piece again, which nobody waits for."""
FEEDING = 3.0
"""Feeds are waited for so many times as long as those before took."""


class Chains:
    """See the module."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._columns: dict[tuple[str, int], tuple[Columns, int]] = {}  # (plan, first stage) -> with bytes on the way
        self._feeding: dict[tuple[str, int], float] = {}  # (plan, stage) -> s that feeds took of late, and waiting
        self._crews: dict[tuple[str, int], tuple[str, ...]] = {}  # -> the worker of each column

    def takes(self, plan: str, stage: int, in_flight: int) -> bool:
        """Whether the window takes the chain that begins with this stage, beside so many bytes."""
        return window_takes(self._known(plan, stage)[1], in_flight, self._books.settings.window)

    def place(self, able: dict[str, list[WorkerView]], now: float) -> list[SendWork]:
        """Give out the queued pieces of chains. `able`: plan -> workers that serve it."""
        books = self._books
        sent: list[SendWork] = []
        for number, stage in dict.fromkeys((key.frame, self._first(key)) for key in books.queue if books.chained(key)):
            sent += self._place(number, stage, able, now)
        return sent

    def _first(self, key: TaskKey) -> int:
        return self._books.shape(key).chain(key.stage).start

    def _place(self, number: int, first: int, able: dict[str, list[WorkerView]], now: float) -> list[SendWork]:
        books = self._books
        frame = books.frames[number]
        shape = books.plans[frame.plan]
        chain = shape.chain(first)
        tasks = {maker: task for maker, task in frame.tasks.items() if maker[0] in chain}
        at = self._at(tasks)
        in_flight = books.in_flight()
        if not at and not self.takes(frame.plan, first, in_flight):
            return []
        placed = self._places(frame.plan, first, _lost(shape, tasks), tasks, able[frame.plan])
        if placed is None:
            return []
        books.queue[:] = [key for key in books.queue if key.frame != number or (key.stage, key.piece) not in tasks]
        at.update(placed)
        sent = []
        for maker in _in_turn(placed):
            piece, view = shape.stages[maker[0]].pieces[maker[1]], placed[maker]
            tasks[maker].alone |= not lenders(maker, piece.feeds) <= at.keys()
            sent.append(send(books, view, tasks[maker], now, in_flight, _routes(piece.takers, at)))
            in_flight += piece.bytes_in + piece.bytes_out
        for maker, view in at.items():
            takers = shape.stages[maker[0]].pieces[maker[1]].takers
            if maker not in placed and (moved := [taker for taker in takers if taker in placed]):
                sent.append(send_again(books, view, tasks[maker].key, now, _routes(moved, at)))
        for maker in placed:
            self._note_fed(shape, tasks, maker, now)
        for view in able[frame.plan] if len(placed) == len(tasks) else ():
            if self._to_be_measured(view, frame.plan, first, placed, now):
                sent.append(send_aside(books, view, tasks[first, 0].key, now))
        return sent

    def _at(self, tasks: Tasks) -> dict[Maker, WorkerView]:
        """Who has these pieces."""
        return {maker: self._books.workers[name] for maker, task in tasks.items() for name in task.leases}

    def _to_be_measured(
        self, view: WorkerView, plan: str, first: int, placed: dict[Maker, WorkerView], now: float
    ) -> bool:
        """Whether a worker that gets nothing since it was slow should show whether it still is."""
        if view in placed.values() or view.load or now < view.measured_at + MEASURE:
            return False
        fastest = max(one.state.speed_of(plan, first) for one in placed.values())
        return 0 < view.state.speed_of(plan, first) < fastest / 2

    def _places(
        self, plan: str, first: int, needed: list[Maker], tasks: Tasks, able: list[WorkerView]
    ) -> dict[Maker, WorkerView] | None:
        """Where these pieces go, in order of their stages; None: there is nobody."""
        books = self._books
        places, crew = self._crew(plan, first, able)
        if not crew:
            return None
        placed: dict[Maker, WorkerView] = {}
        for maker in needed:
            task, name = tasks[maker], crew[places[maker]]
            if name in task.failed_at:
                others = [other for other in dict.fromkeys(crew) if other not in task.failed_at]
                name = min(others or self._outside(crew, able, task), key=lambda n: books.workers[n].load, default=name)
            placed[maker] = books.workers[name]
        return placed

    def _outside(self, crew: tuple[str, ...], able: list[WorkerView], task: Task) -> list[str]:
        """Whom else a piece may go to, of a crew that all lost it: the source's own robot, then others."""
        names = [view.name for view in able if view.name not in task.failed_at and view.state.peers.issuperset(crew)]
        own = [name for name in names if self._books.at_home(self._books.workers[name])]
        return own or names

    def _crew(self, plan: str, first: int, able: list[WorkerView]) -> tuple[Columns, tuple[str, ...]]:
        books, which = self._books, (plan, first)
        places, _ = self._known(plan, first)
        before = self._crews.get(which, ())
        self._crews[which] = crew_of(books.plans[plan], plan, places, able, books.robot, before)
        return places, self._crews[which]

    def _known(self, plan: str, first: int) -> tuple[Columns, int]:
        """Columns of a chain, and the bytes that travel for it."""
        which = plan, first
        if which not in self._columns:
            shape = self._books.plans[plan]
            for memory in (self._columns, self._crews, self._feeding):
                for old in [old for old in memory if old[0] not in self._books.plans]:
                    del memory[old]
            chain = shape.chain(first)
            self._columns[which] = columns(shape.stages, chain), travelling(shape, chain)
        return self._columns[which]

    # Feeds

    def stepped(self, leases: Iterable[Lease], now: float) -> None:
        """Workers say that these pieces are computed or were: they were fed, and what they feed should have it soon."""
        for lease in leases:
            books, key = self._books, lease.key
            if lease.fed_at is not None:
                which = lease.plan, key.stage
                self._feeding[which] = max(now - lease.fed_at, 0.9 * self._feeding.get(which, 0.0))
                lease.fed_at = None
            shape = books.plans[lease.plan]
            takers = shape.stages[key.stage].pieces[key.piece].takers
            if takers and lease.state is LeaseState.ANSWERED:
                tasks = books.frames[key.frame].tasks
                for taker in takers:
                    if taker in tasks:
                        size = shape.stages[taker[0]].pieces[taker[1]].feeds[key.stage, key.piece]
                        self._note_sent(lease, tasks[taker], size, now)
                        self._note_fed(shape, tasks, taker, now)

    def _note_sent(self, maker: Lease, task: Task, size: int, now: float) -> None:
        """What was computed on the source's own robot is on its way to those elsewhere who have this task."""
        books = self._books
        own = books.at_home(books.workers[maker.worker])
        for name, lease in task.leases.items() if own else ():
            view = books.workers[name]
            came = lease.acknowledged and lease.key not in view.state.waiting
            if not (books.at_home(view) or came):
                view.meter.sent(lease.key, size, now)

    def _note_fed(self, shape: PlanShape, tasks: Tasks, taker: Maker, now: float) -> None:
        books = self._books
        feeds = awaited(tasks[taker], shape.stages[taker[0]].pieces[taker[1]])
        told = all(_is(tasks[maker], LeaseState.ANSWERED) for maker in feeds if maker in tasks)
        for name, lease in tasks[taker].leases.items():
            if lease.state in (LeaseState.SENT, LeaseState.ARRIVED) and (told or lease.fed_by < float("inf")):
                lease.fed_at = now if told else None
                lease.fed_by = now + self._patience(lease, now) if told else float("inf")
                books.set_due(books.workers[name], now)

    def _patience(self, lease: Lease, now: float) -> float:
        """How long feeds may be on their way, in seconds: several times what those of this stage took."""
        settings = self._books.settings
        known = self._feeding.get((lease.plan, lease.key.stage))
        if not lease.fed:  # what the aggregator gives comes as a work does
            return max(lease.transit, FEEDING * (known or 0.0))
        if known is None:
            known = (self._books.frames[lease.key.frame].deadline - now) / FEEDING / 4
        return max(settings.worker_timeout, settings.lifespan, FEEDING * known)

    def scatter(self, given: Iterable[SendWork], now: float) -> list[SendScatter]:
        """Have an aggregator elsewhere send what it merged to those who were given these works."""
        books = self._books
        routes: dict[int, list[Route]] = {}
        for work in given if books.apart else ():
            key = work.key
            if work.again or not books.scattered(key):
                continue
            maker = key.stage, key.piece
            routes.setdefault(key.frame, []).append(Route(*maker, work.worker, work.worker_session))
            if not books.chained(key):
                self._note_fed(books.shape(key), {maker: books.task(key)}, maker, now)
        return [SendScatter(number, books.frames[number].plan, tuple(found)) for number, found in routes.items()]

    def feed_again(self, now: float) -> list[SendWork | SendScatter]:
        """Have those tasks fed again whose feeds should long have come."""
        books = self._books
        sent: list[SendWork | SendScatter] = []
        for key in books.unfed:
            frame = books.frames.get(key.frame)
            taker = key.stage, key.piece
            if frame is None or taker not in frame.tasks:
                continue
            tasks = frame.tasks
            at = self._at(tasks)
            lent = lenders(taker, books.piece(key).feeds)
            if lent and taker in at:
                sent.append(send_alone(books, at[taker], tasks[taker], now))
            for maker in books.piece(key).feeds:
                if maker in at and taker in at and maker not in lent:
                    sent.append(send_again(books, at[maker], tasks[maker].key, now, _routes([taker], at)))
            if books.scattered(key):
                routes = (Route(*taker, name, lease.session) for name, lease in tasks[taker].leases.items())
                sent.append(SendScatter(key.frame, frame.plan, tuple(routes)))
        books.unfed.clear()
        return sent

    def do_without(self, now: float) -> list[SendWork]:
        """Have those tiles computed in full that wait for strips of a neighbour which nobody computes."""
        books = self._books
        sent: list[SendWork] = []
        for key in dict.fromkeys(books.unlent):
            frame = books.frames.get(key.frame)
            taker = key.stage, key.piece
            if frame is None or taker not in frame.tasks:
                continue
            tasks = frame.tasks
            at = self._at(tasks)
            if taker in at and not tasks[taker].alone and not lenders(taker, books.piece(key).feeds) <= at.keys():
                sent.append(send_alone(books, at[taker], tasks[taker], now))
                self._note_fed(books.shape(key), tasks, taker, now)
        books.unlent.clear()
        return sent


def _in_turn(placed: Mapping[Maker, WorkerView]) -> list[Maker]:
    """In order of stages; of one stage each worker's first piece, then each one's second, and so on."""
    had: Counter[tuple[int, str]] = Counter()
    turns: dict[Maker, int] = {}
    for maker, view in placed.items():
        turns[maker] = had[maker[0], view.name]
        had[maker[0], view.name] += 1
    return sorted(placed, key=lambda maker: (maker[0], turns[maker], maker[1]))


def _routes(takers: Iterable[Maker], at: dict[Maker, WorkerView]) -> tuple[Route, ...]:
    return tuple(Route(*taker, at[taker].name, at[taker].state.session) for taker in takers if taker in at)


def _is(task: Task, state: LeaseState) -> bool:
    return any(lease.state is state for lease in task.leases.values())


def _lost(shape: PlanShape, tasks: Tasks) -> list[Maker]:
    """Pieces that nobody has and somebody needs, in order: the aggregator, or a piece that is computed of them.

    Nobody needs anything for a piece that was given up.
    """
    tasks = {maker: task for maker, task in tasks.items() if not task.given_up}
    have = {maker for maker, task in tasks.items() if _is(task, LeaseState.ANSWERED) or _is(task, LeaseState.RUNNING)}
    wanted = {
        maker
        for maker, task in tasks.items()
        if task.leases or (shape.stages[maker[0]].reports and not task.reported)
    }

    def feeds(maker: Maker) -> Iterable[Maker]:
        feeds = shape.stages[maker[0]].pieces[maker[1]].feeds if maker in tasks else ()
        return frozenset(feeds) - lenders(maker, feeds)

    return [maker for maker in needed(feeds, have, wanted) if maker in tasks and tasks[maker].wanting]
