# SPDX-License-Identifier: Apache-2.0
"""A worker's right to a task, and the story of that task.

A lease's state is one word. States may be skipped, for messages get lost:

    sent -> arrived -> running -> answered        and from each of these: done | lost | revoked

`lost` by the rules of run/leases.py, `done` when the aggregator has what it wants, `revoked` when the frame is closed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from dnn_dist.run.state import WorkerState
from dnn_dist.run.wire import TaskKey
from dnn_dist.settings import PartitionSettings


class LeaseState(Enum):
    """See the module."""

    SENT = "sent"  # the worker has not said that it has seen the work
    ARRIVED = "arrived"  # it has
    RUNNING = "running"  # the task heads the worker's list
    ANSWERED = "answered"  # the worker says that it has answered
    DONE = "done"
    LOST = "lost"
    REVOKED = "revoked"

    __hash__ = object.__hash__  # that of Enum is a function of Python


_ENDS = frozenset({LeaseState.DONE, LeaseState.LOST, LeaseState.REVOKED})
TRANSITIONS: dict[LeaseState, frozenset[LeaseState]] = {
    LeaseState.SENT: _ENDS | {LeaseState.ARRIVED, LeaseState.RUNNING, LeaseState.ANSWERED},
    LeaseState.ARRIVED: _ENDS | {LeaseState.RUNNING, LeaseState.ANSWERED},
    LeaseState.RUNNING: _ENDS | {LeaseState.ANSWERED},
    LeaseState.ANSWERED: _ENDS,
    **dict.fromkeys(_ENDS, frozenset[LeaseState]()),
}


class Story:
    """What happened to one task at this source, the newest entries: for the error that should never come."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: deque[tuple[float, str, str]] = deque(maxlen=16)  # (s, worker, state)

    def add(self, at: float, worker: str, state: LeaseState) -> None:
        """A lease of this task came into a state."""
        self._entries.append((at, worker, state.value))

    def __str__(self) -> str:
        return ", ".join(f"{at:.3f} {worker} {state}" for at, worker, state in self._entries)


class ImpossibleTransition(RuntimeError):
    """A lease was to take a step that the table does not have: a fault of ours."""


READING = 4.0
"""A worker that reads weights may be silent for so many times `worker_timeout`. While the runtime packs them nothing
else of the process runs: 0.1 s for 87 MB on a fast core, 0.5 s where four workers share two.
"""


def silence(state: WorkerState, settings: PartitionSettings) -> float:
    """How long a worker in this state may say nothing, in seconds."""
    return settings.worker_timeout * (READING if state.preparing else 1.0)


@dataclass(slots=True)
class Lease:
    """A worker's right to a task until a time; when it ends the task goes to another."""

    key: TaskKey
    plan: str
    worker: str
    session: int  # the worker's, when the work was sent
    number: int  # of this pair's work
    attempt: int  # 0 for the first try of the task
    sent_at: float  # s
    macs: int
    bytes_in: int
    bytes_out: int
    ahead: int = 0  # bytes on the way when it was sent, its own included
    transit: float = 0.1  # s; how long its work, and later its answer, is waited for
    state: LeaseState = LeaseState.SENT
    since: float = 0.0  # s; when it came into this state, or when its clock began anew
    story: Story = field(default_factory=Story)  # of the task, shared by its leases
    kept: bool = False  # what was computed stays with the worker: no answer of it will come
    fed: bool = False  # other pieces give it something
    lacks: bool = False  # what the aggregator gives it is not there yet
    fed_at: float | None = None  # s; when all who give it something had answered
    fed_by: float = float("inf")  # s; by then its feeds should have come
    fed_again: bool = False  # they were asked for once more

    def step(self, state: LeaseState, now: float) -> None:
        """Come into another state. ImpossibleTransition, with the story, where the table has no such step."""
        if state not in TRANSITIONS[self.state]:
            raise ImpossibleTransition(f"lease of {self.key} at {self.worker!r}: {self.state} to {state}; {self.story}")
        self.state, self.since = state, now
        self.story.add(now, self.worker, state)

    @property
    def acknowledged(self) -> bool:
        """True when the worker has seen the work."""
        return self.state is not LeaseState.SENT

    @property
    def answered(self) -> bool:
        """True when the worker says that it has answered."""
        return self.state is LeaseState.ANSWERED

    @property
    def coming(self) -> bool:
        """True while the task is on its way to the worker: the work itself, or what the aggregator gives it."""
        return not self.acknowledged or (self.lacks and not self.fed)

    @property
    def bytes_in_flight(self) -> int:
        """Bytes that this task still has on the way, or will have soon: a piece that waits for feeds may take long."""
        coming = not self.fed or self.state in (LeaseState.RUNNING, LeaseState.ANSWERED)
        lacks = self.state is LeaseState.SENT or (self.lacks and self.state is LeaseState.ARRIVED)
        return (self.bytes_out if coming else 0) + (self.bytes_in if lacks else 0)

    def listed(self, state: WorkerState) -> bool:
        """True when the worker still holds the task, or says that it has answered."""
        return self.key in state.held or self.key in state.answered

    def seconds(self, state: WorkerState, settings: PartitionSettings) -> float:
        """How long the task may head the list of a worker in this state."""
        speed = state.speed_of(self.plan, self.key.stage)
        if not speed > 0:
            # How long a piece of this stage takes is not known, and what those of others took does not tell: a lease by
            # them would end before the first piece of a slow stage is done. Silence still counts.
            return float("inf")
        return max(settings.lease_min, settings.lease_factor * max(1, self.macs) / speed)

    def end(self, state: WorkerState, settings: PartitionSettings) -> float:
        """Steady time at which the lease ends if nothing more is heard of a worker in this state."""
        if self.state is LeaseState.SENT:
            return self.sent_at + max(self.transit, silence(state, settings) if state.preparing else 0.0)
        if self.state is LeaseState.ANSWERED:
            return float("inf") if self.kept else self.since + self.transit
        if self.state is LeaseState.ARRIVED and self.key in state.waiting:
            return self.fed_by
        if self.state is LeaseState.RUNNING:
            return self.since + self.seconds(state, settings)
        return float("inf")


@dataclass(frozen=True, slots=True)
class Stray:
    """A work that nobody waits for any more, and that may still be on its way."""

    number: int
    sent_at: float  # s
    bytes_in: int
    ahead: int  # as of its lease
