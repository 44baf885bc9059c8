# SPDX-License-Identifier: Apache-2.0
"""Chaos on real nodes: whatever happens to workers and messages, frames are reported once, and all comes back."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from live import MachineLag, live, robots

from dnn_dist.cli.chaos import Chaos, disturbance, schedule
from dnn_dist.settings import GatewaySettings

pytestmark = pytest.mark.usefixtures("ros_domain")

PLANS = [
    "tiles:2x2@0..10",
    "tiles:2x2@0..3>tiles:1x3@4..10",
    "slices:3+1@0..2;tiles:2x2@3..10",
    "bands:3@0..3>layers:2@4..17",
]
SECONDS = 2.5  # of trouble, each run
RUNS = int(os.environ.get("DNN_DIST_CHAOS_LIVE", "3"))  # of each plan; with 5 twenty seeds in all


def test_a_schedule_is_a_function_of_its_seed_and_spares_one_worker() -> None:
    workers = [f"w{number}" for number in range(4)]
    for seed in range(50):
        troubles = schedule(seed, 10.0, workers)
        assert troubles == schedule(seed, 10.0, workers)
        assert len({trouble.process for trouble in troubles}) < len(workers)
        stopped = [(trouble.what, trouble.process) for trouble in troubles if trouble.what != "kill"]
        assert stopped.count("stop") == stopped.count("go")
        assert disturbance(seed) == disturbance(seed)


@pytest.mark.parametrize("plan", PLANS)
def test_chaos_on_live_nodes_breaks_no_law(tmp_path: Path, plan: str) -> None:
    """Some runs of trouble a plan; between them the cluster must come back to frames of full quality.

    No frame is reported later than its deadline and slack, beyond what this machine itself is late.
    """
    parameters = {
        "camera": {"rate": 10.0},
        "gateway": {"cut": plan, "deadline": 2.0, "max_frames": 2},
        "all": {"pace": 2000.0},
    }
    base, kills = 5 * PLANS.index(plan), Counter[str]()
    nodes = robots(4, ("camera", "gateway"))
    with live(tmp_path, nodes, parameters, environment=disturbance(base)) as cluster, MachineLag() as lag:
        reports = cluster.watch.reports
        workers = sorted(name for name in cluster.supervisor.running if name.startswith("worker"))
        for seed in range(base, base + RUNS):
            chaos, began = Chaos(cluster.supervisor, schedule(seed, SECONDS, workers)), time.monotonic()
            while time.monotonic() - began < SECONDS or not chaos.over:
                cluster.watch.spin(0.02)
                cluster.supervisor.look()
                chaos.look(time.monotonic() - began)
            chaos.end()
            kills.update(trouble.process for trouble in chaos.done if trouble.what == "kill")
            before = len(reports)
            cluster.until(
                lambda before=before: any(report.quality == 1 for report in reports[before:]),
                f"frames of full quality again after {[str(trouble) for trouble in chaos.done]}",
            )
        numbers = [(report.session, report.frame) for report in reports]
        assert len(numbers) == len(set(numbers)), "a frame was reported twice"
        assert len({session for session, _ in numbers}) == 1, "the gateway was restarted"
        assert Counter(cluster.supervisor.respawns) <= kills, "a process ended that nobody killed"
        slack = GatewaySettings().timer_slack + 2 * lag.worst
        late = [report.latency - report.budget for report in reports if report.latency > report.budget + slack]
        assert not late, f"reported late by {late} s, where {slack:.3f} s are allowed"
        # Two frames are in work at once and may end in any order: the first heard may have overtaken another, and so
        # may the last one.
        inner = range(reports[0].frame + 3, max(frame for _, frame in numbers) - 1)
        frames = sorted(frame for _, frame in numbers if frame in inner)
        assert frames == list(range(frames[0], frames[0] + len(frames))), "a frame was not reported"
    assert not [log.name for log in (tmp_path / "log").glob("*.log") if "Traceback" in log.read_text()]
