# SPDX-License-Identifier: Apache-2.0
"""Who is given the tasks that wait.

Stealing: workers offer room and are given the task at the head of the queue, as `choose` in run/assignment.py says.
Sharing: pieces belong to workers by a fixed division of the stage; workers that fall out lose theirs to the others.
Where pieces are too large to be ready everywhere, the workers that have a piece's form ready, its *homes*, get it.
Pieces with few homes go first, so that the last ones can go to whoever is done early. A worker that would have to read
the weights first gets a piece when no home takes it, or would do so much later (`worth_reading` in plan/policy.py).
Chains are placed as a whole, see run/chains.py.
The bytes on the way, work and results expected, stay within `window`, but one task may always travel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from dnn_dist.plan.policy import worth_reading
from dnn_dist.run.assignment import choose
from dnn_dist.run.events import SendWork
from dnn_dist.run.fleetview import WorkerView
from dnn_dist.run.sending import send
from dnn_dist.run.tasks import Books, Task
from dnn_dist.run.wire import TaskKey


def hand_out(books: Books, now: float) -> list[SendWork]:
    """Give queued tasks to workers that have the piece ready, then to those that must read its weights first."""
    given = _hand_out(books, now, ready=True)
    return given + _hand_out(books, now, ready=False) if books.some_on_demand else given


def able(books: Books, plan: str, now: float) -> list[WorkerView]:
    """Workers to which work of this plan may be sent; an aggregator elsewhere must have met those whom it feeds."""
    found = [view for view in books.workers.values() if view.serves(plan, now)]
    if books.apart and books.plans[plan].scattered:
        found = [view for view in found if view.name in books.met]
    return found


def _hand_out(books: Books, now: float, ready: bool) -> list[SendWork]:
    given: list[SendWork] = []
    owned = not books.settings.stealing and any(books.task(key).owner for key in books.queue)
    offering = {view.name: room for view in books.workers.values() if (room := view.room_for(books.source)) > 0}
    rooms = sum(offering.values())
    if owned:
        rooms = len(books.queue) * len(books.workers)  # who owns a task gets it without having offered room
    if rooms <= 0:
        return given
    in_flight = books.in_flight()
    able_of: dict[str, list[WorkerView]] = {}  # plan -> workers
    left: Counter[str] = Counter()  # worker -> pieces that wait for it, each divided among its homes
    for key in _in_order(books, ready):
        frame = books.frames[key.frame]
        task, piece = books.task(key), books.piece(key)
        if books.chained(key):
            continue
        while task.wanting and rooms > 0:
            if not books.window_takes(piece, in_flight):
                return given
            if frame.plan not in able_of:
                able_of[frame.plan] = able(books, frame.plan, now)
            candidates = able_of[frame.plan]
            if not (owned or task.failed_at):  # a task that failed may wait for somebody else's room
                candidates = [view for view in candidates if view.name in offering]
            if _surplus(books, key):
                candidates = [view for view in candidates if view.name not in frame.served.get(key.stage, ())]
            if books.some_on_demand:
                homes = _homes(books, task, able_of[frame.plan])
                elsewhere = [] if ready else _readers(books, task, homes, candidates, left)
                candidates = elsewhere or [view for view in candidates if view in homes]
                left.update({view.name: 1 / len(homes) for view in homes} if not candidates else {})
            view = choose(key, frame.plan, candidates, offering.keys(), task.leases.keys(), task.failed_at, task.owner)
            if view is None:
                break
            given.append(send(books, view, task, now, in_flight))
            in_flight += piece.bytes_in + piece.bytes_out
            rooms -= 1
            if view.room_for(books.source) <= 0:
                offering.pop(view.name, None)
        if not task.wanting:
            books.queue.remove(key)
        if rooms <= 0:
            break
    return given


def _in_order(books: Books, ready: bool) -> list[TaskKey]:
    """The queue; of each stage those first that fewest workers have ready."""
    if not (books.some_on_demand and ready):
        return list(books.queue)
    counts = {key: len(_homes(books, books.task(key), books.workers.values())) for key in books.queue}
    return sorted(books.queue, key=lambda key: (key.frame, key.stage, counts[key]))


def _homes(books: Books, task: Task, able: Iterable[WorkerView]) -> list[WorkerView]:
    """Workers that have a task's form ready and take it now, or when they have computed what they have of ours."""
    plan, key = books.frames[task.key.frame].plan, task.key
    form = books.stage(key).form(key.piece)
    return [
        view
        for view in able
        if view.has_ready(plan, key.stage, form)
        and not _tried(task, view)
        and (view.leases or view.room_for(books.source) > 0)
    ]


def _tried(task: Task, view: WorkerView) -> bool:
    """Whether a worker has a lease on a task, or had one and lost it."""
    return view.name in task.leases or view.name in task.failed_at


def _readers(
    books: Books, task: Task, homes: Sequence[WorkerView], candidates: Sequence[WorkerView], left: Mapping[str, float]
) -> list[WorkerView]:
    """Of the candidates those that should read a task's weights, of these those that have fewest forms."""
    plan, stage = books.frames[task.key.frame].plan, task.key.stage
    loads = [(view.load, view.state.speed_of(plan, stage)) for view in homes]
    waiting = sum(left[view.name] for view in homes)
    found = [
        view
        for view in candidates
        if view not in homes
        and (not homes or worth_reading(waiting, loads, (view.load, view.state.speed_of(plan, stage))))
    ]
    fewest = min((len(view.given) for view in found), default=0)
    return [view for view in found if len(view.given) == fewest]


def _surplus(books: Books, key: TaskKey) -> bool:
    """True when as many pieces of a coded stage as suffice are out or done: one more is worth a worker that has
    none of them, but must not keep one that has from the next stage.
    """
    stage, tasks = books.stage(key), books.frames[key.frame].tasks
    if not stage.coded or books.task(key).copies != 1:
        return False
    waiting = sum(task.key.stage == key.stage and not task.leases for task in tasks.values())
    return len(stage.pieces) - waiting >= stage.enough
