# SPDX-License-Identifier: Apache-2.0
"""State machine of a source's open frames: merging, what comes after a stage, deadlines, and the one report a frame.

Rules
  A frame goes through its plan's stages in order. A distributed stage is settled when every piece is held, or as many
  as suffice where some carry parity; a local stage when the caller says that its thread has ended. The last stage is
  local and makes the detections.
  The first result of a task is used; others are counted and dropped. Results may overtake their frame's announcement.
  A distributed stage waits for its pieces until the deadline less the p95 of what must still run after it. Then what is
  missing is filled in, if anything came at all; else the frame ends without a result.
  For workers of whom none is heard it waits no longer than `worker_timeout`, or half of the frame's budget if that
  is longer: better an answer with what there is, and then a newer frame; but the first of them may take its time. Who
  was held up cannot tell who was silent meanwhile.
  Every frame announced ends in exactly one report, no later than its deadline. Progress names the aggregator's session,
  from its start on, so that the source learns at once which frames died with the one before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dnn_dist.run.notes import Note
from dnn_dist.run.report import FrameReport, Status, WorkerShare
from dnn_dist.run.shape import PlanShape, StageShape
from dnn_dist.run.state import Progress, StageProgress, next_sequence
from dnn_dist.run.wire import TaskKey

SILENT_SHARE = 0.5
"""Of a frame's budget; nobody's silence for less than that ends it: it may still become whole when links are back."""


@dataclass(frozen=True, slots=True)
class GathererSettings:
    """Durations in seconds. All may change while running."""

    guard: float = 0.005  # kept between giving up on pieces and the last moment for what runs after
    heartbeat: float = 0.1  # longest gap between two Progress messages, also while no frame is open
    worker_timeout: float = 0.5  # silence of all workers, since the frame began, after which nothing is waited for
    max_open: int = 8  # frames open at once; older ones are closed without a result
    max_early: int = 64  # results kept that overtook their frame's announcement
    max_gap: int = 1024  # frame numbers that may be missing; a longer leap is a new beginning
    history: int = 64  # frames whose times are remembered for the p95


# Events ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlanInstalled:
    """From now on frames may name this plan."""

    plan: str
    shape: PlanShape


@dataclass(frozen=True, slots=True)
class FrameAnnounced:
    """A frame of this source begins."""

    session: int
    frame: int
    plan: str
    budget: float  # s


@dataclass(frozen=True, slots=True)
class SourceRestarted:
    """The source goes on with this frame of a new session; what it left open before ends without a result.

    An announcement says so too. This comes first where its frame's number is one that the former session left open.
    """

    session: int
    frame: int


@dataclass(frozen=True, slots=True)
class ResultArrived:
    """A worker's answer."""

    key: TaskKey
    plan: str
    worker: str
    stolen: bool  # the worker is on another robot than the source
    attempt: int
    computed: float  # s
    bytes: int
    error: str = ""  # why it has no outputs; the source sends the task elsewhere


@dataclass(frozen=True, slots=True)
class WorkerHeard:
    """Some worker's state arrived: somebody is there."""


@dataclass(frozen=True, slots=True)
class LocalDone:
    """A local stage has ended, with `error` in one line if it failed; named as in `RunLocal`."""

    session: int
    frame: int
    stage: int
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


# Actions --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep the outputs of this result until the stage is settled."""

    key: TaskKey


@dataclass(frozen=True, slots=True)
class Fill:
    """These pieces did not come and will be filled in, as the plan says, when the stage is settled."""

    frame: int
    stage: int
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """A stage has all that it needs: make its tensors. `whole`: nothing was filled in."""

    frame: int
    stage: int
    whole: bool
    pieces: tuple[int, ...] = ()  # held; where a coded stage lacks data pieces, they are decoded from the others


@dataclass(frozen=True, slots=True)
class RunLocal:
    """Run a local stage on its thread; its end is the event `LocalDone`."""

    session: int  # of the source: a restarted one counts its frames from 0 again
    frame: int
    stage: int
    last: bool  # the detection head follows


