# SPDX-License-Identifier: Apache-2.0
"""A pipeline of groups on real nodes: several frames are under way, and a death in either group costs none."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from live import live, robots
from test_live import FLOAT, detections_of, detections_of_whole, film

from dnn_dist.run.report import Status

pytestmark = pytest.mark.usefixtures("ros_domain")

CUT = "tiles:2x1@0..1>tiles:2x1@2..3>>tiles:2x1@4..7>tiles:1x2@8..10"


def test_groups_have_frames_under_way_and_a_worker_killed_in_either_costs_none(tmp_path: Path) -> None:
    """How many frames are in work the plan says. Each group loses a robot while both have frames."""
    patient = {"transit": 2.0, "lease_min": 2.0}  # a busy machine is nobody's loss
    parameters = {"gateway": {"cut": CUT, "deadline": 20.0, **patient}, "worker": {"pace": 30.0}}
    images = film(1)
    with live(tmp_path, robots(4), parameters) as cluster:
        watch, reports, supervisor = cluster.watch, cluster.watch.reports, cluster.supervisor
        cluster.until(lambda: all(len(s.peers) == 3 for s in watch.workers.values()), "workers have met")
        cluster.feed(images)
        expected = detections_of_whole(FLOAT, images[0])
        assert detections_of(cluster, 1) == expected and expected

        def under_way() -> dict[int, set[str]]:
            """Frame -> workers that hold pieces of it."""
            found: dict[int, set[str]] = {}
            for name, state in watch.workers.items():
                for key in state.held:
                    found.setdefault(key.frame, set()).add(name)
            return found

        stamp = 1
        for victim in ("r2", "r3", "r4"):
            session = watch.workers[victim].session
            began = stamp + 1
            cluster.until(lambda: not under_way(), "no frame is in work: an image may have been sent twice")
            for _ in range(3):
                before, stamp = len(under_way()), stamp + 1
                cluster.publish(images[0], stamp)
                cluster.until(lambda before=before: len(under_way()) > before, "one more frame is in work")
            assert len(under_way()) == 3, "one in each group, and one on its way"
            supervisor.kill(f"worker_{victim}")
            cluster.until(lambda: set(range(began, stamp + 1)) <= set(cluster.stamps()), "reports of all frames")  # noqa: B023
            assert all(detections_of(cluster, number) == expected for number in range(began, stamp + 1))
            cluster.until(
                lambda victim=victim, session=session: watch.workers[victim].session != session, "it is heard again"
            )
            cluster.until(
                lambda: all(len(s.peers) == 3 for s in watch.workers.values()) and watch.ready(4), "all have met again"
            )
        assert [report.frame for report in reports] == sorted({report.frame for report in reports})
        assert {Status(report.status) for report in reports} <= {Status.COMPLETE, Status.RECOMPUTED}
        assert sum(supervisor.respawns.values()) == 3, "a process ended that nobody killed"
    assert not [log.name for log in (tmp_path / "log").glob("*.log") if "Traceback" in log.read_text()]
