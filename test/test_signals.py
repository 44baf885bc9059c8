# SPDX-License-Identifier: Apache-2.0
"""How processes end: told to stop at any moment, for good, or to be started again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not here")
pytest.importorskip("dnn_dist.msg", reason="messages are not built")

from live import PATIENCE, children_of

from dnn_dist.cli.supervisor import Supervisor, executables, share
from dnn_dist.cluster import Process, parse_cluster, processes
from dnn_dist.errors import PERMANENT, TEMPORARY, UNEXPECTED

pytestmark = pytest.mark.usefixtures("ros_domain")

ROBOTS = {"r1": {"source": "front", "nodes": ["camera", "gateway", "worker"]}}


def cluster(robots: dict[str, Any] = ROBOTS, **parameters: Any) -> dict[str, Process]:
    """Name -> process."""
    parsed = parse_cluster({"robots": robots, "parameters": parameters}, "test")
    return {process.name: process for process in processes(parsed, share() / "config" / "network")}


def until(supervisor: Supervisor, condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        supervisor.look()
        time.sleep(0.01)
        assert time.monotonic() < end, f"this did not happen within {PATIENCE:g} s: {what}"


# Told to stop


@pytest.mark.parametrize("name", ["camera_r1", "gateway_r1", "worker_r1"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_told_to_stop_at_any_moment_ends_with_0(tmp_path: Path, name: str, number: signal.Signals) -> None:
    """While the interpreter starts, imports, joins, loads or runs: no traceback, no code of a signal."""
    rng = random.Random(f"{name} {number}")
    with Supervisor(tmp_path, {}) as supervisor:
        for _ in range(3):
            supervisor.start([cluster()[name]])
            time.sleep(rng.uniform(0.0, 1.2))  # a moment of its start
            child = supervisor.running[name]
            child.send_signal(number)
            assert child.wait(PATIENCE) == 0, supervisor.log(name)
    assert "Traceback" not in supervisor.log(name)


def test_signals_until_the_very_end_change_nothing(tmp_path: Path) -> None:
    """Terminal and launch both send one, and impatient people more: also while the interpreter shuts down."""
    with Supervisor(tmp_path, {}) as supervisor:
        supervisor.start([cluster()["worker_r1"]])
        until(supervisor, lambda: "middleware" in supervisor.log("worker_r1"), "the worker runs")
        child = supervisor.running["worker_r1"]
        while child.poll() is None:
            child.send_signal(signal.SIGINT)
            time.sleep(0.0005)
        assert child.returncode == 0, supervisor.log("worker_r1")
    assert "Traceback" not in supervisor.log("worker_r1")


def test_an_end_that_hangs_says_where(tmp_path: Path) -> None:
    hangs = """if True:
        import sys, threading
        from dnn_dist.nodes.worker import WorkerNode, main
        WorkerNode.destroy_node = lambda self: threading.Event().wait()
        sys.exit(main())"""
    node = subprocess.Popen([sys.executable, "-c", hangs], stderr=subprocess.PIPE, text=True)
    try:
        assert node.stderr is not None
        said = next(line for line in node.stderr if "started" in line)
        node.send_signal(signal.SIGINT)
        said += node.communicate(timeout=PATIENCE)[1]
    finally:
        node.kill()
    assert node.returncode == 1 and "in run" in said and "in wait" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("running", [False, True])
def test_the_demo_told_to_stop_ends_in_order(tmp_path: Path, number: signal.Signals, running: bool) -> None:
    """While its nodes start, and while frames come: exit code 0, no traceback, no process left."""
    command = [executables() / "dnn_dist", "demo", "--frames", "10000", "--workers", "2", "--out", tmp_path]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert demo.stdout is not None
        said = next(line for line in demo.stdout if "10 frames" in line) if running else ""
        end = time.monotonic() + PATIENCE
        while not (children := children_of(demo.pid)) and time.monotonic() < end:
            time.sleep(0.01)
        demo.send_signal(number)
        said += demo.communicate(timeout=PATIENCE)[0]
    finally:
        demo.kill()
    assert children and demo.returncode == 0, said
    said += "".join(log.read_text() for log in (tmp_path / "log").glob("*.log"))
    assert "Traceback" not in said
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert (tmp_path / "summary.json").exists()


# For good, or to be started again


@pytest.mark.parametrize("code", [0, 1, UNEXPECTED, TEMPORARY, PERMANENT])
def test_only_a_permanent_error_is_not_started_again(tmp_path: Path, code: int) -> None:
    def say_and_end(process: Process) -> list[str]:
        return ["sh", "-c", f"echo 'dnn_dist: error: code {code}'; exit {code}"]

    with Supervisor(tmp_path, {}, prefix=say_and_end) as supervisor:
        supervisor.start([cluster()["worker_r1"]])
        until(supervisor, lambda: supervisor.ended or supervisor.respawns.get("worker_r1", 0) > 2, "it ends")
        if code == PERMANENT:
            assert supervisor.ended == {"worker_r1": "code 78"}
            assert not supervisor.respawns and not supervisor.running
        else:
            assert not supervisor.ended


@pytest.mark.parametrize(
    ("name", "wrong", "says"),
    [
        ("gateway_r1", {"gateway": {"cut": "tiles:0x3"}}, "tiles:0x3"),
        ("worker_r1", {"worker": {"model": "missing.tflite"}}, "there is no file 'missing.tflite'"),
        ("camera_r1", {"camera": {"source": "/nonexistent"}}, "/nonexistent"),
    ],
)
def test_a_permanent_error_is_said_once_in_rosout_and_log(
    tmp_path: Path, name: str, wrong: dict[str, Any], says: str
) -> None:
    from rcl_interfaces.msg import Log
    from rclpy.qos import DurabilityPolicy, QoSProfile

    from dnn_dist.nodes.watch import watching

    heard: list[Any] = []
    started = cluster(**wrong)
    with Supervisor(tmp_path, {}) as supervisor, watching(started[name].environment) as watch:
        rosout = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        watch.receive(Log, "/rosout", rosout, heard.append)
        supervisor.start(started.values())
        until(supervisor, lambda: watch.spin(0.05) or supervisor.ended, f"{name} ends for good")
        others = {other: supervisor.running[other].pid for other in started if other != name}
        until(supervisor, lambda: watch.spin(0.05) or "started" in supervisor.log(min(others)), "the others go on")
        assert says in supervisor.ended[name]
        assert {other: child.pid for other, child in supervisor.running.items()} == others
    fatal = [log.msg for log in heard if log.level == 50]  # not Log.FATAL, which is bytes in some versions
    assert fatal == [supervisor.ended[name]]
    assert supervisor.log(name).count(says) == 1 and "Traceback" not in supervisor.log(name)


def test_the_demo_names_the_node_that_ended_for_good(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("robots: {r1: {source: front, nodes: [camera, gateway, worker]}}\nparameters: {gateway: {cut: x}}")
    command = [executables() / "dnn_dist", "demo", "--workers", "1", "--params", file, "--out", tmp_path / "out"]
    demo = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert demo.returncode == 2, demo.stderr
    assert "Traceback" not in demo.stderr
    (error,) = [line for line in demo.stderr.splitlines() if "error" in line]
    assert error.startswith("dnn_dist: error: gateway_r1 ended: the cut 'x' is not understood")


def test_wrong_ros_arguments_are_one_line() -> None:
    command = [executables() / "worker", "--ros-args", "--params-file", "/nonexistent"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == PERMANENT
    assert "Traceback" not in ended.stderr and "/nonexistent" in ended.stderr.splitlines()[-1]


def test_a_node_without_ros_is_one_line() -> None:
    hidden = "import sys; sys.modules['rclpy'] = None"
    code = f"{hidden}; from dnn_dist.executables import run; sys.exit(run('worker'))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert ended.returncode == PERMANENT
    assert ended.stderr.startswith("dnn_dist: error: worker needs rclpy") and ended.stderr.count("\n") == 1
