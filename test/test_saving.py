# SPDX-License-Identifier: Apache-2.0
"""Frames that would lack pieces travel smaller first, where parameters allow it, and say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import live, robots
from virtual import Cluster, Faults, shape

from dnn_dist.camera.scene import SceneFilm
from dnn_dist.run.report import Status
from dnn_dist.run.saving import FIRST, LAST, MOST, NONE, Saving, Thrift, savings
from dnn_dist.run.wire import WireError, WireTensor
from dnn_dist.settings import PartitionSettings

ALLOWED = PartitionSettings(narrow="float16", jpeg=80)


def test_savings_are_those_that_are_allowed_least_first() -> None:
    assert savings(PartitionSettings()) == (NONE,)
    assert savings(PartitionSettings(jpeg=70)) == (NONE, Saving(jpeg=70))
    assert savings(ALLOWED) == (NONE, Saving("float16"), Saving("float16", 80))
    assert [str(saving) for saving in savings(ALLOWED)] == ["", "float16", "float16, jpeg 80"]


def test_more_is_saved_at_once_and_less_after_a_while() -> None:
    thrift = Thrift()
    thrift.note(True, 0)
    thrift.note(True, 0)  # it was begun before the first one ended
    assert thrift.level == 1
    thrift.note(True, 1)
    thrift.note(True, 2)
    assert thrift.level == MOST
    whole = 0
    while thrift.level:
        thrift.note(False, thrift.level)
        whole += 1
    assert whole >= 2 * FIRST


def test_a_link_that_stays_slow_costs_ever_fewer_frames() -> None:
    """Frames at level 0 always lack pieces: of a thousand frames a few tries do."""
    thrift, lacked = Thrift(), 0
    for _ in range(1000):
        short = thrift.level == 0
        lacked += short
        thrift.note(short, thrift.level)
    assert lacked < 10
    assert thrift._patience == LAST


def test_pixels_as_jpeg_come_back_as_pixels_and_others_as_an_error() -> None:
    pytest.importorskip("std_msgs", reason="no ROS 2 here")
    from dnn_dist.nodes.convert import read_tensor, tensor_message

    pixels = SceneFilm(1, 64, 96).frame(0)[0]
    message = tensor_message(WireTensor("image", pixels, jpeg=90))
    back = read_tensor(message)
    assert len(message.data) < pixels.nbytes / 3
    assert back.array.shape == pixels.shape
    error, swapped = (np.abs(back.array.astype(int) - other).mean() for other in (pixels, pixels[..., ::-1]))
    assert error < 8 and error < swapped / 3, "colours are where they were"
    for data, shape_ in ((message.data[:40], pixels.shape), (message.data, (64, 95, 3)), (b"\xff\xd8", pixels.shape)):
        broken = tensor_message(WireTensor("image", pixels, jpeg=90))
        broken.data, broken.shape = bytes(data), list(shape_)
        with pytest.raises(WireError):
            read_tensor(broken)


def test_frames_that_lack_pieces_have_the_next_ones_save() -> None:
    """In virtual time: workers are slow for a while, and the level of new frames follows."""
    slow = [(3.0, "slow", f"w{n}", 8.0) for n in (1, 2)] + [(4.0, "slow", f"w{n}", 1.0) for n in (1, 2)]
    cluster = Cluster(2, shape(4, macs=50), faults=Faults(events=slow))
    cluster.run(80, period=0.2, budget=0.4)
    assert cluster.gatherer.thrift.level == 0, "at the end all is well again"
    assert any(report.status >= Status.FILLED for report in cluster.reports), "some frames were meant to lack pieces"


@pytest.mark.usefixtures("ros_domain")
def test_a_frame_that_cannot_come_whole_travels_smaller_and_its_report_says_so(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="no ROS 2 here")
    from rclpy.parameter import Parameter
    from rclpy.parameter_client import AsyncParameterClient

    settings = {"cut": "tiles:2x2@0..10", "deadline": 0.03, "narrow": "float16", "jpeg": 80}
    parameters: dict[str, Any] = {"gateway": settings, "worker": {"pace": 1000.0}, "camera": {"rate": 10.0}}
    with live(tmp_path, robots(2, ("camera", "gateway")), parameters) as cluster:
        reports = cluster.watch.reports

        def said(text: str) -> bool:
            return any(report.saving == text for report in reports)

        for text in ("float16", "float16, jpeg 80"):
            cluster.until(lambda text=text: said(text), f"a frame travels as {text}")
        client = AsyncParameterClient(cluster.watch, "gateway_r1")
        cluster.until(client.services_are_ready, "the parameter services are there")
        done = client.set_parameters([Parameter("deadline", value=5.0)])
        cluster.until(done.done, "the deadline is set")
        whole = lambda: [one for one in reports if one.status == Status.COMPLETE]  # noqa: E731
        cluster.until(lambda: any(one.saving for one in whole()), "a frame comes whole, and smaller")
        cluster.until(lambda: any(not one.saving for one in whole()), "later ones travel as usual again")
        narrow = max(one.workers[0].bytes_out / one.workers[0].tasks for one in whole() if one.saving)
        usual = max(one.workers[0].bytes_out / one.workers[0].tasks for one in whole() if not one.saving)
        assert narrow < 0.6 * usual
        assert not cluster.supervisor.respawns
