# SPDX-License-Identifier: Apache-2.0
"""Plans change while real nodes run: no frame is lost, none is inexact; what cannot be is refused with the reason."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from live import Live, live, robots
from test_live import FLOAT, detections_of, detections_of_whole, film

from dnn_dist import srv
from dnn_dist.run.report import Status

pytestmark = pytest.mark.usefixtures("ros_domain")

PLANS = ["tiles:2x2@0..10", "tiles:2x2@0..3;tiles:2x2@4..10", "slices:3+1@0..2;tiles:2x2@3..10", "layers:3", "local"]
"""Tiles, two groups of them, slices with parity, a pipeline, and the gateway alone."""
WHOLE = {Status.COMPLETE, Status.DECODED, Status.RECOMPUTED}


class Stream:
    """Images without end, two at a time at the gateway, and calls of its service meanwhile."""

    def __init__(self, cluster: Live) -> None:
        self.cluster, self.images = cluster, film(8)
        self._client = cluster.watch.create_client(srv.SetPlan, "front/set_plan")
        self._sent = 0
        cluster.until(self._client.service_is_ready, "the service is there")

    def step(self) -> None:
        """Publish the next image when the gateway has fewer than two."""
        if self._sent - len(self.cluster.watch.reports) < 2:
            self._sent += 1
            self.cluster.publish(self.images[self._sent % len(self.images)], self._sent)

    def frames(self, count: int) -> list[Any]:
        """The next so many reports."""
        began = len(self.cluster.watch.reports)

        def reported() -> bool:
            self.step()
            return len(self.cluster.watch.reports) >= began + count

        self.cluster.until(reported, f"{count} frames are reported")
        return list(self.cluster.watch.reports[began : began + count])

    def set_plan(self, text: str) -> srv.SetPlan.Response:
        """Ask for a plan at full load."""
        call = self._client.call_async(srv.SetPlan.Request(plan=text))

        def answered() -> bool:
            self.step()
            return bool(call.done())

        self.cluster.until(answered, f"an answer to {text}")
        return call.result()


def test_plans_change_at_full_load_and_no_frame_is_lost_or_inexact(tmp_path: Path) -> None:
    """Twice through five plans; 50 switches are `bench/switch.py`."""
    parameters = {"gateway": {"cut": PLANS[-1], "deadline": 20.0, "max_frames": 2}}
    with live(tmp_path, robots(4), parameters) as cluster:
        stream = Stream(cluster)
        pids = {name: child.pid for name, child in cluster.supervisor.running.items()}
        stream.frames(2)
        for plan in islice(cycle(PLANS), 10):
            answer = stream.set_plan(plan)
            assert answer.success, answer.message
            stream.frames(5)
        reports = list(cluster.watch.reports)
        numbers = [report.frame for report in reports]
        assert sorted(numbers) == list(range(len(numbers))), "each frame is reported once"
        assert {report.status for report in reports} <= WHOLE
        assert len({report.plan for report in reports}) == len(PLANS)
        wanted = [detections_of_whole(FLOAT, image) for image in stream.images]
        for report in reports:
            if not report.decoded:  # what is decoded is exact up to rounding: test_slices
                stamp = report.header.stamp.sec
                cluster.until(lambda stamp=stamp: stamp in found_stamps(cluster), "its detections")
                assert detections_of(cluster, stamp) == wanted[stamp % len(wanted)]
        assert {name: child.pid for name, child in cluster.supervisor.running.items()} == pids


def found_stamps(cluster: Live) -> set[int]:
    """Stamps (s) of the detections heard."""
    return {found.header.stamp.sec for found in cluster.watch.detections.values()}


def test_a_plan_that_cannot_be_is_refused_with_the_reason_and_nothing_changes(tmp_path: Path) -> None:
    with live(tmp_path, robots(2), {"gateway": {"deadline": 20.0, "max_frames": 2}}) as cluster:
        stream = Stream(cluster)
        before = stream.frames(2)[-1].plan
        for text, why in (
            ("tiles:0x9", "tiles:0x9"),
            ("dnn_dist_plan: [", "not YAML"),
            ("x" * 100_000, "not understood"),
            ("dnn_dist_plan: 1\nmodel: '0'\ncut: local\nfill: last\nwire: float32\nreplicas: 1\n", "pixels"),
        ):
            answer = stream.set_plan(text)
            assert not answer.success and "\n" not in answer.message and len(answer.message) < 1000
            assert why in answer.message, answer.message
        assert {report.plan for report in stream.frames(3)} == {before}
