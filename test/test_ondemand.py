# SPDX-License-Identifier: Apache-2.0
"""Workers that make each piece ready when it is first given: real processes over DDS, and none of them ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from live import Live, live, robots

from dnn_dist.camera.scene import SceneFilm
from dnn_dist.run.report import Status

pytestmark = pytest.mark.usefixtures("ros_domain")

FRAMES = 20


def film(frames: int) -> list[np.ndarray]:
    scenes = SceneFilm(2, 256, 320)
    return [scenes.frame(k)[0] for k in range(frames)]


def pids(cluster: Live) -> dict[str, int]:
    """Process ids of all nodes."""
    return {name: child.pid for name, child in cluster.supervisor.running.items()}


def feed(cluster: Live, images: list[np.ndarray]) -> None:
    """Publish images one by one, each when the one before is reported, until a process ends."""
    first = pids(cluster)
    cluster.feed(images[:1])
    for stamp, image in enumerate(images[1:], start=2):
        cluster.publish(image, stamp)
        cluster.until(lambda stamp=stamp: stamp in cluster.stamps() or pids(cluster) != first, f"report of {stamp}")
        assert pids(cluster) == first, "every process is the one that was started"


@pytest.mark.parametrize(
    ("cut", "memory"),
    [
        ("tiles:3x3@0..10", 0),  # each piece is made ready once
        ("tiles:3x3@0..10", 1),  # MB: room for three pieces, so they are made ready again and again
        ("tiles:2x2@0..7;slices:4+1@8..9", 0),
    ],
)
def test_workers_that_prepare_on_demand_compute_every_frame_and_none_ends(
    tmp_path: Path, cut: str, memory: int
) -> None:
    """More pieces than workers: one is made ready while the result of the one before is sent; neither is lost."""
    parameters = {
        "gateway": {"deadline": 10.0, "cut": cut},
        "worker": {"prepared": 0, "memory": memory},
    }
    with live(tmp_path, robots(2), parameters) as cluster:
        started = pids(cluster)
        feed(cluster, film(FRAMES))
        assert pids(cluster) == started and not cluster.supervisor.respawns
        reports = list(cluster.stamps().values())
        assert len(reports) == FRAMES
        exact = {Status.COMPLETE, Status.DECODED, Status.RECOMPUTED}
        assert {Status(report.status) for report in reports} <= exact
        assert len({share.worker for report in reports for share in report.workers}) == 2, "work was shared"
    assert not [log.name for log in (tmp_path / "log").glob("*.log") if "Traceback" in log.read_text()]


def test_workers_keep_to_few_forms(tmp_path: Path) -> None:
    """Of nine forms of 25 tiles four workers, as fast as each other, have fewer than two thirds in all."""
    from diagnostic_msgs.msg import DiagnosticArray

    from dnn_dist.nodes.qos import OUTPUT

    forms, told = 9, dict[str, int]()

    def hear(message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if "forms ready" in values:
                told[status.name] = int(values["forms ready"])

    parameters = {
        "gateway": {"deadline": 20.0, "cut": "tiles:5x5@0..10"},
        "worker": {"prepared": 0, "pace": 50.0},  # MMAC/s: what a tile takes does not depend on this machine
    }
    with live(tmp_path, robots(4), parameters) as cluster:
        cluster.watch.receive(DiagnosticArray, "/diagnostics", OUTPUT, hear)
        feed(cluster, film(8))
        told.clear()
        cluster.until(lambda: len(told) == 4, "all workers say how many forms they have")
        assert all(0 < count <= forms for count in told.values())
        assert sum(told.values()) <= 2 / 3 * 4 * forms, told
        reports = list(cluster.stamps().values())
        assert {Status(report.status) for report in reports} <= {Status.COMPLETE, Status.RECOMPUTED}
        assert len({share.worker for share in reports[-1].workers}) == 4, "all take part"
