# SPDX-License-Identifier: Apache-2.0
"""When leases are lost, and what becomes of their tasks.

A lease is lost, and its task goes to the front of the queue and to another worker if there is one, when
  the worker restarted, or was silent for `worker_timeout`, several times that while it reads weights;
  the work was not acknowledged within its transit, or within that silence while weights are read;
  the worker has seen a work of this or a later number and neither holds nor answered the task;
  the task headed the worker's list for longer than the lease; what waits behind it goes too. While weights are read
  there, the clock stands still;
  the answer did not reach the aggregator within its transit;
  its feeds did not come, asked for twice (run/chains.py).
A work's transit is twice what acknowledgements of this worker took of late, with as many bytes on the way: at least
`transit`, at most `lifespan`, and `worker_timeout` while none has come.
A worker that is lost again and again is left out with growing back-off, never for ever. When nobody at all is heard
it is the network that was lost, and no worker is blamed.
"""

from __future__ import annotations

from dnn_dist.run.fleetview import WorkerView
from dnn_dist.run.lease import Lease, LeaseState, silence
from dnn_dist.run.notes import Note
from dnn_dist.run.tasks import Books


def end_overdue(books: Books, now: float) -> list[Note]:
    """End the leases that are lost by now; when `books.due` has come."""
    notes: list[Note] = []
    settings = books.settings
    for view in books.workers.values():
        if now < view.due:
            continue
        view.forget_strays(now, settings)
        # who left a work unacknowledged is silent already, and may have been given others before
        if (view.leases or not view.silent) and now - view.heard_at > silence(view.state, settings):
            notes += lose(books, view, f"is silent since {now - view.heard_at:.2f} s", now)
            view.silent = True
        for lease in list(view.leases.values()):
            if lease.state is LeaseState.ARRIVED and now >= lease.end(view.state, settings) and not lease.fed_again:
                lease.fed_again, lease.fed_by = True, now + (now - (lease.fed_at or now))
                books.unfed.append(lease.key)
            why = _why_lost(books, view, lease, now)
            if not why or lease.key not in view.leases:
                continue
            hangs = lease.state is LeaseState.RUNNING and lease.listed(view.state)
            unseen = not lease.acknowledged
            notes.append(end(books, view, lease, f"worker {view.name!r} {why}", now))
            if unseen:
                view.silent = True
            elif hangs:
                notes += lose(books, view, f"hangs on {lease.key}", now)
                view.silent = True
        view.set_due(now, settings)
    books.due = min((view.due for view in books.workers.values()), default=float("inf"))
    return notes


def _why_lost(books: Books, view: WorkerView, lease: Lease, now: float) -> str:
    settings = books.settings
    if lease.acknowledged and not lease.listed(view.state):
        return "neither holds nor answered it"
    if now < lease.end(view.state, settings):
        return ""
    if lease.state is LeaseState.SENT:
        return f"did not acknowledge it within {lease.transit:.2g} s"
    if lease.state is LeaseState.ANSWERED:
        return f"answered, and no result came within {lease.transit:.2g} s"
    if lease.state is LeaseState.ARRIVED:
        return "lacks what others give it"
    return f"did not finish it within {lease.seconds(view.state, settings):.3f} s"


def lose(books: Books, view: WorkerView, why: str, now: float) -> list[Note]:
    """A worker is lost: all it holds goes to others, and if that happens often it is left out for a while."""
    recent = books.settings.worker_timeout / 2
    anybody = any(now - one.heard_at <= recent for one in books.workers.values())
    seconds = view.fail(now, books.settings) if anybody else 0.0
    text = f"worker {view.name!r} {why}" + (f"; it is left out for {seconds:g} s" if seconds else "")
    ended = [end(books, view, lease, f"worker {view.name!r} {why}", now) for lease in list(view.leases.values())]
    return [Note("worker lost", text, about=view.name), *ended]


def end(books: Books, view: WorkerView, lease: Lease, why: str, now: float) -> Note:
    """A lease is lost: its task goes to another worker, unless it was given up."""
    view.let_go(lease, LeaseState.LOST, now)
    task = books.task(lease.key)
    stage = lease.key.stage
    books.unlent += [lease.key._replace(piece=n) for other, n in books.piece(lease.key).takers if other == stage]
    del task.leases[view.name]
    task.attempt += 1
    task.failed_at.add(view.name)
    task.given_up = task.attempt >= books.settings.max_attempts
    if task.given_up:
        if lease.key in books.queue:  # another copy of it was wanted
            books.queue.remove(lease.key)
        return Note("task given up", f"task {lease.key}: {why}; given up after {task.attempt} tries", about=view.name)
    if lease.key not in books.queue:
        books.queue.insert(0, lease.key)
    return Note("task sent again", f"task {lease.key}: {why}; goes to another worker", about=view.name)


def forgive(books: Books, absent: float) -> None:
    """Who was held up itself for `absent` seconds cannot tell who was silent meanwhile."""
    for view in books.workers.values():
        view.forgive(absent)
