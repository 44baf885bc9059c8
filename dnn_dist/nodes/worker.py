# SPDX-License-Identifier: Apache-2.0
"""Worker node: computes pieces for every source of the cluster. What it decides is in run/worker.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dnn_dist import msg
from dnn_dist.nodes import convert
from dnn_dist.nodes.computing import Computing, keep_pace, one_line
from dnn_dist.nodes.parameters import Parameters
from dnn_dist.nodes.planning import load_network
from dnn_dist.nodes.qos import LATCHED_IN, STATE, heartbeats, tensors
from dnn_dist.nodes.shell import Shell, run
from dnn_dist.plan.plan import Plan, takes_part
from dnn_dist.run import worker as w
from dnn_dist.run.mapped import free_memory
from dnn_dist.run.notes import Note
from dnn_dist.run.pieces import PieceSet
from dnn_dist.run.wire import TaskKey, WireError, WireTensor
from dnn_dist.settings import WorkerSettings


@dataclass(slots=True)
class _Task:
    """What a key of the machine stands for."""

    work: msg.Work
    inputs: list[WireTensor]
    arrived: float
    waited: float = 0.0
    computed: float = 0.0
    outputs: list[WireTensor] | None = None
    error: str = ""


class WorkerNode(Shell):
    """Topics and threads around the worker's state machine."""

    def __init__(self) -> None:
        super().__init__("worker")
        self._settings = Parameters(self, WorkerSettings, self._change)
        settings = self._settings.now
        self.robot = settings.robot
        self._name = convert.name_of(settings.worker, "worker")
        self._plans: dict[str, Plan] = {}
        self._pieces: dict[str, PieceSet] = {}
        self._tasks: dict[TaskKey, _Task] = {}
        self._pairs: dict[str, tuple[Any, Any]] = {}  # source -> subscription to work, publisher of results

    def configure(self) -> None:
        settings = self._settings.now
        self._network = load_network(settings.model)
        self._machine = w.Worker(self._name, settings.robot, self.session, self._network.sha256)
        self._change()

    def _change(self) -> None:
        if hasattr(self, "_machine"):
            p = self._settings.now
            self._machine.settings = w.WorkerSettings(
                prefetch=p.prefetch,
                max_held=p.max_held,
                heartbeat=p.heartbeat,
                max_sources=p.max_sources,
                max_plans=p.max_plans,
                lifespan=p.lifespan,
            )

    def start(self) -> None:
        self._computing = Computing(self, "computing")
        self._state = self.offer(msg.WorkerState, f"{self._name}/state", heartbeats())
        self.receive(msg.Plan, "plan", LATCHED_IN, self._hear_plan)
        self.receive(msg.SourceState, "source_state", STATE, self._hear_source)
        self.receive(msg.Progress, "progress", STATE, self._hear_progress)
        self._tick()

    def stop(self) -> None:
        if hasattr(self, "_computing"):
            self._computing.stop()

    def health(self) -> dict[str, Any]:
        if not hasattr(self, "_machine"):
            return {}
        return {
            "model": self._network.sha256[:16],
            "plans ready": " ".join(self._pieces) or "none",
            "pieces ready (MB)": round(sum(pieces.ready_bytes for pieces in self._pieces.values()) / 1e6, 1),
            "tasks held": len(self._machine.held),
            "speed (MMAC/s)": round(self._machine.speed / 1e6),
            "sources": " ".join(self._machine.sources) or "none",
        }

    # Events in

    def _tick(self) -> None:
        self._handle(w.Tick())

    def _hear_plan(self, message: msg.Plan) -> None:
        if message.plan in self._plans:
            return
        plan = convert.read_plan(message)
        if takes_part(self.robot, plan.robots):
            self._plans[plan.hash] = plan
        self._handle(w.PlanOffered(plan.hash, plan.robots))

    def _hear_source(self, message: msg.SourceState) -> None:
        state = convert.read_source(message)
        self._handle(w.SourceHeard(state))
        for forgotten in self._pairs.keys() - self._machine.sources.keys():
            self._part(forgotten)
        if state.source in self._machine.sources:
            self._meet(state.source)

    def _meet(self, source: str) -> None:
        """Connect the topics of a source, and tell the machine whether both ends have met."""
        if source not in self._pairs:
            pair = f"{source}/{self._name}"
            self._pairs[source] = (
                self.receive(msg.Work, f"{pair}/work", tensors(), lambda work: self._hear_work(source, work)),
                self.offer(msg.Result, f"{pair}/result", tensors(self._settings.now.lifespan)),
            )
        work, result = self._pairs[source]
        reachable = result.get_subscription_count() > 0 and work.get_publisher_count() > 0
        self._handle(w.SourceReachable(source, reachable))

    def _part(self, source: str) -> None:
        """Let go of the topics of a source that the machine has forgotten."""
        work, result = self._pairs.pop(source)
        self.destroy_subscription(work)
        self.destroy_publisher(result)
        self._handle(w.SourceReachable(source, False))

    def _hear_progress(self, message: msg.Progress) -> None:
        self._handle(w.ProgressHeard(convert.read_progress(message)))

    def _hear_work(self, source: str, message: msg.Work) -> None:
        key = convert.read_key(message.key)
        if key.source != source:
            raise WireError(f"task {key} came on the topic of source {source!r}")
        if source not in self._pairs:  # its topics were let go while this was on its way
            raise WireError(f"task {key}: source {source!r} was silent for so long that it is forgotten")
        task = _Task(message, [convert.read_tensor(tensor) for tensor in message.inputs], self.now())
        if message.awaited or message.destinations:
            raise WireError(f"task {key}: inputs from other workers are not known to this version; update it")
        self._tasks.setdefault(key, task)
        budget = convert.seconds(message.budget, "budget")
        number = convert.work_number(message.number)
        self._handle(w.WorkArrived(key, message.plan, message.worker_session, number, budget))

    # Actions out

    def _handle(self, event: Any) -> None:
        for action in self._machine.handle(event, self.now()):
            self._perform[type(action)](self, action)
        held = {*self._machine.held, *self._machine.outbox}
        for key in [key for key, task in self._tasks.items() if key not in held]:
            del self._tasks[key]
        self.wake_at(self._machine.next_wake(), self._tick)

    def _build(self, action: w.BuildPlan) -> None:
        plan, network = self._plans[action.plan], self._network
        settings = self._settings.now
        prepared, memory = settings.prepared * 1e6, settings.memory * 1e6 or free_memory() / 2
        self._computing.submit(
            lambda: PieceSet(network, plan, plan.stages(network), False, settings.threads, prepared, memory),
            lambda pieces, error: self._built(plan.hash, pieces, error),
        )

    def _built(self, plan: str, pieces: PieceSet | None, error: Exception | None) -> None:
        if pieces is not None:
            self._pieces[plan] = pieces
        else:
            self._plans.pop(plan, None)
        on_demand = pieces is not None and pieces.on_demand
        self._handle(w.PlanBuilt(plan, "" if error is None else one_line(error), on_demand))

    def _drop(self, action: w.DropPlan) -> None:
        self._plans.pop(action.plan, None)
        self._pieces.pop(action.plan, None)

    def _compute(self, action: w.Compute) -> None:
        key, task = action.key, self._tasks[action.key]
        pieces = self._pieces[task.work.plan]
        pace = self._settings.now.pace
        if not pieces.ready(key.stage, key.piece):
            # Its end is told, so that the time of reading weights is not taken for that of computing; an error comes
            # again, and counts, when the piece is run.
            self._handle(w.Preparing(ready=False))
            self._computing.submit(
                lambda: pieces.prepare(key.stage, key.piece), lambda _, error: self._handle(w.Preparing(ready=True))
            )

        def job() -> list[WireTensor]:
            began = self.now()
            piece = pieces.piece(key.stage, key.piece)
            arrays = pieces.run(key.stage, key.piece, pieces.inputs(key.stage, key.piece, task.inputs))
            keep_pace(began, piece.macs, pace)
            task.waited, task.computed = began - task.arrived, self.now() - began
            return pieces.label(piece.outputs, arrays)

        self._computing.submit(job, lambda result, error: self._computed(key, task, result, error))

    def _computed(self, key: TaskKey, task: _Task, outputs: list[WireTensor] | None, error: Exception | None) -> None:
        task.outputs, task.error = outputs, "" if error is None else one_line(error)
        macs = self._pieces[task.work.plan].piece(key.stage, key.piece).macs if error is None else 0
        size = sum(output.bytes for output in outputs or ())
        self._handle(w.Computed(key, task.work.plan, task.computed, macs, task.error, size))

    def _send_result(self, action: w.SendResult) -> None:
        task = self._tasks[action.key]
        message = msg.Result(
            key=task.work.key,
            plan=task.work.plan,
            worker=self._name,
            worker_session=self.session,
            attempt=task.work.attempt,
            waited=task.waited,
            computed=task.computed,
            error=task.error,
            outputs=[convert.tensor_message(tensor) for tensor in task.outputs or ()],
        )
        self.send(self._pairs[action.key.source][1], message)

    def _publish(self, action: w.PublishWorker) -> None:
        self.send(self._state, convert.worker_message(action.state))

    _perform: dict[type, Callable[[WorkerNode, Any], None]] = {
        w.BuildPlan: _build,
        w.DropPlan: _drop,
        w.Compute: _compute,
        w.SendResult: _send_result,
        w.PublishWorker: _publish,
        Note: Shell.note,
    }


def main() -> int:
    return run(WorkerNode, sys.argv)
