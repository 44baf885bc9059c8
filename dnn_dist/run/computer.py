# SPDX-License-Identifier: Apache-2.0
"""A worker: computes pieces for every source of the cluster.

What it decides is in run/worker.py. Here plans, pieces and tensors belong to their keys.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from dnn_dist.cut.feeds import Maker, lenders
from dnn_dist.run.events import (
    BuildPlan,
    Compute,
    Computed,
    DropPlan,
    FeedArrived,
    PlanBuilt,
    PlanOffered,
    Prepare,
    Prepared,
    PublishWorker,
    Reroute,
    Role,
    SendFeeds,
    SendResult,
    StatesHeard,
    Unready,
    WorkArrived,
)
from dnn_dist.run.notes import Note
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.state import Progress, SourceState
from dnn_dist.run.trust import SOURCES, names_in
from dnn_dist.run.values import Feed, PlanText, Result, Route, Work
from dnn_dist.run.wire import TaskKey, WireError
from dnn_dist.run.worker import Worker
from dnn_dist.run.workshop import NOTHING, Made, Pieces
from dnn_dist.run.world import Job, Loop, Part, World


@dataclass(slots=True)
class _Task:
    """What a key of the machine stands for."""

    work: Work
    arrived: float  # s
    waited: float = 0.0
    computed: float = 0.0
    made: Made | None = None
    error: str = ""
    routes: dict[Maker, Route] = field(default_factory=dict)  # piece that gets something of it -> where that is
    unsent: set[Maker] = field(default_factory=set)  # of these, those that did not get it yet
    failed: bool = False  # its weights cannot be read
    alone: bool = False  # strips that it lacks will not come

    def reroute(self, routes: Sequence[Route]) -> None:
        """Feeds go there, those to other pieces as before."""
        for route in routes:
            self.routes[route.stage, route.piece] = route
            self.unsent.add((route.stage, route.piece))


class Computer(Part):
    """See the module."""

    def __init__(
        self, world: World, loop: Loop, session: int, model: str, pieces: Pieces, settings: WorkerSettings
    ) -> None:
        """`model`: SHA-256 of the model file."""
        super().__init__(world, loop)
        self.machine: Worker = Worker(settings.worker, settings.robot, session, model, settings)
        self.trusted = names_in(settings.trusted)
        self._pieces = pieces
        self._offered: dict[str, PlanText] = {}  # plans that are built or being built
        self._tasks: dict[TaskKey, _Task] = {}
        self._coming: Work | None = None  # the work that is being taken
        # What other pieces gave to a task, or to one that may come; by the plan that it has, too.
        self._fed: dict[tuple[TaskKey, str], dict[Maker, Any]] = {}
        self._unreported: dict[tuple[str, int, int], float] = {}  # frame -> s of computing that no result told yet

    def change(self, settings: WorkerSettings) -> None:
        """Parameters have changed. Tasks of a source that is trusted no longer are finished."""
        self.machine.settings, self.trusted = settings, names_in(settings.trusted)

    def health(self) -> dict[str, Any]:
        """What diagnostics say of it."""
        machine = self.machine
        return {
            "model": machine.model[:16],
            **self._pieces.health(),
            "tasks held": len(machine.held),
            "speed (MMAC/s)": round(machine.speeds.overall / 1e6),
            "sources": " ".join(machine.sources) or "none",
        }

    def troubles(self) -> list[str]:
        """What stands in the way of work now, worst first."""
        machine = self.machine
        refused = [f"plan {plan} is refused: {why}" for plan, why in machine.refused.items()]
        return [*refused, *([] if machine.sources else ["no source is heard"])]

    def missed(self, source: str, deadline: float) -> Note | None:
        """No work came of a source within its QoS deadline (s): what there is to say, if it has tasks that wait, and
        this worker's room was offered to it and to nobody else.
        """
        machine = self.machine
        view = machine.sources.get(source)
        waits = view is not None and view.state.queued > 0 and view.state.deadline > 0
        if not waits or machine.held or machine.offered_to(self.world.now()) != source:
            return None
        text = f"worker {machine.name!r}: no work of source {source!r} within {deadline:.2f} s, though tasks wait there"
        return Note("QoS deadline missed", text, about=source)

    @property
    def hungry(self) -> bool:
        """Whether it has room for tasks."""
        machine = self.machine
        return len(machine.held) - len(machine.residence.waiting) + len(machine.outbox) <= machine.settings.prefetch

    @property
    def wants_peers(self) -> bool:
        """Whether feeds may have to go to other workers."""
        return self._pieces.chained

    @property
    def tasks(self) -> Collection[TaskKey]:
        """Tasks that wait, are computed, or whose results wait to be sent."""
        return self._tasks.keys()

    def ready(self, key: TaskKey, plan: str) -> bool:
        """Whether the weights of a task's piece need not be read first."""
        return self._pieces.ready(plan, key.stage, key.piece, self._alone(key))

    def _alone(self, key: TaskKey) -> bool:
        """Whether a task is to be computed without strips that it lacks."""
        task = self._tasks.get(key)
        if task is None or not task.alone:
            return False
        plan = task.work.plan
        role = self._pieces.role(plan, key.stage, key.piece, task.work.inputs)
        return not lenders((key.stage, key.piece), role.awaits) <= self._fed.get((key, plan), NOTHING).keys()

    def plan_of(self, key: TaskKey) -> str:
        """Hash of the plan of one of these."""
        return self._tasks[key].work.plan

    @property
    def sending(self) -> bool:
        """Whether results wait to be sent."""
        return bool(self.machine.outbox)

    @property
    def awaiting(self) -> set[str]:
        """Sources whose next progress lets a result go out."""
        return {key.source for key in self.machine.outbox}

    @property
    def serves(self) -> set[str]:
        """Sources whose progress matters here: they have tasks waiting, computed or answered."""
        return self.machine.busy

    # What is heard

    def knows(self, source: str) -> bool:
        """Whether a source is remembered; the topics of others can be let go."""
        return source in self.machine.sources

    def _hear_plan(self, plan: PlanText) -> None:
        if plan.plan not in self._offered:
            self._offered[plan.plan] = plan
            self.handle(PlanOffered(plan.plan, plan.robots))
        if plan.plan not in self.machine.plans:  # not taken, or refused
            self._offered.pop(plan.plan, None)

    def _hear_states(self, heard: StatesHeard) -> None:
        if not heard.later:
            self.handle(heard)
            return
        for note in self.machine.handle(heard, self.world.now()):
            self.world.note(note)

    def _hear_work(self, work: Work) -> None:
        key, plan = work.key, work.plan
        ready, role = True, Role()
        if not plan:  # a probe of the link
            self.handle(WorkArrived(key, plan, work.worker_session, work.number, work.budget))
            return
        if self.machine.plans.get(plan, False):
            role = self._pieces.role(plan, key.stage, key.piece, work.inputs)  # WireError where there is no such piece
            ready = self._pieces.ready(plan, key.stage, key.piece, work.alone)
            astray = [route for route in work.routes if (route.stage, route.piece) not in role.feeds]
            if astray:
                taker = f"{astray[0].stage}/{astray[0].piece}"
                raise WireError(f"work {key}: feeds of it go to piece {taker}, which gets none")
            if work.alone:
                role = role._replace(awaits=role.awaits - lenders((key.stage, key.piece), role.awaits))
        task = self._tasks.get(key)
        if task is not None and task.work.plan != plan:
            raise WireError(f"work {key}: plan {plan[:32]!r}, which is not the task's")
        if task is None:
            task = self._tasks[key] = _Task(work, self.world.now())
            task.reroute(work.routes)
        task.alone |= work.alone
        self._coming = work
        self.handle(
            WorkArrived(key, plan, work.worker_session, work.number, work.budget, ready, role, work.again, work.alone)
        )

    def lacks_more(self, feed: Feed) -> bool:
        """Whether a task still waits when it has this feed."""
        lacks = self.machine.residence.waiting.get(feed.key, ())
        return len(lacks) > 1 and (feed.stage, feed.piece) in lacks

    def _hear_feed(self, feed: Feed) -> None:
        key, maker, machine = feed.key, (feed.stage, feed.piece), self.machine
        if feed.receiver_session != machine.session:
            raise WireError(f"feed {key} of worker {feed.worker!r}: meant for session {feed.receiver_session:x}")
        if not machine.plans.get(feed.plan, False):
            raise WireError(f"feed {key} of worker {feed.worker!r}: plan {feed.plan[:32]!r} is not ready here")
        task = self._tasks.get(key)
        if task is not None and task.work.plan != feed.plan:
            raise WireError(f"feed {key} of worker {feed.worker!r}: plan {feed.plan[:32]!r}, not the task's")
        plan, boxes = feed.plan, self._pieces.accept(feed.plan, (key.stage, key.piece), maker, feed.boxes)
        self._fed.setdefault((key, plan), {}).setdefault(maker, boxes)
        event = FeedArrived(key, maker, plan)
        if not machine.feed(event, self.world.now()):
            self.handle(event)

    def after(self) -> None:
        machine, early = self.machine, self.machine.residence.early
        kept = {*machine.outbox, *machine.residence.kept}
        if len(self._tasks) > len(machine.held) + len(kept):
            kept.update(machine.held)
            for key in [key for key in self._tasks if key not in kept]:
                self._fed.pop((key, self._tasks.pop(key).work.plan), None)
        if len(self._fed) > len(machine.held) + len(early):
            wanted = {(key, self._tasks[key].work.plan) for key in machine.held}
            wanted.update((key, feed.plan) for (key, _), feed in early.items())
            self._fed = {fed: boxes for fed, boxes in self._fed.items() if fed in wanted}
        if self._unreported and not machine.residence.kept:
            self._unreported.clear()

    # Actions

    def _build(self, action: BuildPlan) -> None:
        offered = self._offered[action.plan]

        def done(on_demand: Any, error: str, seconds: float) -> None:
            if error:
                self._offered.pop(action.plan, None)
            self.post(PlanBuilt(action.plan, error, bool(on_demand)))

        self.world.run(Job("prepare", lambda: self._pieces.build(offered)), done)

    def _drop(self, action: DropPlan) -> None:
        self._offered.pop(action.plan, None)
        self._pieces.drop(action.plan)

    def _prepare(self, action: Prepare) -> None:
        key, plan = action.key, self._tasks[action.key].work.plan
        task, alone = self._tasks[key], self._alone(key)
        job = Job("prepare", lambda: self._pieces.prepare(plan, key.stage, key.piece, alone), key, plan)

        def done(result: Any, error: str, seconds: float) -> None:
            task.failed = bool(error)  # it comes again, and counts, when the piece is run
            self.post(Prepared(key))

        self.world.run(job, done)

    def _compute(self, action: Compute) -> None:
        key, task = action.key, self._tasks[action.key]
        plan, inputs, wire, alone = task.work.plan, task.work.inputs, task.work.wire, self._alone(key)
        macs = self._pieces.macs(plan, key.stage, key.piece, alone)
        if not self._pieces.ready(plan, key.stage, key.piece, alone) and not task.failed:
            self.post(Unready(key))
            return

        def done(result: Any, error: str, seconds: float) -> None:
            task.made, task.error = result, error
            self._fed.pop((key, plan), None)
            frame = key.source, key.session, key.frame
            task.computed = self._unreported[frame] = self._unreported.get(frame, 0.0) + seconds
            task.waited = max(0.0, self.world.now() - seconds - task.arrived)
            self.post(Computed(key, plan, seconds, macs, error, result.bytes if result is not None else 0))

        fed = self._fed.get((key, plan), NOTHING)
        call = lambda: self._pieces.run(plan, key.stage, key.piece, inputs, fed, alone, wire)  # noqa: E731
        self.world.run(Job("compute", call, key, plan, macs), done)

    def _reroute(self, action: Reroute) -> None:
        assert self._coming is not None, "feeds go elsewhere because a work says so"
        self._tasks[action.key].reroute(self._coming.routes)
        self._send_feeds(action)

    def _send_feeds(self, action: SendFeeds | Reroute) -> None:
        key, machine = action.key, self.machine
        task, maker = self._tasks[key], (key.stage, key.piece)
        if task.made is None:
            return
        plan = task.work.plan
        for taker in sorted(task.unsent):
            _, _, worker, session = task.routes[taker]
            fed = key._replace(stage=taker[0], piece=taker[1])
            boxes = self._pieces.boxes(plan, taker, maker, task.made.outputs, task.work.wire)
            if (worker, session) == (machine.name, machine.session):
                self.post(Feed(fed, *maker, plan, worker, session, session, boxes))
            else:
                self.world.send(Feed(fed, *maker, plan, machine.name, machine.session, session, boxes), worker)
        task.unsent.clear()

    def _send_result(self, action: SendResult) -> None:
        task, machine = self._tasks[action.key], self.machine
        work, outputs = task.work, task.made.result if task.made is not None else None
        self._unreported.pop((work.key.source, work.key.session, work.key.frame), None)
        self.world.send(
            Result(
                work.key,
                work.plan,
                machine.name,
                machine.session,
                work.attempt,
                task.waited,
                task.computed,
                task.error,
                outputs,
            ),
            work.key.source,
        )

    def _publish(self, action: PublishWorker) -> None:
        self.world.send(action.state)

    def failed(self, what: Any, why: str) -> None:
        if isinstance(what, Compute):
            self.post(Computed(what.key, "", 0.0, 0, why))
        elif isinstance(what, Prepare):
            self.post(Prepared(what.key))
        elif isinstance(what, BuildPlan):
            self.post(PlanBuilt(what.plan, why))

    speakers = SOURCES
    takes = {
        PlanText: _hear_plan,
        Work: _hear_work,
        Feed: _hear_feed,
        StatesHeard: _hear_states,
        SourceState: lambda self, state: self.handle(StatesHeard((state,))),
        Progress: lambda self, progress: self.handle(StatesHeard((progress,))),
    }
    performs = {
        BuildPlan: _build,
        DropPlan: _drop,
        Prepare: _prepare,
        Compute: _compute,
        SendFeeds: _send_feeds,
        Reroute: _reroute,
        SendResult: _send_result,
        PublishWorker: _publish,
    }
