# SPDX-License-Identifier: Apache-2.0
"""Calls of the service SetPlan at the sources that run, for `dnn_dist set-plan`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from dnn_dist import srv

TYPE, ENDING = "dnn_dist/srv/SetPlan", "/set_plan"
SETTLED = 1.5
"""Seconds without a new source after which all have been found."""
STEP = 0.05  # s


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source said; `source` with its namespace, as in its topics."""

    source: str
    success: bool
    message: str


class PlanCaller:
    """Finds the sources of a ROS domain and gives them a plan. It is no node of the cluster, and says nothing else."""

    def __init__(self) -> None:
        self._node = Node(f"set_plan_{os.getpid()}", enable_rosout=False, start_parameter_services=False)
        self._executor = SingleThreadedExecutor()  # unlike the events executor it lets a Ctrl-C through
        self._executor.add_node(self._node)

    def close(self) -> None:
        """Leave the domain."""
        self._node.destroy_node()

    def sources(self, timeout: float) -> list[str]:
        """Names of the sources in all namespaces; waits up to `timeout` s for the first, then for no more to come."""
        found: set[str] = set()
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if now := self._visible() - found:
                found |= now
                end = time.monotonic() + SETTLED
            self._executor.spin_once(timeout_sec=STEP)
        return sorted(found)

    def call(self, sources: list[str], plan: str, timeout: float) -> Iterator[Answer]:
        """Ask all at once; their answers as they come, and after `timeout` s who did not answer."""
        clients = {source: self._node.create_client(srv.SetPlan, source + ENDING) for source in sources}
        calls: dict[str, rclpy.Future] = {}
        end = time.monotonic() + timeout
        while clients and time.monotonic() < end:
            self._executor.spin_once(timeout_sec=STEP)
            for source, client in list(clients.items()):
                if source not in calls and client.service_is_ready():
                    calls[source] = client.call_async(srv.SetPlan.Request(plan=plan))
                elif source in calls and calls[source].done():
                    del clients[source]
                    answer = calls[source].result()
                    yield Answer(source, answer.success, answer.message)
        for source in clients:
            yield Answer(source, False, f"no answer within {timeout:g} s; see its log")

    def _visible(self) -> set[str]:
        services = self._node.get_service_names_and_types()
        return {name.removesuffix(ENDING) for name, types in services if TYPE in types and name.endswith(ENDING)}


@contextmanager
def plan_caller() -> Iterator[PlanCaller]:
    """A PlanCaller in this process. ROS starts once in a process: so does this."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        caller = PlanCaller()
        try:
            yield caller
        finally:
            caller.close()
    finally:
        rclpy.try_shutdown()
