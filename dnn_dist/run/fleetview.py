# SPDX-License-Identifier: Apache-2.0
"""What a dispatcher knows of each worker, from the worker's own states and from the tasks sent to it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from dnn_dist.run.pace import Pace
from dnn_dist.run.state import WorkerState
from dnn_dist.run.wire import TaskKey

TWIN = 3.0
"""Seconds for which two processes of one name must both be heard until that is said."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a dispatcher waits for a worker. Seconds."""

    transit: float = 0.1  # shortest time that a work, or an answer, is given to be acknowledged; see `WorkerView.pace`
    lifespan: float = 1.0  # the middleware gives up a work, or an answer, that has not arrived after this
    worker_timeout: float = 0.5  # silence after which a worker is taken for gone
    lease_min: float = 0.1  # shortest lease
    lease_factor: float = 3.0  # lease = factor * MACs / speed measured at the stage
    backoff_min: float = 0.25  # how long a worker is left out when it fails again within `backoff_window`; doubles
    backoff_max: float = 10.0
    backoff_window: float = 30.0  # how long a failure is remembered


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

    def seconds(self, state: WorkerState, patience: Patience) -> float:
        """How long the task may head the list of a worker in this state."""
        speed = state.speed_of(self.plan, self.key.stage)
        if not speed > 0:
            # How long a piece of this stage takes is not known, and what those of others took does not tell: a lease by
            # them would end before the first piece of a slow stage is done. Silence still counts.
            return float("inf")
        return max(patience.lease_min, patience.lease_factor * max(1, self.macs) / speed)

    def end(self, state: WorkerState, patience: Patience) -> float:
        """Steady time at which the lease ends if nothing more is heard of a worker in this state."""
        if not self.acknowledged:
            return self.sent_at + self.transit
        if self.answered_at is not None:
            return self.answered_at + self.transit
        if self.heads_at is not None:
            return self.heads_at + self.seconds(state, patience)
        return float("inf")


@dataclass(frozen=True, slots=True)
class Stray:
    """A work that nobody waits for any more, and that may still be on its way."""

    number: int
    sent_at: float  # s
    bytes_in: int
    ahead: int  # as of its lease


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
    due: float = float("-inf")  # s; until then neither silence nor a lease nor a stray ends by time alone
    strays: list[Stray] = field(default_factory=list)  # works given up before the worker had seen them
    pace: Pace = field(default_factory=Pace)  # of its acknowledgements
    former: deque[int] = field(default_factory=lambda: deque(maxlen=8))  # sessions that ended
    twin_since: float = float("-inf")  # s; since when another process of this name is heard
    twin_at: float = float("-inf")  # s; when it was heard last
    failures: deque[float] = field(default_factory=lambda: deque(maxlen=32))  # s; when it was lost

    @property
    def name(self) -> str:
        return self.state.worker

    def hear(self, state: WorkerState, now: float) -> bool:
        """Take in a state; False when it is older than the one known, and ignored.

        A lower sequence is believed from another session only after a silence: then the robot has started anew. So is a
        session that had ended: no process speaks again after its successor, unless there are two of this name.
        """
        another = state.session != self.state.session
        older = state.sequence <= self.state.sequence or (another and state.session in self.former)
        if older and not (another and self.silent):
            return False
        if another:
            self.given.clear()
            self.former.append(self.state.session)
        self.state = state
        self.heard_at = now
        self.silent = False
        return True

    def twin(self, session: int, now: float) -> bool:
        """A state of this session was ignored: is there a second process of this name? True once in `TWIN` seconds.

        It must have spoken for so long: a late message of a former self is nothing to speak of.
        """
        if session == self.state.session:
            return False
        if now - self.twin_at > TWIN:
            self.twin_since = now
        self.twin_at = now
        if now - self.twin_since < TWIN:
            return False
        self.twin_since = now
        return True

    def note_tasks(self, source: str, session: int, now: float) -> None:
        """Bring leases and strays up to what the newest state says of them."""
        seen = self.state.seen.get((source, session), 0)
        arrived = [lease for lease in self.leases.values() if not lease.acknowledged and lease.number <= seen]
        sent: list[Lease | Stray] = [*arrived, *(stray for stray in self.strays if stray.number <= seen)]
        if sent:
            # Only the newest tells how long it took: one before it may have been lost, and is passed by its successor.
            newest = max(sent, key=lambda one: one.number)
            self.pace.note(now - newest.sent_at, newest.ahead)
        self.strays = [stray for stray in self.strays if stray.number > seen]
        for lease in arrived:
            lease.acknowledged = True
        for lease in self.leases.values():
            if lease.heads_at is None and self.state.held[:1] == (lease.key,) and not self.state.preparing:
                lease.heads_at = now
            if lease.answered_at is None and lease.key in self.state.answered:
                lease.answered_at = now

    def let_go(self, lease: Lease) -> None:
        """The lease is no more; its work may be on its way all the same."""
        del self.leases[lease.key]
        if not lease.acknowledged:
            self.strays.append(Stray(lease.number, lease.sent_at, lease.bytes_in, lease.ahead))

    def forgive(self, seconds: float) -> None:
        """Do not count so long a time, in which nobody listened, against the worker."""
        self.heard_at += seconds
        for lease in self.leases.values():
            lease.sent_at += seconds
            lease.heads_at = None if lease.heads_at is None else lease.heads_at + seconds
            lease.answered_at = None if lease.answered_at is None else lease.answered_at + seconds

    def forget_strays(self, now: float, patience: Patience) -> None:
        """The middleware has given up what is older than the lifespan."""
        self.strays = [stray for stray in self.strays if now < stray.sent_at + patience.lifespan]

    @property
    def bytes_in_flight(self) -> int:
        """Bytes of its leases, and of its strays while it is heard: what cannot be delivered takes no room on the way,
        until it can.
        """
        strays = 0 if self.silent else sum(stray.bytes_in for stray in self.strays)
        return strays + sum(lease.bytes_in_flight for lease in self.leases.values())

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
        due = min([lease.end(self.state, patience) for lease in self.leases.values()], default=float("inf"))
        if not self.silent:
            due = min(due, self.heard_at + patience.worker_timeout)
        if self.strays:
            due = min([due, *(stray.sent_at + patience.lifespan for stray in self.strays)])
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
        if not self.leases:
            return self.state.room
        return self.state.room - sum(not lease.acknowledged for lease in self.leases.values())

    @property
    def load(self) -> int:
        """Tasks held or on the way, those of other sources included."""
        return len(self.state.held) + sum(not lease.acknowledged for lease in self.leases.values())
