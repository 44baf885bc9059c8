# SPDX-License-Identifier: Apache-2.0
"""A worker: computes pieces for every source of the cluster.

What it decides is in run/worker.py. Here plans, pieces and tensors belong to their keys.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from dnn_dist.run.events import (
    BuildPlan,
    Compute,
    Computed,
    DropPlan,
    PlanBuilt,
    PlanOffered,
    Prepare,
    Prepared,
    PublishWorker,
    SendResult,
    StatesHeard,
    Unready,
    WorkArrived,
)
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.state import Progress, SourceState
from dnn_dist.run.values import PlanText, Result, Work
from dnn_dist.run.wire import TaskKey
from dnn_dist.run.worker import Worker
from dnn_dist.run.workshop import Pieces
from dnn_dist.run.world import Job, Loop, Part, World


@dataclass(slots=True)
class _Task:
    """What a key of the machine stands for."""

    work: Work
    arrived: float  # s
    waited: float = 0.0
    computed: float = 0.0
    outputs: Any = None
    error: str = ""
    failed: bool = False  # its weights cannot be read


class Computer(Part):
    """See the module."""

    def __init__(
        self, world: World, loop: Loop, session: int, model: str, pieces: Pieces, settings: WorkerSettings
    ) -> None:
        """`model`: SHA-256 of the model file."""
        super().__init__(world, loop)
        self.machine: Worker = Worker(settings.worker, settings.robot, session, model, settings)
        self._pieces = pieces
        self._offered: dict[str, PlanText] = {}  # plans that are built or being built
        self._tasks: dict[TaskKey, _Task] = {}

    def change(self, settings: WorkerSettings) -> None:
        """Parameters have changed."""
        self.machine.settings = settings

    def health(self) -> dict[str, Any]:
        """What diagnostics say of it."""
        machine = self.machine
        return {
            "model": machine.model[:16],
            **self._pieces.health(),
            "tasks held": len(machine.held),
            "speed (MMAC/s)": round(machine.speed / 1e6),
            "sources": " ".join(machine.sources) or "none",
        }

    def troubles(self) -> list[str]:
        """What stands in the way of work now, worst first."""
        machine = self.machine
        refused = [f"plan {plan} is refused: {why}" for plan, why in machine.refused.items()]
        return [*refused, *([] if machine.sources else ["no source is heard"])]

    @property
    def hungry(self) -> bool:
        """Whether it has room for tasks."""
        machine = self.machine
        return len(machine.held) + len(machine.outbox) <= machine.settings.prefetch

    @property
    def tasks(self) -> Collection[TaskKey]:
        """Tasks that wait, are computed, or whose results wait to be sent."""
        return self._tasks.keys()

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
        machine = self.machine
        return {key.source for keys in (machine.held, machine.answered) for key in keys}

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
        ready = True
        if self.machine.plans.get(plan, False):
            self._pieces.macs(plan, key.stage, key.piece)  # WireError where there is no such piece
            ready = self._pieces.ready(plan, key.stage, key.piece)
        self._tasks.setdefault(key, _Task(work, self.world.now()))
        self.handle(WorkArrived(key, plan, work.worker_session, work.number, work.budget, ready))

    def after(self) -> None:
        machine = self.machine
        if len(self._tasks) > len(machine.held) + len(machine.outbox):
            kept = {*machine.held, *machine.outbox}
            for key in [key for key in self._tasks if key not in kept]:
                del self._tasks[key]

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
        job = Job("prepare", lambda: self._pieces.prepare(plan, key.stage, key.piece), key, plan)
        task = self._tasks[key]

        def done(result: Any, error: str, seconds: float) -> None:
            task.failed = bool(error)  # it comes again, and counts, when the piece is run
            self.post(Prepared(key))

        self.world.run(job, done)

    def _compute(self, action: Compute) -> None:
        key, task = action.key, self._tasks[action.key]
        plan, inputs = task.work.plan, task.work.inputs
        macs = self._pieces.macs(plan, key.stage, key.piece)
        if not self._pieces.ready(plan, key.stage, key.piece) and not task.failed:
            self.post(Unready(key))
            return

        def done(result: Any, error: str, seconds: float) -> None:
            size, task.outputs = result if not error else (0, None)
            task.computed, task.error = seconds, error
            task.waited = max(0.0, self.world.now() - seconds - task.arrived)
            self.post(Computed(key, plan, seconds, macs, error, size))

        call = lambda: self._pieces.run(plan, key.stage, key.piece, inputs)  # noqa: E731
        self.world.run(Job("compute", call, key, plan, macs), done)

    def _send_result(self, action: SendResult) -> None:
        task, machine = self._tasks[action.key], self.machine
        work, outputs = task.work, task.outputs
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

    takes = {
        PlanText: _hear_plan,
        Work: _hear_work,
        StatesHeard: _hear_states,
        SourceState: lambda self, state: self.handle(StatesHeard((state,))),
        Progress: lambda self, progress: self.handle(StatesHeard((progress,))),
    }
    performs = {
        BuildPlan: _build,
        DropPlan: _drop,
        Prepare: _prepare,
        Compute: _compute,
        SendResult: _send_result,
        PublishWorker: _publish,
    }
