# SPDX-License-Identifier: Apache-2.0
"""Partition and aggregator on two robots, as the parameter file says, with real processes: every plan runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")
pytest.importorskip("dnn_dist.msg", reason="messages are not built")

from live import live
from test_live import FLOAT, INT8, detections_of, detections_of_whole, film

from dnn_dist.run.report import Status

pytestmark = pytest.mark.usefixtures("ros_domain")


def apart(*first: str) -> dict[str, Any]:
    """Robots of a source whose aggregator is on another robot than its partition, each with a worker."""
    return {
        "r1": {"source": "front", "nodes": [*first, "partition", "worker"]},
        "r2": {"source": "front", "nodes": ["aggregator", "worker"]},
    }


@pytest.mark.parametrize(
    ("model", "cut"),
    [
        (FLOAT, "tiles:2x2@0..5;tiles:2x2@6..10"),
        (INT8, "tiles:2x2@0..5>tiles:2x2@6..10"),
        (FLOAT, "tiles:2x2@0..3;slices:3@4..5;layers:2@6..17"),
        (FLOAT, "local@0..1;tiles:2x2@2..10"),
    ],
)
def test_detections_equal_those_of_the_whole_model(tmp_path: Path, model: str, cut: str) -> None:
    parameters = {"all": {"model": model}, "partition": {"cut": cut, "deadline": 10.0}}
    images = film(2) + film(1, 300, 500)
    with live(tmp_path, apart(), parameters) as cluster:
        cluster.feed(images)
        for stamp, image in enumerate(images, start=1):
            expected = detections_of_whole(model, image)
            assert detections_of(cluster, stamp) == expected
            assert expected, "a frame without detections proves nothing"
        assert {report.status for report in cluster.watch.reports} <= {Status.COMPLETE, Status.RECOMPUTED}
        assert not cluster.supervisor.respawns
    assert not [log.name for log in (tmp_path / "log").glob("*.log") if "Traceback" in log.read_text()]


@pytest.mark.parametrize("victim", ["aggregator_r2", "worker_r2"])
def test_a_killed_process_costs_no_other(tmp_path: Path, victim: str) -> None:
    """A camera goes on meanwhile; then frames are complete again."""
    cut = "tiles:2x2@0..3;tiles:2x2@4..6>tiles:2x2@7..10"
    parameters = {"camera": {"rate": 8.0}, "all": {"pace": 1000.0}, "partition": {"cut": cut, "deadline": 10.0}}
    with live(tmp_path, apart("camera"), parameters) as cluster:
        reports, supervisor = cluster.watch.reports, cluster.supervisor
        cluster.until(lambda: len(reports) >= 3, "frames are reported")
        pids = {name: child.pid for name, child in supervisor.running.items() if name != victim}
        cluster.goes_on_after_a_kill(victim)
        assert {name: supervisor.running[name].pid for name in pids} == pids
    assert not [log.name for log in (tmp_path / "log").glob("*.log") if "Traceback" in log.read_text()]
