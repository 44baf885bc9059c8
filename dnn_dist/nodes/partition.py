# SPDX-License-Identifier: Apache-2.0
"""Partition node: takes the newest frame, cuts it, and hands tasks to workers. What it does is in run/partition.py.

`PartitionTopics` is what a gateway has too; `PartitionNode` is the executable, its aggregator elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from rclpy.task import Future

from dnn_dist import msg, srv
from dnn_dist.graph.network import Network
from dnn_dist.nodes import convert
from dnn_dist.nodes.imagetopic import ImageReader
from dnn_dist.nodes.parameters import Parameters
from dnn_dist.nodes.picture import Picture
from dnn_dist.nodes.planning import load_network, plan_in_force, plan_of_text, plans_by_link
from dnn_dist.nodes.process import run
from dnn_dist.nodes.qos import FRAME, LATCHED, SCATTER, STATE, tensors
from dnn_dist.nodes.shell import GAP, NodePart, Shell
from dnn_dist.nodes.workertopics import WorkerListener, WorkerTopics
from dnn_dist.nodes.world import RosWorld
from dnn_dist.plan.plan import Plan
from dnn_dist.run.events import WorkerReachable
from dnn_dist.run.pairing import Pairing
from dnn_dist.run.partition import Partition, SetPlan
from dnn_dist.run.state import SourceState, WorkerState
from dnn_dist.run.store import TensorStore
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.run.values import Frame, PlanText, Scatter, Work
from dnn_dist.settings import PartitionSettings, adopt, image_topics


class PartitionTopics(NodePart):
    """A partition with its topics and its service."""

    def __init__(
        self,
        shell: Shell,
        world: RosWorld,
        settings: Parameters[PartitionSettings],
        network: Network,
        heard: Callable[[], bool] | None = None,
    ) -> None:
        """`heard`: whether an aggregator in another process would hear an announcement; None: it is in this one."""
        self._shell, self._world, self._settings, self._network = shell, world, settings, network
        shell.parts.append(self)
        self.source = convert.name_of(settings.now.source, "source")
        self._work: dict[str, Any] = {}  # worker -> publisher
        self._reachable: dict[str, bool] = {}
        self._local = heard is None
        self.part = Partition(world, world.loop, self.source, shell.session, self._adopted(), heard)
        plan = plan_in_force(network, settings.now)
        self._first = self._store(plan)
        self._by_link = [(rate, self._store(other)) for rate, other in plans_by_link(plan, settings.now)]

    def _store(self, plan: Plan) -> TensorStore:
        return TensorStore(self._network, plan, self._settings.now.threads, merges=self._local)

    def _adopted(self) -> DispatcherSettings:
        return adopt(DispatcherSettings, self._settings.now)

    def change(self) -> None:
        self.part.change(self._adopted())

    def start(self, workers: WorkerTopics) -> None:
        """Make the topics and begin."""
        shell, world = self._shell, self._world
        plan = shell.offer(msg.Plan, "plan", LATCHED)
        world.route(PlanText, lambda value, to: shell.send(plan, convert.plan_message(value)))
        world.route(SourceState, shell.states(msg.SourceState, "source_state", STATE, convert.source_message, 2 * GAP))
        world.route(Work, lambda value, to: shell.send(self._work[to], convert.work_message(value)))
        shell.receive(msg.SourceState, "source_state", STATE, lambda m: self.part.post(convert.read_source(m)))
        workers.add(WorkerListener(self._hear_worker, self._connect, self._disconnect, self._most_workers))
        self._images = self._read_images()
        shell.create_service(srv.SetPlan, f"{self.source}/set_plan", self._set_plan)
        self.part.start(self._first, self._by_link)

    def _read_images(self) -> list[ImageReader]:
        """One for each topic; a frame is made of images whose stamps are near."""
        settings = self._settings.now
        topics = image_topics(settings.images)
        pairing: Pairing[Any] = Pairing(len(topics), settings.pair_within)

        def reader(number: int, name: str) -> ImageReader:
            def hear(image: Any) -> None:
                stamp = image.header.stamp.sec + 1e-9 * image.header.stamp.nanosec
                if (images := pairing.add(number, stamp, image)) is not None:
                    self.part.take_image(Picture.of(images))

            return ImageReader(self._shell, settings.compressed, hear, name)

        return [reader(number, name) for number, name in enumerate(topics)]

    def health(self) -> dict[str, Any]:
        if not self.part.plan:
            return {}
        plan = self.part.store.plan
        robots = " ".join(plan.robots) or "all"
        return {"cut": plan.cut, "robots of the plan": robots, **self.part.health()}

    def troubles(self) -> list[str]:
        silent = [trouble for reader in self._images for trouble in reader.trouble()] if self.part.plan else []
        return [*silent, *self.part.troubles()] if self.part.plan else []

    def _most_workers(self) -> int:
        return self._settings.now.max_workers

    def _connect(self, worker: str) -> None:
        # Before it has said a word: each end that waits for the other costs another round of discovery.
        topic = f"{self.source}/{worker}/work"
        self._work[worker] = self._shell.offer(msg.Work, topic, tensors(self._settings.now.lifespan), owed=False)

    def _disconnect(self, worker: str) -> None:
        self._shell.destroy_publisher(self._work.pop(worker))
        self._reachable.pop(worker, None)
        self.part.post(WorkerReachable(worker, False))

    def _hear_worker(self, state: WorkerState) -> None:
        reachable = self._work[state.worker].get_subscription_count() > 0
        if self._reachable.get(state.worker) is not reachable:
            self._reachable[state.worker] = reachable
            self.part.post(WorkerReachable(state.worker, reachable))
        self.part.post(state)

    async def _set_plan(self, request: srv.SetPlan.Request, response: srv.SetPlan.Response) -> srv.SetPlan.Response:
        """Answered when the plan is in force, or cannot be."""
        answered: Future = Future()

        def make() -> TensorStore:
            return self._store(plan_of_text(self._network, request.plan, self._settings.now))

        self.part.post(SetPlan(make, answered.set_result))
        response.message = await answered
        response.success = not response.message
        response.message = response.message or "in force"
        return response


class PartitionNode(Shell):
    """A partition by itself: frames are announced, and progress is heard, by topics."""

    _topics: PartitionTopics

    def __init__(self) -> None:
        super().__init__("partition")
        self._settings = Parameters(self, PartitionSettings, self.change)
        self.robot = self._settings.now.robot

    def configure(self) -> None:
        network = load_network(self._settings.now.model, self._settings.now.images)
        world = RosWorld(self, lambda: self._settings.now.pace)
        self._topics = PartitionTopics(self, world, self._settings, network, self._heard)
        world.route(Frame, lambda value, to: self.send(self._frames, convert.frame_message(value)))
        world.route(Scatter, lambda value, to: self.send(self._scatter, convert.scatter_message(value)))

    def start(self) -> None:
        self._frames = self.offer(msg.Frame, f"{self._topics.source}/frame", FRAME)
        self._scatter = self.offer(msg.Scatter, f"{self._topics.source}/scatter", SCATTER)
        self.receive(msg.Progress, "progress", STATE, self._hear_progress)
        self._topics.start(WorkerTopics(self))

    def _heard(self) -> bool:
        return all(topic.get_subscription_count() for topic in (self._frames, self._scatter))

    def _hear_progress(self, message: msg.Progress) -> None:
        if message.source == self._topics.source:
            self._topics.part.post(convert.read_progress(message))


def main() -> int:
    return run(PartitionNode, sys.argv)
