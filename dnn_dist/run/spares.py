# SPDX-License-Identifier: Apache-2.0
"""When redundancy goes out: parities of coded stages, and second copies of pieces.

With `redundancy: always` all of it goes out when its stage begins. With `demand` a stage begins with as many pieces as
suffice, one copy each. A piece is *late* once it has been away for a quarter longer than all but the share `risk` of
that stage's pieces of late. When fewer pieces are expected in time than a stage lacks, spares go to whoever is idle:
  parities that are held back;
  then a second copy of what is late, where the plan has replicas, or is coded and has no parity left.
A stage that begins when there is no time for a second try, or of which nothing is known yet, begins with its parities.
Chains are mended otherwise (run/chains.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dnn_dist.run.notes import Note
from dnn_dist.run.shape import StageShape
from dnn_dist.run.stagetimes import StageTimes
from dnn_dist.run.tasks import Books, OpenFrame, Task

HISTORY = 256
"""Pieces of a stage that are remembered."""
MARGIN = 1.25
"""Where all pieces take about the same, some are later than the others, and none is late."""


class Spares:
    """See the module."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._times = StageTimes(HISTORY)  # from a piece's work being sent until it is done

    def done(self, frame: OpenFrame, task: Task, now: float) -> None:
        """A piece is done, or its stage is without it: it took so long, or longer."""
        if task.leases and _has_spares(self._books.plans[frame.plan].stages[task.key.stage]):
            first = min(lease.sent_at for lease in task.leases.values())
            self._times.note(frame.plan, task.key.stage, now - first)

    def keep(self, plans: Collection[str]) -> None:
        """Forget what is known of other plans."""
        self._times.keep(plans)

    def copies(self, frame: OpenFrame, stage: int, piece: int, now: float) -> int:
        """How many leases a piece's task wants when its stage begins."""
        shape, usual = self._books.plans[frame.plan].stages[stage], self._usual(frame, stage)
        if self._books.settings.redundancy == "always" or shape.chained:
            return shape.replicas
        hurried = not usual or now + 2 * usual > frame.deadline
        return 1 if piece < shape.enough or hurried else 0

    def call(self, now: float) -> list[Note]:
        """Have spares computed for what is late."""
        notes = []
        for frame, stage, tasks in self._open():
            usual, shape = self._usual(frame, stage), self._books.plans[frame.plan].stages[stage]
            coming = sum(_on_time(task, usual, now) for task in tasks)
            done = len(shape.pieces) - len(tasks)
            for task in _spares(tasks, max(2, shape.replicas))[: max(0, shape.enough - done - coming)]:
                task.copies += 1
                self._books.queue.append(task.key)
                notes.append(Note("spare called", f"task {task.key}: others of its stage are late", warn=False))
        return notes

    def due(self, now: float) -> float:
        """When the next piece will be late that is not yet, s."""
        ends = [
            end
            for frame, stage, tasks in self._open()
            for task in tasks
            for lease in task.leases.values()
            if (end := lease.sent_at + self._usual(frame, stage)) > now
        ]
        return min(ends, default=float("inf"))

    def _usual(self, frame: OpenFrame, stage: int) -> float:
        return MARGIN * self._times.quantile(frame.plan, stage, 1.0 - self._books.settings.risk)

    def _open(self) -> Iterator[tuple[OpenFrame, int, list[Task]]]:
        """Stages that spares may help, with their tasks that are not done."""
        if self._books.settings.redundancy == "always":
            return
        for frame in self._books.frames.values():
            if not frame.tasks:
                continue
            stage = frame.begun - 1
            if _has_spares(self._books.plans[frame.plan].stages[stage]):
                yield frame, stage, [task for task in frame.tasks.values() if task.key.stage == stage]


def _has_spares(stage: StageShape) -> bool:
    return not stage.chained and (stage.coded or stage.replicas > 1)


def _on_time(task: Task, usual: float, now: float) -> bool:
    """Whether a task is still expected as soon as others of its stage were; one that waits for a worker is, too."""
    return task.copies > len(task.leases) or any(now < lease.sent_at + usual for lease in task.leases.values())


def _spares(tasks: list[Task], most: int) -> list[Task]:
    """Tasks that could do with a lease more, in the order in which they should have it: parities, then the oldest."""
    held = [task for task in tasks if not task.copies]
    late = [task for task in tasks if 0 < task.copies < most and not task.wanting and not task.given_up]
    return held + sorted(late, key=lambda task: min(lease.sent_at for lease in task.leases.values()))
