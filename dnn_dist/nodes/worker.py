# SPDX-License-Identifier: Apache-2.0
"""Worker node: computes pieces for every source of the cluster. What it does is in run/computer.py."""

from __future__ import annotations

import sys
from typing import Any

from dnn_dist import msg
from dnn_dist.nodes import convert
from dnn_dist.nodes.expected import Expected
from dnn_dist.nodes.parameters import Parameters
from dnn_dist.nodes.peers import FEED, Peers
from dnn_dist.nodes.planning import load_network
from dnn_dist.nodes.process import run
from dnn_dist.nodes.qos import LATCHED_IN, STATE, heartbeats, tensors
from dnn_dist.nodes.shell import Shell
from dnn_dist.nodes.world import RosWorld
from dnn_dist.run.computer import Computer
from dnn_dist.run.events import SourceReachable, Tick
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.state import WorkerState
from dnn_dist.run.values import Feed, Result
from dnn_dist.run.wire import WireError
from dnn_dist.run.workshop import Workshop
from dnn_dist.settings import WorkerSettings as Declared
from dnn_dist.settings import adopt


class WorkerNode(Shell):
    """A worker with its topics."""

    part: Computer
    _world: RosWorld

    def __init__(self) -> None:
        super().__init__("worker")
        self._settings = Parameters(self, Declared, self.change)
        self.robot = self._settings.now.robot
        self._name = convert.name_of(self._settings.now.worker, "worker")
        self._pairs: dict[str, tuple[Expected, Any]] = {}  # source -> subscription to work, publisher of results
        self._reachable: dict[str, bool] = {}

    def configure(self) -> None:
        network = load_network(self._settings.now.model)
        world = self._world = RosWorld(self, lambda: self._settings.now.pace)
        settings = adopt(WorkerSettings, self._settings.now)
        self.part = Computer(world, world.loop, self.session, network.sha256, Workshop(network, settings), settings)

    def start(self) -> None:
        state = f"{self._name}/state"
        self._world.route(WorkerState, self.states(msg.WorkerState, state, heartbeats(), convert.worker_message))
        self._peers = Peers(self, self._name, self._settings.now.lifespan, self.part)
        self._world.route(Feed, lambda value, to: self._peers.send(value, to))
        self._world.route(Result, lambda value, to: self.send(self._pairs[to][1], convert.result_message(value)))
        self.receive(msg.Plan, "plan", LATCHED_IN, lambda message: self.part.post(convert.read_plan(message)))
        self.receive(msg.SourceState, "source_state", STATE, self._hear_source)
        self.receive(msg.Progress, "progress", STATE, lambda m: self.part.post(convert.read_progress(m)))
        feed = f"{self._name}{FEED}"
        self.receive(msg.Feed, feed, tensors(), lambda message: self.part.post(convert.read_feed(message)))
        self.part.post(Tick())

    def change(self) -> None:
        if hasattr(self, "part"):
            self.part.change(adopt(WorkerSettings, self._settings.now))

    def health(self) -> dict[str, Any]:
        return self.part.health() if hasattr(self, "part") else {}

    def troubles(self) -> list[str]:
        return self.part.troubles() if hasattr(self, "part") else []

    def _hear_source(self, message: msg.SourceState) -> None:
        state = convert.read_source(message)
        self.part.post(state)
        for forgotten in [source for source in self._pairs if not self.part.knows(source)]:
            self._let_go(forgotten)
        if self.part.knows(state.source):
            self._meet(state.source)
            self._pairs[state.source][0].follow(state.deadline)

    def _meet(self, source: str) -> None:
        """Connect the topics of a source, and tell whether both ends have met."""
        if source not in self._pairs:
            pair = f"{source}/{self._name}"
            self._pairs[source] = (
                Expected(
                    self,
                    msg.Work,
                    f"{pair}/work",
                    lambda work: self._hear_work(source, work),
                    lambda work: (work.key.session, work.number),
                    lambda deadline: self._miss(source, deadline),
                ),
                self.offer(msg.Result, f"{pair}/result", tensors(self._settings.now.lifespan), owed=False),
            )
        work, result = self._pairs[source]
        reachable = result.get_subscription_count() > 0 and work.met
        if self._reachable.get(source) is not reachable:
            self._reachable[source] = reachable
            self.part.post(SourceReachable(source, reachable))

    def _let_go(self, source: str) -> None:
        """Let go of the topics of a source that is remembered no longer."""
        work, result = self._pairs.pop(source)
        work.destroy()
        self.destroy_publisher(result)
        self._reachable.pop(source, None)
        self.part.post(SourceReachable(source, False))

    def _miss(self, source: str, deadline: float) -> None:
        if note := self.part.missed(source, deadline):
            self.tell(note)

    def _hear_work(self, source: str, message: msg.Work) -> None:
        work = convert.read_work(message)
        if work.key.source != source:
            raise WireError(f"task {work.key} came on the topic of source {source!r}")
        if source not in self._pairs:  # its topics were let go while this was on its way
            raise WireError(f"task {work.key}: source {source!r} was silent for so long that it is forgotten")
        self.part.post(work)


def main() -> int:
    return run(WorkerNode, sys.argv)
