# SPDX-License-Identifier: Apache-2.0
"""Users override the QoS of images and of what is published for them, by rclpy's own parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dnn_dist.cluster import parse_cluster
from dnn_dist.errors import PERMANENT, ConfigError

IMAGES, DETECTIONS = "qos_overrides./image.subscription", "qos_overrides./detections.publisher"


def cluster_with(values: dict[str, Any]) -> Any:
    robots = {"r1": {"source": "front", "nodes": ["gateway", "worker"]}}
    return parse_cluster({"robots": robots, "parameters": {"gateway": values}}, "test")


def test_the_parameter_file_takes_them() -> None:
    given = {"deadline": 0.4, f"{DETECTIONS}.depth": 5, f"{IMAGES}.reliability": "best_effort"}
    assert cluster_with(given).parameters["gateway"] == given
    with pytest.raises(ConfigError, match="expected a number or a word of QoS"):
        cluster_with({f"{DETECTIONS}.depth": [5]})
    with pytest.raises(ConfigError, match="unknown key 'qos_override"):
        cluster_with({"qos_override./detections.publisher.depth": 5})


def test_topics_take_them_and_no_other_topic_does(tmp_path: Path, ros_domain: int) -> None:
    """Our camera offers images reliably, and a gateway would ask for that; reports share a profile with detections."""
    pytest.importorskip("rclpy", reason="no ROS 2 here")
    from live import live, robots
    from rclpy.qos import ReliabilityPolicy

    given = {f"{IMAGES}.reliability": "best_effort", f"{DETECTIONS}.reliability": "best_effort", "deadline": 10.0}
    with live(tmp_path, robots(1, ("camera", "gateway")), {"gateway": given}) as cluster:
        watch = cluster.watch
        cluster.until(lambda: len(watch.reports) >= 3, "frames are reported")

        def offered(topic: str) -> set[Any]:
            return {one.qos_profile.reliability for one in watch.get_publishers_info_by_topic(topic)}

        assert offered("/image") == {ReliabilityPolicy.RELIABLE}
        assert offered("/detections") == {ReliabilityPolicy.BEST_EFFORT}
        assert offered("/report") == {ReliabilityPolicy.RELIABLE}
        asked = [one for one in watch.get_subscriptions_info_by_topic("/image") if one.node_name == "gateway_r1"]
        assert [one.qos_profile.reliability for one in asked] == [ReliabilityPolicy.BEST_EFFORT]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (f"{IMAGES}.reliability", "sometimes", "expected one of system_default, best_effort, reliable"),
        (f"{DETECTIONS}.reliability", "sometimes", "qos_overrides of detections: Unexpected QoS override"),
        (f"{DETECTIONS}.depth", "many", "qos_overrides of detections: "),
    ],
)
def test_a_wrong_one_is_one_line_and_no_new_start(
    tmp_path: Path, ros_domain: int, name: str, value: str, says: str
) -> None:
    pytest.importorskip("rclpy", reason="no ROS 2 here")
    import subprocess

    from dnn_dist.cli.supervisor import executables

    command = [executables() / "gateway", "--ros-args", "-p", f"{name}:={value}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == PERMANENT, ran.stderr
    (line,) = [line for line in ran.stderr.splitlines() if "qos_overrides" in line]
    assert says in line and "Traceback" not in ran.stderr
