# SPDX-License-Identifier: Apache-2.0
"""What a dispatcher knows of each worker, from the worker's own states and from the tasks sent to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from dnn_dist.run.state import WorkerState
from dnn_dist.run.wire import TaskKey


@dataclass(slots=True)
class Lease:
    """A worker's right to a task until a time; when it ends the task goes to another."""

    key: TaskKey
    worker: str
    session: int  # the worker's, when the work was sent
    number: int  # of this pair's work
    attempt: int  # 0 for the first try of the task
    sent_at: float  # s
    bytes_in: int
    bytes_out: int
    acknowledged: bool = False  # the worker has seen the work
    heads_at: float | None = None  # s; when the task was first seen at the head of the worker's list
    answered_at: float | None = None  # s; when the worker first said that it had answered

    @property
    def bytes_in_flight(self) -> int:
        """Bytes that this task still has on the way, or will have."""
        return self.bytes_out + (0 if self.acknowledged else self.bytes_in)


@dataclass(slots=True)
class WorkerView:
    """One worker as its source sees it."""

    state: WorkerState
    heard_at: float  # s; of the newest state
    reachable: bool = False  # both ends of the pair's topics have met
    silent: bool = False  # not heard for too long, or a work went unacknowledged: gets nothing until heard again
    next_number: int = 1  # of this pair's work; goes on over the worker's restarts
    leases: dict[TaskKey, Lease] = field(default_factory=dict)  # tasks this worker has a right to, oldest first

    def hear(self, state: WorkerState, now: float) -> bool:
        """Take in a state; False when it is older than the one known, and ignored.

        A lower sequence is believed from another session only after a silence: then the robot has started anew.
        """
        older = state.sequence <= self.state.sequence
        if older and (state.session == self.state.session or not self.silent):
            return False
        self.state = state
        self.heard_at = now
        self.silent = False
        return True

    def serves(self, plan: str) -> bool:
        """True when work of this plan may be sent now."""
        return self.reachable and not self.silent and plan in self.state.plans

    def room_for(self, source: str) -> int:
        """Tasks that this worker still takes from `source`: its offer, less what it has not seen yet."""
        if self.state.offered_to != source:
            return 0
        return self.state.room - sum(not lease.acknowledged for lease in self.leases.values())

    @property
    def load(self) -> int:
        """Tasks held or on the way, those of other sources included."""
        return len(self.state.held) + sum(not lease.acknowledged for lease in self.leases.values())
