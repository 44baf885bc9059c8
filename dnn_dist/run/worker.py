# SPDX-License-Identifier: Apache-2.0
"""State machine of a worker: offers of room, prefetch, choice of source, cancelling.

Rules
  One task is computed at a time; `prefetch` more may wait, so that the next is at hand when one ends.
  Room is offered to one source at a time: the own robot's while it has tasks waiting, else the one with the longest
  queue; among equals each worker has an order of its own, so that workers spread. Work that crosses a change of mind is
  computed all the same.
  A task whose result nobody wants any more is dropped before it is computed, never during.
  What was answered is listed until Progress has settled it, so that its source can tell a lost answer from a lost task.
  One result is on its way at a time; the next follows when Progress has it, or when it should long have come. Results
  that wait take the room of tasks, and are dropped when nobody wants them any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from dnn_dist.plan.plan import takes_part
from dnn_dist.run.notes import Note
from dnn_dist.run.pace import Pace
from dnn_dist.run.state import Progress, SourceState, WorkerState, next_sequence
from dnn_dist.run.wire import TaskKey


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Durations in seconds. All may change while running."""

    prefetch: int = 1  # tasks that wait beside the one being computed
    max_held: int = 64  # tasks that are taken at all; sharing sends more than the room offered
    heartbeat: float = 0.1  # longest gap between two worker states
    source_timeout: float = 1.0  # silence after which a source is offered nothing
    remember: float = 5.0  # how long an answer is listed when no Progress settles it
    max_sources: int = 64  # sources remembered
    max_plans: int = 8  # plans kept built, the last used ones
    max_speeds: int = 64  # stages whose speed is remembered, those computed last
    transit: float = 0.1  # shortest time that a result is given to arrive before the next is sent
    lifespan: float = 1.0  # the middleware gives up a result that has not arrived after this


# Events ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlanOffered:
    """A source has this plan in force."""

    plan: str
    robots: tuple[str, ...] = ()  # whose workers take part; none named: all


@dataclass(frozen=True, slots=True)
class PlanBuilt:
    """The pieces of a plan are ready to compute; `refused` says in one line why they are not, and will not be."""

    plan: str
    refused: str = ""
    on_demand: bool = False  # each piece is made ready when it is first given


@dataclass(frozen=True, slots=True)
class WorkArrived:
    """A task, as its message names it."""

    key: TaskKey
    plan: str
    worker_session: int
    number: int
    budget: float = float("inf")  # s left of the frame's deadline


@dataclass(frozen=True, slots=True)
class Computed:
    """The task at the head of the list was computed, or failed with `error` in one line."""

    key: TaskKey
    plan: str
    seconds: float
    macs: int
    error: str = ""
    bytes: int = 0  # of its outputs


@dataclass(frozen=True, slots=True)
class Preparing:
    """The piece of the task at the head of the list is being made ready, or `ready` now."""

    ready: bool


@dataclass(frozen=True, slots=True)
class ProgressHeard:
    """An aggregator said what it holds."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class SourceHeard:
    """A source's state arrived."""

    state: SourceState


@dataclass(frozen=True, slots=True)
class SourceReachable:
    """The topics between a source and this worker have met, or have lost each other."""

    source: str
    reachable: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


# Actions --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """Make the pieces of this plan ready."""

    plan: str


@dataclass(frozen=True, slots=True)
class DropPlan:
    """Free the pieces of this plan."""

    plan: str


@dataclass(frozen=True, slots=True)
class Compute:
    """Compute this task; its end is the event `Computed`."""

    key: TaskKey


@dataclass(frozen=True, slots=True)
class SendResult:
    """Send what was computed, or its error."""

    key: TaskKey


@dataclass(frozen=True, slots=True)
class PublishWorker:
    """Say how this worker is."""

    state: WorkerState


@dataclass(slots=True)
class _Source:
    state: SourceState
    heard_at: float
    preference: int  # the higher goes first of sources with equal queues
    progress: Progress | None = None
    progress_at: float = float("-inf")  # s; when that was heard


@dataclass(frozen=True, slots=True)
class _Sent:
    """The result that is on its way."""

    key: TaskKey
    bytes: int
    at: float  # s
    until: float  # s; then it is waited for no longer


