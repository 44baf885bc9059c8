# SPDX-License-Identifier: Apache-2.0
"""Listens to a cluster from outside: reports, worker states and overlays of one source, for demo and benches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from dnn_dist import msg
from dnn_dist.nodes.images import to_rgb
from dnn_dist.nodes.process import make_executor
from dnn_dist.nodes.qos import OUTPUT, RECORD
from dnn_dist.nodes.shell import Shell
from dnn_dist.nodes.workertopics import WorkerListener, WorkerTopics
from dnn_dist.run.state import WorkerState


class Watch(Shell):
    """Keeps what it hears in public attributes; `spin` lets it listen."""

    def __init__(self, prefix: str = "", overlay: bool = False) -> None:
        """`prefix`: of the source's topics, empty for a cluster with one source."""
        super().__init__("watch")
        self.reports: list[msg.FrameReport] = []
        self.detections: dict[tuple[int, int], msg.Detections] = {}  # (session, frame)
        self.workers: dict[str, WorkerState] = {}
        self.heard: dict[str, float] = {}  # worker -> s, steady clock
        self.on_report: Callable[[msg.FrameReport], None] | None = None
        self.on_overlay: Callable[[np.ndarray], None] | None = None
        self._executor = make_executor()
        self._executor.add_node(self)
        self.receive(msg.FrameReport, f"{prefix}report", RECORD, self._hear_report)
        self.receive(msg.Detections, f"{prefix}detections", RECORD, self._hear_detections)
        WorkerTopics(self).add(WorkerListener(self._hear_worker))
        if overlay:
            self.receive(Image, f"{prefix}overlay", OUTPUT, self._hear_overlay)

    def spin(self, seconds: float) -> None:
        """Listen for this long."""
        end = self.now() + seconds
        while rclpy.ok() and (left := end - self.now()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def ready(self, workers: int) -> bool:
        """True when this many workers have a plan built and offer their room to a source."""
        return sum(bool(state.plans and state.offered_to) for state in self.workers.values()) >= workers

    def _hear_report(self, message: msg.FrameReport) -> None:
        self.reports.append(message)
        if self.on_report is not None:
            self.on_report(message)

    def _hear_detections(self, message: msg.Detections) -> None:
        self.detections[message.session, message.frame] = message

    def _hear_worker(self, state: WorkerState) -> None:
        self.workers[state.worker] = state
        self.heard[state.worker] = self.now()

    def _hear_overlay(self, message: Image) -> None:
        if self.on_overlay is not None:
            self.on_overlay(to_rgb(message))


@contextmanager
def watching(environment: Mapping[str, str], **options: Any) -> Iterator[Watch]:
    """A Watch in this process, with the cluster's transport. ROS starts once in a process: so does this."""
    os.environ.update(environment)
    # Signals stay with the caller: the handlers of rclpy would take the context away below a callback.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        watch = Watch(**options)
        try:
            yield watch
        finally:
            watch.destroy_node()
    finally:
        rclpy.try_shutdown()
