# SPDX-License-Identifier: Apache-2.0
"""State machine of a worker: offers of room, prefetch, choice of source, cancelling.

Rules
  One task is computed at a time; `prefetch` more may wait, so that the next is at hand when one ends. Of one source
  the oldest frame goes first.
  A piece of a chain waits for its feeds, takes no room meanwhile, and lets the others pass; what was computed of one is
  kept, and listed as answered (run/residence.py). A work for a piece that is here already says where its feeds go now.
  Preparing is not computing: plans are built and weights are read beside it, one after the other, and the task that
  waits for its weights lets the others pass. The state says so, and no lease runs meanwhile.
  Room is offered to one source at a time: the own robot's while it has tasks waiting, else the one with the longest
  queue; among equals each worker has an order of its own, so that workers spread. Work that crosses a change of mind is
  computed all the same.
  A task whose result nobody wants any more is dropped before it is computed, never during.
  A source of another version is named, and its work refused: it means other pieces.
  What was answered is listed until Progress has settled it, so that its source can tell a lost answer from a lost task.
  One result is on its way at a time (run/outbox.py). Results that wait take the room of tasks, and are dropped when
  nobody wants them any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dnn_dist.plan.plan import takes_part
from dnn_dist.run.events import (
    BuildPlan,
    Compute,
    Computed,
    DropPlan,
    FeedArrived,
    PeersReachable,
    PlanBuilt,
    PlanOffered,
    Prepare,
    Prepared,
    PublishWorker,
    Reroute,
    Role,
    SendFeeds,
    SendResult,
    SourceReachable,
    StatesHeard,
    Tick,
    Unready,
    WorkArrived,
)
from dnn_dist.run.notes import Note
from dnn_dist.run.outbox import Outbox
from dnn_dist.run.residence import ALONE, Residence
from dnn_dist.run.sourceviews import SourceViews, WorkerSettings
from dnn_dist.run.speeds import Speeds
from dnn_dist.run.state import REPLAY, Progress, WorkerState, next_sequence
from dnn_dist.run.wire import TaskKey


@dataclass
class Worker:
    """See the module's rules. Holds tasks by key; tensors and pieces stay with the caller."""

    name: str
    robot: str
    session: int
    model: str
    settings: WorkerSettings = field(default_factory=WorkerSettings)
    held: list[TaskKey] = field(default_factory=list)  # the first is being computed, if any is
    computing: bool = False
    unready: list[TaskKey] = field(default_factory=list)  # held tasks whose weights must be read first
    reading: TaskKey | None = None  # the task whose weights are being read
    residence: Residence = field(default_factory=Residence)
    peers: frozenset[str] = frozenset()  # workers that feeds can be sent to
    expires: dict[TaskKey, float] = field(default_factory=dict)  # held task -> its frame's deadline, s
    outbox: Outbox = field(default_factory=Outbox)
    answered: dict[TaskKey, float] = field(default_factory=dict)  # since when, s; those in the outbox are among them
    plans: dict[str, bool] = field(default_factory=dict)  # hash -> built; last used last
    on_demand: set[str] = field(default_factory=set)  # plans whose pieces are made ready when first given
    refused: dict[str, str] = field(default_factory=dict)  # hash -> why
    seen: dict[tuple[str, int], int] = field(default_factory=dict)  # (source, session) -> last work number
    speeds: Speeds = field(default_factory=Speeds)
    _expiry: float = float("inf")  # s; before that nothing that is held or kept expires
    _sequence: int = 0
    _published: tuple[Any, ...] = ()
    _published_at: float = float("-inf")

    def __post_init__(self) -> None:
        self._views = SourceViews(self)
        self.sources = self._views.sources

    def handle(self, event: Any, now: float) -> list[Any]:
        """Take in an event at steady time `now` (seconds); returns what is to be done, in order."""
        actions = _HANDLERS[type(event)](self, event, now)
        if now >= self._expiry:
            self._drop_unwanted(now)
        if type(event) is StatesHeard and event.later:
            return actions
        if self.held:
            actions += self._begin()
        key = self.outbox.next(self._views.unwanted, self.settings, now)
        if key is not None:
            actions.append(SendResult(key))
        return actions + self._publish(now)

    def feed(self, event: FeedArrived, now: float) -> bool:
        """Take in a feed if nothing follows from it yet: its task lacks others, or has not come. False: it was not
        taken in, and is for `handle`.
        """
        if self.residence.waiting.get(event.key) == {event.maker}:
            return False
        self._handle_feed(event, now)
        return True

    def next_wake(self) -> float:
        """Steady time at which `Tick` is due, in seconds."""
        return min(self._published_at + self.settings.heartbeat, self.outbox.due)

    # Events

    def _handle_offered(self, event: PlanOffered, now: float) -> list[Any]:
        if event.plan in self.plans:
            return []
        if not takes_part(self.robot, event.robots):
            text = f"plan {event.plan}: is for robots {', '.join(event.robots)}; this is {self.robot}"
            return [Note("plan of other robots", text, warn=False, about=event.plan)]
        if sum(not built for built in self.plans.values()) >= self.settings.max_plans:
            text = f"plan {event.plan}: {self.settings.max_plans} are being built already"
            return [Note("too many plans", text, about=event.plan)]
        self.refused.pop(event.plan, None)  # offered anew: what stood in the way may be gone
        self.plans[event.plan] = False
        actions: list[Any] = [BuildPlan(event.plan)]
        in_force = {source.state.plan for source in self.sources.values()}
        spare = [plan for plan, built in self.plans.items() if built and plan not in in_force]
        spare = [] if self.held else spare  # a task in hand may need any of them
        for plan in spare[: max(0, len(self.plans) - self.settings.max_plans)]:
            del self.plans[plan]
            self.on_demand.discard(plan)
            self.speeds.forget(plan)
            actions.append(DropPlan(plan))
        return actions

    def _handle_built(self, event: PlanBuilt, now: float) -> list[Any]:
        if event.refused:
            self.plans.pop(event.plan, None)
            while len(self.refused) >= self.settings.max_plans:
                del self.refused[next(iter(self.refused))]
            self.refused[event.plan] = event.refused
            return [Note("plan refused", event.refused, about=event.plan)]
        self.plans[event.plan] = True
        if event.on_demand:
            self.on_demand.add(event.plan)
            text = "its pieces are large, so each is made ready when it is first given"
        else:
            text = "all pieces are ready"
        return [Note("plan ready", f"plan {event.plan}: {text}", warn=False, about=event.plan)]

    def _handle_work(self, event: WorkArrived, now: float) -> list[Any]:
        key = event.key

        def told(kind: str, why: str, warn: bool = True) -> list[Any]:
            return [Note(kind, f"task {key}: {why}", warn, about=key.source)]

        source = self.sources.get(key.source)
        if event.worker_session != self.session:
            if source is not None and source.state.session == key.session:
                self._remember_seen((key.source, key.session), event.number)  # it is on its way no longer
            return told("foreign work", f"meant for session {event.worker_session:x}")
        pair = (key.source, key.session)
        doubled = 0 <= self.seen.get(pair, 0) - event.number < REPLAY
        self._remember_seen(pair, event.number)
        if doubled:
            return told("doubled work", f"work number {event.number} came again")
        if not event.plan:
            return []  # a probe: that it was seen is all
        if source is not None and source.foreign:
            return told("work refused", "its source has another version of dnn_dist")
        if not self.plans.get(event.plan, False):
            return told("foreign plan", f"plan {event.plan!r} is not ready here")
        if self._unwanted(key, event.role):
            return told("late work", "no longer wanted on arrival", warn=False)
        kept = self.residence.kept.get(key)
        if event.alone:
            self.residence.narrow(key, event.role.awaits)
        if key in self.held or (event.again and kept is not None):
            return [Reroute(key)] if event.again else [Reroute(key), *told("doubled work", "is held already")]
        if event.again and event.alone:
            return []  # it is computed
        if event.again:
            return told("foreign work", "asks for feeds of a piece that is not here")
        if kept is not None:  # lost on the way, or so its source thinks
            if event.role.reports and key not in self.outbox:
                self.outbox.put(key, kept.bytes, kept.expires)
            self.answered[key] = now
            return [Reroute(key)]
        if key in self.outbox:
            self.answered[key] = now
            return told("work answered already", "its result waits to be sent", warn=False)
        if self._has_enough(alone=event.role == ALONE):
            return told("work refused", f"{len(self.held)} tasks are held already")
        self.answered.pop(key, None)
        self.held.insert(self._place(key), key)
        self.expires[key] = now + event.budget
        self._expiry = min(self._expiry, self.expires[key])
        self.residence.hold(key, event.plan, event.role)
        if not event.ready:
            self.unready.append(key)
        return []

    def _has_enough(self, alone: bool) -> bool:
        """Whether a task is one too many. A chain comes as a whole, most of it without tensors."""
        tasks, settings = len(self.held) + len(self.outbox), self.settings
        return tasks >= settings.max_chained or (alone and tasks - len(self.residence.waiting) >= settings.max_held)

    def _place(self, key: TaskKey) -> int:
        """Where in the list a task goes: before later frames of its source, but not before what is computed."""
        pair, first = (key.source, key.session), int(self.computing)
        for place, other in enumerate(self.held[first:], first):
            if (other.source, other.session) == pair and other.frame > key.frame:
                return place
        return len(self.held)

    def _handle_feed(self, event: FeedArrived, now: float) -> list[Any]:
        key = event.key
        known = key in self.residence.waiting
        if known or (key not in self.held and key not in self.answered and not self._views.unwanted(key)):
            until = now + self.settings.remember
            self._expiry = min(self._expiry, until)
            self.residence.feed(key, event.maker, event.plan, self.settings.max_early, until)
        return []

    def _handle_peers(self, event: PeersReachable, now: float) -> list[Any]:
        self.peers = event.workers
        return []

    def _begin(self) -> list[Any]:
        """Compute the first held task whose weights are there, and read those of the first that lacks them."""
        actions: list[Any] = []
        if not self.computing:
            key = self.residence.ready(self.held, self.unready)
            if key is not None:
                self.held.remove(key)
                self.held.insert(0, key)
                self.computing = True
                actions.append(Compute(key))
        if self.reading is None and self.unready:
            self.reading = self.unready[0]
            actions.append(Prepare(self.reading))
        return actions

    def _handle_prepared(self, event: Prepared, now: float) -> list[Any]:
        self.reading = None
        if event.key in self.unready:
            self.unready.remove(event.key)
        return []

    def _handle_unready(self, event: Unready, now: float) -> list[Any]:
        self.computing = False
        self.unready.append(event.key)
        return []

    def _handle_computed(self, event: Computed, now: float) -> list[Any]:
        assert self.computing and self.held[0] == event.key, f"{event.key} is not being computed; held: {self.held}"
        self.computing = False
        self._forget_answers(now)
        del self.held[0]
        role, expires = self.residence.release(event.key), self.expires.pop(event.key)
        actions: list[Any] = []
        if event.error:
            # Not listed as answered: the source sees a task neither held nor answered, and sends it elsewhere.
            actions += [SendResult(event.key), Note("task failed", f"task {event.key}: {event.error}")]
        else:
            self.answered[event.key] = now
            if role.feeds:
                self.residence.keep(event.key, expires, event.bytes, self.settings.max_chained)
                actions.append(SendFeeds(event.key))
            if role.reports:
                self.outbox.put(event.key, event.bytes, expires)
            if event.seconds > 0:
                # Pools have no MACs and take their time all the same: as one MAC they have a speed as well.
                stage, speed = (event.plan, event.key.stage), max(1, event.macs) / event.seconds
                self.speeds.note(stage, speed, self.settings.max_speeds)
        return actions

    def _handle_states(self, event: StatesHeard, now: float) -> list[Any]:
        actions: list[Any] = []
        over = False  # some tasks may be
        for state in event.states:
            if isinstance(state, Progress):
                over = self._views.hear_progress(state, now) or over
                continue
            before = self.sources.get(state.source)
            known = before and (before.state.session, before.state.oldest_open)
            actions += self._views.hear_source(state, now)
            over = over or known != (state.session, state.oldest_open)
        if over:
            self._drop_unwanted(now)
        return actions

    def _handle_reachable(self, event: SourceReachable, now: float) -> list[Any]:
        reachable = self._views.reachable
        (reachable.add if event.reachable else reachable.discard)(event.source)
        return []

    # State

    @property
    def busy(self) -> set[str]:
        """Sources that want something of us."""
        return {key.source for keys in (self.held, self.outbox, self.answered) for key in keys}

    def _drop_unwanted(self, now: float) -> None:
        """Drop waiting tasks that nobody wants or that are too late; they count as answered, by somebody else."""
        held = self.held[1:] if self.computing else self.held
        for key in [key for key in held if self._unwanted(key, self.residence.role(key)) or now >= self.expires[key]]:
            self.held.remove(key)
            if key in self.unready:
                self.unready.remove(key)
            self.residence.release(key)
            del self.expires[key]
            self.answered[key] = now
        self._expiry = min([self.residence.drop(self._views.unwanted, now), *self.expires.values()])

    def _unwanted(self, key: TaskKey, role: Role) -> bool:
        """True when nobody wants what comes of a task; the aggregator may have what other pieces still need."""
        return self._views.unwanted(key, whole=bool(role.feeds))

    def _forget_answers(self, now: float) -> None:
        # A heartbeat longer than Progress settles it: this worker's state may overtake that Progress on its way to
        # the source, which would take the task for lost. Those of a former session are what a restarted source can
        # tell its lost frames by.
        for key, since in list(self.answered.items()):
            if key in self.residence.kept:
                continue
            settled = self._views.unwanted(key) and key.session == self.sources[key.source].state.session
            if now - since > (self.settings.heartbeat if settled else self.settings.remember):
                del self.answered[key]

    def _remember_seen(self, pair: tuple[str, int], number: int) -> None:
        known = self.seen.pop(pair, 0)
        number = known if 0 <= known - number < REPLAY else number
        # A source has one session at a time; a restarted one takes the place of its former self.
        self.seen = {known: last for known, last in self.seen.items() if known[0] != pair[0]}
        self.seen[pair] = number
        while len(self.seen) > self.settings.max_sources:
            del self.seen[next(iter(self.seen))]

    def offered_to(self, now: float) -> str:
        """The source that room is offered to; empty: none."""
        return self._views.offered_to(self.plans, now)

    def _publish(self, now: float) -> list[Any]:
        waiting, quiet = self.residence.waiting, now < self._published_at + self.settings.heartbeat
        if not quiet:  # that answers are listed no longer is worth no message
            self._forget_answers(now)
        most = min(1 + self.settings.prefetch, self.settings.max_held)
        told: tuple[Any, ...] = (  # in the order of WorkerState
            frozenset(plan for plan, built in self.plans.items() if built),
            frozenset(self.refused),
            tuple(self.held),
            frozenset(waiting),
            frozenset(self.answered),
            max(0, most - len(self.held) + len(waiting) - len(self.outbox)),
            self.peers,
            self.offered_to(now),
            self.seen,  # replaced when it changes, never changed
            frozenset(self.on_demand),
            self.reading is not None or not all(self.plans.values()),
        )
        if quiet and told == self._published:
            return []
        self._published, self._published_at = told, now
        self._sequence = next_sequence(self._sequence, now)
        who = self.name, self.robot, self.session, self._sequence, self.model
        return [PublishWorker(WorkerState(*who, self.speeds.overall, self.speeds.of_stage, *told))]


_HANDLERS: dict[type, Callable[[Worker, Any, float], list[Any]]] = {
    PlanOffered: Worker._handle_offered,
    PlanBuilt: Worker._handle_built,
    WorkArrived: Worker._handle_work,
    FeedArrived: Worker._handle_feed,
    PeersReachable: Worker._handle_peers,
    Computed: Worker._handle_computed,
    Prepared: Worker._handle_prepared,
    Unready: Worker._handle_unready,
    StatesHeard: Worker._handle_states,
    SourceReachable: Worker._handle_reachable,
    Tick: lambda worker, event, now: [],
}
