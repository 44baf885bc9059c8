# SPDX-License-Identifier: Apache-2.0
"""A task is given to a worker, which has a right to it from then on; or a worker is told where else feeds go."""

from __future__ import annotations

from dnn_dist.cut.feeds import Maker, lenders
from dnn_dist.run.events import SendWork
from dnn_dist.run.fleetview import WorkerView
from dnn_dist.run.lease import Lease
from dnn_dist.run.shape import PieceShape
from dnn_dist.run.tasks import Books, Task
from dnn_dist.run.values import Route
from dnn_dist.run.wire import TaskKey


def send(
    books: Books, view: WorkerView, task: Task, now: float, in_flight: int, routes: tuple[Route, ...] = ()
) -> SendWork:
    """Lease a task to a worker. `in_flight`: bytes on the way without it."""
    key, frame, settings = task.key, books.frames[task.key.frame], books.settings
    piece = books.piece(key)
    frame.served.setdefault(key.stage, set()).add(view.name)
    # A second copy is no second try: it counts as one only where the first was lost or is overdue.
    attempt = task.attempt + (len(task.leases) if books.stage(key).replicas == 1 else 0)
    ahead = in_flight + piece.bytes_in + piece.bytes_out
    lease = Lease(
        key,
        frame.plan,
        view.name,
        view.state.session,
        view.next_number,
        attempt,
        now,
        piece.alone if task.alone else piece.macs,
        piece.bytes_in,
        piece.bytes_out,
        ahead,
        view.pace.patience(
            ahead, settings.transit, settings.lifespan, unknown=max(settings.transit, settings.worker_timeout)
        ),
        since=now,
        story=task.story,
        fed=bool(awaited(task, piece)),
        lacks=books.scattered(key),
        kept=bool(piece.takers) and not books.stage(key).reports,
    )
    if not books.at_home(view):
        view.meter.sent(lease.number, piece.bytes_in - (piece.merged if books.apart else 0), now)
    view.next_number += 1
    view.note_given(frame.plan, key.stage, books.stage(key).form(key.piece), lease.number)
    view.leases[key] = task.leases[view.name] = lease
    view.due = min(view.due, lease.end(view.state, settings))
    books.due = min(books.due, view.due)
    left = frame.deadline - now
    return SendWork(
        view.name, lease.session, key, frame.plan, lease.number, attempt, left, routes, alone=task.alone
    )


def awaited(task: Task, piece: PieceShape) -> frozenset[Maker]:
    """Who has to give a task something before it can be computed."""
    given = lenders((task.key.stage, task.key.piece), piece.feeds) if task.alone else frozenset[Maker]()
    return frozenset(piece.feeds) - given


def send_again(books: Books, view: WorkerView, key: TaskKey, now: float, routes: tuple[Route, ...]) -> SendWork:
    """Tell a worker that has a task, computed or not, where some of its feeds go now."""
    return _unleased(books, view, key, now, routes, again=True)


def send_alone(books: Books, view: WorkerView, task: Task, now: float) -> SendWork:
    """Have a worker compute a tile in full, of which it lacks strips."""
    task.alone = True
    lease, piece = task.leases[view.name], books.piece(task.key)
    lease.macs, lease.fed = piece.alone, bool(awaited(task, piece))
    return _unleased(books, view, task.key, now, (), again=True)


def send_aside(books: Books, view: WorkerView, key: TaskKey, now: float) -> SendWork:
    """Have a worker compute a task that another one was given: only its speed is of interest."""
    view.measured_at = now
    return _unleased(books, view, key, now, (), again=False)


def _unleased(
    books: Books, view: WorkerView, key: TaskKey, now: float, routes: tuple[Route, ...], again: bool
) -> SendWork:
    frame, number, attempt = books.frames[key.frame], view.next_number, books.task(key).attempt
    view.next_number += 1
    left = frame.deadline - now
    alone = books.task(key).alone
    return SendWork(view.name, view.state.session, key, frame.plan, number, attempt, left, routes, again, alone)
