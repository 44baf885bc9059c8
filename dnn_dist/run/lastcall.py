# SPDX-License-Identifier: Apache-2.0
"""The last moment at which the source's own robot can compute what a frame has with a server.

A link that gets much worse, and is not cut, keeps what is under way. Leases and feeds have their patience, learnt when
it was better, and a frame with a shorter deadline would end without a result. So what a server has not begun comes home
when the time that is left just suffices, and the server will not be done in time: as far as the link's rate tells, or
because something is under way to it for much longer than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from dnn_dist.run.fleetview import WorkerView
from dnn_dist.run.lease import Lease, LeaseState
from dnn_dist.run.leases import end
from dnn_dist.run.notes import Note
from dnn_dist.run.tasks import Books, OpenFrame, Task

ROOM = 1.25
"""Times what it will probably take, here or there."""
SPARE = 0.05
"""Seconds beside that, for what is no computing; and by how much a message may be late anyway."""
LATE = 1.25
"""A message is late when it takes so many times what the link's rate says."""


class _Call(NamedTuple):
    """A frame that is with a server."""

    frame: OpenFrame
    at: float  # s; the last moment
    view: WorkerView  # the server's worker
    leases: list[Lease]  # of what it has not begun


def last_calls(books: Books, now: float) -> list[Note]:
    """Have computed at home what a server will not compute in time."""
    return [
        end(books, call.view, lease, f"worker {call.view.name!r} will not be done in time", now)
        for call in _calls(books, now)
        if now >= call.at and not _in_time(books, call, now)
        for lease in call.leases
    ]


def due(books: Books, now: float) -> float:
    """When to look again, s."""
    return min((max(call.at, now + SPARE) for call in _calls(books, now)), default=float("inf"))


def _calls(books: Books, now: float) -> Iterator[_Call]:
    own = [view for view in books.workers.values() if books.at_home(view) and not view.silent]
    elsewhere = [view for view in books.workers.values() if not books.at_home(view)]
    for number, frame in books.frames.items() if own else ():
        for view in elsewhere:
            leases = [lease for key, lease in view.leases.items() if key.frame == number and _waits(books, lease)]
            if not leases:
                continue
            seconds = min(_seconds(books, frame, one, lambda task: True) for one in own)
            if now + seconds < frame.deadline:
                yield _Call(frame, frame.deadline - ROOM * seconds - SPARE, view, leases)


def _waits(books: Books, lease: Lease) -> bool:
    return lease.state in (LeaseState.SENT, LeaseState.ARRIVED) and books.stage(lease.key).side == "rest"


def _in_time(books: Books, call: _Call, now: float) -> bool:
    """Whether a server will have its part of a frame done before the deadline."""
    frame, view, meter = call.frame, call.view, call.view.meter
    if not meter.rate or meter.most(now, SPARE) < meter.rate / LATE:
        return False
    here = {
        (task.key.stage, task.key.piece)
        for task in frame.tasks.values()
        if view.name not in task.leases and not _answered(task)
    }
    feeds = [feed for lease in call.leases for feed in books.piece(lease.key).feeds.items()]
    to_send = sum(size for maker, size in feeds if maker in here)
    own = [one for one in books.workers.values() if books.at_home(one)]
    front = min(_seconds(books, frame, one, lambda task: view.name not in task.leases) for one in own)
    rest = _seconds(books, frame, view, lambda task: view.name in task.leases)
    return now + ROOM * (meter.left(now) + front + to_send / meter.rate + rest) + SPARE < frame.deadline


def _seconds(books: Books, frame: OpenFrame, view: WorkerView, which: Callable[[Task], bool]) -> float:
    """What a worker takes for those pieces that nobody has computed; inf: its speed is not known yet."""
    found = 0.0
    for task in frame.tasks.values():
        if which(task) and not _answered(task):
            speed = view.state.speed_of(frame.plan, task.key.stage) or view.state.speed
            found += books.piece(task.key).macs / speed if speed else float("inf")
    return found


def _answered(task: Task) -> bool:
    return any(lease.answered for lease in task.leases.values())
