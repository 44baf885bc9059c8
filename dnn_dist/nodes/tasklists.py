# SPDX-License-Identifier: Apache-2.0
"""A worker's tasks and speeds as they travel: numbers, by source and by plan. A message for each took most of the time
that a state takes, to pack and to unpack.
"""

from __future__ import annotations

from collections.abc import Sequence

from dnn_dist import msg
from dnn_dist.run.state import WorkerState
from dnn_dist.run.wire import TaskKey

TASKS = ("held", "waiting", "answered")
"""Lists of tasks in a worker's state."""


def tasks_messages(state: WorkerState) -> list[msg.SourceTasks]:
    """A worker's tasks by source, that of the task which is computed first."""
    found: dict[tuple[str, int], msg.SourceTasks] = {}

    def tasks_of(source: str, session: int) -> msg.SourceTasks:
        if (source, session) not in found:
            seen = state.seen.get((source, session), 0)
            found[source, session] = msg.SourceTasks(source=source, session=session, seen=seen)
        return found[source, session]

    for name in TASKS:
        for source, session, frame, stage, piece in getattr(state, name):
            getattr(tasks_of(source, session), name).append(frame << 32 | stage << 16 | piece)
    for pair in state.seen:
        tasks_of(*pair)
    return list(found.values())


def speeds_messages(state: WorkerState) -> list[msg.PlanSpeeds]:
    """A worker's speeds by plan."""
    found: dict[str, msg.PlanSpeeds] = {}
    for (plan, stage), speed in state.speeds.items():
        of_plan = found.setdefault(plan, msg.PlanSpeeds(plan=plan))
        of_plan.stages.append(stage)
        of_plan.speeds.append(speed)
    return list(found.values())


def read_tasks(tasks: Sequence[msg.SourceTasks], name: str) -> list[TaskKey]:
    """One of the lists of tasks, of all sources."""
    return [
        TaskKey(of.source, of.session, task >> 32, task >> 16 & 0xFFFF, task & 0xFFFF)
        for of in tasks
        for task in getattr(of, name)
    ]
