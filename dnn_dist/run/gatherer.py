# SPDX-License-Identifier: Apache-2.0
"""State machine of a source's open frames: merging, what comes after a stage, deadlines, and the one report a frame.

Rules
  A frame goes through its plan's stages in order. A distributed stage is settled when every piece is held, or as many
  as suffice where some carry parity; a local stage when the caller says that its thread has ended. The last stage is
  local and makes the detections.
  The first result of a task is used; others are counted and dropped. Results may overtake their frame's announcement.
  A distributed stage waits for its pieces until its share of the deadline ends (run/shares.py); while shares are not
  known, until the deadline less the p95 of what must still run after it. Then what is missing is filled in, if anything
  came at all; else the frame ends without a result.
  For workers of whom none is heard it waits no longer than `worker_timeout`, or half of the frame's budget if that
  is longer: better an answer with what there is, and then a newer frame; but the first of them may take its time. Who
  was held up cannot tell who was silent meanwhile.
  Every frame announced ends in exactly one report, no later than its deadline. Progress names the aggregator's session,
  from its start on, so that the source learns at once which frames died with the one before. A session of the source
  that has ended announces nothing any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from dnn_dist.run.events import (
    Fill,
    FrameAnnounced,
    FrameBegun,
    FrameFailed,
    Keep,
    LocalDone,
    PeersReachable,
    PlanInstalled,
    Publish,
    PublishProgress,
    ResultArrived,
    RunLocal,
    Settled,
    StillHeard,
    Tick,
    WorkerHeard,
)
from dnn_dist.run.gathered import GatheredFrame, GathererSettings
from dnn_dist.run.notes import Note
from dnn_dist.run.report import Status
from dnn_dist.run.saving import Thrift
from dnn_dist.run.shape import PlanShape
from dnn_dist.run.shares import Shares, SharesSolved
from dnn_dist.run.stagetimes import StageTimes
from dnn_dist.run.state import Progress, StageProgress, next_sequence
from dnn_dist.run.twins import Twins
from dnn_dist.run.wire import TaskKey

SILENT_SHARE = 0.5
"""Of a frame's budget; nobody's silence for less than that ends it: it may still become whole when links are back."""


class Gatherer:
    """See the module's rules. Holds pieces by number; tensors stay with the caller."""

    def __init__(self, source: str, settings: GathererSettings | None = None, aggregator: int = 0) -> None:
        """`aggregator`: this process's own session."""
        self.source, self.aggregator = source, aggregator
        self.settings = settings or GathererSettings()
        self.session: int | None = None  # of the dispatcher whose frames these are
        self._twins = Twins()
        self.frames: dict[int, GatheredFrame] = {}  # open, ascending
        self.next_frame = 0  # frames from here on are not announced yet
        self._closed: deque[int] = deque(maxlen=self.settings.max_gap)  # frames reported last, of this session
        self._plans: dict[str, PlanShape] = {}
        self._newest_plan = ""  # of the frame announced last
        self.early: dict[TaskKey, ResultArrived] = {}  # results that overtook their frame's announcement
        self._times = StageTimes(self.settings.history)
        self.thrift = Thrift()
        self.shares = Shares()
        self._peers: frozenset[str] = frozenset()  # workers that feeds can be sent to
        self._sequence = 0
        self._changed = False
        self._published_at = float("-inf")
        self._now = 0.0  # s; of the newest event
        self._worker_heard_at: float | None = None  # s; any of them
        self._due = float("-inf")  # s; when time alone may change something
        self._handlers: dict[type, Callable[[Any, float], list[Any]]] = {
            PlanInstalled: self._handle_plan,
            FrameAnnounced: self._handle_frame,
            FrameFailed: self._handle_failed,
            ResultArrived: self._handle_result,
            WorkerHeard: lambda event, now: self._hear_worker(now),
            StillHeard: lambda event, now: self._hear_worker(max(event.at.values(), default=float("-inf"))),
            LocalDone: self._handle_local,
            PeersReachable: self._handle_peers,
            SharesSolved: self._handle_shares,
            Tick: lambda event, now: [],
        }

    def handle(self, event: Any, now: float) -> list[Any]:
        """Take in an event at steady time `now` (seconds); returns what is to be done, in order."""
        absent = now - self._now - 2 * self._heartbeat
        if self._worker_heard_at is not None and absent > 0:
            self._worker_heard_at += absent  # own absence is nobody's silence
        self._now = now
        actions = self._handlers[type(event)](event, now)
        if type(event) is WorkerHeard and now < self._due:
            return actions
        due = min(map(self._wait_until, self.frames.values()), default=float("inf"))
        if due <= now:
            actions += self._check_time(now)
            due = min(map(self._wait_until, self.frames.values()), default=float("inf"))
        actions += self._publish(now)
        self._due = min(due, self._published_at + self._heartbeat)
        return actions

    @property
    def _heartbeat(self) -> float:
        return self.settings.heartbeat if self.frames else self.settings.idle_heartbeat

    def next_wake(self) -> float:
        """Steady time at which `Tick` is due, in seconds."""
        return self._due

    # Events

    @property
    def plans(self) -> frozenset[str]:
        """Plans whose frames are taken."""
        return frozenset(self._plans)

    def _handle_plan(self, event: PlanInstalled, now: float) -> list[Any]:
        self._plans.pop(event.plan, None)
        self._plans[event.plan] = event.shape  # the last one
        in_use = {frame.plan for frame in self.frames.values()}
        spare = [plan for plan in self._plans if plan not in in_use and plan != self._newest_plan]
        for plan in spare[: -self.settings.max_plans]:
            del self._plans[plan]
        self._times.keep(self._plans)
        self.shares.keep(self._plans)
        self._changed = True
        return []

    def _handle_frame(self, event: FrameAnnounced, now: float) -> list[Any]:
        # The plan comes first: who does not know a plan of ours is no source of ours, whatever session it names.
        if event.plan not in self._plans:
            return [Note("unknown plan", f"frame {event.frame} names plan {event.plan!r}, not installed here")]
        if event.session in self._twins.former:
            text = f"frame {event.frame} of source {self.source!r}: session {event.session:x} has ended"
            two = f"source {self.source!r} is two processes: give each a name of its own"
            again = [Note("two sources of one name", two)] if self._twins.heard(now) else []
            return [Note("late announcement", text), *again]
        actions: list[Any] = []
        if event.session == self.session and event.frame in self._closed:
            return [Note("doubled frame", f"frame {event.frame} was announced before")]
        if event.session != self.session or abs(event.frame - self.next_frame) > self.settings.max_gap:
            actions += self._begin(event.session, event.frame, now)
        if event.frame < self.next_frame:
            return [*actions, Note("doubled frame", f"frame {event.frame} was announced before")]
        while len(self.frames) >= self.settings.max_open:
            oldest = next(iter(self.frames))
            actions.append(Note("too many frames", f"frame {oldest} closed: {len(self.frames)} frames are open"))
            actions.append(self._end(oldest, Status.NO_RESULT, now))
        self.next_frame = event.frame + 1
        self.frames[event.frame] = GatheredFrame(event.plan, now, event.budget, level=event.level)
        self._newest_plan, self._changed = event.plan, True
        actions.append(FrameBegun(event.frame))
        if event.error:
            note = Note("bad image", f"frame {event.frame}: {event.error}")
            return [*actions, note, self._end(event.frame, Status.NO_RESULT, now)]
        actions += self._enter(event.frame, now)
        for key in [key for key in self.early if key.frame <= event.frame]:
            early = self.early.pop(key)
            if key.frame == event.frame:
                actions += self._handle_result(early, now)
        return actions

    def _begin(self, session: int, first_frame: int, now: float) -> list[Any]:
        """Take up a session of the source; frames of the one before end here."""
        actions: list[Any] = [self._end(number, Status.NO_RESULT, now) for number in list(self.frames)]
        if self.session not in (None, session):
            self._twins.former.append(self.session)
        if self.session is not None:
            text = f"source {self.source!r} goes on with frame {first_frame} of session {session:x}"
            actions.append(Note("source restarted", text))
        if session != self.session:
            self._closed.clear()
        self.early = {key: early for key, early in self.early.items() if key.session == session}
        self.session, self.next_frame = session, first_frame
        return actions

    def _handle_failed(self, event: FrameFailed, now: float) -> list[Any]:
        if event.frame not in self.frames:
            return []
        return [Note("no result", f"frame {event.frame}: {event.why}"), self._end(event.frame, Status.NO_RESULT, now)]

    def _handle_peers(self, event: PeersReachable, now: float) -> list[Any]:
        self._peers, self._changed = event.workers, True
        return []

    def _handle_shares(self, event: SharesSolved, now: float) -> list[Any]:
        self.shares.take(event.solved)
        return []

    def _hear_worker(self, at: float) -> list[Any]:
        self._worker_heard_at = at if self._worker_heard_at is None else max(self._worker_heard_at, at)
        return []

    def _handle_result(self, event: ResultArrived, now: float) -> list[Any]:
        if self._worker_heard_at is not None:
            self._worker_heard_at = now
        key = event.key

        def told(kind: str, why: str, warn: bool = True) -> list[Any]:
            return [Note(kind, f"result {key} of worker {event.worker!r}: {why}", warn, about=event.worker)]

        if key.source != self.source or key.session != (self.session or key.session):
            return told("foreign result", "not of this source's session")
        if self.session is None or key.frame >= self.next_frame:
            return [] if self._keep_early(event) else told("foreign result", "no such frame")
        frame = self.frames.get(key.frame)
        if frame is None:
            return told("late result", "the frame is closed", warn=False)
        if event.plan != frame.plan:
            return told("foreign plan", f"plan {event.plan!r}")
        shape = self._plans[frame.plan]
        stages = shape.stages
        if not 0 <= key.stage < len(stages) or not 0 <= key.piece < len(stages[key.stage].pieces):
            return told("broken result", "no such stage or piece")
        if event.error:
            return told("worker failed", event.error)
        if key.stage >= shape.chain(frame.stage).stop:
            return told("foreign result", "the stage has not begun")
        if not stages[key.stage].reports:
            return told("foreign result", "what the stage makes goes to other pieces")
        if key.stage < frame.stage:
            return told("late result", "the stage is settled", warn=False)
        held = frame.held.setdefault(key.stage, set())
        if key.piece in held:
            return told("doubled result", "held already", warn=False)
        held.add(key.piece)
        self._changed = True
        frame.account(event, stages[key.stage].pieces[key.piece].bytes_in)
        self.shares.note(frame.plan, frame.stage, now - frame.stage_began, came=True)
        actions: list[Any] = [Keep(key)]
        if all(len(frame.held.get(stage, ())) >= stages[stage].enough for stage in shape.reporting(frame.stage)):
            actions += self._settle(key.frame, now)
        return actions

    def _keep_early(self, event: ResultArrived) -> bool:
        near = self.session is None or event.key.frame < self.next_frame + self.settings.max_open
        if not near or len(self.early) >= self.settings.max_early:
            return False
        self.early[event.key] = event
        return True

    def _handle_local(self, event: LocalDone, now: float) -> list[Any]:
        frame = self.frames.get(event.frame) if event.session == self.session else None
        if frame is None or (frame.plan, frame.stage) != (event.plan, event.stage):
            # Else nobody would learn that the stage takes longer than was left for it, and every frame would be late.
            self._times.note(event.plan, event.stage, event.seconds)
            return [
                Note(
                    "late local stage",
                    f"frame {event.frame}: local stage {event.stage} ended after the deadline",
                )
            ]
        frame.local += event.seconds
        if event.error:
            text = f"frame {event.frame}: stage {event.stage}: {event.error}"
            note = Note("local stage failed", text, about=str(event.stage))
            return [note, self._end(event.frame, Status.NO_RESULT, now)]
        return self._settle(event.frame, now)

    # A frame's way

    def _enter(self, number: int, now: float) -> list[Any]:
        """Begin the stage that the frame has come to; of a distributed one the dispatcher learns by Progress."""
        frame = self.frames[number]
        stages = self._plans[frame.plan].stages
        frame.stage_began, frame.stage_computed = now, {}
        if stages[frame.stage].local:
            assert self.session is not None, "a frame is open before one was announced"
            return [RunLocal(self.session, number, frame.plan, frame.stage, last=frame.stage == len(stages) - 1)]
        return []

    def _settle(self, number: int, now: float, filled: bool = False) -> list[Any]:
        """The open stage is done; go on to the next, or to the report. `filled`: with pieces filled in."""
        frame = self.frames[number]
        self._times.note(frame.plan, frame.stage, now - frame.stage_began)
        frame.computed += max(frame.stage_computed.values(), default=0.0)
        self._changed = True
        shape = self._plans[frame.plan]
        self._give_up(frame, now)
        settled: list[Any] = []
        for stage in shape.reporting(frame.stage):
            held, enough = frame.held.get(stage, set()), shape.stages[stage].enough
            if not filled and shape.stages[stage].coded:
                frame.decoded += enough - sum(piece < enough for piece in held)
            settled.append(Settled(number, stage, whole=not frame.filled, pieces=tuple(sorted(held))))
        frame.stage = shape.chain(frame.stage).stop
        if frame.stage < len(shape.stages):
            return [*settled, *self._enter(number, now)]
        if not frame.filled:
            self.thrift.note(False, frame.level)
        return [*settled, self._end(number, frame.status, now), *self._solve(frame)]

    def _give_up(self, frame: GatheredFrame, now: float) -> None:
        """Nobody waits any longer for what the open stage lacks: how long that would have taken is not known."""
        shape = self._plans[frame.plan]
        reporting = [] if shape.stages[frame.stage].local else shape.reporting(frame.stage)
        lacked = sum(len(shape.stages[stage].pieces) - len(frame.held.get(stage, ())) for stage in reporting)
        self.shares.note(frame.plan, frame.stage, now - frame.stage_began, came=False, pieces=lacked)

    def _solve(self, frame: GatheredFrame) -> list[Any]:
        """Have shares solved, if it is time: beside everything else."""
        shape, settings = self._plans[frame.plan], self.settings
        local = {n: self._times.quantile(frame.plan, n, 0.95) for n, stage in enumerate(shape.stages) if stage.local}
        problem = self.shares.problem(frame.plan, shape, local, frame.budget, settings.guard, settings.deadlines)
        return [problem] if problem is not None else []

    def _end(self, number: int, status: Status, now: float) -> Publish:
        frame = self.frames.pop(number)
        self._closed.append(number)
        self._changed = True
        return Publish(frame.report(number, status, self._plans[frame.plan], now))

    # Time

    def _wait_until(self, frame: GatheredFrame) -> float:
        """Steady time until which the open stage is waited for."""
        shape = self._plans[frame.plan]
        if shape.stages[frame.stage].local:
            return frame.deadline
        until = self.shares.until(frame.plan, frame.stage, frame.budget, self.settings.deadlines)
        patient = self._patience(frame) if until is None else frame.announced_at + until
        if until is not None and not any(frame.held.get(stage) for stage in shape.reporting(frame.stage)):
            patient = max(patient, self._patience(frame))  # nothing at all is no answer
        if self._worker_heard_at is None:
            return patient
        # Who allows a frame ten seconds does not want half an answer after half a second.
        silence = max(self.settings.worker_timeout, frame.budget * SILENT_SHARE)
        return min(patient, max(self._worker_heard_at, frame.announced_at) + silence)

    def _patience(self, frame: GatheredFrame) -> float:
        """The same as far as the times of stages tell."""
        stages = self._plans[frame.plan].stages
        next_stage = self._plans[frame.plan].chain(frame.stage).stop
        after = sum(self._times.quantile(frame.plan, stage, 0.95) for stage in range(next_stage, len(stages)))
        # Never give up before half the budget is gone: a few slow frames must not talk the gatherer out of waiting.
        return max(frame.deadline - after - self.settings.guard, frame.announced_at + frame.budget / 2)

    def _check_time(self, now: float) -> list[Any]:
        actions: list[Any] = []
        for number, frame in list(self.frames.items()):
            if now < self._wait_until(frame):
                continue
            shape = self._plans[frame.plan]
            missing = {stage: self._missing(frame, stage) for stage in shape.reporting(frame.stage)}
            lacked, enough = sum(map(len, missing.values())), sum(shape.stages[stage].enough for stage in missing)
            heard = self._worker_heard_at is not None and now - self._worker_heard_at < self.settings.worker_timeout
            why = frame.why_not(number, shape.stages[frame.stage].local, lacked, enough, heard, now)
            if lacked and heard:
                self.thrift.note(True, frame.level)
            if shape.stages[frame.stage].local or lacked == enough or now >= frame.deadline:
                self._give_up(frame, now)
                actions += [Note("no result", why), self._end(number, Status.NO_RESULT, now), *self._solve(frame)]
                continue
            frame.filled += lacked
            actions += [Note("filled in", why), *(Fill(number, stage, pieces) for stage, pieces in missing.items())]
            actions += self._settle(number, now, filled=True)
        return actions

    def _missing(self, frame: GatheredFrame, stage: int) -> tuple[int, ...]:
        held = frame.held.get(stage, set())
        enough = self._plans[frame.plan].stages[stage].enough
        return tuple(piece for piece in range(enough) if piece not in held) if len(held) < enough else ()

    def _publish(self, now: float) -> list[Any]:
        if not self._changed and now < self._published_at + self._heartbeat:
            return []
        self._changed, self._published_at = False, now
        self._sequence = next_sequence(self._sequence, now)
        return [PublishProgress(self._progress())]

    def _progress(self) -> Progress:
        if self.session is None:
            return Progress(self.source, 0, self._sequence, 0, {}, self.aggregator, self.plans, self._peers)
        oldest = min(self.frames, default=self.next_frame)
        stages: dict[tuple[int, int], StageProgress] = {}
        for number in range(oldest, self.next_frame):
            frame = self.frames.get(number)
            if frame is None:
                # Closed before an older one. A frame of another plan may have more stages; that one is closed by time.
                most = max(len(shape.stages) for shape in self._plans.values())
                stages.update({(number, stage): StageProgress(settled=True) for stage in range(most)})
                continue
            for stage in range(self._plans[frame.plan].chain(frame.stage).stop):
                held = frozenset(frame.held.get(stage, ()))
                stages[number, stage] = StageProgress(held, settled=stage < frame.stage)
        who = self.aggregator, self.plans, self._peers, self.thrift.level
        return Progress(self.source, self.session, self._sequence, oldest, stages, *who)
