# SPDX-License-Identifier: Apache-2.0
"""Aggregator node: merges results, runs the rest of the model, publishes how each frame ended. What it does is in
run/aggregator.py.

`AggregatorTopics` is what a gateway has too; `AggregatorNode` is the executable, its partition elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from dnn_dist import msg
from dnn_dist.detect.boxes import Detection
from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.graph.network import Network
from dnn_dist.modelcard import card_of, guesses
from dnn_dist.nodes import convert
from dnn_dist.nodes.expected import Expected
from dnn_dist.nodes.images import to_rgb
from dnn_dist.nodes.imagetopic import ImageReader
from dnn_dist.nodes.outputs import Outputs
from dnn_dist.nodes.parameters import Parameters
from dnn_dist.nodes.peers import Peers
from dnn_dist.nodes.picture import Picture
from dnn_dist.nodes.planning import load_head, load_network
from dnn_dist.nodes.process import run
from dnn_dist.nodes.qos import FRAME, LATCHED_IN, SCATTER, STATE
from dnn_dist.nodes.shell import GAP, NodePart, Shell
from dnn_dist.nodes.workertopics import WorkerListener, WorkerTopics
from dnn_dist.nodes.world import RosWorld
from dnn_dist.plan.plan import Plan
from dnn_dist.run.aggregator import Aggregator
from dnn_dist.run.events import Tick
from dnn_dist.run.gathered import GathererSettings
from dnn_dist.run.partition import Partition
from dnn_dist.run.state import Progress, WorkerState
from dnn_dist.run.store import TensorStore
from dnn_dist.run.values import Feed, PlanText
from dnn_dist.run.wire import WireError
from dnn_dist.settings import AggregatorSettings, adopt, image_topics


class AggregatorTopics(NodePart):
    """An aggregator with its topics."""

    def __init__(
        self,
        shell: Shell,
        world: RosWorld,
        settings: Parameters[AggregatorSettings],
        network: Network,
        make_store: Callable[[PlanText], TensorStore] | None = None,
    ) -> None:
        """`make_store`: for plans of a partition in another process."""
        self._shell, self._world, self._settings = shell, world, settings
        shell.parts.append(self)
        self.source = convert.name_of(settings.now.source, "source")
        self._head = load_head(network, card_of(network))
        for guess in guesses(network):
            shell.get_logger().warning(f"no model card, and a guess for {guess} (dnn_dist card writes one)")
        self._card_thresholds = (self._head.score_threshold, self._head.nms_threshold)
        self._results: dict[str, Expected] = {}  # worker -> subscription
        self._partition: Partition | None = None  # in this process; it knows what workers owe
        self.part = Aggregator(
            world, world.loop, self.source, shell.session, self._adopted(), self._detect, make_store
        )
        self.change()

    def _adopted(self) -> GathererSettings:
        return adopt(GathererSettings, self._settings.now)

    def change(self) -> None:
        p = self._settings.now
        self.part.change(self._adopted())
        score, nms = self._card_thresholds
        self._head.score_threshold = p.score_threshold if p.score_threshold >= 0 else score
        self._head.nms_threshold = p.nms_threshold if p.nms_threshold >= 0 else nms

    def start(self, workers: WorkerTopics, partition: Partition | None = None) -> None:
        """Make the topics and begin. `partition`: in this process."""
        self._partition = partition
        shell, world = self._shell, self._world
        self._outputs = Outputs(shell, world, self._settings)
        world.route(Progress, shell.states(msg.Progress, "progress", STATE, convert.progress_message, 2 * GAP))
        workers.add(WorkerListener(self._hear_worker, self._connect, self._disconnect, self._most_workers))
        self.part.post(Tick())

    def health(self) -> dict[str, Any]:
        return {"workers connected": " ".join(sorted(self._results)) or "none", **self.part.health()}

    def _detect(self, store: Any, frame: int, picture: Any) -> list[Detection]:
        return self._head(store.results(frame), picture.letterbox)

    def _most_workers(self) -> int:
        return self._settings.now.max_workers

    def _connect(self, worker: str) -> None:
        # Before it has said a word: each end that waits for the other costs another round of discovery.
        topic = f"{self.source}/{worker}/result"
        self._results[worker] = Expected(
            self._shell,
            msg.Result,
            topic,
            lambda result: self._hear_result(worker, result),
            lambda result: (str(result.key), result.attempt),
            lambda deadline: self._miss(worker, deadline),
        )

    def _disconnect(self, worker: str) -> None:
        self._results.pop(worker).destroy()
        self.part.forget(worker)

    def _hear_worker(self, state: WorkerState) -> None:
        self.part.post(state)
        if self._partition is not None:
            self._results[state.worker].follow(self._partition.due())

    def _miss(self, worker: str, deadline: float) -> None:
        if self._partition is not None and (note := self._partition.missed(worker, deadline)):
            self._shell.tell(note)

    def _hear_result(self, worker: str, message: msg.Result) -> None:
        result = convert.read_result(message)
        if result.worker != worker:
            raise WireError(f"result {result.key} of worker {result.worker[:64]!r} came on the topic of {worker!r}")
        self.part.post(result)


class AggregatorNode(Shell):
    """An aggregator by itself: plans, frames and images come by topics."""

    _network: Network
    _topics: AggregatorTopics
    _world: RosWorld

    def __init__(self) -> None:
        super().__init__("aggregator")
        self._settings = Parameters(self, AggregatorSettings, self.change)
        self.robot = self._settings.now.robot
        self._images: dict[tuple[int, int], np.ndarray] = {}  # stamp -> image, the newest few

    def configure(self) -> None:
        self._network = load_network(self._settings.now.model, self._settings.now.images)
        self._world = RosWorld(self, lambda: self._settings.now.pace)
        self._topics = AggregatorTopics(self, self._world, self._settings, self._network, self._make_store)

    def start(self) -> None:
        topics = self._topics
        topics.start(WorkerTopics(self))
        self.receive(msg.Plan, "plan", LATCHED_IN, lambda message: topics.part.post(convert.read_plan(message)))
        peers = Peers(self, "", self._settings.now.lifespan, topics.part)
        self._world.route(Feed, lambda value, to: peers.send(value, to))
        self.receive(msg.Frame, f"{topics.source}/frame", FRAME, self._hear_frame)
        self.receive(msg.Scatter, f"{topics.source}/scatter", SCATTER, self._hear_scatter)
        first, *_ = image_topics(self._settings.now.images)  # what is drawn on
        self._reader = ImageReader(self, self._settings.now.compressed, self._hear_image, first)

    def _make_store(self, plan: PlanText) -> TensorStore:
        store = TensorStore(self._network, Plan.from_yaml(plan.text), self._settings.now.threads, images=False)
        if store.pieces_digest != plan.pieces:
            raise WireError(f"plan {plan.plan}: its source derives other pieces; install one version everywhere")
        return store

    def _hear_scatter(self, message: msg.Scatter) -> None:
        self._topics.part.post(convert.read_scatter(message))

    def _hear_image(self, message: Image | CompressedImage) -> None:
        self._images[message.header.stamp.sec, message.header.stamp.nanosec] = to_rgb(message)
        while len(self._images) > 8:
            del self._images[next(iter(self._images))]

    def _hear_frame(self, message: msg.Frame) -> None:
        height, width = self._network.tensors[self._network.inputs[0]].array_shape[:2]
        seen = message.height and message.width
        letterbox = Letterbox(message.height, message.width, height, width) if seen else None
        image = self._images.get((message.header.stamp.sec, message.header.stamp.nanosec))
        picture = Picture(message.header, image=image if letterbox else None, letterbox=letterbox)
        self._topics.part.post(convert.read_frame(message, picture))


def main() -> int:
    return run(AggregatorNode, sys.argv)
