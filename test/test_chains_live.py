# SPDX-License-Identifier: Apache-2.0
"""Chains on real nodes: pieces feed each other from worker to worker, and a death in between costs no frame."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from live import live, robots
from test_live import FLOAT, INT8, detections_of, detections_of_whole, film
from test_ondemand import pids

from dnn_dist.run.report import Status

pytestmark = pytest.mark.usefixtures("ros_domain")


@pytest.mark.parametrize(
    ("model", "cut", "worker"),
    [
        (FLOAT, "tiles:2x2@0..1>tiles:2x2@2..4>tiles:1x3@5..10", {}),  # the sum of op 6 takes what op 3 made
        (INT8, "bands:3@0..10>layers:2@11..17", {"prepared": 0}),
        (FLOAT, "tiles:2x2@0..3;bands:2,1@4..7>layers:1@8..12;slices:2@13", {}),
        (FLOAT, "layers:4", {"prepared": 0}),
        (FLOAT, "tiles:4x3r@0..10", {}),
        (INT8, "tiles:3x3r@0..6>tiles:2x2r@7..10", {"prepared": 0}),
    ],
)
def test_what_robots_give_each_other_is_the_whole_models(
    tmp_path: Path, model: str, cut: str, worker: dict[str, int]
) -> None:
    parameters = {"all": {"model": model}, "gateway": {"cut": cut, "deadline": 10.0}, "worker": worker}
    images = film(4)
    with live(tmp_path, robots(3), parameters) as cluster:
        started = pids(cluster)
        cluster.until(lambda: all(len(s.peers) == 2 for s in cluster.watch.workers.values()), "workers have met")
        cluster.feed(images)
        for stamp, image in enumerate(images, start=1):
            expected = detections_of_whole(model, image)
            assert detections_of(cluster, stamp) == expected
            assert expected, "a frame without detections proves nothing"
        assert pids(cluster) == started and not cluster.supervisor.respawns
        assert {Status(report.status) for report in cluster.watch.reports} <= {Status.COMPLETE, Status.RECOMPUTED}
    logs = {log.name: log.read_text() for log in (tmp_path / "log").glob("*.log")}
    assert not [name for name, text in logs.items() if "Traceback" in text]


@pytest.mark.parametrize(
    "cut", ["tiles:2x2@0..1>tiles:2x2@2..3>tiles:2x2@4..7>tiles:2x2@8..10", "tiles:4x4r@0..10"], ids=["chain", "reuse"]
)
def test_a_worker_killed_in_mid_chain_costs_no_frame(tmp_path: Path, cut: str) -> None:
    """At random moments, again and again: what it had is computed anew, its feeds are sent again, and it comes back."""
    deadline = 10.0
    parameters = {"gateway": {"cut": cut, "deadline": deadline}, "worker": {"pace": 400.0}}
    images, rng = film(1), random.Random(1)
    with live(tmp_path, robots(4), parameters) as cluster:
        reports, supervisor = cluster.watch.reports, cluster.supervisor
        cluster.feed(images)
        expected = detections_of_whole(FLOAT, images[0])
        for kill in range(6):
            victim = rng.choice(["r2", "r3", "r4"])
            session, stamp = cluster.watch.workers[victim].session, kill + 2
            cluster.publish(images[0], stamp)
            cluster.until(lambda victim=victim: cluster.watch.workers[victim].held, "the frame is in work")
            for _ in range(rng.randrange(12)):
                cluster.watch.spin(0.02)
            supervisor.kill(f"worker_{victim}")
            cluster.until(lambda stamp=stamp: stamp in cluster.stamps(), f"report of image {stamp}")
            assert detections_of(cluster, stamp) == expected
            cluster.until(
                lambda victim=victim, session=session: cluster.watch.workers[victim].session != session,
                "it is heard again",
            )
            cluster.until(
                lambda: all(len(s.peers) == 3 for s in cluster.watch.workers.values()) and cluster.watch.ready(4),
                "all workers have met again",
            )
        numbers = [report.frame for report in reports]
        assert numbers == sorted(set(numbers)), "reported exactly once, in order"
        assert {Status(report.status) for report in reports} <= {Status.COMPLETE, Status.RECOMPUTED}
        assert sum(supervisor.respawns.values()) == 6, "a process ended that nobody killed"
    assert not [log.name for log in (tmp_path / "log").glob("*.log") if "Traceback" in log.read_text()]


def test_all_works_of_a_long_chain_go_out_at_once_and_no_frame_is_lost(tmp_path: Path) -> None:
    """Through a paced writer: where DDS keeps fewer of a topic than the works of a frame, frames are filled or lost."""
    cut = ">".join(f"tiles:4x1@{op}..{op}" for op in range(11))
    patient = {"transit": 2.0, "lease_min": 2.0, "worker_timeout": 2.0}  # a busy machine is nobody's loss
    parameters = {"gateway": {"cut": cut, "deadline": 10.0, "window": 4_000_000, **patient}}
    with live(tmp_path, robots(2), parameters, network="wifi") as cluster:
        cluster.until(lambda: all(len(s.peers) == 1 for s in cluster.watch.workers.values()), "workers have met")
        cluster.feed(film(5))
        assert {Status(report.status) for report in cluster.watch.reports} <= {Status.COMPLETE, Status.RECOMPUTED}
        assert len({share.worker for report in cluster.watch.reports for share in report.workers}) == 2
