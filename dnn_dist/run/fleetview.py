# SPDX-License-Identifier: Apache-2.0
"""What a dispatcher knows of each worker, from the worker's own states and from the tasks sent to it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from dnn_dist import __version__
from dnn_dist.plan.policy import idle_uses
from dnn_dist.run.lease import Lease, LeaseState, Stray, silence
from dnn_dist.run.linkrate import Meter
from dnn_dist.run.pace import Pace
from dnn_dist.run.state import REPLAY, WorkerState, newer
from dnn_dist.run.twins import Twins
from dnn_dist.run.wire import TaskKey
from dnn_dist.settings import PartitionSettings

BACKOFF_WINDOW = 30.0
"""Seconds for which a failure of a worker is remembered."""


@dataclass(slots=True, eq=False)
class WorkerView:
    """One worker as its source sees it."""

    state: WorkerState
    heard_at: float  # s; of the newest state
    reachable: bool = False  # both ends of the pair's topics have met
    silent: bool = False  # not heard for too long, hangs, or left a work unacknowledged: nothing until heard again
    left_out_until: float = float("-inf")  # s; it fails too often
    next_number: int = 1  # of this pair's work; goes on over the worker's restarts
    leases: dict[TaskKey, Lease] = field(default_factory=dict)  # tasks this worker has a right to, oldest first
    # (plan, stage, form) that it was given in this session and should still have -> number of the last such work
    given: dict[tuple[str, int, int], int] = field(default_factory=dict)
    due: float = float("-inf")  # s; until then neither silence nor a lease nor a stray ends by time alone
    strays: list[Stray] = field(default_factory=list)  # works given up before the worker had seen them
    measured_at: float = float("-inf")  # s; when it was given a piece only to measure its speed
    pace: Pace = field(default_factory=Pace)  # of its acknowledgements
    meter: Meter = field(default_factory=Meter)  # of the link to it; of no use on the source's own robot
    twins: Twins = field(default_factory=Twins)
    owed: tuple[int, float, float] | None = None  # a task let go unanswered: stage, waited for from when, to when (s)
    name: str = ""  # the worker's
    failures: deque[float] = field(default_factory=lambda: deque(maxlen=32))  # s; when it was lost

    def __post_init__(self) -> None:
        self.name = self.state.worker

    def hear(self, state: WorkerState, now: float) -> bool:
        """Take in a state; False when it is older than the one known, and ignored.

        A lower sequence is believed from another session only after a silence: then the robot has started anew. So is a
        session that had ended: no process speaks again after its successor, unless there are two of this name.
        """
        another = state.session != self.state.session
        older = not newer(state.sequence, self.state.sequence, now - self.heard_at)
        if (older or (another and state.session in self.twins.former)) and not self.silent:
            return False
        if another:
            self.meter = Meter()
            self.given.clear()
            self.twins.former.append(self.state.session)
        self.state = state
        self.heard_at = now
        self.silent = False
        return True

    def tells(self, state: WorkerState, source: str, session: int) -> bool:
        """Whether a state says of this source's tasks what the one known does not: only of those with leases."""
        known, pair = self.state, (source, session)
        if self.leases and (state.seen.get(pair) != known.seen.get(pair) or state.preparing is not known.preparing):
            return True
        changed = (state.answered ^ known.answered) | (state.waiting ^ known.waiting)
        if state.held != known.held:
            changed |= {*state.held[:1], *known.held[:1]} | (set(state.held) ^ set(known.held))
        return not changed.isdisjoint(self.leases)

    def lost_in(self, state: WorkerState, source: str, session: int) -> bool:
        """Whether a state has not a task of this source that arrived there."""
        missing = (self.leases.keys() - state.answered).difference(state.held)
        seen = state.seen.get((source, session), 0) if missing else 0
        return any(self.leases[key].acknowledged or self.leases[key].number <= seen for key in missing)

    def note_tasks(self, source: str, session: int, now: float) -> list[Lease]:
        """Bring leases and strays up to what the newest state says; returns those that run or are answered since."""
        state = self.state
        seen = state.seen.get((source, session), 0)
        if 0 <= seen - self.next_number < REPLAY:  # a work that was none of ours: ours would be taken for repeated
            self.next_number = seen + 1
        self.meter.seen(seen, now)
        head = state.held[0] if state.held and not state.preparing else None
        head = None if head in state.waiting else head
        arrived: list[Lease | Stray] = [stray for stray in self.strays if stray.number <= seen] if self.strays else []
        stepped: list[Lease] = []
        for key, lease in self.leases.items():
            if lease.state is LeaseState.SENT and lease.number <= seen:
                lease.step(LeaseState.ARRIVED, now)
                arrived.append(lease)
            if lease.lacks and lease.acknowledged:
                lease.lacks = key in state.waiting
            if lease.fed_at is not None and lease.acknowledged and key not in state.waiting:
                self.meter.fed(key, lease.fed_at, now)
            if lease.state is LeaseState.ANSWERED:
                continue
            if key in state.answered:
                lease.step(LeaseState.ANSWERED, now)
                stepped.append(lease)
                self.owed = None
            elif lease.state is LeaseState.RUNNING:
                if state.preparing:  # weights are read beside it, or it gave way to a task whose piece is ready
                    lease.since = now
            elif key == head:
                lease.step(LeaseState.RUNNING, now)
                stepped.append(lease)
        if arrived:
            # Only the newest tells how long it took: one before it may have been lost, and is passed by its successor.
            newest = max(arrived, key=lambda one: one.number)
            self.pace.note(now - newest.sent_at, newest.ahead)
            self.strays = [stray for stray in self.strays if stray.number > seen]
        return stepped

    def let_go(self, lease: Lease, why: LeaseState, now: float) -> None:
        """The lease is no more; its work may be on its way all the same."""
        del self.leases[lease.key]
        self.meter.lost(lease.key)
        if not lease.acknowledged:
            self.strays.append(Stray(lease.number, lease.sent_at, lease.bytes_in, lease.ahead))
        if why is not LeaseState.DONE and not lease.answered and self.owed is None:
            self.owed = lease.key.stage, lease.sent_at, float("inf") if why is LeaseState.LOST else now
        lease.step(why, now)

    def owes(self, now: float) -> tuple[int, float]:
        """Stage of the task for which its answer is, or was, waited for longest since its last one; and how long, s."""
        waits = [(now - one.sent_at, one.key.stage) for one in self.leases.values() if not one.answered]
        if self.owed is not None:
            stage, since, until = self.owed
            waits.append((min(now, until) - since, stage))
        seconds, stage = max(waits, default=(0.0, 0))
        return stage, seconds

    def forgive(self, seconds: float) -> None:
        """Do not count so long a time, in which nobody listened, against the worker."""
        self.heard_at += seconds
        for lease in self.leases.values():
            lease.sent_at += seconds
            lease.since += seconds

    def forget_strays(self, now: float, settings: PartitionSettings) -> None:
        """The middleware has given up what is older than the lifespan."""
        self.strays = [stray for stray in self.strays if now < stray.sent_at + settings.lifespan]

    @property
    def bytes_in_flight(self) -> int:
        """Bytes of its leases, and of its strays while it is heard: what cannot be delivered takes no room on the way,
        until it can.
        """
        strays = 0 if self.silent else sum(stray.bytes_in for stray in self.strays)
        return strays + sum(lease.bytes_in_flight for lease in self.leases.values())

    def fail(self, now: float, settings: PartitionSettings) -> float:
        """Count that the worker was lost; how long it is left out, in seconds.

        The first failure costs nothing beyond the failure. Each further one within the window doubles the time, up to
        the longest; and since failures are forgotten, nobody is left out for ever.
        """
        self.failures.append(now)
        recent = sum(now - failure <= BACKOFF_WINDOW for failure in self.failures)
        seconds = min(settings.backoff_max, settings.backoff_min * 2.0 ** (recent - 2)) if recent > 1 else 0.0
        self.left_out_until = now + seconds
        return seconds

    def set_due(self, now: float, settings: PartitionSettings) -> None:
        """Bring `due` up to date, after leases or what is known of the worker have changed."""
        spoken = self.leases or not self.silent
        due = self.heard_at + silence(self.state, settings) if spoken else float("inf")
        if self.leases:
            due = min(due, *[lease.end(self.state, settings) for lease in self.leases.values()])
        if self.strays:
            due = min(due, *[stray.sent_at + settings.lifespan for stray in self.strays])
        self.due = min(due, self.left_out_until) if self.left_out_until > now else due

    def serves(self, plan: str, now: float) -> bool:
        """True when work of this plan may be sent now."""
        return not self.silent and self.has_built(plan, now)

    def has_built(self, plan: str, now: float) -> bool:
        """True when work of this plan may be sent, unless it is silent now."""
        known = plan in self.state.plans and self.state.version == __version__
        return known and self.reachable and now >= self.left_out_until

    def has_ready(self, plan: str, stage: int, form: int) -> bool:
        """True when the worker need not read a form's weights first, as far as is known here."""
        return plan not in self.state.on_demand or (plan, stage, form) in self.given

    def note_given(self, plan: str, stage: int, form: int, number: int) -> None:
        """A work of this form goes out; the worker drops those that it was not given for long."""
        if plan in self.state.on_demand:
            self.given[plan, stage, form] = number
            idle = number - idle_uses(len(self.given))
            self.given = {one: last for one, last in self.given.items() if last >= idle}

    def room_for(self, source: str) -> int:
        """Tasks that this worker still takes from `source`: its offer, less what is on its way there."""
        if self.state.offered_to != source:
            return 0
        if not self.leases:
            return self.state.room
        return self.state.room - sum([lease.coming for lease in self.leases.values()])

    @property
    def load(self) -> int:
        """Tasks held or on the way, those of other sources included."""
        return len(self.state.held) + sum([lease.state is LeaseState.SENT for lease in self.leases.values()])
