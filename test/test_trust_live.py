# SPDX-License-Identifier: Apache-2.0
"""Who may take part, with real nodes: nobody computes for an untrusted source, nor untrusted workers for anybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from live import Live, live, robots
from test_faults_live import process
from test_live import PATIENT, diagnostics, film, said_by

from dnn_dist.run.report import Status

pytestmark = pytest.mark.usefixtures("ros_domain")


def test_a_source_that_no_worker_trusts_gets_no_result_and_the_others_go_on(tmp_path: Path) -> None:
    """It hears the same images; its plan has nobody, and each worker says so in one line."""
    rear = process("gateway_r9", {"r9": {"source": "rear", "nodes": ["gateway"]}}, {"gateway": {"deadline": 1.0}})
    with live(tmp_path, robots(2), {**PATIENT, "worker": {"trusted": "front left"}}) as cluster:
        seen, reports = diagnostics(cluster), cluster.watch.reports
        cluster.supervisor.start([rear])
        for worker in ("worker_r1", "worker_r2"):
            said = cluster.until(lambda w=worker: said_by(seen, w, "untrusted source"), f"{worker} says so")
            assert "source 'rear' is not trusted: its plans and its work are refused" in said
            assert "\n" not in said.strip()

        cluster.until_reports_of(film(1)[0], {"front", "rear"})
    of_rear = [report for report in reports if report.source == "rear"]
    assert {report.status for report in of_rear} == {Status.NO_RESULT} and not any(r.workers for r in of_rear)
    assert {report.status for report in reports if report.source == "front"} <= {Status.COMPLETE, Status.RECOMPUTED}


def trust(cluster: Live, node: str, names: str) -> None:
    """Set the parameter of a running node."""
    from rclpy.parameter import Parameter
    from rclpy.parameter_client import AsyncParameterClient

    client = AsyncParameterClient(cluster.watch, node)
    cluster.until(client.services_are_ready, "the parameter services are there")
    future: Any = client.set_parameters([Parameter("trusted", value=names)])
    cluster.until(future.done, "the parameter is set")
    assert future.result().results[0].successful, future.result().results[0].reason


def test_work_of_a_source_that_is_trusted_no_longer_is_refused_in_one_line(tmp_path: Path) -> None:
    """While its frames come, and until it is trusted again."""
    with live(tmp_path, robots(1, ("camera", "gateway")), {"gateway": {"deadline": 1.0}}) as cluster:
        seen, reports = diagnostics(cluster), cluster.watch.reports
        cluster.until(lambda: any(report.status == Status.COMPLETE for report in reports), "a frame is complete")
        trust(cluster, "worker_r1", "rear")
        said = cluster.until(lambda: said_by(seen, "worker_r1", "work refused"), "its work is refused")
        assert "source 'front' is not trusted" in said and "\n" not in said.strip()
        before = len(reports)
        cluster.until(lambda: Status.NO_RESULT in {r.status for r in reports[before:]}, "its frames have no result")
        trust(cluster, "worker_r1", "")
        before = len(reports)
        cluster.until(lambda: Status.COMPLETE in {r.status for r in reports[before:]}, "frames are complete again")


def test_a_worker_that_its_source_does_not_trust_computes_nothing(tmp_path: Path) -> None:
    with live(tmp_path, robots(3), {"gateway": {**PATIENT["gateway"], "trusted": "r1 r2"}}) as cluster:
        seen = diagnostics(cluster)
        cluster.feed(film(4))
        said = cluster.until(lambda: said_by(seen, "gateway_r1", "untrusted worker"), "the gateway says so")
        assert "worker 'r3' is not trusted: it gets no work, and its results are refused" in said
        assert "r3" in cluster.watch.workers, "it is there all the time"
        assert {report.status for report in cluster.watch.reports} <= {Status.COMPLETE, Status.RECOMPUTED}
        assert {share.worker for report in cluster.watch.reports for share in report.workers} == {"r1", "r2"}
