# SPDX-License-Identifier: Apache-2.0
"""The policy for SROS2 is held to what real nodes have; nodes tell who started them that they live."""

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from live import live

from dnn_dist.cluster import parse_cluster, processes
from dnn_dist.deploy.sros2 import uses

pytest.importorskip("rclpy")

# Both kinds of source, several workers, and a chain, so that workers feed each other.
ROBOTS = {
    "r1": {"source": "front", "nodes": ["camera", "gateway", "worker"]},
    "r2": {"source": "rear", "nodes": ["camera", "partition", "worker"]},
    "r3": {"source": "rear", "nodes": ["aggregator"]},
}
PARAMETERS = {
    "gateway": {"cut": "tiles:1x2@0..4>tiles:1x2@5..10"},
    "partition": {"cut": "bands:2@0..3;tiles:1x2@4..10"},
}
NOT_ALWAYS = {"detections_2d", "image", "image/compressed", "overlay"}
"""By name, whatever source stands before it: what some nodes have, and others with the same settings class have not."""
OF_ROS = {"get_type_description"}
"""Services of nodes that some versions of rclpy add."""


def test_the_policy_allows_what_nodes_have_and_nothing_else(tmp_path: Path, ros_domain: int) -> None:
    nodes = processes(parse_cluster({"robots": ROBOTS, "parameters": PARAMETERS}, "test"), "/profiles")
    allowed = {node.name: uses(node, nodes) for node in nodes}
    found: dict[tuple[str, str], set[str]] = {}

    def look(cluster: Any) -> bool:
        """True when all that is allowed is there, as far as it always is."""
        for node in nodes:
            for kind, names in graph(cluster.watch, node.name).items():
                found.setdefault((node.name, kind), set()).update(names)
        return not missing()

    def missing() -> list[tuple[str, str, str]]:
        return [
            (name, kind, topic)
            for name, used in allowed.items()
            for kind, topics in (("publishes", used.publishes), ("hears", used.hears), ("serves", used.serves))
            for topic in topics - {"/clock"}
            if absolute(topic) not in found[name, kind] and not any(topic.endswith(end) for end in NOT_ALWAYS)
        ]

    with live(tmp_path, ROBOTS, PARAMETERS, prefix="front/") as cluster:
        cluster.until(lambda: cluster.watch.reports, "a frame is reported")
        try:
            cluster.until(lambda: look(cluster), "all that the policy allows is there")
        except AssertionError as error:
            raise AssertionError(f"allowed, and no node has it: {missing()}") from error
    for (name, kind), topics in found.items():
        may = {absolute(topic) for topic in getattr(allowed[name], kind)}
        beyond = {topic for topic in topics - may if topic.rsplit("/", 1)[1] not in OF_ROS}
        assert not beyond, f"{name} {kind} what the policy denies: {sorted(beyond)}"


def graph(watch: Any, node: str) -> dict[str, set[str]]:
    """What ROS says that a node has; empty while it is not known."""
    try:
        return {
            "publishes": {name for name, _ in watch.get_publisher_names_and_types_by_node(node, "/")},
            "hears": {name for name, _ in watch.get_subscriber_names_and_types_by_node(node, "/")},
            "serves": {name for name, _ in watch.get_service_names_and_types_by_node(node, "/")},
        }
    except RuntimeError:  # NodeNameNonExistentError of rclpy, which is one
        return {"publishes": set(), "hears": set(), "serves": set()}


def absolute(name: str) -> str:
    return name if name.startswith("/") else f"/{name}"


def test_a_node_tells_who_started_it_that_it_lives(tmp_path: Path, ros_domain: int) -> None:
    """As a container's probe and as systemd hear it; a node that is stopped falls silent, and is heard again."""
    health, notified = tmp_path / "health", socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(tmp_path / "notify"))
    notified.setblocking(False)
    heard: list[bytes] = []

    def hear() -> int:
        try:
            while True:
                heard.append(notified.recv(4096))
        except BlockingIOError:
            return len(heard)

    environment = {"DNN_DIST_HEALTH": str(health), "NOTIFY_SOCKET": str(tmp_path / "notify")}
    with notified, live(tmp_path, {"r1": {"nodes": ["worker"]}}, ready=0, environment=environment) as cluster:
        cluster.until(lambda: hear() >= 2 and health.exists(), "the worker says twice that it lives")
        assert heard[0].startswith(b"READY=1\nWATCHDOG=1\nSTATUS=")
        assert heard[-1].decode().rpartition("STATUS=")[2] == health.read_text().strip()
        assert health.read_text().split()[0] in ("OK", "WARN")
        pid = cluster.supervisor.running["worker_r1"].pid
        os.kill(pid, signal.SIGSTOP)
        hear()
        written, count = health.stat().st_mtime_ns, len(heard)
        cluster.watch.spin(2.5)
        assert (health.stat().st_mtime_ns, hear()) == (written, count), "it is said by what does the work"
        os.kill(pid, signal.SIGCONT)
        cluster.until(lambda: hear() > count and health.stat().st_mtime_ns > written, "it lives again")
