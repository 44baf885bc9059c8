# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist fleet` on a cluster that runs: its file is one that the planner takes, and says how fast robots are."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dnn_dist.msg", reason="messages are not built")

from live import live, robots

from dnn_dist.cli.supervisor import executables
from dnn_dist.plan.fleet import read_fleet
from dnn_dist.run.delays import LEAST

pytestmark = pytest.mark.usefixtures("ros_domain")
PACE = 400.0  # million MACs a second, of the second robot's worker; the others are at half of it


def fleet(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(executables() / "dnn_dist"), "fleet", *words], capture_output=True, text=True, timeout=60
    )


def test_a_running_cluster_has_a_fleet_file(tmp_path: Path) -> None:
    crew = robots(3)
    for name in crew:
        crew[name]["parameters"] = {"worker": {"pace": PACE if name == "r2" else PACE / 2}}
    parameters = {"gateway": {"cut": "tiles:2x2@0..10", "deadline": 10.0, "lease_min": 5.0}}
    with live(tmp_path, crew, parameters) as cluster:
        rng = np.random.default_rng(0)
        cluster.feed([rng.integers(0, 256, (256, 320, 3)).astype(np.uint8) for _ in range(2 * LEAST)])
        done = fleet("-o", str(tmp_path / "fleet.yaml"))
        assert done.returncode == 0, done.stderr
        found = read_fleet(tmp_path / "fleet.yaml")
        assert found.names[0] == "r1" and set(found.names) == {"r1", "r2", "r3"}
        speeds = [found.robot(name).speed for name in ("r1", "r2", "r3")]
        assert all(0.3 * PACE / 2 < speed / 1e6 < 1.1 * PACE for speed in speeds) and speeds[1] > 1.3 * speeds[2]
        link = found.link("r1", "r2")
        assert 0 < link.seconds(50_000) < 1.0 and link.loss < 0.5
        assert "link" in done.stderr and len(done.stderr.splitlines()) == 1
        printed = fleet("--seconds", "3")
        assert printed.returncode == 0 and printed.stdout.startswith("dnn_dist_fleet: 1\n")


def test_where_nobody_runs_one_line_says_so() -> None:
    done = fleet("--seconds", "1")
    assert done.returncode == 1 and "no worker was heard" in done.stderr and "Traceback" not in done.stderr
    wrong = fleet("--seconds", "nan")
    assert wrong.returncode == 2 and "--seconds is nan" in wrong.stderr
