# SPDX-License-Identifier: Apache-2.0
"""What a node's /diagnostics and /rosout say, over DDS: trouble as long as it stays, each lost worker by name."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("dnn_dist.msg", reason="messages are not built")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Log

from dnn_dist.cli.supervisor import executables
from dnn_dist.nodes.process import make_executor
from dnn_dist.nodes.qos import OUTPUT
from dnn_dist.nodes.shell import Shell
from dnn_dist.run.notes import Note

pytestmark = pytest.mark.usefixtures("ros_domain")
PATIENCE = 30.0  # s


class Patient(Shell):
    """A node whose troubles are what the test says; it hears what is published of it."""

    def __init__(self) -> None:
        self.has: list[str] = []
        super().__init__("patient")
        self.said: list[DiagnosticStatus] = []
        self.logged: list[str] = []
        self.receive(DiagnosticArray, "/diagnostics", OUTPUT, lambda message: self.said.extend(message.status))
        self.receive(Log, "/rosout", OUTPUT, lambda message: self.logged.append(message.msg))
        self.spinner = make_executor()
        self.spinner.add_node(self)

    def troubles(self) -> list[str]:
        return self.has

    def until(self, condition: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"this did not happen within {PATIENCE:g} s: {what}: {self.said[-3:]}"
            self.spinner.spin_once(timeout_sec=0.1)

    def next(self, count: int) -> list[tuple[bool, str]]:
        """(warns, message) of the next diagnostics."""
        before = len(self.said)
        self.until(lambda: len(self.said) >= before + count, f"{count} diagnostics come")
        return [(status.level == DiagnosticStatus.WARN, status.message) for status in self.said[before:]]


@pytest.fixture
def patient(ros_domain: int) -> Iterator[Patient]:
    rclpy.init()
    try:
        node = Patient()
        yield node
        node.destroy_node()
    finally:
        rclpy.try_shutdown()


def test_trouble_is_shown_as_long_as_it_stays(patient: Patient) -> None:
    assert patient.next(1) == [(False, "running")]
    patient.has = ["no image for 7 s", "no worker ready"]
    assert patient.next(4) == [(True, "no image for 7 s (and 1 more)")] * 4
    assert {pair.value for pair in patient.said[-1].values if "trouble" in pair.key} == set(patient.has)
    patient.has = []
    assert patient.next(2) == [(False, "running")] * 2


def test_a_warning_is_shown_for_longer_than_somebody_looks_away(patient: Patient) -> None:
    patient.note(Note("bad image", "half of it is missing"))
    assert patient.next(4) == [(True, "bad image: half of it is missing")] * 4


def test_each_lost_worker_is_logged(patient: Patient) -> None:
    patient.until(lambda: patient.logged or patient.note(Note("ready", "to log", warn=False)), "logs are heard")
    for worker in ("r2", "r3", "r2"):
        patient.note(Note("worker lost", f"worker {worker!r} was not heard", about=worker))
    patient.note(Note("the end", "of this test"))
    patient.until(lambda: any("the end" in line for line in patient.logged), "the logs come")
    lost = [line for line in patient.logged if "worker lost" in line]
    assert lost == ["worker lost: worker 'r2' was not heard", "worker lost: worker 'r3' was not heard"]


def test_a_camera_names_the_files_that_it_leaves_out(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((16, 16, 3), np.uint8))
    for name in ("0a.png", "1a.jpg"):
        (tmp_path / name).write_bytes(b"no picture")
    words = [f"source:={tmp_path}", "loop:=false", "wait_for_subscriber:=false", "rate:=50.0"]
    command = [executables() / "camera", "--ros-args", *(word for pair in words for word in ("-p", pair))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as camera:
        assert camera.stderr is not None
        said = ""
        for line in camera.stderr:
            said += line
            if "has ended after" in line:
                break
        camera.terminate()
    assert "has ended after 3 frames" in said
    for name in ("0a.png", "1a.jpg"):
        assert f"file left out: {name}: not an image" in said
