# SPDX-License-Identifier: Apache-2.0
"""Gateway node: partition and aggregator of one source in one process: what they say to each other is not sent."""

from __future__ import annotations

import sys

from dnn_dist.nodes.aggregator import AggregatorTopics
from dnn_dist.nodes.parameters import Parameters
from dnn_dist.nodes.partition import PartitionTopics
from dnn_dist.nodes.planning import load_network
from dnn_dist.nodes.process import run
from dnn_dist.nodes.shell import Shell
from dnn_dist.nodes.workertopics import WorkerTopics
from dnn_dist.nodes.world import RosWorld
from dnn_dist.run.events import FrameRefused
from dnn_dist.run.state import Progress
from dnn_dist.run.values import Frame, Installed
from dnn_dist.settings import GatewaySettings


class Gateway(Shell):
    """Both parts in one world."""

    _topics: tuple[PartitionTopics, AggregatorTopics]

    def __init__(self) -> None:
        super().__init__("gateway")
        self._settings = Parameters(self, GatewaySettings, self.change)
        self.robot = self._settings.now.robot

    def configure(self) -> None:
        network = load_network(self._settings.now.model, self._settings.now.images)
        world = RosWorld(self, lambda: self._settings.now.pace)
        partition = PartitionTopics(self, world, self._settings, network)
        aggregator = AggregatorTopics(self, world, self._settings, network)
        to_aggregator: tuple[type, ...] = (Frame, Installed)
        to_partition: tuple[type, ...] = (Progress, FrameRefused)
        for kind in to_aggregator:
            world.route(kind, lambda value, to: aggregator.part.post(value))
        for kind in to_partition:
            world.route(kind, lambda value, to: partition.part.post(value))
        self._topics = partition, aggregator

    def start(self) -> None:
        workers = WorkerTopics(self)
        partition, aggregator = self._topics
        aggregator.start(workers, partition.part)
        partition.start(workers)


def main() -> int:
    return run(Gateway, sys.argv)
