# SPDX-License-Identifier: Apache-2.0
"""What a dispatcher knows of each worker, from the worker's own states and from the tasks sent to it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from dnn_dist.run.state import WorkerState
from dnn_dist.run.wire import TaskKey


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a dispatcher waits for a worker. Seconds."""

    transit: float = 0.1  # longest that a work, or an answer, should take to be acknowledged
    worker_timeout: float = 0.5  # silence after which a worker is taken for gone
    lease_min: float = 0.1  # shortest lease
    lease_factor: float = 3.0  # lease = factor * MACs / measured speed
    backoff_min: float = 0.25  # how long a worker is left out when it fails again within `backoff_window`; doubles
    backoff_max: float = 10.0
    backoff_window: float = 30.0  # how long a failure is remembered


@dataclass(slots=True)
class Lease:
    """A worker's right to a task until a time; when it ends the task goes to another."""

    key: TaskKey
    worker: str
    session: int  # the worker's, when the work was sent
    number: int  # of this pair's work
    attempt: int  # 0 for the first try of the task
    sent_at: float  # s
    macs: int
    bytes_in: int
    bytes_out: int
    acknowledged: bool = False  # the worker has seen the work
    heads_at: float | None = None  # s; when the task was first seen at the head of the worker's list, its piece ready
    answered_at: float | None = None  # s; when the worker first said that it had answered

    @property
    def bytes_in_flight(self) -> int:
        """Bytes that this task still has on the way, or will have."""
        return self.bytes_out + (0 if self.acknowledged else self.bytes_in)

    def listed(self, state: WorkerState) -> bool:
        """True when the worker still holds the task, or says that it has answered."""
        return self.key in state.held or self.key in state.answered

    def seconds(self, speed: float, patience: Patience) -> float:
        """How long the task may head the list of a worker of `speed` MAC/s."""
        if not speed > 0:
            return float("inf")  # nothing computed yet: how long it takes is not known; silence still counts
        return max(patience.lease_min, patience.lease_factor * self.macs / speed)

    def end(self, speed: float, patience: Patience) -> float:
        """Steady time at which the lease ends if nothing more is heard."""
        if not self.acknowledged:
            return self.sent_at + patience.transit
        if self.answered_at is not None:
            return self.answered_at + patience.transit
        if self.heads_at is not None:
            return self.heads_at + self.seconds(speed, patience)
        return float("inf")


@dataclass(slots=True)
class WorkerView:
    """One worker as its source sees it."""

    state: WorkerState
    heard_at: float  # s; of the newest state
    reachable: bool = False  # both ends of the pair's topics have met
    silent: bool = False  # not heard for too long, hangs, or left a work unacknowledged: nothing until heard again
    left_out_until: float = float("-inf")  # s; it fails too often
    next_number: int = 1  # of this pair's work; goes on over the worker's restarts
    leases: dict[TaskKey, Lease] = field(default_factory=dict)  # tasks this worker has a right to, oldest first
    given: set[tuple[str, int, int]] = field(default_factory=set)  # (plan, stage, piece) that it had in this session
    due: float = float("-inf")  # s; until then neither silence nor a lease ends by time alone
    failures: deque[float] = field(default_factory=lambda: deque(maxlen=32))  # s; when it was lost

    @property
    def name(self) -> str:
        return self.state.worker

    def hear(self, state: WorkerState, now: float) -> bool:
        """Take in a state; False when it is older than the one known, and ignored.

        A lower sequence is believed from another session only after a silence: then the robot has started anew.
        """
        older = state.sequence <= self.state.sequence
        if older and (state.session == self.state.session or not self.silent):
            return False
        if state.session != self.state.session:
            self.given.clear()
        self.state = state
        self.heard_at = now
        self.silent = False
        return True

    def note_tasks(self, source: str, session: int, now: float) -> None:
        """Bring the leases up to what the newest state says of them."""
        seen = self.state.seen.get((source, session), 0)
        for lease in self.leases.values():
            lease.acknowledged = lease.acknowledged or seen >= lease.number
            if lease.heads_at is None and self.state.held[:1] == (lease.key,) and not self.state.preparing:
                lease.heads_at = now
            if lease.answered_at is None and lease.key in self.state.answered:
                lease.answered_at = now

    def fail(self, now: float, patience: Patience) -> float:
        """Count that the worker was lost; how long it is left out, in seconds.

        The first failure costs nothing beyond the failure. Each further one within the window doubles the time, up to
        the longest; and since failures are forgotten, nobody is left out for ever.
        """
        self.failures.append(now)
        recent = sum(now - failure <= patience.backoff_window for failure in self.failures)
        seconds = min(patience.backoff_max, patience.backoff_min * 2.0 ** (recent - 2)) if recent > 1 else 0.0
        self.left_out_until = now + seconds
        return seconds

    def set_due(self, now: float, patience: Patience) -> None:
        """Bring `due` up to date, after leases or what is known of the worker have changed."""
        speed = self.state.speed
        due = min((lease.end(speed, patience) for lease in self.leases.values()), default=float("inf"))
        if not self.silent:
            due = min(due, self.heard_at + patience.worker_timeout)
        self.due = min(due, self.left_out_until) if self.left_out_until > now else due

    def serves(self, plan: str, now: float) -> bool:
        """True when work of this plan may be sent now."""
        return self.reachable and not self.silent and plan in self.state.plans and now >= self.left_out_until

    def has_ready(self, plan: str, stage: int, piece: int) -> bool:
        """True when the worker need not read the piece's weights first, as far as is known here."""
        return plan not in self.state.on_demand or (plan, stage, piece) in self.given

    def room_for(self, source: str) -> int:
        """Tasks that this worker still takes from `source`: its offer, less what it has not seen yet."""
        if self.state.offered_to != source:
            return 0
        return self.state.room - sum(not lease.acknowledged for lease in self.leases.values())

    @property
    def load(self) -> int:
        """Tasks held or on the way, those of other sources included."""
        return len(self.state.held) + sum(not lease.acknowledged for lease in self.leases.values())
