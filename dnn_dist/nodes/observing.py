# SPDX-License-Identifier: Apache-2.0
"""Listens to what the nodes of a cluster measured, for `dnn_dist fleet`: workers' states, and /diagnostics."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from dnn_dist import msg
from dnn_dist.nodes import convert
from dnn_dist.nodes.qos import OUTPUT, heartbeats
from dnn_dist.nodes.workertopics import ENDING, TYPE
from dnn_dist.plan.fleet import Link, parse_link

_LINK = re.compile(r"link ([a-z][a-z0-9_]{0,62}) ([a-z][a-z0-9_]{0,62})")
STEP = 0.05  # s


class Observer:
    """Keeps what it hears. It is no node of the cluster, and says nothing."""

    def __init__(self, namespace: str = "/") -> None:
        """`namespace`: of the cluster; what lies below it is another's."""
        self.speeds: dict[str, float] = {}  # robot -> MAC/s of its fastest worker, 0 while unknown
        self.links: dict[tuple[str, str], Link] = {}  # robots of source and worker
        self.sources: set[str] = set()  # robots of gateways and partitions
        self._inside = namespace.rstrip("/") + "/"
        self._node = Node("fleet", namespace=namespace, enable_rosout=False, start_parameter_services=False)
        self._executor = SingleThreadedExecutor()  # unlike the events executor it lets a Ctrl-C through
        self._executor.add_node(self._node)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._hear_diagnostics, OUTPUT)
        self._topics: set[str] = set()

    def listen(self, seconds: float) -> None:
        """Take in what is said for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for topic, types in self._node.get_topic_names_and_types():
                name = topic.removeprefix(self._inside).removesuffix(ENDING)
                if TYPE in types and topic not in self._topics and topic.startswith(self._inside) and "/" not in name:
                    self._topics.add(topic)
                    self._node.create_subscription(msg.WorkerState, topic, self._hear_worker, heartbeats())
            self._executor.spin_once(timeout_sec=STEP)

    def close(self) -> None:
        """Leave the domain."""
        self._node.destroy_node()

    def _hear_worker(self, message: msg.WorkerState) -> None:
        state = convert.read_worker(message)
        self.speeds[state.robot] = max(self.speeds.get(state.robot, 0.0), state.speed)

    def _hear_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if not status.name.startswith(self._inside):
                continue
            if any(pair.key == "bytes on the way" for pair in status.values):
                self.sources.add(status.hardware_id)
            for pair in status.values:
                if named := _LINK.fullmatch(pair.key):
                    self.links[named[1], named[2]] = parse_link(pair.value, f"/diagnostics: {status.name}: {pair.key}")


@contextmanager
def observer(namespace: str) -> Iterator[Observer]:
    """An Observer in this process. ROS starts once in a process: so does this."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        found = Observer(namespace)
        try:
            yield found
        finally:
            found.close()
    finally:
        rclpy.try_shutdown()
