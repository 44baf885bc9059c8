# SPDX-License-Identifier: Apache-2.0
"""What a dispatcher keeps: plans, open frames with their tasks, the queue, and its workers. The rules over it are in
run/dispatcher.py, run/leases.py and run/handout.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dnn_dist.cut.feeds import Maker
from dnn_dist.plan.policy import window_takes
from dnn_dist.run.fleetview import WorkerView
from dnn_dist.run.lease import Lease, LeaseState, Story
from dnn_dist.run.shape import PieceShape, PlanShape, StageShape
from dnn_dist.run.wire import TaskKey
from dnn_dist.settings import PartitionSettings


@dataclass(frozen=True)
class DispatcherSettings(PartitionSettings):
    """The parameters of a partition, and what is no parameter. Durations in seconds. All may change while running."""

    shares: tuple[tuple[str, float], ...] = ()  # sharing: (worker, weight); empty: by measured speeds, at first equal
    heartbeat: float = 0.2  # longest gap between two source states
    plan_again: float = 1.0  # shortest gap between two tellings of a plan to workers that lack it
    switch_within: float = 30.0  # after this a new plan comes into force with those that are ready, or not at all
    max_orphans: int = 1000  # frames of former sessions that are counted

    @property
    def stealing(self) -> bool:
        """Whether workers pull tasks; else pieces belong to workers by a fixed division."""
        return self.mode == "stealing"


@dataclass(slots=True)
class OpenFrame:
    """A frame that is not closed."""

    plan: str
    deadline: float  # s
    tasks: dict[Maker, Task] = field(default_factory=dict)  # of stage and piece; not done
    begun: int = 0  # the tasks of stages below were queued
    served: dict[int, set[str]] = field(default_factory=dict)  # stage -> workers that were given a piece of it


@dataclass(slots=True)
class Task:
    """One piece for one frame, not done."""

    key: TaskKey
    ready_at: float  # s; when its stage's inputs were at hand
    copies: int = 1  # leases wanted at once
    attempt: int = 0  # leases that were lost
    leases: dict[str, Lease] = field(default_factory=dict)  # worker -> its lease
    failed_at: set[str] = field(default_factory=set)  # workers whose lease on it was lost
    given_up: bool = False  # after too many of them
    reported: bool = False  # the aggregator has its result, others may still need something of it
    alone: bool = False  # it is computed without strips of its neighbours
    owner: str = ""  # sharing: the worker that it belongs to
    story: Story = field(default_factory=Story)

    @property
    def wanting(self) -> bool:
        """True when the task should be with more workers than it is."""
        return len(self.leases) < self.copies


@dataclass(slots=True)
class Books:
    """See the module."""

    source: str
    robot: str
    session: int
    settings: DispatcherSettings
    workers: dict[str, WorkerView] = field(default_factory=dict)
    frames: dict[int, OpenFrame] = field(default_factory=dict)  # ascending
    queue: list[TaskKey] = field(default_factory=list)  # tasks that want a worker, in the order in which they go out
    plans: dict[str, PlanShape] = field(default_factory=dict)
    plan: str = ""  # for new frames
    due: float = float("-inf")  # s; until then nothing that workers owe us is overdue
    unfed: list[TaskKey] = field(default_factory=list)  # tasks of chains that lack feeds for too long
    unlent: list[TaskKey] = field(default_factory=list)  # tiles of which a neighbour was lost that lends them strips
    apart: bool = False  # the aggregator is another process, which has what was merged
    met: frozenset[str] = frozenset()  # workers that it can send that to
    some_on_demand: bool = False  # a worker was heard that makes pieces ready when it is first given them

    def shape(self, key: TaskKey) -> PlanShape:
        """The plan of an open frame's task."""
        return self.plans[self.frames[key.frame].plan]

    def chained(self, key: TaskKey) -> bool:
        """Whether the piece of an open frame's task gets something of others, or gives it to them."""
        return self.stage(key).chained

    def stage(self, key: TaskKey) -> StageShape:
        """The stage of an open frame's task."""
        return self.shape(key).stages[key.stage]

    def piece(self, key: TaskKey) -> PieceShape:
        """The piece of an open frame's task."""
        return self.stage(key).pieces[key.piece]

    def scattered(self, key: TaskKey) -> bool:
        """Whether the piece of an open frame's task gets something from an aggregator elsewhere."""
        return self.apart and self.piece(key).merged > 0

    def task(self, key: TaskKey) -> Task:
        """An open frame's task that is not done."""
        return self.frames[key.frame].tasks[key.stage, key.piece]

    def at_home(self, view: WorkerView) -> bool:
        """Whether a worker is on the source's own robot."""
        return view.state.robot == self.robot

    def in_flight(self) -> int:
        """Bytes of work on the way, given up or not, plus results expected."""
        return sum(view.bytes_in_flight for view in self.workers.values() if view.leases or view.strays)

    def window_takes(self, piece: PieceShape, in_flight: int) -> bool:
        """Whether a piece may travel beside so many bytes; one task always may."""
        return window_takes(piece.bytes_in + piece.bytes_out, in_flight, self.settings.window)

    def set_due(self, view: WorkerView, now: float) -> None:
        """A worker's leases have changed, or what is known of it."""
        view.set_due(now, self.settings)
        if view.due < self.due:
            self.due = view.due

    def forget(self, frame: OpenFrame, task: Task, why: LeaseState, now: float) -> None:
        """Nothing more is wanted of a task."""
        key = task.key
        del frame.tasks[key.stage, key.piece]
        for worker, lease in task.leases.items():
            view = self.workers[worker]
            view.let_go(lease, why, now)
            self.set_due(view, now)
        if key in self.queue:
            self.queue.remove(key)

    def close(self, number: int, now: float) -> None:
        """Nothing more is wanted of a frame."""
        frame = self.frames[number]
        for task in list(frame.tasks.values()):
            self.forget(frame, task, LeaseState.REVOKED, now)
        del self.frames[number]
