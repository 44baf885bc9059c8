# SPDX-License-Identifier: Apache-2.0
"""State machine of a source's queue, leases and assignment.

Rules
  A task is queued when its stage's inputs are at hand, leased to as many workers at a time as it has copies (one,
  unless the plan asks for replicas or the task is overdue), and done when Progress says so; nothing else ends a task
  but the end of its frame.
  Stealing: workers offer room and are given the task at the head of the queue, idle workers first.
  Sharing: pieces belong to workers by a fixed division of the stage; workers that fall out lose theirs to the others.
  A lease ends, and its task goes to the front of the queue and to another worker if there is one, when
    the worker restarted, or was silent for `worker_timeout`;
    the work was not acknowledged within its transit;
    the worker has seen a work of this or a later number and neither holds nor answered the task;
    the task headed the worker's list for longer than the lease; what waits behind it goes too;
    the answer did not reach the aggregator within its transit.
  A work's transit is twice what acknowledgements of this worker took of late, with as many bytes on the way: at least
  `transit`, at most `lifespan`, and `worker_timeout` while none has come.
  `recover_after` a stage began, what is not done gets a second copy, lease or not.
  A worker that is lost again and again is left out with growing back-off, never for ever. When nobody at all is heard
  it is the network that was lost, and no worker is blamed.
  Where pieces are too large to be ready everywhere, those who had a piece before get it again; others, who would have
  to read its weights first, when none of those can take it or the task has waited `lease_min`.
  The bytes on the way, work and results expected, stay within `window`, but one task may always travel. A work given up
  counts until the worker has seen it or `lifespan` has passed, for so long it may still be sent; but not while the
  worker is silent, for to somebody who does not answer nothing is sent again. While the window takes no
  task the dispatcher is `full`, and no frame should be begun.
  Who was held up itself cannot tell who was silent meanwhile: its own absence is nobody's silence.
  Frames that an aggregator had when it was restarted, and that it did not say were closed, are counted and let go.
  First answers win: a lease that ended too early costs a second computation, never a wrong result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dnn_dist.plan.plan import takes_part
from dnn_dist.run.assignment import choose, owners
from dnn_dist.run.fleetview import Lease, Patience, WorkerView
from dnn_dist.run.notes import Note
from dnn_dist.run.shape import PieceShape, PlanShape, StageShape
from dnn_dist.run.state import Progress, SourceState, WorkerState, next_sequence
from dnn_dist.run.wire import TaskKey


@dataclass(frozen=True, slots=True)
class DispatcherSettings:
    """Durations in seconds. All may change while running."""

    stealing: bool = True  # False: sharing by a fixed division
    shares: tuple[tuple[str, float], ...] = ()  # sharing: (worker, weight); empty: by measured speeds, at first equal
    window: int = 4_000_000  # bytes on the way, work and expected results
    patience: Patience = field(default_factory=Patience)
    recover_after: float = float("inf")  # since a stage began; then what is not done is computed a second time
    max_attempts: int = 5  # tries of one task
    heartbeat: float = 0.2  # longest gap between two source states
    plan_again: float = 1.0  # shortest gap between two tellings of the plan to workers that lack it
    max_workers: int = 256  # workers remembered
    max_orphans: int = 1000  # frames of former sessions that are counted


# Events ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlanInstalled:
    """From now on frames may name this plan."""

    plan: str
    shape: PlanShape


@dataclass(frozen=True, slots=True)
class StageReady:
    """The inputs of a frame's stage are at hand."""

    frame: int
    stage: int
    plan: str
    deadline: float  # s, on this machine's clock


@dataclass(frozen=True, slots=True)
class WorkerHeard:
    """A worker's state arrived."""

    state: WorkerState


@dataclass(frozen=True, slots=True)
class WorkerReachable:
    """The topics between this source and a worker have met, or have lost each other."""

    worker: str
    reachable: bool


