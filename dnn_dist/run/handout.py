# SPDX-License-Identifier: Apache-2.0
"""Who is given the tasks that wait.

Stealing: workers offer room and are given the task at the head of the queue, as `choose` in run/assignment.py says.
Sharing: pieces belong to workers by a fixed division of the stage; workers that fall out lose theirs to the others.
Where pieces are too large to be ready everywhere, those who had a piece before get it again; others, who would have
to read its weights first, when none of those can take it or the task has waited `lease_min`.
Chains are placed as a whole, see run/chains.py.
The bytes on the way, work and results expected, stay within `window`, but one task may always travel.
"""

from __future__ import annotations

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
    owned = any(books.task(key).owner for key in books.queue)
    offering = {view.name: room for view in books.workers.values() if (room := view.room_for(books.source)) > 0}
    rooms = sum(offering.values())
    if owned:
        rooms = len(books.queue) * len(books.workers)  # who owns a task gets it without having offered room
    if rooms <= 0:
        return given
    in_flight = books.in_flight()
    able_of: dict[str, list[WorkerView]] = {}  # plan -> workers
    for key in list(books.queue):
        frame = books.frames[key.frame]
        task, piece = frame.tasks[key], books.piece(key)
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
                having = [view for view in candidates if view.has_ready(frame.plan, key.stage, key.piece)]
                if ready or not _worth_reading(books, task, having, now):
                    candidates = having
            view = choose(key, frame.plan, candidates, task.leases.keys(), task.failed_at, task.owner)
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


def _worth_reading(books: Books, task: Task, having: list[WorkerView], now: float) -> bool:
    """True when a task should not wait for those who have its piece ready: none can take it, or not for long."""
    waited = now - task.ready_at >= books.settings.lease_min
    return waited or all(view.name in task.leases or view.name in task.failed_at for view in having)


def _surplus(books: Books, key: TaskKey) -> bool:
    """True when as many pieces of a coded stage as suffice are out or done: one more is worth a worker that has
    none of them, but must not keep one that has from the next stage.
    """
    stage, tasks = books.stage(key), books.frames[key.frame].tasks
    if not stage.coded or tasks[key].copies != 1:
        return False
    waiting = sum(other.stage == key.stage and not task.leases for other, task in tasks.items())
    return len(stage.pieces) - waiting >= stage.enough
