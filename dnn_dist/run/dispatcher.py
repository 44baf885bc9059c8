# SPDX-License-Identifier: Apache-2.0
"""State machine of a source's queue, leases and plans.

Rules
  A task is queued when its stage's inputs are at hand: the model's with the frame, others when Progress says that all
  stages before are settled. It is leased to as many workers at a time as it has copies (one, unless the plan asks for
  replicas or the task is overdue), and done when Progress says so; nothing else ends a task but the end of its frame.
  Who is given it: run/handout.py. When a lease is lost: run/leases.py.
  A work given up counts in the window until the worker has seen it or `lifespan` has passed, for so long it may still
  be sent; but not while the worker is silent, for to somebody who does not answer nothing is sent again. While the
  window takes no task the dispatcher is `full`, and no frame should be begun.
  Which plan new frames take: run/planswitch.py.
  A worker of another version is named and given nothing: it would derive other pieces.
  Who was held up itself cannot tell who was silent meanwhile: its own pause counts against nobody.
  Frames that an aggregator had when it was restarted, and that it did not say were closed, are counted and let go.
  First answers win: a lease that ended too early costs a second computation, never a wrong result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dnn_dist.run import leases
from dnn_dist.run.assignment import owners
from dnn_dist.run.bylink import ByLink
from dnn_dist.run.chains import Chains
from dnn_dist.run.events import (
    FrameReady,
    FrameRefused,
    PlanInstalled,
    ProgressHeard,
    PublishSource,
    ReleaseFrame,
    StillHeard,
    Tick,
    WorkerHeard,
    WorkerReachable,
)
from dnn_dist.run.fleetview import WorkerView
from dnn_dist.run.handout import able, hand_out
from dnn_dist.run.kinds import Kinds
from dnn_dist.run.lease import LeaseState
from dnn_dist.run.notes import Note
from dnn_dist.run.planswitch import PlanSwitch
from dnn_dist.run.restarts import Restarts
from dnn_dist.run.spares import Spares
from dnn_dist.run.state import Progress, SourceState, StageProgress, WorkerState, newer, next_sequence
from dnn_dist.run.tasks import Books, DispatcherSettings, OpenFrame, Task
from dnn_dist.run.wire import TaskKey


class Dispatcher:
    """See the module's rules. Holds tasks by key; tensors stay with the caller."""

    def __init__(
        self, source: str, robot: str, session: int, settings: DispatcherSettings | None = None, apart: bool = False
    ) -> None:
        """`apart`: the aggregator is another process, which has what was merged."""
        self._books = Books(source, robot, session, settings or DispatcherSettings(), apart=apart)
        self.workers, self.frames, self.queue = self._books.workers, self._books.frames, self._books.queue
        self._restarts = Restarts(source, session, self.settings.max_orphans)
        self._switch = PlanSwitch(self._books)
        self._kinds = Kinds()
        self._chains = Chains(self._books)
        self._spares = Spares(self._books)
        self._next_frame = 0  # no frame of this or a higher number was begun
        self._reachable: set[str] = set()  # also of workers not heard yet
        self._progress: Progress | None = None  # the newest
        self._progress_at = float("-inf")  # s; when that was heard
        self._sequence = 0
        self._now = 0.0  # s; of the newest event
        self._published: tuple[Any, ...] = ()
        self._published_at = float("-inf")
        self._oldest_open = 0
        self._handlers: dict[type, Callable[[Any, float], list[Any]]] = {
            PlanInstalled: self._switch.install,
            FrameReady: self._handle_frame,
            FrameRefused: self._handle_refused,
            WorkerHeard: self._handle_worker,
            StillHeard: self._handle_still,
            WorkerReachable: self._handle_reachable,
            ProgressHeard: self._handle_progress,
            Tick: lambda event, now: [],
        }

    @property
    def settings(self) -> DispatcherSettings:
        """May be replaced at any time."""
        return self._books.settings

    @settings.setter
    def settings(self, settings: DispatcherSettings) -> None:
        self._books.settings = settings
        self._books.due = float("-inf")
        for view in self.workers.values():
            view.due = float("-inf")

    @property
    def plan(self) -> str:
        """The plan for new frames; empty before the first."""
        return self._books.plan

    @property
    def plans(self) -> frozenset[str]:
        """All plans that are in use: in force, to come into force, or of an open frame."""
        return frozenset(self._books.plans)

    @property
    def by_link(self) -> ByLink:
        """Plans for links of several rates; without any it has no rungs."""
        return self._switch.by_link

    @property
    def saving(self) -> int:
        """How much new frames should save of their bytes, as the aggregator says."""
        return self._progress.saving if self._progress else 0

    @property
    def orphans(self) -> set[tuple[int, int]]:
        """(session, frame) of which nobody will report."""
        return self._restarts.orphans

    def handle(self, event: Any, now: float) -> list[Any]:
        """Take in an event at steady time `now` (seconds); returns what is to be done, in order."""
        self._come(now)
        books = self._books
        actions = self._handlers[type(event)](event, now)
        if now >= books.due:
            actions += leases.end_overdue(books, now)
        if overdue := [number for number, frame in self.frames.items() if now >= frame.deadline]:
            actions += self._close_overdue(overdue, now)
        actions += self._switch.look(self._progress.plans if self._progress else frozenset(), now)
        if books.unfed:
            actions += self._chains.feed_again(now)
        actions += self._spares.call(now)
        if self.queue:
            given = [*hand_out(books, now), *self._place_chains(now)]
            actions += given + self._chains.scatter(given, now)
        if books.unlent:
            actions += self._chains.do_without(now)
        return actions + self._publish(now)

    def _come(self, now: float) -> None:
        absent = now - self._now - 2 * self._books.settings.heartbeat
        if absent > 0:
            self._progress_at += absent
            leases.forgive(self._books, absent)
        self._now = now

    def _place_chains(self, now: float) -> list[Any]:
        books = self._books
        plans = {books.frames[key.frame].plan for key in self.queue if books.chained(key)}
        return self._chains.place({plan: able(books, plan, now) for plan in plans}, now) if plans else []

    def next_wake(self) -> float:
        """Steady time at which `Tick` is due, in seconds."""
        books = self._books
        settings = books.settings
        due = min(self._published_at + settings.heartbeat, books.due, self._switch.due)
        for frame in self.frames.values():
            due = min(due, frame.deadline)
        return min(due, self._spares.due(self._now))

    def in_flight(self) -> int:
        """Bytes of work on the way, given up or not, plus results expected."""
        return self._books.in_flight()

    def full(self) -> bool:
        """True while the window takes no task: a frame begun now would wait, and only get old."""
        books = self._books
        if self.queue and not books.chained(self.queue[0]):
            return not books.window_takes(books.piece(self.queue[0]), books.in_flight())
        if self.queue:
            return True
        stages = books.plans[books.plan].stages if books.plan else ()
        if stages and stages[0].chained:
            return not self._chains.takes(books.plan, 0, books.in_flight())
        first = next((piece for stage in stages if not stage.local for piece in stage.pieces), None)
        return first is not None and not books.window_takes(first, books.in_flight())

    # Frames

    def _handle_frame(self, event: FrameReady, now: float) -> list[Any]:
        self._next_frame = max(self._next_frame, event.frame + 1)
        self.frames.setdefault(event.frame, OpenFrame(event.plan, event.deadline))
        self._begin(event.frame, 0, now)
        return []

    def _begin(self, frame_number: int, first: int, now: float) -> None:
        """A frame has come to a stage: queue the tasks of its chain. A local one runs at the aggregator."""
        books, frame = self._books, self.frames[frame_number]
        shape = books.plans[frame.plan]
        if not frame.begun <= first < len(shape.stages) or shape.stages[first].local:
            return
        stage, chain = shape.stages[first], shape.chain(first)
        frame.begun = chain.stop
        candidates = (
            {}
            if books.settings.stealing or stage.chained
            else {view.name: view for view in able(books, frame.plan, now)}
        )
        owned = (
            owners(len(stage.pieces), candidates, dict(books.settings.shares), frame.plan, first) if candidates else []
        )
        for number in chain:
            for piece in range(len(shape.stages[number].pieces)):
                key = TaskKey(books.source, books.session, frame_number, number, piece)
                copies = self._spares.copies(frame, number, piece, now)
                frame.tasks[number, piece] = Task(key, now, copies, owner=owned[piece] if owned else "")
                if copies:
                    self.queue.append(key)

    def _handle_refused(self, event: FrameRefused, now: float) -> list[Any]:
        self._next_frame = max(self._next_frame, event.frame + 1)
        return self._close(event.frame, now) if event.frame in self.frames else []

    def _close(self, number: int, now: float) -> list[Any]:
        self._books.close(number, now)
        if len(self._books.plans) > 1:
            self._switch.drop_unused()
            self._spares.keep(self._books.plans)
        return [ReleaseFrame(number)]

    def _close_overdue(self, overdue: list[int], now: float) -> list[Any]:
        """The aggregator closes frames; this is for the time when there is none."""
        self._restarts.closed_by_time(overdue)
        return [action for number in overdue for action in self._close(number, now)]

    def _handle_progress(self, event: ProgressHeard, now: float) -> list[Any]:
        progress, known = event.progress, self._progress
        books = self._books
        if progress.source != books.source or progress.session not in (books.session, 0):
            text = f"progress of {progress.source!r} session {progress.session:x} ignored"
            return [Note("foreign progress", text, about=progress.source)]
        if progress.session and progress.oldest_open > self._next_frame:
            text = f"progress says that frames below {progress.oldest_open} are closed; {self._next_frame} were begun"
            return [Note("broken progress", text)]
        # A lower sequence is believed after a silence only: then the aggregator's robot started anew.
        silence = now - self._progress_at
        another = known is None or progress.aggregator != known.aggregator
        stale = another and silence > books.settings.worker_timeout
        if known is not None and not stale and not newer(progress.sequence, known.sequence, silence):
            return []
        self._progress, self._progress_at, books.met = progress, now, progress.peers
        dead, actions = self._restarts.lost_with_aggregator(progress, self.frames)
        result: list[Any] = [*actions, *self._switch.tell_aggregator(progress.plans, now)]
        for number in dead:
            result += self._close(number, now)
        if progress.session == 0:
            return result
        for number in self.frames:
            if (stage := progress.open_stage(number)) is not None:
                self._begin(number, stage, now)
        told = {} if known is None or another else known.stages
        for (number, stage), held in progress.stages.items():
            if number in self.frames and told.get((number, stage)) != held:
                self._hear_held(self.frames[number], stage, held, now)
        for number in [number for number in self.frames if number < progress.oldest_open]:
            result += self._close(number, now)
        self._oldest_open = max(self._oldest_open, progress.oldest_open)
        return result

    def _hear_held(self, frame: OpenFrame, stage: int, told: StageProgress, now: float) -> None:
        """The aggregator holds more of a stage than before."""
        makers = list(frame.tasks) if told.settled else [(stage, piece) for piece in told.held]
        for task in [frame.tasks[maker] for maker in makers if maker[0] == stage and maker in frame.tasks]:
            if told.settled or not self._books.piece(task.key).takers:
                self._spares.done(frame, task, now)
                self._books.forget(frame, task, LeaseState.DONE, now)
            else:
                task.reported = True

    # Workers

    @property
    def due(self) -> float:
        """Until then nothing that workers owe us is overdue, s."""
        return self._books.due

    def hear(self, state: WorkerState, now: float) -> bool:
        """Take in a worker's state if nothing follows from it: a heartbeat, a task begun, room offered when nothing
        waits. Most states of a large fleet are of this kind. False: it was not taken in, and is for `handle`.
        """
        if self.matters(state):
            return False
        self._come(now)
        books, view = self._books, self.workers[state.worker]
        before = view.state
        if view.hear(state, now) and (view.leases or view.strays):
            stepped = view.note_tasks(books.source, books.session, now)
            if stepped:
                self._chains.stepped(stepped, now)
            # Else it is due no earlier than before.
            if stepped or state.preparing is not before.preparing or state.speeds is not before.speeds:
                books.set_due(view, now)
        return True

    def matters(self, state: WorkerState) -> bool:
        """True when this state may change more than what is known of its worker and of the tasks it has."""
        view, books = self.workers.get(state.worker), self._books
        return (
            view is None
            or view.silent
            or bool(self._switch.next)
            or self._switch.by_link.concerns(view)
            or state.session != view.state.session
            or self._switch.lacks(state)
            or bool(state.refused)
            or bool(state.on_demand)
            or (bool(view.leases) and view.lost_in(state, books.source, books.session))
            or (
                bool(self.queue)
                and (bool(view.leases) or bool(view.strays) or (state.offered_to == books.source and state.room > 0))
            )
        )

    def _handle_worker(self, event: WorkerHeard, now: float) -> list[Any]:
        state, books = event.state, self._books
        view = self.workers.get(state.worker)
        said: list[Any] = [*self._restarts.in_state(state)]
        books.some_on_demand = books.some_on_demand or bool(state.on_demand)
        said += self._switch.tell_what_lacks(state, now)
        if view is None:
            self._make_place()
            if len(self.workers) >= self._books.settings.max_workers:
                text = f"worker {state.worker!r} ignored: {len(self.workers)} are known"
                return [Note("too many workers", text, about=state.worker)]
            # Numbers go on where the worker last saw them: it may be one that was forgotten here.
            seen = state.seen.get((books.source, books.session), 0)
            number = seen + 1 if seen < 2**62 else 1
            reachable = state.worker in self._reachable
            view = self.workers[state.worker] = WorkerView(state, now, reachable, next_number=number)
            books.due = min(books.due, view.due)
            text = f"worker {state.worker!r} on robot {state.robot!r} joined"
            joined = Note("worker joined", text, warn=False, about=state.worker)
            return [joined, *said, *self._switch.refusal(frozenset(), state), *self._kinds.notes(state)]
        before, silent = view.state, view.silent
        if not view.hear(state, now):
            another = state.session != view.state.session
            text = f"worker {state.worker!r} is two processes, one on {state.robot!r}: give each a name of its own"
            two = another and view.twins.heard(now)
            return [Note("two workers of one name", text, about=state.worker)] if two else []
        view.due = books.due = now
        if silent:  # it may not have heard us either, and offers its room to who is heard
            self._published_at = float("-inf")
        if before.session != state.session:
            lost = [] if silent and not view.leases else leases.lose(books, view, "restarted", now)
            return [*lost, *said, *self._switch.refusal(frozenset(), state), *self._kinds.notes(state)]
        self._chains.stepped(view.note_tasks(books.source, books.session, now), now)
        return [*said, *self._switch.refusal(before.refused, state)]

    def _handle_still(self, event: StillHeard, now: float) -> list[Any]:
        for worker, at in event.at.items():
            view = self.workers.get(worker)
            if view is not None and at > view.heard_at and not view.silent:
                view.heard_at = at
                self._books.set_due(view, now)
        return []

    def _make_place(self) -> None:
        """Forget workers that fell silent, when there are as many as may be remembered."""
        if len(self.workers) >= self._books.settings.max_workers:
            for name in [name for name, view in self.workers.items() if view.silent and not view.leases]:
                del self.workers[name]

    def _handle_reachable(self, event: WorkerReachable, now: float) -> list[Any]:
        (self._reachable.add if event.reachable else self._reachable.discard)(event.worker)
        if event.worker in self.workers:
            self.workers[event.worker].reachable = event.reachable
        return []

    def _publish(self, now: float) -> list[Any]:
        books, queued = self._books, len(self.queue)
        told = (books.plan, queued)  # Progress says what is over
        if told == self._published and now < self._published_at + self._books.settings.heartbeat:
            return []
        self._published, self._published_at = told, now
        self._sequence = next_sequence(self._sequence, now)
        return [
            PublishSource(
                SourceState(
                    books.source,
                    books.robot,
                    books.session,
                    self._sequence,
                    books.plan,
                    self._oldest_open,
                    queued,
                )
            )
        ]