@dataclass(frozen=True, slots=True)
class HandOver:
    """Hand the tensors to the source's dispatcher: this distributed stage is next."""

    frame: int
    stage: int


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish the frame's report and detections; then its tensors may go."""

    report: FrameReport


@dataclass(frozen=True, slots=True)
class PublishProgress:
    """Tell the source's dispatcher and the workers what is done."""

    progress: Progress


@dataclass(slots=True)
class _Frame:
    plan: str
    announced_at: float
    budget: float
    stage: int = 0  # the one that is open
    stage_began: float = 0.0
    held: dict[int, set[int]] = field(default_factory=dict)  # stage -> pieces
    decoded: int = 0
    recomputed: int = 0
    filled: int = 0
    computed: float = 0.0
    stage_computed: dict[str, float] = field(default_factory=dict)  # worker -> s in the open stage
    local: float = 0.0
    workers: dict[str, WorkerShare] = field(default_factory=dict)

    @property
    def deadline(self) -> float:
        return self.announced_at + self.budget


class Gatherer:
    """See the module's rules. Holds pieces by number; tensors stay with the caller."""

    def __init__(self, source: str, settings: GathererSettings | None = None, aggregator: int = 0) -> None:
        """`aggregator`: this process's own session."""
        self.source, self.aggregator = source, aggregator
        self.settings = settings or GathererSettings()
        self.session: int | None = None  # of the dispatcher whose frames these are
        self.frames: dict[int, _Frame] = {}  # open, ascending
        self.next_frame = 0  # frames from here on are not announced yet
        self._plans: dict[str, PlanShape] = {}
        self.early: dict[TaskKey, ResultArrived] = {}  # results that overtook their frame's announcement
        self._stage_seconds: dict[tuple[str, int], deque[float]] = {}  # (plan, stage) -> how long it took
        self._p95s: dict[tuple[str, int], float] = {}  # of these, as far as asked for
        self._sequence = 0
        self._changed = False
        self._published_at = float("-inf")
        self._now = 0.0  # s; of the newest event
        self._worker_heard_at: float | None = None  # s; any of them
        self._handlers: dict[type, Callable[[Any, float], list[Any]]] = {
            PlanInstalled: self._handle_plan,
            FrameAnnounced: self._handle_frame,
            SourceRestarted: self._handle_restart,
            ResultArrived: self._handle_result,
            WorkerHeard: self._handle_worker,
            LocalDone: self._handle_local,
            Tick: lambda event, now: [],
        }

    def handle(self, event: Any, now: float) -> list[Any]:
        """Take in an event at steady time `now` (seconds); returns what is to be done, in order."""
        absent = now - self._now - 2 * self.settings.heartbeat
        if self._worker_heard_at is not None and absent > 0:
            self._worker_heard_at += absent  # own absence is nobody's silence
        self._now = now
        actions = self._handlers[type(event)](event, now)
        actions += self._check_time(now)
        return actions + self._publish(now)

    def hear_worker(self, at: float) -> None:
        """As `WorkerHeard` at steady time `at` (seconds), for a caller that tells it later, before the next event."""
        self._worker_heard_at = at if self._worker_heard_at is None else max(self._worker_heard_at, at)

    def next_wake(self) -> float:
        """Steady time at which `Tick` is due, in seconds."""
        times = [self._wait_until(frame) for frame in self.frames.values()]
        return min([*times, self._published_at + self.settings.heartbeat])

    # Events

    def _handle_plan(self, event: PlanInstalled, now: float) -> list[Any]:
        self._plans[event.plan] = event.shape
        in_use = {frame.plan for frame in self.frames.values()} | {event.plan}
        self._plans = {plan: shape for plan, shape in self._plans.items() if plan in in_use}
        self._stage_seconds = {key: times for key, times in self._stage_seconds.items() if key[0] in in_use}
        self._p95s.clear()
        return []

    def _handle_frame(self, event: FrameAnnounced, now: float) -> list[Any]:
        # The plan comes first: who does not know a plan of ours is no source of ours, whatever session it names.
        if event.plan not in self._plans:
            return [Note("unknown plan", f"frame {event.frame} names plan {event.plan!r}, not installed here")]
        actions: list[Any] = []
        if event.session != self.session or abs(event.frame - self.next_frame) > self.settings.max_gap:
            actions += self._begin(event.session, event.frame, now)
        if event.frame < self.next_frame:
            return [*actions, Note("doubled frame", f"frame {event.frame} was announced before")]
        while len(self.frames) >= self.settings.max_open:
            oldest = next(iter(self.frames))
            actions.append(Note("too many frames", f"frame {oldest} closed: {len(self.frames)} frames are open"))
            actions.append(self._end(oldest, Status.NO_RESULT, now))
        self.next_frame = event.frame + 1
        self.frames[event.frame] = _Frame(event.plan, now, event.budget)
        self._changed = True
        actions += self._enter(event.frame, now, handed_over=True)
        for key in [key for key in self.early if key.frame <= event.frame]:
            early = self.early.pop(key)
            if key.frame == event.frame:
                actions += self._handle_result(early, now)
        return actions

    def _begin(self, session: int, first_frame: int, now: float) -> list[Any]:
        """Take up a session of the source; frames of the one before end here."""
        actions: list[Any] = [self._end(number, Status.NO_RESULT, now) for number in list(self.frames)]
        if self.session is not None:
            text = f"source {self.source!r} goes on with frame {first_frame} of session {session:x}"
            actions.append(Note("source restarted", text))
        self.early = {key: early for key, early in self.early.items() if key.session == session}
        self.session, self.next_frame = session, first_frame
        return actions

    def _handle_restart(self, event: SourceRestarted, now: float) -> list[Any]:
        return self._begin(event.session, event.frame, now)

    def _handle_worker(self, event: WorkerHeard, now: float) -> list[Any]:
        self._worker_heard_at = now
        return []

    def _handle_result(self, event: ResultArrived, now: float) -> list[Any]:
        if self._worker_heard_at is not None:
            self._worker_heard_at = now
        key = event.key
        if key.source != self.source or key.session != (self.session or key.session):
            return [Note("foreign result", f"result {key} of worker {event.worker!r}: not of this source's session")]
        if self.session is None or key.frame >= self.next_frame:
            if self._keep_early(event):
                return []
            return [Note("foreign result", f"result {key} of worker {event.worker!r}: no such frame")]
        frame = self.frames.get(key.frame)
        if frame is None:
            return [Note("late result", f"result {key} of worker {event.worker!r}: the frame is closed", warn=False)]
        if event.plan != frame.plan:
            return [Note("foreign plan", f"result {key} of worker {event.worker!r}: plan {event.plan!r}")]
        stages = self._plans[frame.plan].stages
        if not 0 <= key.stage < len(stages) or not 0 <= key.piece < len(stages[key.stage].pieces):
            return [Note("broken result", f"result {key} of worker {event.worker!r}: no such stage or piece")]
        if event.error:
            return [Note("worker failed", f"task {key} at worker {event.worker!r}: {event.error}")]
        if key.stage > frame.stage:
            return [Note("foreign result", f"result {key} of worker {event.worker!r}: the stage has not begun")]
        if key.stage < frame.stage:
            return [
                Note(
                    "late result",
                    f"result {key} of worker {event.worker!r}: the stage is settled",
                    warn=False,
                )
            ]
        held = frame.held.setdefault(key.stage, set())
        if key.piece in held:
            return [Note("doubled result", f"result {key} of worker {event.worker!r}: held already", warn=False)]
        held.add(key.piece)
        self._changed = True
        self._account(frame, event, stages[key.stage].pieces[key.piece].bytes_in)
        actions: list[Any] = [Keep(key)]
        if len(held) >= stages[key.stage].enough:
            actions += self._settle(key.frame, now)
        return actions

    def _keep_early(self, event: ResultArrived) -> bool:
        near = self.session is None or event.key.frame < self.next_frame + self.settings.max_open
        if not near or len(self.early) >= self.settings.max_early:
            return False
        self.early[event.key] = event
        return True

    def _account(self, frame: _Frame, event: ResultArrived, bytes_in: int) -> None:
        share = frame.workers.setdefault(event.worker, WorkerShare())
        share.tasks += 1
        share.stolen += event.stolen
        share.recomputed += event.attempt > 0
        share.bytes_in += bytes_in
        share.bytes_out += event.bytes
        share.computed += event.computed
        frame.recomputed += event.attempt > 0
        frame.stage_computed[event.worker] = frame.stage_computed.get(event.worker, 0.0) + event.computed

    def _handle_local(self, event: LocalDone, now: float) -> list[Any]:
        frame = self.frames.get(event.frame) if event.session == self.session else None
        if frame is None or frame.stage != event.stage:
            # Else nobody would learn that the stage takes longer than was left for it, and every frame would be late.
            self._note_time(next(reversed(self._plans)), event.stage, event.seconds)
            return [
                Note(
                    "late local stage",
                    f"frame {event.frame}: local stage {event.stage} ended after the deadline",
                )
            ]
        frame.local += event.seconds
        if event.error:
            note = Note("local stage failed", f"frame {event.frame}: stage {event.stage}: {event.error}")
            return [note, self._end(event.frame, Status.NO_RESULT, now)]
        return self._settle(event.frame, now)

    # A frame's way

    def _enter(self, number: int, now: float, handed_over: bool = False) -> list[Any]:
        """Begin the stage that the frame has come to."""
        frame = self.frames[number]
        stages = self._plans[frame.plan].stages
        frame.stage_began, frame.stage_computed = now, {}
        if stages[frame.stage].local:
            assert self.session is not None, "a frame is open before one was announced"
            return [RunLocal(self.session, number, frame.stage, last=frame.stage == len(stages) - 1)]
        # The first stage's inputs are with the dispatcher already.
        return [] if handed_over else [HandOver(number, frame.stage)]

    def _settle(self, number: int, now: float, filled: bool = False) -> list[Any]:
        """The open stage is done; go on to the next, or to the report. `filled`: with pieces filled in."""
        frame = self.frames[number]
        self._note_time(frame.plan, frame.stage, now - frame.stage_began)
        frame.computed += max(frame.stage_computed.values(), default=0.0)
        self._changed = True
        stage, held = self._plans[frame.plan].stages[frame.stage], frame.held.get(frame.stage, set())
        if not filled and stage.coded:
            frame.decoded += stage.enough - sum(piece < stage.enough for piece in held)
        settled = Settled(number, frame.stage, whole=not frame.filled, pieces=tuple(sorted(held)))
        frame.stage += 1
        if frame.stage < len(self._plans[frame.plan].stages):
            return [settled, *self._enter(number, now)]
        return [settled, self._end(number, _status(frame), now)]

    def _end(self, number: int, status: Status, now: float) -> Publish:
        frame = self.frames.pop(number)
        self._changed = True
        distributed = [(index, s) for index, s in enumerate(self._plans[frame.plan].stages) if not s.local]
        total = sum(piece.macs for _, stage in distributed for piece in stage.pieces[: stage.enough])
        done = sum(_done(stage, frame.held.get(index, set())) for index, stage in distributed)
        return Publish(
            FrameReport(
                frame=number,
                plan=frame.plan,
                status=status,
                quality=0.0 if status is Status.NO_RESULT else done / total if total else 1.0,
                pieces=sum(len(stage.pieces) for _, stage in distributed),
                came=sum(len(pieces) for pieces in frame.held.values()) - frame.recomputed,
                decoded=frame.decoded,
                recomputed=frame.recomputed,
                filled=frame.filled,
                latency=now - frame.announced_at,
                budget=frame.budget,
                computed=frame.computed,
                local=frame.local,
                workers=frame.workers,
            )
        )

    # Time

    def _p95(self, plan: str, stage: int) -> float:
        known = self._p95s.get((plan, stage))
        if known is None:
            times = sorted(self._stage_seconds.get((plan, stage), ()))
            known = times[min(len(times) - 1, int(0.95 * len(times)))] if times else 0.0
            self._p95s[plan, stage] = known
        return known

    def _note_time(self, plan: str, stage: int, seconds: float) -> None:
        """A stage took so long, from its beginning to its end."""
        self._stage_seconds.setdefault((plan, stage), deque(maxlen=self.settings.history)).append(seconds)
        self._p95s.pop((plan, stage), None)

    def _wait_until(self, frame: _Frame) -> float:
        """Steady time until which the open stage is waited for."""
        stages = self._plans[frame.plan].stages
        if stages[frame.stage].local:
            return frame.deadline
        after = sum(self._p95(frame.plan, stage) for stage in range(frame.stage + 1, len(stages)))
        # Never give up before half the budget is gone: a few slow frames must not talk the gatherer out of waiting.
        patient = max(frame.deadline - after - self.settings.guard, frame.announced_at + frame.budget / 2)
        if self._worker_heard_at is None:
            return patient
        # Who allows a frame ten seconds does not want half an answer after half a second.
        silence = max(self.settings.worker_timeout, frame.budget * SILENT_SHARE)
        return min(patient, max(self._worker_heard_at, frame.announced_at) + silence)

    def _check_time(self, now: float) -> list[Any]:
        actions: list[Any] = []
        for number, frame in list(self.frames.items()):
            if now < self._wait_until(frame):
                continue
            stage, held = self._plans[frame.plan].stages[frame.stage], frame.held.get(frame.stage, set())
            missing = tuple(piece for piece in range(stage.enough) if piece not in held)
            why = self._why_not(number, frame, len(missing), now)
            if stage.local or len(missing) == stage.enough or now >= frame.deadline:
                actions += [Note("no result", why), self._end(number, Status.NO_RESULT, now)]
                continue
            frame.filled += len(missing)
            actions += [Note("filled in", why), Fill(number, frame.stage, missing)]
            actions += self._settle(number, now, filled=True)
        return actions

    def _why_not(self, number: int, frame: _Frame, missing: int, now: float) -> str:
        """Why a frame is given up, for a person: what was missing, after how long, and what it may come from."""
        stage = self._plans[frame.plan].stages[frame.stage]
        waited = f"after {now - frame.announced_at:.2f} s of {frame.budget:.2f}"
        if stage.local:
            return f"frame {number}: local stage {frame.stage} was not done {waited}; allow it more, or cut it too"
        lacked = f"frame {number}: {missing} of {stage.enough} pieces of stage {frame.stage} had not come {waited}"
        if self._worker_heard_at is None or now - self._worker_heard_at >= self.settings.worker_timeout:
            return f"{lacked}; no worker is heard"
        return f"{lacked}; links or workers are too slow for this plan and deadline, see report and `dnn_dist plan`"

    def _publish(self, now: float) -> list[Any]:
        if not self._changed and now < self._published_at + self.settings.heartbeat:
            return []
        self._changed, self._published_at = False, now
        self._sequence = next_sequence(self._sequence, now)
        return [PublishProgress(self._progress())]

    def _progress(self) -> Progress:
        if self.session is None:
            return Progress(self.source, 0, self._sequence, aggregator=self.aggregator)
        oldest = min(self.frames, default=self.next_frame)
        stages: dict[tuple[int, int], StageProgress] = {}
        for number in range(oldest, self.next_frame):
            frame = self.frames.get(number)
            if frame is None:
                # Closed before an older one. A frame of another plan may have more stages; that one is closed by time.
                most = max(len(shape.stages) for shape in self._plans.values())
                stages.update({(number, stage): StageProgress(settled=True) for stage in range(most)})
                continue
            for stage in range(frame.stage + 1):
                held = frozenset(frame.held.get(stage, ()))
                stages[number, stage] = StageProgress(held, settled=stage < frame.stage)
        return Progress(self.source, self.session, self._sequence, oldest, stages, self.aggregator)


def _status(frame: _Frame) -> Status:
    """How a frame that went through all its stages ended: as its worst piece."""
    if frame.filled:
        return Status.FILLED
    if frame.recomputed:
        return Status.RECOMPUTED
    return Status.DECODED if frame.decoded else Status.COMPLETE


def _done(stage: StageShape, held: set[int]) -> int:
    """MACs of a stage's data that were computed, by the data pieces or by parity in their stead."""
    if len(held) >= stage.enough:
        return sum(piece.macs for piece in stage.pieces[: stage.enough])
    return sum(stage.pieces[piece].macs for piece in held if piece < stage.enough)
