# SPDX-License-Identifier: Apache-2.0
"""State machine of a source's queue, leases and assignment.

Rules
  A task is queued when its stage's inputs are at hand, leased to one worker at a time, and done when Progress says so;
  nothing else ends a task but the end of its frame.
  Stealing: workers offer room and are given the task at the head of the queue, idle workers first.
  Sharing: pieces belong to workers by a fixed division of the stage; workers that fall out lose theirs to the others.
  A lease ends, and its task goes to the front of the queue and to another worker if there is one, when
    the worker restarted, or was silent for `worker_timeout`;
    the work was not acknowledged within `transit`;
    the worker has seen a work of this or a later number and neither holds nor answered the task;
    the task headed the worker's list for longer than the lease; what waits behind it goes too;
    the answer did not reach the aggregator within `transit`.
  The bytes on the way, work and results expected, stay within `window`, but one task may always travel.
  First answers win: a lease that ended too early costs a second computation, never a wrong result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dnn_dist.run.fleetview import Lease, WorkerView
from dnn_dist.run.notes import Note
from dnn_dist.run.shape import PieceShape, PlanShape
from dnn_dist.run.state import Progress, SourceState, WorkerState, next_sequence
from dnn_dist.run.wire import TaskKey


@dataclass(frozen=True, slots=True)
class DispatcherSettings:
    """Durations in seconds. All may change while running."""

    stealing: bool = True  # False: sharing by a fixed division
    shares: tuple[tuple[str, float], ...] = ()  # sharing: (worker, weight); empty: by measured speed, at first equal
    window: int = 4_000_000  # bytes on the way, work and expected results
    transit: float = 0.1  # longest that a work, or an answer, should take to be acknowledged
    worker_timeout: float = 0.5  # silence after which a worker is taken for gone
    lease_min: float = 0.1  # shortest lease
    lease_factor: float = 3.0  # lease = factor * MACs / measured speed
    max_attempts: int = 5  # tries of one task
    heartbeat: float = 0.2  # longest gap between two source states
    max_workers: int = 256  # workers remembered


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
class ReleaseFrame:
    """Nothing of this frame is needed any more: free its tensors."""

    frame: int


@dataclass(slots=True)
class _Frame:
    plan: str
    deadline: float
    tasks: dict[TaskKey, _Task] = field(default_factory=dict)  # queued or leased


@dataclass(slots=True)
class _Task:
    key: TaskKey
    attempt: int = 0
    lease: Lease | None = None
    failed_at: set[str] = field(default_factory=set)  # workers whose lease on it ended
    owner: str = ""  # sharing: the worker that it belongs to


class Dispatcher:
    """See the module's rules. Holds tasks by key; tensors stay with the caller."""

    def __init__(self, source: str, robot: str, session: int, settings: DispatcherSettings | None = None) -> None:
        self.source, self.robot, self.session = source, robot, session
        self.settings = settings or DispatcherSettings()
        self.workers: dict[str, WorkerView] = {}
        self.frames: dict[int, _Frame] = {}  # open, ascending
        self.queue: list[TaskKey] = []  # tasks without a lease, in the order in which they go out
        self._plans: dict[str, PlanShape] = {}
        self._newest_plan = ""
        self._reachable: set[str] = set()  # also of workers not heard yet
        self._progress_sequence = -1
        self._sequence = 0
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
        actions = self._handlers[type(event)](event, now)
        actions += self._end_leases(now)
        actions += self._close_overdue(now)
        actions += self._assign(now)
        return actions + self._publish(now)

    def next_wake(self) -> float:
        """Steady time at which `Tick` is due, in seconds."""
        times = [self._published_at + self.settings.heartbeat]
        times += [frame.deadline for frame in self.frames.values()]
        for view in self.workers.values():
            if view.leases:
                times.append(view.heard_at + self.settings.worker_timeout)
                times += [self._lease_end(view, lease) for lease in view.leases.values()]
        return min(times)

    def in_flight(self) -> int:
        """Bytes of work on the way plus results expected."""
        return sum(lease.bytes_in_flight for view in self.workers.values() for lease in view.leases.values())

    # Events

    def _handle_plan(self, event: PlanInstalled, now: float) -> list[Any]:
        self._plans[event.plan] = event.shape
        self._newest_plan = event.plan
        in_use = {frame.plan for frame in self.frames.values()} | {event.plan}
        self._plans = {plan: shape for plan, shape in self._plans.items() if plan in in_use}
        return []

    def _handle_stage(self, event: StageReady, now: float) -> list[Any]:
        frame = self.frames.setdefault(event.frame, _Frame(event.plan, event.deadline))
        pieces = len(self._plans[event.plan].stages[event.stage].pieces)
        owners = [] if self.settings.stealing else self._owners(event.plan, pieces)
        for piece in range(pieces):
            key = TaskKey(self.source, self.session, event.frame, event.stage, piece)
            frame.tasks[key] = _Task(key, owner=owners[piece] if owners else "")
            self.queue.append(key)
        return []

    def _handle_worker(self, event: WorkerHeard, now: float) -> list[Any]:
        state = event.state
        view = self.workers.get(state.worker)
        if view is None:
            self._make_place()
            if len(self.workers) >= self.settings.max_workers:
                return [Note("too many workers", f"worker {state.worker!r} ignored: {len(self.workers)} are known")]
            self.workers[state.worker] = WorkerView(state, now, reachable=state.worker in self._reachable)
            joined = Note("worker joined", f"worker {state.worker!r} on robot {state.robot!r} joined", warn=False)
            return [joined, *self._refusal(frozenset(), state)]
        before = view.state
        if not view.hear(state, now):
            return []
        if before.session != state.session:
            ended = self._end_all(view, f"worker {state.worker!r} restarted")
            return [*ended, *self._refusal(frozenset(), state)]
        for lease in view.leases.values():
            lease.acknowledged = lease.acknowledged or self._seen(view) >= lease.number
            if lease.heads_at is None and state.held[:1] == (lease.key,):
                lease.heads_at = now
            if lease.answered_at is None and lease.key in state.answered:
                lease.answered_at = now
        return self._refusal(before.refused, state)

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
        if (progress.source, progress.session) != (self.source, self.session):
            return [
                Note(
                    "foreign progress",
                    f"progress of {progress.source!r} session {progress.session:x} ignored",
                )
            ]
        if progress.sequence <= self._progress_sequence:
            return []
        self._progress_sequence = progress.sequence
        for frame in self.frames.values():
            for key in [key for key in frame.tasks if progress.done(key)]:
                self._forget(frame, key)
        actions: list[Any] = []
        for number in [number for number in self.frames if number < progress.oldest_open]:
            actions += self._close(number)
        self._oldest_open = max(self._oldest_open, progress.oldest_open)
        return actions

    # Leases

    def _seen(self, view: WorkerView) -> int:
        return view.state.seen.get((self.source, self.session), 0)

    def _lease_end(self, view: WorkerView, lease: Lease) -> float:
        """Steady time at which the lease ends if nothing more is heard."""
        if not lease.acknowledged:
            return lease.sent_at + self.settings.transit
        if lease.answered_at is not None:
            return lease.answered_at + self.settings.transit
        if lease.heads_at is not None:
            return lease.heads_at + self._lease_seconds(view, lease)
        return float("inf")

    def _lease_seconds(self, view: WorkerView, lease: Lease) -> float:
        if not view.state.speed > 0:
            return float("inf")  # nothing computed yet: how long it takes is not known; silence still counts
        usual = self._piece(lease.key).macs / view.state.speed
        return max(self.settings.lease_min, self.settings.lease_factor * usual)

    def _end_leases(self, now: float) -> list[Any]:
        actions: list[Any] = []
        for view in self.workers.values():
            name = view.state.worker
            if not view.silent and now - view.heard_at > self.settings.worker_timeout:
                view.silent = True
                actions.append(Note("worker silent", f"worker {name!r}: not heard for {now - view.heard_at:.2f} s"))
                actions += self._end_all(view, f"worker {name!r} is silent")
            for lease in list(view.leases.values()):
                why = self._why_ended(view, lease, now)
                if not why or lease.key not in view.leases:
                    continue
                actions.append(self._end(view, lease, why))
                hangs = lease.heads_at is not None and lease.answered_at is None and now >= self._lease_end(view, lease)
                if hangs:
                    actions += self._end_all(view, f"worker {name!r} hangs on {lease.key}")
                view.silent = view.silent or hangs or not lease.acknowledged
        return actions

    def _why_ended(self, view: WorkerView, lease: Lease, now: float) -> str:
        listed = lease.key in view.state.held or lease.key in view.state.answered
        if lease.acknowledged and not listed:
            return f"worker {lease.worker!r} neither holds nor answered it"
        if now < self._lease_end(view, lease):
            return ""
        if not lease.acknowledged:
            return f"worker {lease.worker!r} did not acknowledge it within {self.settings.transit:g} s"
        if lease.answered_at is not None:
            return f"the answer of worker {lease.worker!r} did not arrive within {self.settings.transit:g} s"
        return f"worker {lease.worker!r} did not finish it within {self._lease_seconds(view, lease):.3f} s"

    def _end_all(self, view: WorkerView, why: str) -> list[Any]:
        return [self._end(view, lease, why) for lease in list(view.leases.values())]

    def _end(self, view: WorkerView, lease: Lease, why: str) -> Note:
        del view.leases[lease.key]
        task = self.frames[lease.key.frame].tasks[lease.key]
        task.lease = None
        task.attempt += 1
        task.failed_at.add(lease.worker)
        if task.attempt < self.settings.max_attempts:
            self.queue.insert(0, lease.key)
            return Note("task sent again", f"task {lease.key}: {why}; goes to another worker")
        return Note("task given up", f"task {lease.key}: {why}; given up after {task.attempt} tries")

    # Assignment

    def _assign(self, now: float) -> list[Any]:
        actions: list[Any] = []
        for key in list(self.queue):
            frame = self.frames[key.frame]
            task = frame.tasks[key]
            piece = self._piece(key)
            if not self._window_takes(piece):
                break
            view = self._choose(task, frame.plan)
            if view is None:
                continue
            self.queue.remove(key)
            lease = Lease(
                key,
                view.state.worker,
                view.state.session,
                view.next_number,
                task.attempt,
                now,
                piece.bytes_in,
                piece.bytes_out,
            )
            view.next_number += 1
            view.leases[key] = task.lease = lease
            actions.append(
                SendWork(
                    lease.worker,
                    lease.session,
                    key,
                    frame.plan,
                    lease.number,
                    lease.attempt,
                    frame.deadline - now,
                )
            )
        return actions

    def _choose(self, task: _Task, plan: str) -> WorkerView | None:
        """The worker that gets this task now; None: it waits."""
        able = [view for view in self.workers.values() if view.serves(plan)]
        # A worker that failed this task gets it again only if there is no other.
        fresh = [view for view in able if view.state.worker not in task.failed_at] or able
        owner = [view for view in fresh if view.state.worker == task.owner]
        if owner:
            return owner[0]
        offering = [view for view in fresh if view.room_for(self.source) > 0]
        return min(offering, key=lambda view: (view.load, -view.state.speed, view.state.worker), default=None)

    def _owners(self, plan: str, pieces: int) -> list[str]:
        """Sharing: the owner of each piece; runs of pieces in proportion to the workers' weights."""
        able = sorted(name for name, view in self.workers.items() if view.serves(plan))
        weights = {name: weight for name, weight in self.settings.shares if name in able and weight > 0}
        speeds = {name: self.workers[name].state.speed for name in able}
        weights = weights or (speeds if all(speeds.values()) else dict.fromkeys(able, 1.0))
        total, reached, owners = sum(weights.values()), 0.0, list[str]()
        for name, weight in weights.items():
            reached += weight
            owners += [name] * (round(pieces * reached / total) - len(owners))
        return owners

    def _window_takes(self, piece: PieceShape) -> bool:
        in_flight = self.in_flight()
        return in_flight == 0 or in_flight + piece.bytes_in + piece.bytes_out <= self.settings.window

    def _piece(self, key: TaskKey) -> PieceShape:
        return self._plans[self.frames[key.frame].plan].stages[key.stage].pieces[key.piece]

    # Ends

    def _forget(self, frame: _Frame, key: TaskKey) -> None:
        task = frame.tasks.pop(key)
        if task.lease is not None:
            del self.workers[task.lease.worker].leases[key]
        elif key in self.queue:
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
