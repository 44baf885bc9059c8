# SPDX-License-Identifier: Apache-2.0
"""Faults that were found in version 0.1, each by its number in the list: those that need processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from live import Live, live, robots
from test_live import diagnostics, film, profiles, said_by

from dnn_dist.cluster import Process, parse_cluster, processes
from dnn_dist.run.report import Status

pytestmark = pytest.mark.usefixtures("ros_domain")

WHOLE = {Status.COMPLETE, Status.DECODED, Status.RECOMPUTED}


def process(name: str, nodes: dict[str, Any], parameters: dict[str, Any] | None = None) -> Process:
    """One process of a cluster of its own."""
    cluster = parse_cluster({"robots": nodes, "parameters": parameters or {}}, "test")
    return next(one for one in processes(cluster, profiles()) if one.name == name)


@contextmanager
def of_another_version(one: Process) -> Iterator[subprocess.Popen[bytes]]:
    """A node that takes itself for version 9.9.9."""
    main = f"import dnn_dist, sys; dnn_dist.__version__ = '9.9.9'; from dnn_dist.nodes.{one.executable} import main"
    arguments = ["--ros-args", "-r", f"__node:={one.name}"]
    for old, new in one.remappings.items():
        arguments += ["-r", f"{old}:={new}"]
    for key, value in one.parameters.items():
        arguments += ["-p", f"{key}:={value!r}" if isinstance(value, str) else f"{key}:={value}"]
    command = [sys.executable, "-c", f"{main}; sys.exit(main())", *arguments]
    node = subprocess.Popen(command, env={**os.environ, **one.environment}, stdout=subprocess.DEVNULL)
    try:
        yield node
    finally:
        node.kill()
        node.wait()


def test_fault_15_two_gateways_of_one_source_name_are_named(tmp_path: Path) -> None:
    """By both, and by the worker that hears both."""
    with live(tmp_path, robots(1), {"gateway": {"deadline": 5.0}}) as cluster:
        seen = diagnostics(cluster)
        second = process("gateway_r2", {"r2": {"source": "front", "nodes": ["gateway"]}})
        cluster.supervisor.start([second])
        for node in ("gateway_r1", "gateway_r2", "worker_r1"):
            said = cluster.until(lambda node=node: said_by(seen, node, "two sources of one name"), f"{node} says so")
            assert "'front'" in said and "name of its own" in said


def test_fault_17_a_broken_image_gives_a_detections_message_without_a_result(tmp_path: Path) -> None:
    """A robot must not act on what it saw last."""
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from dnn_dist.nodes.images import rgb_to_image
    from dnn_dist.nodes.qos import OUTPUT

    def messages_of(cluster: Live, frame_id: str) -> list[Any]:
        found = list(cluster.watch.detections.values())
        return [message for message in found if message.header.frame_id == frame_id]

    with live(tmp_path, robots(1), {"gateway": {"deadline": 5.0}}) as cluster:
        cluster.feed(film(1))
        publisher = cluster.watch.offer(Image, "image", OUTPUT)
        broken = rgb_to_image(np.zeros((8, 8, 3), np.uint8), Header(frame_id="broken"))
        broken.data = broken.data[:10]

        def answered() -> list[Any]:
            cluster.watch.send(publisher, broken)
            cluster.watch.spin(0.2)
            return messages_of(cluster, "broken")

        answers = cluster.until(answered, "detections of the broken image come")
        assert {message.status for message in answers} == {Status.NO_RESULT}
        assert not any(message.detections for message in answers)
        cluster.feed(film(1))


def test_fault_24_a_worker_of_another_version_is_named_and_gets_no_task(tmp_path: Path) -> None:
    other = process("worker_r9", {"r1": {"source": "front", "nodes": ["gateway"]}, "r9": {"nodes": ["worker"]}})
    with live(tmp_path, robots(2), {"gateway": {"deadline": 5.0}}) as cluster:
        seen = diagnostics(cluster)
        with of_another_version(other):
            cluster.until(lambda: cluster.watch.ready(2) and "r9" in cluster.watch.workers, "it is heard")
            said = cluster.until(lambda: said_by(seen, "gateway_r1", "another version"), "the gateway names it")
            assert "'r9'" in said and "'9.9.9'" in said
            said = cluster.until(lambda: said_by(seen, "worker_r9", "another version"), "it names the gateway")
            assert "'front'" in said
            cluster.feed(film(6))
            assert cluster.watch.workers["r9"].version == "9.9.9", "it is there all the time"
        assert {report.status for report in cluster.watch.reports} <= WHOLE
        assert {share.worker for report in cluster.watch.reports for share in report.workers} == {"r1", "r2"}


def test_fault_24_a_gateway_of_another_version_is_named_and_served_by_nobody(tmp_path: Path) -> None:
    """It hears the images too; its frames end without a result, and those of the other gateway are complete."""
    settings = {"gateway": {"deadline": 1.0}}
    other = process("gateway_r9", {"r9": {"source": "rear", "nodes": ["gateway"]}}, settings)
    with live(tmp_path, robots(2), {"gateway": {"deadline": 5.0}}) as cluster:
        seen, reports = diagnostics(cluster), cluster.watch.reports
        with of_another_version(other):
            said = cluster.until(lambda: said_by(seen, "worker_r2", "another version"), "a worker names it")
            assert "'rear'" in said and "'9.9.9'" in said
            assert cluster.until(lambda: said_by(seen, "gateway_r9", "another version"), "it names the workers")

            cluster.until_reports_of(film(1)[0], {"front", "rear"})
            rear = [report for report in reports if report.source == "rear"]
            assert {report.status for report in rear} == {Status.NO_RESULT} and not any(r.workers for r in rear)
            assert Status.COMPLETE in {report.status for report in reports if report.source == "front"}