@dataclass(frozen=True, slots=True)
class ProgressHeard:
    """The aggregator said what it holds."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


# Actions --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendWork:
    """Send a task to a worker."""

    worker: str
    worker_session: int
    key: TaskKey
    plan: str
    number: int
    attempt: int
    budget: float  # s left of the frame's deadline


@dataclass(frozen=True, slots=True)
class PublishSource:
    """Say how this source is."""

    state: SourceState


@dataclass(frozen=True, slots=True)
class PublishPlan:
    """Say what the plan is, in full: it is new, or a worker does not have it."""

    plan: str


@dataclass(frozen=True, slots=True)
class ReleaseFrame:
    """Nothing of this frame is needed any more: free its tensors."""

    frame: int


@dataclass(slots=True)
class _Frame:
    plan: str
    deadline: float
    tasks: dict[TaskKey, _Task] = field(default_factory=dict)  # not done
    served: dict[int, set[str]] = field(default_factory=dict)  # stage -> workers that were given a piece of it


@dataclass(slots=True)
class _Task:
    key: TaskKey
    ready_at: float  # s; when its stage's inputs were at hand
    copies: int = 1  # leases wanted at once
    attempt: int = 0  # leases that have ended
    leases: dict[str, Lease] = field(default_factory=dict)  # worker -> its lease
    failed_at: set[str] = field(default_factory=set)  # workers whose lease on it ended
    owner: str = ""  # sharing: the worker that it belongs to

    @property
    def wanting(self) -> bool:
        """True when the task should be with more workers than it is."""
        return len(self.leases) < self.copies


class Dispatcher:
    """See the module's rules. Holds tasks by key; tensors stay with the caller."""

    def __init__(self, source: str, robot: str, session: int, settings: DispatcherSettings | None = None) -> None:
        self.source, self.robot, self.session = source, robot, session
        self.settings = settings or DispatcherSettings()
        self.workers: dict[str, WorkerView] = {}
        self.frames: dict[int, _Frame] = {}  # open, ascending
        self.queue: list[TaskKey] = []  # tasks that want a worker, in the order in which they go out
        self._plans: dict[str, PlanShape] = {}
        self._newest_plan = ""
        self._reachable: set[str] = set()  # also of workers not heard yet
        self.orphans: set[tuple[int, int]] = set()  # (session, frame) that a former self of this source left behind
        self._aggregator: int | None = None  # session of the one that was heard last
        self._unconfirmed: set[int] = set()  # frames that were closed by time and are not known to be reported
        self._progress_sequence = -1
        self._progress_at = float("-inf")  # s; when that was heard
        self._sequence = 0
        self._now = 0.0  # s; of the newest event
        self._patience: Patience | None = None  # that the views' `due` is by
        self._plan_told_at = float("-inf")  # s
        self._some_on_demand = False  # a worker was heard that makes pieces ready when it is first given them
        self._published: tuple[Any, ...] = ()
        self._published_at = float("-inf")
        self._oldest_open = 0
        self._handlers: dict[type, Callable[[Any, float], list[Any]]] = {
            PlanInstalled: self._handle_plan,
            StageReady: self._handle_stage,
            WorkerHeard: self._handle_worker,
            WorkerReachable: self._handle_reachable,
            ProgressHeard: self._handle_progress,
            Tick: lambda event, now: [],
        }

    def handle(self, event: Any, now: float) -> list[Any]:
        """Take in an event at steady time `now` (seconds); returns what is to be done, in order."""
        self._forgive_own_absence(now)
        self._now = now
        actions = self._handlers[type(event)](event, now)
        actions += self._end_leases(now)
        actions += self._recover(now)
        actions += self._close_overdue(now)
        actions += self._assign(now)
        return actions + self._publish(now)

    def hear(self, state: WorkerState, now: float) -> bool:
        """Take in a worker's state if nothing follows from it now; False: it was not taken in, and is for `handle`.

        Most states of a large fleet are of this kind: a heartbeat, a task begun, room offered when nothing waits.
        What a former session of this source left behind is found by `handle` alone.
        """
        view = self.workers.get(state.worker)
        if (
            view is None
            or view.silent
            or state.session != view.state.session
            or self._newest_plan not in state.plans
            or state.refused
            or state.on_demand
            or (self.queue and (view.leases or view.strays or (state.offered_to == self.source and state.room > 0)))
        ):
            return False
        if not view.leases and not view.strays:
            if view.hear(state, now):
                view.due = now + self.settings.patience.worker_timeout
            return True
        seen = state.seen.get((self.source, self.session), 0)
        arrived = [lease for lease in view.leases.values() if lease.acknowledged or seen >= lease.number]
        if not all(lease.listed(state) for lease in arrived):
            return False
        if view.hear(state, now):
            view.note_tasks(self.source, self.session, now)
            view.set_due(now, self.settings.patience)
        return True

    def next_wake(self) -> float:
        """Steady time at which `Tick` is due, in seconds."""
        patience = self.settings.patience
        times = [self._published_at + self.settings.heartbeat]
        times += [frame.deadline for frame in self.frames.values()]
        times += [view.due for view in self.workers.values()]
        if self._some_on_demand:
            waiting = (task.ready_at for frame in self.frames.values() for task in frame.tasks.values() if task.wanting)
            times += [due for at in waiting if (due := at + patience.lease_min) > self._now]
        if self.settings.recover_after < float("inf"):
            for frame in self.frames.values():
                times += [t.ready_at + self.settings.recover_after for t in frame.tasks.values() if t.copies == 1]
        return min(times)

    def in_flight(self) -> int:
        """Bytes of work on the way, given up or not, plus results expected."""
        return sum(view.bytes_in_flight for view in self.workers.values() if view.leases or view.strays)

    def full(self) -> bool:
        """True while the window takes no task: a frame begun now would wait, and only get old."""
        if self.queue:
            return not self._window_takes(self._piece(self.queue[0]), self.in_flight())
        stages = self._plans[self._newest_plan].stages if self._newest_plan else ()
        first = next((piece for stage in stages if not stage.local for piece in stage.pieces), None)
        return first is not None and not self._window_takes(first, self.in_flight())

    # Events

    def _handle_plan(self, event: PlanInstalled, now: float) -> list[Any]:
        self._plans[event.plan] = event.shape
        self._newest_plan = event.plan
        in_use = {frame.plan for frame in self.frames.values()} | {event.plan}
        for view in self.workers.values():
            view.given = {piece for piece in view.given if piece[0] in in_use}
        self._plans = {plan: shape for plan, shape in self._plans.items() if plan in in_use}
        return self._tell_plan(now)

    def _tell_plan(self, now: float) -> list[Any]:
        self._plan_told_at = now
        return [PublishPlan(self._newest_plan)]

    def _handle_stage(self, event: StageReady, now: float) -> list[Any]:
        frame = self.frames.setdefault(event.frame, _Frame(event.plan, event.deadline))
        stage = self._plans[event.plan].stages[event.stage]
        if stage.local:  # runs at the aggregator, and is no task
            return []
        able = {} if self.settings.stealing else {v.name: v for v in self._able(event.plan, now)}
        owned = owners(len(stage.pieces), able, dict(self.settings.shares), event.plan, event.stage) if able else []
        for piece in range(len(stage.pieces)):
            key = TaskKey(self.source, self.session, event.frame, event.stage, piece)
            frame.tasks[key] = _Task(key, now, stage.replicas, owner=owned[piece] if owned else "")
            self.queue.append(key)
        return []

    def _handle_worker(self, event: WorkerHeard, now: float) -> list[Any]:
        state = event.state
        view = self.workers.get(state.worker)
        said = self._find_orphans(state)
        self._some_on_demand = self._some_on_demand or bool(state.on_demand)
        lacks = self._wants(state) and not (self._newest_plan in state.plans or self._newest_plan in state.refused)
        if lacks and now >= self._plan_told_at + self.settings.plan_again:
            said += self._tell_plan(now)
        if view is None:
            self._make_place()
            if len(self.workers) >= self.settings.max_workers:
                return [Note("too many workers", f"worker {state.worker!r} ignored: {len(self.workers)} are known")]
            # Numbers go on where the worker last saw them: it may be one that was forgotten here.
            number = state.seen.get((self.source, self.session), 0) + 1
            reachable = state.worker in self._reachable
            self.workers[state.worker] = WorkerView(state, now, reachable, next_number=number)
            joined = Note("worker joined", f"worker {state.worker!r} on robot {state.robot!r} joined", warn=False)
            return [joined, *said, *self._refusal(frozenset(), state)]
        before, silent = view.state, view.silent
        if not view.hear(state, now):
            text = f"worker {state.worker!r} is two processes, one on {state.robot!r}: give each a name of its own"
            return [Note("two workers of one name", text)] if view.twin(state.session, now) else []
        view.due = now
        if silent:  # it may not have heard us either, and offers its room to who is heard
            self._published_at = float("-inf")
        if before.session != state.session:
            lost = [] if silent and not view.leases else self._lose(view, "restarted", now)
            return [*lost, *said, *self._refusal(frozenset(), state)]
        view.note_tasks(self.source, self.session, now)
        return [*said, *self._refusal(before.refused, state)]

    def _wants(self, state: WorkerState) -> bool:
        """Whether the plan in force is for this worker."""
        plan = self._plans.get(self._newest_plan)
        return plan is not None and takes_part(state.robot, plan.robots)

    def _find_orphans(self, state: WorkerState) -> list[Any]:
        """Frames of a former session of this source that a worker still has tasks of: nobody will report them."""
        found = {
            (key.session, key.frame)
            for key in (*state.held, *state.answered)
            if key.source == self.source and key.session != self.session
        }
        if not self._count_orphans(found):
            return []
        text = f"source {self.source!r} was restarted; {len(self.orphans)} frames of before cannot be accounted for"
        return [Note("frames unaccounted for", text)]

    def _count_orphans(self, found: set[tuple[int, int]]) -> bool:
        """Remember them, as far as there is a place; whether there were new ones."""
        before = len(self.orphans)
        self.orphans.update(sorted(found - self.orphans)[: self.settings.max_orphans - before])
        return len(self.orphans) > before

    def _refusal(self, known: frozenset[str], state: WorkerState) -> list[Any]:
        """What there is to say when a worker has come to refuse a plan of this source."""
        refused = (state.refused - known) & self._plans.keys()
        text = f"worker {state.worker!r} cannot serve plan {', '.join(refused)}: its model is {state.model[:12]}"
        return (
            [Note("plan refused by worker", f"{text}; see its log, and give every robot the same file")]
            if refused
            else []
        )

    def _make_place(self) -> None:
        """Forget workers that fell silent, when there are as many as may be remembered."""
        if len(self.workers) >= self.settings.max_workers:
            self.workers = {name: view for name, view in self.workers.items() if view.leases or not view.silent}

    def _handle_reachable(self, event: WorkerReachable, now: float) -> list[Any]:
        (self._reachable.add if event.reachable else self._reachable.discard)(event.worker)
        if event.worker in self.workers:
            self.workers[event.worker].reachable = event.reachable
        return []

    def _handle_progress(self, event: ProgressHeard, now: float) -> list[Any]:
        progress = event.progress
        if progress.source != self.source or progress.session not in (self.session, 0):
            return [
                Note(
                    "foreign progress",
                    f"progress of {progress.source!r} session {progress.session:x} ignored",
                )
            ]
        # As with workers a lower sequence is believed after a silence only: then the aggregator's robot started anew.
        stale = now - self._progress_at > self.settings.patience.worker_timeout
        if progress.sequence <= self._progress_sequence and not (stale and progress.aggregator != self._aggregator):
            return []
        self._progress_sequence, self._progress_at = progress.sequence, now
        lost = self._find_lost(progress)
        if progress.session == 0:
            return lost
        for frame in self.frames.values():
            for key in [key for key in frame.tasks if progress.done(key)]:
                self._forget(frame, key)
        actions: list[Any] = lost
        for number in [number for number in self.frames if number < progress.oldest_open]:
            actions += self._close(number)
        self._oldest_open = max(self._oldest_open, progress.oldest_open)
        return actions

    def _find_lost(self, progress: Progress) -> list[Any]:
        """Frames that an aggregator took to its grave: the one that speaks now is another and knows nothing of them."""
        known, self._aggregator = self._aggregator, progress.aggregator
        first = progress.oldest_open if progress.session else float("inf")
        closed = {number for number in (*self.frames, *self._unconfirmed) if number < first}
        self._unconfirmed -= closed
        if not closed or known in (None, progress.aggregator):
            return []
        self._count_orphans({(self.session, number) for number in closed})
        text = f"the aggregator of source {self.source!r} was restarted; {len(self.orphans)} frames of before"
        actions: list[Any] = [Note("frames unaccounted for", f"{text} cannot be accounted for")]
        for number in closed & self.frames.keys():
            actions += self._close(number)
        return actions

    # Leases

    def _end_leases(self, now: float) -> list[Any]:
        actions: list[Any] = []
        patience = self.settings.patience
        for view in self.workers.values():
            if now < view.due and patience is self._patience:
                continue
            view.forget_strays(now, patience)
            if not view.silent and now - view.heard_at > patience.worker_timeout:
                actions += self._lose(view, f"is silent since {now - view.heard_at:.2f} s", now)
                view.silent = True
            for lease in list(view.leases.values()):
                why = self._why_ended(view, lease, now)
                if not why or lease.key not in view.leases:
                    continue
                actions.append(self._end(view, lease, f"worker {view.name!r} {why}"))
                if not lease.acknowledged:
                    view.silent = True
                elif lease.heads_at is not None and lease.answered_at is None and lease.listed(view.state):
                    actions += self._lose(view, f"hangs on {lease.key}", now)
                    view.silent = True
            view.set_due(now, patience)
        self._patience = patience
        return actions

    def _why_ended(self, view: WorkerView, lease: Lease, now: float) -> str:
        patience = self.settings.patience
        if lease.acknowledged and not lease.listed(view.state):
            return "neither holds nor answered it"
        if now < lease.end(view.state, patience):
            return ""
        if not lease.acknowledged:
            return f"did not acknowledge it within {lease.transit:.2g} s"
        if lease.answered_at is not None:
            return f"answered, and no result came within {lease.transit:.2g} s"
        return f"did not finish it within {lease.seconds(view.state, patience):.3f} s"

    def _lose(self, view: WorkerView, why: str, now: float) -> list[Any]:
        """A worker is lost: all it holds goes to others, and if that happens often it is left out for a while."""
        seconds = view.fail(now, self.settings.patience) if self._anybody_heard(now) else 0.0
        text = f"worker {view.name!r} {why}" + (f"; it is left out for {seconds:g} s" if seconds else "")
        ended = [self._end(view, lease, f"worker {view.name!r} {why}") for lease in list(view.leases.values())]
        return [Note("worker lost", text), *ended]

    def _anybody_heard(self, now: float) -> bool:
        recent = self.settings.patience.worker_timeout / 2
        return any(now - view.heard_at <= recent for view in self.workers.values())

    def _forgive_own_absence(self, now: float) -> None:
        absent = now - self._now - 2 * self.settings.heartbeat
        if absent > 0:
            self._progress_at += absent
            for view in self.workers.values():
                view.forgive(absent)

    def _end(self, view: WorkerView, lease: Lease, why: str) -> Note:
        view.let_go(lease)
        task = self.frames[lease.key.frame].tasks[lease.key]
        del task.leases[view.name]
        task.attempt += 1
        task.failed_at.add(view.name)
        if task.attempt >= self.settings.max_attempts:
            if lease.key in self.queue:  # another copy of it was wanted
                self.queue.remove(lease.key)
            return Note("task given up", f"task {lease.key}: {why}; given up after {task.attempt} tries")
        if lease.key not in self.queue:
            self.queue.insert(0, lease.key)
        return Note("task sent again", f"task {lease.key}: {why}; goes to another worker")

    def _recover(self, now: float) -> list[Any]:
        """What a stage still lacks after `recover_after` is wanted from a second worker as well."""
        if self.settings.recover_after == float("inf"):
            return []
        overdue = [
            task
            for frame in self.frames.values()
            for task in frame.tasks.values()
            if task.copies == 1 and now >= task.ready_at + self.settings.recover_after
        ]
        for task in overdue:
            task.copies = 2
            if task.key not in self.queue and task.attempt < self.settings.max_attempts:
                self.queue.insert(0, task.key)
        return [Note("task doubled", f"task {task.key}: late, so wanted twice", warn=False) for task in overdue]

    # Assignment

    def _able(self, plan: str, now: float) -> list[WorkerView]:
        return [view for view in self.workers.values() if view.serves(plan, now)]

    def _assign(self, now: float) -> list[Any]:
        actions = self._hand_out(now, ready=True)
        return actions + self._hand_out(now, ready=False) if self._some_on_demand else actions

    def _hand_out(self, now: float, ready: bool) -> list[Any]:
        """Give queued tasks to workers that have the piece ready, or to those that must read its weights first."""
        actions: list[Any] = []
        rooms = sum(max(0, view.room_for(self.source)) for view in self.workers.values()) if self.queue else 0
        if self.queue and any(self.frames[key.frame].tasks[key].owner for key in self.queue):
            rooms = len(self.queue) * len(self.workers)  # who owns a task gets it without having offered room
        if rooms <= 0:
            return actions
        in_flight = self.in_flight()
        able_of: dict[str, list[WorkerView]] = {}  # plan -> workers
        for key in list(self.queue):
            frame = self.frames[key.frame]
            task, piece = frame.tasks[key], self._piece(key)
            while task.wanting and rooms > 0:
                if not self._window_takes(piece, in_flight):
                    return actions
                if frame.plan not in able_of:
                    able_of[frame.plan] = self._able(frame.plan, now)
                able = able_of[frame.plan]
                if self._surplus(key):
                    able = [view for view in able if view.name not in frame.served.get(key.stage, ())]
                if self._some_on_demand:
                    having = [view for view in able if view.has_ready(frame.plan, key.stage, key.piece)]
                    if ready or not self._worth_reading(task, having, now):
                        able = having
                view = choose(key, frame.plan, able, task.leases.keys(), task.failed_at, task.owner)
                if view is None:
                    break
                actions.append(self._send(view, task, piece, now, in_flight))
                in_flight += piece.bytes_in + piece.bytes_out
                rooms -= 1
            if not task.wanting:
                self.queue.remove(key)
            if rooms <= 0:
                break
        return actions

    def _worth_reading(self, task: _Task, having: list[WorkerView], now: float) -> bool:
        """True when a task should not wait for those who have its piece ready: none can take it, or not for long."""
        waited = now - task.ready_at >= self.settings.patience.lease_min
        return waited or all(view.name in task.leases or view.name in task.failed_at for view in having)

    def _surplus(self, key: TaskKey) -> bool:
        """True when as many pieces of a coded stage as suffice are out or done: one more is worth a worker that has
        none of them, but must not keep one that has from the next stage.
        """
        stage, tasks = self._stage(key), self.frames[key.frame].tasks
        if not stage.coded or tasks[key].copies != 1:
            return False
        waiting = sum(other.stage == key.stage and not task.leases for other, task in tasks.items())
        return len(stage.pieces) - waiting >= stage.enough

    def _send(self, view: WorkerView, task: _Task, piece: PieceShape, now: float, in_flight: int) -> SendWork:
        key, frame = task.key, self.frames[task.key.frame]
        frame.served.setdefault(key.stage, set()).add(view.name)
        # A second copy is no second try: it counts as one only where the first has failed or is overdue.
        attempt = task.attempt + (len(task.leases) if self._stage(key).replicas == 1 else 0)
        lease = Lease(
            key,
            frame.plan,
            view.name,
            view.state.session,
            view.next_number,
            attempt,
            now,
            piece.macs,
            piece.bytes_in,
            piece.bytes_out,
        )
        patience = self.settings.patience
        lease.ahead = in_flight + lease.bytes_in_flight
        unknown = max(patience.transit, patience.worker_timeout)
        lease.transit = view.pace.patience(lease.ahead, patience.transit, patience.lifespan, unknown)
        view.next_number += 1
        view.leases[key] = task.leases[view.name] = lease
        view.due = min(view.due, lease.end(view.state, patience))
        if frame.plan in view.state.on_demand:
            view.given.add((frame.plan, key.stage, key.piece))
        return SendWork(view.name, lease.session, key, frame.plan, lease.number, attempt, frame.deadline - now)

    def _window_takes(self, piece: PieceShape, in_flight: int) -> bool:
        return in_flight == 0 or in_flight + piece.bytes_in + piece.bytes_out <= self.settings.window

    def _stage(self, key: TaskKey) -> StageShape:
        return self._plans[self.frames[key.frame].plan].stages[key.stage]

    def _piece(self, key: TaskKey) -> PieceShape:
        return self._stage(key).pieces[key.piece]

    # Ends

    def _forget(self, frame: _Frame, key: TaskKey) -> None:
        task = frame.tasks.pop(key)
        for worker, lease in task.leases.items():
            self.workers[worker].let_go(lease)
            self.workers[worker].set_due(self._now, self.settings.patience)
        if key in self.queue:
            self.queue.remove(key)

    def _close(self, number: int) -> list[Any]:
        frame = self.frames[number]
        for key in list(frame.tasks):
            self._forget(frame, key)
        del self.frames[number]
        return [ReleaseFrame(number)]

    def _close_overdue(self, now: float) -> list[Any]:
        """The aggregator closes frames; this is for the time when there is none."""
        overdue = [number for number, frame in self.frames.items() if now >= frame.deadline]
        if len(self._unconfirmed) < self.settings.max_orphans:
            self._unconfirmed |= set(overdue)
        return [action for number in overdue for action in self._close(number)]

    def _publish(self, now: float) -> list[Any]:
        queued = len(self.queue)
        told = (self._newest_plan, self._oldest_open, queued)
        if told == self._published and now < self._published_at + self.settings.heartbeat:
            return []
        self._published, self._published_at = told, now
        self._sequence = next_sequence(self._sequence, now)
        return [
            PublishSource(
                SourceState(
                    self.source,
                    self.robot,
                    self.session,
                    self._sequence,
                    self._newest_plan,
                    self._oldest_open,
                    queued,
                )
            )
        ]
