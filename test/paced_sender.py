# SPDX-License-Identifier: Apache-2.0
"""Sends ten messages of 100 kB on topic `free`, and when they are out ten on `paced`. A process of its own."""

import sys

from std_msgs.msg import UInt8MultiArray

from dnn_dist.nodes.process import run
from dnn_dist.nodes.qos import tensors
from dnn_dist.nodes.shell import Shell


class Sender(Shell):
    def __init__(self) -> None:
        super().__init__("sender")

    def start(self) -> None:
        self._waiting = [self.offer(UInt8MultiArray, topic, tensors()) for topic in ("free", "paced")]
        self.every(1.0, self._look)

    def _look(self) -> None:
        if self._waiting and all(publisher.get_subscription_count() for publisher in self._waiting):
            publisher = self._waiting.pop(0)
            for _ in range(10):
                message = UInt8MultiArray()
                message.data.frombytes(bytes(100_000))
                self.send(publisher, message)


sys.exit(run(Sender, sys.argv))
