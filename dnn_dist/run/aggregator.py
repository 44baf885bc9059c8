# SPDX-License-Identifier: Apache-2.0
"""A source's aggregator: merges results, runs the rest of the model, and says how each frame ended.

What it decides is in run/gatherer.py. Here results and tensors belong to their keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from dnn_dist.cut.feeds import AGGREGATOR
from dnn_dist.run.events import (
    Fill,
    FrameAnnounced,
    FrameBegun,
    FrameFailed,
    FrameRefused,
    Keep,
    LocalDone,
    PlanInstalled,
    Publish,
    PublishProgress,
    ResultArrived,
    RunLocal,
    Settled,
    WorkerHeard,
)
from dnn_dist.run.gathered import GathererSettings
from dnn_dist.run.gatherer import Gatherer
from dnn_dist.run.notes import Note
from dnn_dist.run.report import Status
from dnn_dist.run.shares import Problem, SharesSolved, Solved
from dnn_dist.run.state import WorkerState
from dnn_dist.run.store import Store
from dnn_dist.run.trust import WORKERS, names_in
from dnn_dist.run.values import Feed, Frame, Installed, Outcome, PlanText, Result, Scatter
from dnn_dist.run.wire import TaskKey, WireError
from dnn_dist.run.world import Job, Loop, Part, World

MOST_PLANS = 64
"""Plans of another process that are remembered as made, or as refused."""


@dataclass(slots=True)
class _Open:
    """An open frame."""

    frame: Frame
    store: Store  # of the plan that it keeps for life
    pixels: Any = None  # the model's input, where that came with the announcement
    outputs: Any = None  # of the last stage
    tiles: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)  # as in `Outcome`


class Aggregator(Part):
    """See the module."""

    def __init__(
        self,
        world: World,
        loop: Loop,
        source: str,
        session: int,
        settings: GathererSettings,
        finish: Callable[[Store, int, Any], Any],
        make_store: Callable[[PlanText], Store] | None = None,
    ) -> None:
        """`finish(store, frame, about)` makes a frame's outputs of the model's; it runs with the last local stage.

        `make_store`: from the plan of a partition in another process; it may take long, and raise DnnDistError. None:
        the partition is in this process, and sends its stores.
        """
        super().__init__(world, loop)
        self.source, self._finish, self._make_store = source, finish, make_store
        self.machine: Gatherer = Gatherer(source, settings, session)
        self.trusted = names_in(settings.trusted)
        self._robots: dict[str, str] = {}  # worker -> robot
        self._coming: _Open | None = None  # the frame that is being announced
        self._open: dict[int, _Open] = {}
        self._arrived: dict[TaskKey, tuple[str, int, Any]] = {}  # (worker, attempt, outputs)
        self._stores: dict[str, Store] = {}  # plan -> tensors
        self._made: set[str] = set()  # plans whose stores are made, or cannot be

    def change(self, settings: GathererSettings) -> None:
        """Parameters have changed."""
        self.machine.settings, self.trusted = settings, names_in(settings.trusted)

    def health(self) -> dict[str, Any]:
        """What diagnostics say of it."""
        return {"frames open": len(self._open), **self.machine.shares.health()}

    @property
    def wants_peers(self) -> bool:
        """Whether workers need what is merged here, and do not get it with their work."""
        return any(store.shape.scattered for store in self._stores.values())

    def forget(self, worker: str) -> None:
        """A worker's topics were let go."""
        self._robots.pop(worker, None)

    # What is heard

    def _take_store(self, installed: Installed) -> None:
        store = installed.store
        self._stores[store.plan.hash] = store
        self.handle(PlanInstalled(store.plan.hash, store.shape))
        in_use = self.machine.plans | {open_.store.plan.hash for open_ in self._open.values()}
        self._stores = {plan: known for plan, known in self._stores.items() if plan in in_use}
        self._made &= self._stores.keys()

    def _hear_plan(self, plan: PlanText) -> None:
        make = self._make_store
        if make is None or plan.source != self.source or plan.plan in self._made or plan.plan in self._stores:
            return
        if len(self._made) >= MOST_PLANS:
            self._made.clear()
        self._made.add(plan.plan)

        def done(store: Store | None, error: str, seconds: float) -> None:
            if store is None:
                self.world.note(Note("plan refused", error, about=plan.plan))
            else:
                self.post(Installed(store))

        self.world.run(Job("prepare", lambda: make(plan)), done)

    def _hear_frame(self, frame: Frame) -> None:
        if frame.source != self.source:
            raise WireError(f"frame of source {frame.source[:64]!r} came on the topic of {self.source!r}")
        store = self._stores.get(frame.plan)
        if store is None:
            raise WireError(f"frame {frame.frame} names plan {frame.plan[:32]!r}, not installed here")
        self._coming = _Open(frame, store, None if frame.error else store.read_image(frame.image))
        self.handle(FrameAnnounced(frame.session, frame.frame, frame.plan, frame.budget, frame.error, frame.level))
        if self._coming is not None:  # it was not taken
            self._coming = None
            self.world.send(FrameRefused(frame.frame))

    def _hear_scatter(self, scatter: Scatter) -> None:
        """Send what was merged to those who need it. What does not come is asked for again, so nothing waits here."""
        number, plan = scatter.frame, scatter.plan
        open_, frame = self._open.get(number), self.machine.frames.get(number)
        who = f"frame {number} of source {scatter.source[:64]!r}"
        if scatter.source != self.source:
            raise WireError(f"what {who} needs was asked for on the topic of {self.source!r}")
        if open_ is None or frame is None or (open_.frame.session, frame.plan) != (scatter.session, plan):
            self.world.note(Note("late scatter", f"{who} is not open", warn=False))
            return
        store, chain = open_.store, open_.store.shape.chain(frame.stage)
        for stage, piece, worker, session in scatter.routes:
            if stage not in chain:
                self.world.note(Note("late scatter", f"{who} has come to stage {frame.stage}, not {stage}", warn=False))
                continue
            key = TaskKey(self.source, scatter.session, number, stage, piece)
            boxes = store.feed(number, stage, piece)
            self.world.send(
                Feed(key, *AGGREGATOR, plan, self.source, self.machine.aggregator, session, boxes), worker
            )

    def _hear_worker(self, state: WorkerState) -> None:
        self._robots[state.worker] = state.robot
        self.handle(WorkerHeard(state))

    def _hear_result(self, result: Result) -> None:
        key, worker = result.key, result.worker
        store = self._stores.get(result.plan)
        if store is None:
            raise WireError(f"result {key} of worker {worker!r}: plan {result.plan[:32]!r} is not in force here")
        size, outputs = (0, None) if result.error else store.check(key.stage, key.piece, result.outputs)
        self._arrived[key] = worker, result.attempt, outputs
        stolen = self._robots.get(worker) != self.machine.settings.robot
        self.handle(
            ResultArrived(key, result.plan, worker, stolen, result.attempt, result.computed, size, result.error[:200])
        )

    def after(self) -> None:
        if self._arrived:
            early = self.machine.early
            for key in [key for key in self._arrived if key not in early]:
                del self._arrived[key]

    # Actions

    def _begin(self, action: FrameBegun) -> None:
        coming, self._coming = self._coming, None
        assert coming is not None and coming.frame.frame == action.frame, "the frame announced is the one that begins"
        self._open[action.frame] = coming
        coming.store.begin(action.frame, coming.pixels)

    def _keep(self, action: Keep) -> None:
        key = action.key
        worker, attempt, outputs = self._arrived[key]
        open_ = self._open[key.frame]
        open_.store.keep(key.frame, key.stage, key.piece, outputs)
        if key.stage == open_.store.shape.shown:
            open_.tiles[key.stage, key.piece] = ("recomputed" if attempt else "fresh", worker)

    def _fill(self, action: Fill) -> None:
        open_ = self._open[action.frame]
        if action.stage == open_.store.shape.shown:
            open_.tiles.update({(action.stage, piece): ("filled", "") for piece in action.pieces})

    def _settle(self, action: Settled) -> None:
        self._open[action.frame].store.settle(action.frame, action.stage, action.whole)

    def _run_local(self, action: RunLocal) -> None:
        open_ = self._open[action.frame]
        store, about = open_.store, open_.frame.about

        def call() -> Any:
            store.run_local(action.frame, action.stage)
            return self._finish(store, action.frame, about) if action.last else None

        def done(outputs: Any, error: str, seconds: float) -> None:
            open_.outputs = outputs
            self.post(LocalDone(action.session, action.frame, action.plan, action.stage, seconds, error))

        key = TaskKey(self.source, action.session, action.frame, action.stage, 0)
        self.world.run(Job("local", call, key, action.plan, store.macs(action.stage)), done)

    def _solve(self, problem: Problem) -> None:
        def done(solved: Solved | None, error: str, seconds: float) -> None:
            if solved is None:
                self.world.note(Note("no shares", f"plan {problem.plan}: {error}", warn=False, about=problem.plan))
            self.post(SharesSolved(solved))

        self.world.run(Job("prepare", problem.solve), done)

    def _publish(self, action: Publish) -> None:
        report = action.report
        open_ = self._open.pop(report.frame)
        outputs = open_.outputs if report.status is not Status.NO_RESULT else None
        try:
            self.world.send(Outcome(report, open_.frame, outputs, open_.tiles, open_.store))
        except Exception as error:  # noqa: BLE001  the net; the frame is reported all the same
            self.world.caught(error, "publishing a frame's outcome")
            report = replace(report, status=Status.NO_RESULT, quality=0.0, macs_share=0.0)
            self.world.send(Outcome(report, open_.frame, None, {}, open_.store))
        finally:
            open_.store.release(report.frame)

    def _publish_progress(self, action: PublishProgress) -> None:
        self.world.send(action.progress)

    def failed(self, what: Any, why: str) -> None:
        key = getattr(what, "key", None)
        frame = key.frame if key is not None else getattr(what, "frame", None)
        if isinstance(frame, int) and not isinstance(what, (Publish, FrameFailed)) and frame in self._open:
            self.post(FrameFailed(frame, why))

    speakers = WORKERS
    takes = {
        Frame: _hear_frame,
        Scatter: _hear_scatter,
        Result: _hear_result,
        WorkerState: _hear_worker,
        PlanText: _hear_plan,
        Installed: _take_store,
    }
    performs = {
        FrameBegun: _begin,
        Keep: _keep,
        Fill: _fill,
        Settled: _settle,
        RunLocal: _run_local,
        Publish: _publish,
        PublishProgress: _publish_progress,
        Problem: _solve,
    }
