# SPDX-License-Identifier: Apache-2.0
"""A node that starts meets the others at once: nothing waits for what could have been done meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")
pytest.importorskip("dnn_dist.msg", reason="messages are not built")

import rclpy
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image

from dnn_dist import msg
from dnn_dist.nodes.imagetopic import ImageReader
from dnn_dist.nodes.process import make_executor
from dnn_dist.nodes.qos import heartbeats, images
from dnn_dist.nodes.shell import Shell
from dnn_dist.nodes.workertopics import WorkerListener, WorkerTopics

BENCH = Path(__file__).parents[1] / "bench"
PATIENCE = 30.0  # s

PAUSED = """
import sys
from dnn_dist.executables import run

class Pause:
    '''Tells when the gateway's own module is asked for, and lets the import wait.'''
    def find_spec(self, name, path=None, target=None):
        if name == "dnn_dist.nodes.gateway":
            print("asked", flush=True)
            sys.stdin.readline()

sys.meta_path.insert(0, Pause())
sys.argv = ["gateway"]
sys.exit(run("gateway"))
"""


@pytest.fixture
def shells(ros_domain: int) -> Iterator[Callable[[str], Shell]]:
    """Makes nodes of this process."""
    rclpy.init()
    made: list[Shell] = []

    def make(name: str) -> Shell:
        made.append(Shell(name))
        return made[-1]

    try:
        yield make
        for shell in made:
            shell.destroy_node()
    finally:
        rclpy.try_shutdown()


def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"this did not happen within {PATIENCE:g} s: {what}"
        time.sleep(0.02)


def test_a_node_is_found_before_its_own_modules_are_imported(shells: Callable[[str], Shell]) -> None:
    outside = shells("outside")
    command = [sys.executable, "-c", PAUSED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stdout.readline() == "asked\n"
            until(lambda: set(outside.get_node_names()) - {"outside"}, "the process is found while it imports")
            assert "gateway" not in outside.get_node_names()
            child.stdin.write("\n")
            child.stdin.flush()
            until(lambda: set(outside.get_node_names()) == {"outside", "gateway"}, "only the node itself is left")
            child.send_signal(signal.SIGINT)
            assert child.wait(PATIENCE) == 0
        finally:
            child.kill()


@pytest.mark.parametrize("reliable", [False, True])
def test_a_known_camera_is_subscribed_to_once_and_as_it_offers(shells: Callable[[str], Shell], reliable: bool) -> None:
    camera, gateway = shells("camera"), shells("gateway")
    camera.offer(Image, "image", images(reliable))
    until(lambda: gateway.count_publishers("image"), "the camera is known")
    ImageReader(gateway, False, lambda image: None)
    until(lambda: camera.count_subscribers("image"), "the reader is known")
    (info,) = camera.get_subscriptions_info_by_topic("image")
    assert (info.qos_profile.reliability is ReliabilityPolicy.RELIABLE) is reliable


def test_known_workers_are_met_at_the_first_turn(shells: Callable[[str], Shell]) -> None:
    worker, gateway = shells("worker"), shells("gateway")
    worker.offer(msg.WorkerState, "r1/state", heartbeats())
    until(lambda: gateway.count_publishers("r1/state"), "the worker is known")
    executor = make_executor()
    executor.add_node(gateway)
    found: list[str] = []
    WorkerTopics(gateway).add(WorkerListener(lambda state: None, found.append))
    for _ in range(5):  # without a pause: no timer of 0.2 s has rung
        executor.spin_once(timeout_sec=0)
    assert found == ["r1"]


def test_the_bench_tells_the_parts_of_a_gateways_restart(
    ros_domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from fleet import flying, robots
    from restart import PARTS, restart

    with flying(robots(2), {"camera": {"rate": 10.0}}, tmp_path) as fleet:
        ends = restart(fleet)
    started = [ends[part] for part in PARTS if part not in ("image", "work", "report")]
    assert started == sorted(started)
    assert ends["image"] < ends["report"] <= ends["complete"]
