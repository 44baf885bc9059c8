# SPDX-License-Identifier: Apache-2.0
"""When works and results are due, and what is said when QoS calls a deadline missed on real nodes."""

import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from dnn_dist.run.due import OFFERED, STEP, Cadence, stepped


def test_deadlines_go_in_steps_from_what_is_offered():
    for seconds in np.geomspace(0.001, 100.0, 200):
        step = stepped(seconds)
        assert step >= max(seconds, OFFERED) * (1 - 1e-9) and (step == OFFERED or step < seconds * STEP * (1 + 1e-9))
    assert stepped(stepped(0.7)) == pytest.approx(stepped(0.7))


def test_a_source_that_rests_owes_nothing():
    cadence = Cadence()
    assert cadence.due(0.1, 0.0) == 0.0
    for frame in range(20):
        cadence.begin(10.0 + 0.2 * frame)
    assert cadence.due(0.1, 13.9) == stepped(0.2 + 0.1)
    assert cadence.due(0.1, 20.0) == 0.0
    cadence.begin(100.0)
    assert cadence.period == pytest.approx(0.2) and cadence.due(0.1, 100.1) == stepped(0.2 + 0.1)


def test_a_deadline_follows_the_rate():
    cadence = Cadence()
    for frame in range(40):
        cadence.begin(0.2 * frame)
    for frame in range(20):
        cadence.begin(8.0 + 0.5 * frame)
    assert cadence.period == pytest.approx(0.5, rel=0.01)


def test_a_topic_is_let_go_while_its_events_wait(ros_domain):
    """rclpy raises InvalidHandle out of spin_once for a QoS event of an endpoint that was destroyed meanwhile."""
    pytest.importorskip("dnn_dist.msg", reason="messages are not built")
    import rclpy

    from dnn_dist import msg
    from dnn_dist.nodes.process import make_executor
    from dnn_dist.nodes.qos import tensors
    from dnn_dist.nodes.shell import Shell

    rclpy.init()
    try:
        shell, executor = Shell("letting_go"), make_executor()
        executor.add_node(shell)
        publisher = shell.offer(msg.Work, "work", tensors(1.0), owed=False)
        for _ in range(3):
            heard: list[msg.Work] = []
            missed: list[bool] = []
            subscription = shell.receive(
                msg.Work,
                "work",
                tensors(deadline=OFFERED),
                heard.append,
                missed=lambda missed=missed: missed.append(True),
            )
            end = time.monotonic() + 20.0
            while not missed:
                assert time.monotonic() < end
                if not heard:
                    shell.send(publisher, msg.Work())
                executor.spin_once(timeout_sec=0.05)
            time.sleep(3 * OFFERED)  # nobody spins: further events wait
            shell.destroy_subscription(subscription)
            for _ in range(20):
                executor.spin_once(timeout_sec=0.02)
        shell.destroy_node()
    finally:
        rclpy.try_shutdown()


RATE, WORKERS = 4.0, 3


@pytest.fixture
def cluster(ros_domain, tmp_path):
    """A camera that may rest, a gateway, and workers each on a robot of its own."""
    pytest.importorskip("dnn_dist.msg", reason="messages are not built")
    from live import live, robots

    gateway = {"cut": "tiles:1x3@0..10", "deadline": 0.6, "lease_min": 1.0, "qos_deadlines": True}
    parameters = {"gateway": gateway, "camera": {"rate": RATE}}
    with live(tmp_path, robots(WORKERS, ("camera", "gateway")), parameters) as found:
        yield found


@contextmanager
def stopped(cluster, name):
    """A process that stands still meanwhile."""
    pid = cluster.supervisor.running[name].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Said:
    """What /diagnostics of the gateway say of missed deadlines."""

    def __init__(self, cluster):
        from diagnostic_msgs.msg import DiagnosticArray

        from dnn_dist.nodes.qos import OUTPUT

        self.missed: list[tuple[float, str]] = []  # (s, text), each when it was new
        self.heard = 0
        self._newest = ""
        cluster.watch.receive(DiagnosticArray, "/diagnostics", OUTPUT, self._hear)

    def _hear(self, message):
        for status in message.status:
            if "gateway" in status.name:
                self.heard += 1
                texts = [pair.value for pair in status.values if pair.key == "QoS deadline missed"]
                if texts and texts[0] != self._newest:
                    self._newest = texts[0]
                    self.missed.append((time.monotonic(), texts[0]))


def test_a_stopped_worker_is_named_within_twice_its_deadline_and_none_while_all_is_well_or_rests(cluster):
    """Show 6 of issue 14."""
    said, reports = Said(cluster), cluster.watch.reports
    cluster.until(lambda: len(reports) >= 12 * RATE, "frames come for some seconds")
    assert said.heard and not said.missed
    with stopped(cluster, "worker_r3"):
        began = time.monotonic()
        cluster.until(lambda: any("'r3'" in text for _, text in said.missed), "the missed deadline is named")
    at, text = next(entry for entry in said.missed if "'r3'" in entry[1])
    deadline = stepped(1 / RATE + 0.6)
    assert "source 'front'" in text and "of stage 0" in text and f"within {deadline:.2f} s" in text, text
    assert at - began < 2 * deadline, f"{at - began:.2f} s"
    cluster.until(lambda: reports[-1].status == 0, "frames are complete again")
    said.missed.clear()
    with stopped(cluster, "camera_r1"):
        heard = said.heard
        cluster.until(lambda: said.heard > heard + 5, "diagnostics come while the camera rests")
    assert not said.missed


def test_a_users_subscriber_may_ask_for_a_deadline_of_detections(cluster):
    from rclpy.duration import Duration
    from rclpy.qos import QoSProfile

    from dnn_dist import msg

    profile = QoSProfile(depth=10)
    missed: list[int] = []
    found: list[msg.Detections] = []
    profile.deadline = Duration(seconds=1.0)
    cluster.watch.receive(msg.Detections, "detections", profile, found.append, missed=lambda: missed.append(1))
    cluster.until(lambda: len(found) >= 8, "detections come")
    assert not missed
    with stopped(cluster, "camera_r1"):
        cluster.until(lambda: missed, "DDS says that none come")


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/net/tun", os.W_OK), reason="network namespaces need root and /dev/net/tun"
)
def test_a_link_slowed_below_its_share_is_named(tmp_path):
    """The shipped cluster of the air: calm at first, then a twentieth of its rate."""
    pytest.importorskip("dnn_dist.msg", reason="messages are not built")
    sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
    import air
    from medium import Weather

    from dnn_dist.cli.supervisor import share

    try:
        asking = air.with_gateway(air.shipped(), qos_deadlines=True)
        with air.flying(asking, tmp_path, share() / "config" / "network") as fleet:
            (log,) = (tmp_path / "log").glob("gateway*.log")
            fleet.wait(5.0)
            assert "QoS deadline missed" not in log.read_text()
            fleet.air.set(Weather(rate=1e6, delay=5e-3))
            end = time.monotonic() + 30.0
            while "QoS deadline missed" not in log.read_text():
                assert time.monotonic() < end, log.read_text()[-600:]
                fleet.wait(0.2)
            line = next(line for line in log.read_text().splitlines() if "QoS deadline missed" in line)
            assert "no result of worker" in line and "of stage" in line
    except RuntimeError as error:
        if "the air can't be made" in str(error):
            pytest.skip(str(error))
        raise
