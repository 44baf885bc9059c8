# SPDX-License-Identifier: Apache-2.0
"""Gateway node: partition and aggregator of one source in one process; tensors are handed over and not sent."""

from __future__ import annotations

import sys
from typing import Any

from dnn_dist.nodes.aggregator import Aggregator, FrameInfo
from dnn_dist.nodes.parameters import Parameters
from dnn_dist.nodes.partition import Announcement, Partition
from dnn_dist.nodes.shell import Shell, run
from dnn_dist.nodes.workertopics import WorkerTopics
from dnn_dist.settings import GatewaySettings


class Gateway(Shell):
    """Links the two parts by calls where the single nodes use topics."""

    def __init__(self) -> None:
        super().__init__("gateway")
        self._settings = Parameters(self, GatewaySettings, self._change)
        self.robot = self._settings.now.robot
        self._partition = Partition(self, self._settings, self._announce, owns_tensors=False)
        self._aggregator = Aggregator(self, self._settings)

    def configure(self) -> None:
        self._partition.configure()
        self._aggregator.configure()

    def start(self) -> None:
        workers = WorkerTopics(self)
        self._aggregator.start(workers)
        self._aggregator.tell = self._partition.hear_progress
        self._aggregator.hand_over = self._partition.stage_ready
        self._aggregator.install(self._partition.store)
        self._partition.start(workers)

    def stop(self) -> None:
        self._aggregator.stop()

    def health(self) -> dict[str, Any]:
        return {**self._partition.health(), **self._aggregator.health()}

    def _change(self) -> None:
        self._partition.change()
        self._aggregator.change()

    def _announce(self, it: Announcement) -> bool:
        about = FrameInfo(self._partition.store, it.header, it.letterbox, it.dropped, it.image)
        return self._aggregator.announce(it.frame, it.session, it.plan, it.budget, about, it.pixels)


def main() -> int:
    return run(Gateway, sys.argv)