@dataclass(slots=True)
class Worker:
    """See the module's rules. Holds tasks by key; tensors and pieces stay with the caller."""

    name: str
    robot: str
    session: int
    model: str
    settings: WorkerSettings = field(default_factory=WorkerSettings)
    held: list[TaskKey] = field(default_factory=list)  # the first is being computed
    expires: dict[TaskKey, float] = field(default_factory=dict)  # held task -> its frame's deadline, s
    outbox: dict[TaskKey, int] = field(default_factory=dict)  # computed, waiting to be sent, in order -> bytes
    answered: dict[TaskKey, float] = field(default_factory=dict)  # since when, s; those in the outbox are among them
    plans: dict[str, bool] = field(default_factory=dict)  # hash -> built; last used last
    on_demand: set[str] = field(default_factory=set)  # plans whose pieces are made ready when first given
    preparing: bool = False  # the piece of the task at the head of the list is being made ready
    refused: dict[str, str] = field(default_factory=dict)  # hash -> why
    sources: dict[str, _Source] = field(default_factory=dict)
    seen: dict[tuple[str, int], int] = field(default_factory=dict)  # (source, session) -> last work number
    speed: float = 0.0  # MAC/s, smoothed, over all that was computed
    speeds: dict[tuple[str, int], float] = field(default_factory=dict)  # (plan, stage) -> MAC/s, smoothed; newest last
    pace: Pace = field(default_factory=Pace)  # of results, until Progress has them
    _sent: _Sent | None = None
    _reachable: set[str] = field(default_factory=set)
    _sequence: int = 0
    _published: tuple[Any, ...] = ()
    _published_at: float = float("-inf")

    def handle(self, event: Any, now: float) -> list[Any]:
        """Take in an event at steady time `now` (seconds); returns what is to be done, in order."""
        actions = _HANDLERS[type(event)](self, event, now)
        actions += self._send_next(now)
        self._forget_answers(now)
        return actions + self._publish(now)

    def hear(self, event: Any, now: float) -> list[Any]:
        """As `handle`, but what there is to say of it goes out with the next event that is handled."""
        return _HANDLERS[type(event)](self, event, now)

    def next_wake(self) -> float:
        """Steady time at which `Tick` is due, in seconds."""
        due = self._published_at + self.settings.heartbeat
        return min(due, self._sent.until) if self._sent is not None and self.outbox else due

    # Events

    def _handle_offered(self, event: PlanOffered, now: float) -> list[Any]:
        if event.plan in self.plans:
            return []
        if not takes_part(self.robot, event.robots):
            text = f"plan {event.plan}: is for robots {', '.join(event.robots)}; this is {self.robot}"
            return [Note("plan of other robots", text, warn=False)]
        self.refused.pop(event.plan, None)  # offered anew: what stood in the way may be gone
        self.plans[event.plan] = False
        actions: list[Any] = [BuildPlan(event.plan)]
        in_force = {source.state.plan for source in self.sources.values()}
        spare = [plan for plan, built in self.plans.items() if built and plan not in in_force]
        spare = [] if self.held else spare  # a task in hand may need any of them
        for plan in spare[: max(0, len(self.plans) - self.settings.max_plans)]:
            del self.plans[plan]
            self.on_demand.discard(plan)
            self.speeds = {stage: speed for stage, speed in self.speeds.items() if stage[0] != plan}
            actions.append(DropPlan(plan))
        return actions

    def _handle_built(self, event: PlanBuilt, now: float) -> list[Any]:
        if event.refused:
            self.plans.pop(event.plan, None)
            while len(self.refused) >= self.settings.max_plans:
                del self.refused[next(iter(self.refused))]
            self.refused[event.plan] = event.refused
            return [Note("plan refused", event.refused)]
        self.plans[event.plan] = True
        if event.on_demand:
            self.on_demand.add(event.plan)
            text = "its pieces are large, so each is made ready when it is first given"
        else:
            text = "all pieces are ready"
        return [Note("plan ready", f"plan {event.plan}: {text}", warn=False)]

    def _handle_work(self, event: WorkArrived, now: float) -> list[Any]:
        key = event.key
        if event.worker_session != self.session:
            source = self.sources.get(key.source)
            if source is not None and source.state.session == key.session:
                self._remember_seen((key.source, key.session), event.number)  # it is on its way no longer
            return [Note("foreign work", f"task {key}: meant for session {event.worker_session:x}")]
        pair = (key.source, key.session)
        doubled = event.number <= self.seen.get(pair, 0) or key in self.held
        self._remember_seen(pair, event.number)
        if doubled:
            return [Note("doubled work", f"task {key}: work number {event.number} came again")]
        if not self.plans.get(event.plan, False):
            return [Note("foreign plan", f"task {key}: plan {event.plan!r} is not ready here")]
        if self._unwanted(key):
            return [Note("late work", f"task {key}: no longer wanted on arrival", warn=False)]
        if key in self.outbox:
            self.answered[key] = now
            return [Note("work answered already", f"task {key}: its result waits to be sent", warn=False)]
        if len(self.held) + len(self.outbox) >= self.settings.max_held:
            return [Note("work refused", f"task {key}: {len(self.held)} tasks are held already")]
        self.answered.pop(key, None)
        self.held.append(key)
        self.expires[key] = now + event.budget
        return [Compute(key)] if len(self.held) == 1 else []

    def _handle_computed(self, event: Computed, now: float) -> list[Any]:
        assert self.held[0] == event.key, f"computed {event.key}, but {self.held[0]} was being computed"
        del self.held[0]
        actions: list[Any] = []
        if event.error:
            # Not listed as answered: the source sees a task neither held nor answered, and sends it elsewhere.
            del self.expires[event.key]
            actions += [SendResult(event.key), Note("task failed", f"task {event.key}: {event.error}")]
        else:
            self.answered[event.key] = now
            self.outbox[event.key] = event.bytes
            if event.seconds > 0:
                # Pools have no MACs and take their time all the same: as one MAC they have a speed as well.
                self._note_speed((event.plan, event.key.stage), max(1, event.macs) / event.seconds)
        self._drop_unwanted(now, first=0)
        return actions + ([Compute(self.held[0])] if self.held else [])

    def _note_speed(self, stage: tuple[str, int], speed: float) -> None:
        """A piece of `stage`, (plan, stage), was computed at `speed` MAC/s."""
        self.speed = _smoothed(self.speed, speed)
        known = dict(self.speeds)  # a new one: states that went out share the old
        known[stage] = _smoothed(known.pop(stage, 0.0), speed)
        while len(known) > self.settings.max_speeds:
            del known[next(iter(known))]
        self.speeds = known

    def _handle_preparing(self, event: Preparing, now: float) -> list[Any]:
        self.preparing = not event.ready
        return []

    def _handle_progress(self, event: ProgressHeard, now: float) -> list[Any]:
        progress = event.progress
        source = self.sources.get(progress.source)
        if source is None or source.state.session != progress.session:
            return []  # its state tells us of it first
        known = source.progress
        # As with sources a lower sequence is believed after a silence only: then the aggregator's robot started anew.
        stale = now - source.progress_at > self.settings.source_timeout
        if known is None or progress.sequence > known.sequence or (stale and progress.aggregator != known.aggregator):
            source.progress, source.progress_at = progress, now
        return self._drop_unwanted(now)

    def _handle_source(self, event: SourceHeard, now: float) -> list[Any]:
        state, known = event.state, self.sources.get(event.state.source)
        if known is None:
            self._make_place(now)
            if len(self.sources) >= self.settings.max_sources:
                return [Note("too many sources", f"source {state.source!r} ignored: {len(self.sources)} are known")]
            # Each worker has an order of its own, or all would run to the same one of equal queues.
            preference = crc32(f"{state.source} {self.name}".encode())
            self.sources[state.source] = _Source(state, now, preference)
            return [Note("source joined", f"source {state.source!r} on robot {state.robot!r} joined", warn=False)]
        stale = now - known.heard_at > self.settings.source_timeout
        if state.sequence <= known.state.sequence and not (stale and state.session != known.state.session):
            return []
        if state.session != known.state.session:
            known.progress = None
        known.state, known.heard_at = state, now
        return self._drop_unwanted(now)

    def _make_place(self, now: float) -> None:
        """Forget sources that fell silent and want nothing of us, when there are as many as may be remembered."""
        if len(self.sources) >= self.settings.max_sources:
            busy = {key.source for key in (*self.held, *self.outbox, *self.answered)}
            self.sources = {
                name: source
                for name, source in self.sources.items()
                if name in busy or now - source.heard_at <= self.settings.source_timeout
            }

    def _handle_reachable(self, event: SourceReachable, now: float) -> list[Any]:
        (self._reachable.add if event.reachable else self._reachable.discard)(event.source)
        return []

    # Results

    def _send_next(self, now: float) -> list[Any]:
        """Send the next result that is wanted, unless one is on its way."""
        sent, settings = self._sent, self.settings
        if sent is not None:
            arrived = self._unwanted(sent.key)
            if not arrived and now < sent.until:
                return []
            if arrived:
                self.pace.note(now - sent.at, sent.bytes)
            self._sent = None
        while self.outbox:
            key = next(iter(self.outbox))
            size, expires = self.outbox.pop(key), self.expires.pop(key)
            if self._unwanted(key) or now >= expires:
                continue
            wait = self.pace.patience(size, settings.transit, settings.lifespan, settings.transit)
            self._sent = _Sent(key, size, now, now + wait)
            return [SendResult(key)]
        return []

    # State

    def _unwanted(self, key: TaskKey) -> bool:
        source = self.sources.get(key.source)
        if source is None:
            return False
        if key.session != source.state.session or key.frame < source.state.oldest_open:
            return True
        return source.progress is not None and source.progress.done(key)

    def _drop_unwanted(self, now: float, first: int = 1) -> list[Any]:
        """Drop waiting tasks, from place `first` on, that nobody wants; they count as answered, by somebody else."""
        for key in [key for key in self.held[first:] if self._unwanted(key) or now >= self.expires[key]]:
            self.held.remove(key)
            del self.expires[key]
            self.answered[key] = now
        return []

    def _forget_answers(self, now: float) -> None:
        # A heartbeat longer than Progress settles it: this worker's state may overtake that Progress on its way to
        # the source, which would take the task for lost. Those of a former session are what a restarted source can
        # tell its lost frames by.
        for key, since in list(self.answered.items()):
            settled = self._unwanted(key) and key.session == self.sources[key.source].state.session
            if now - since > (self.settings.heartbeat if settled else self.settings.remember):
                del self.answered[key]

    def _remember_seen(self, pair: tuple[str, int], number: int) -> None:
        number = max(number, self.seen.pop(pair, 0))
        # A source has one session at a time; a restarted one takes the place of its former self.
        self.seen = {known: last for known, last in self.seen.items() if known[0] != pair[0]}
        self.seen[pair] = number
        while len(self.seen) > self.settings.max_sources:
            del self.seen[next(iter(self.seen))]

    def _offered_to(self, now: float) -> str:
        """The source that room is offered to; empty when none can be served."""
        able = [
            source
            for source in self.sources.values()
            if source.state.source in self._reachable
            and self.plans.get(source.state.plan, False)
            and now - source.heard_at <= self.settings.source_timeout
        ]
        if not able:
            return ""
        # The own robot first while it has work, then the longest queue; with no work anywhere, the own robot.

        def rank(source: _Source) -> tuple[bool, int, bool, int, str]:
            state = source.state
            own = state.robot == self.robot
            return state.queued > 0 and own, state.queued, own, source.preference, state.source

        return max(able, key=rank).state.source

    def _publish(self, now: float) -> list[Any]:
        most = min(1 + self.settings.prefetch, self.settings.max_held)
        room = max(0, most - len(self.held) - len(self.outbox))
        ready = frozenset(plan for plan, built in self.plans.items() if built)
        told = (
            tuple(self.held),
            frozenset(self.answered),
            room,
            self._offered_to(now),
            ready,
            len(self.refused),
            self.preparing,
        )
        seen = dict(self.seen)
        if (told, seen) == self._published and now < self._published_at + self.settings.heartbeat:
            return []
        self._published, self._published_at = (told, seen), now
        self._sequence = next_sequence(self._sequence, now)
        return [
            PublishWorker(
                WorkerState(
                    self.name,
                    self.robot,
                    self.session,
                    self._sequence,
                    self.model,
                    ready,
                    frozenset(self.refused),
                    tuple(self.held),
                    frozenset(self.answered),
                    room,
                    told[3],
                    seen,
                    self.speed,
                    self.speeds,
                    frozenset(self.on_demand),
                    self.preparing,
                )
            )
        ]


def _smoothed(before: float, newest: float) -> float:
    """A moving average; `before` is 0 while there is none."""
    return 0.8 * before + 0.2 * newest if before else newest


_HANDLERS: dict[type, Callable[[Worker, Any, float], list[Any]]] = {
    PlanOffered: Worker._handle_offered,
    PlanBuilt: Worker._handle_built,
    WorkArrived: Worker._handle_work,
    Computed: Worker._handle_computed,
    Preparing: Worker._handle_preparing,
    ProgressHeard: Worker._handle_progress,
    SourceHeard: Worker._handle_source,
    SourceReachable: Worker._handle_reachable,
    Tick: lambda worker, event, now: [],
}
