# SPDX-License-Identifier: Apache-2.0
"""Real nodes over DDS: what they detect, what a kill costs, what they make of bad input."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from live import PATIENCE, Live, children_of, live, robots

from dnn_dist.camera.scene import SceneFilm
from dnn_dist.cli.demo import WARNING
from dnn_dist.cli.supervisor import executables, share
from dnn_dist.cluster import parse_cluster, processes
from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.errors import PERMANENT
from dnn_dist.modelcard import card_of
from dnn_dist.nodes.planning import load_head, load_network, make_plan
from dnn_dist.run.report import Status
from dnn_dist.run.store import TensorStore

pytestmark = pytest.mark.usefixtures("ros_domain")

FLOAT, INT8 = "warehouse_float32.tflite", "warehouse_int8.tflite"
PATIENT = {"gateway": {"deadline": 10.0}, "partition": {"deadline": 10.0}}
"""These tests are about what comes out, not how fast: a busy machine must not make them fail."""


def profiles() -> Path:
    """The folder of the shipped network profiles."""
    return share() / "config" / "network"


def film(frames: int, height: int = 256, width: int = 320) -> list[np.ndarray]:
    scenes = SceneFilm(2, height, width)
    return [scenes.frame(3 * k)[0] for k in range(frames)]


def detections_of_whole(model: str, image: np.ndarray) -> list[tuple[Any, ...]]:
    """What the untouched model detects, run in this process."""
    network = load_network(model)
    card = card_of(network)
    store = TensorStore(network, make_plan(network, card, "local"))
    letterbox = Letterbox(*image.shape[:2], card.height, card.width)
    store.begin(0, [letterbox.apply(image)])
    store.run_local(0, 0)
    found = load_head(network, card)(store.results(0), letterbox)
    return [(d.class_id, d.label, *map(np.float32, (d.score, d.y0, d.x0, d.y1, d.x1))) for d in found]


def detections_of(cluster: Live, stamp: int) -> list[tuple[Any, ...]]:
    report = cluster.stamps()[stamp]
    message = cluster.until(lambda: cluster.watch.detections.get((report.session, report.frame)), "detections come")
    assert message.header == report.header
    return [(d.class_id, d.label, *map(np.float32, (d.score, d.y0, d.x0, d.y1, d.x1))) for d in message.detections]


@pytest.mark.parametrize(
    ("model", "mode", "cut", "nodes"),
    [
        (FLOAT, "stealing", "tiles:3x3", ("gateway",)),
        (FLOAT, "sharing", "tiles:2x2@0..10", ("partition", "aggregator")),
        (INT8, "stealing", "tiles:2x3@0..14", ("gateway",)),
        (FLOAT, "stealing", "bands:3@0..3;slices:3@4..5;layers:2@6..17", ("gateway",)),
    ],
)
def test_distributed_detections_equal_those_of_the_whole_model(
    tmp_path: Path, model: str, mode: str, cut: str, nodes: tuple[str, ...]
) -> None:
    settings = {"cut": cut, "mode": mode, "deadline": 10.0}
    parameters = {"all": {"model": model}, "gateway" if "gateway" in nodes else "partition": settings}
    images = film(3) + film(2, 300, 500)  # the last ones are letterboxed
    with live(tmp_path, robots(3, nodes), parameters) as cluster:
        cluster.feed(images)
        for stamp, image in enumerate(images, start=1):
            expected = detections_of_whole(model, image)
            assert detections_of(cluster, stamp) == expected
            assert expected, "a frame without detections proves nothing"
        assert {report.status for report in cluster.watch.reports} <= {Status.COMPLETE, Status.RECOMPUTED}
        assert list(cluster.stamps()) == [1, 2, 3, 4, 5], "headers are passed on, frames stay in order"
        assert len({share.worker for report in cluster.watch.reports for share in report.workers}) > 1


@pytest.mark.parametrize("model", [FLOAT, INT8])
def test_a_coded_plan_loses_workers_and_no_frame(tmp_path: Path, model: str) -> None:
    """Coded slices, one stage after another: workers die by SIGKILL, and the boxes are those of the whole model."""
    cut = "slices:4+2@8..9" if model == FLOAT else "slices:4+1@9"
    parameters = {"all": {"model": model}, "gateway": {"deadline": 10.0, "cut": f"tiles:2x2@0..7;{cut}"}}
    if model == INT8:
        parameters["worker"] = {"prepared": 0}  # each piece is made ready when it is first given
    images = film(6)
    with live(tmp_path, robots(6), parameters) as cluster:
        cluster.feed(images[:2])
        for victim in ("worker_r5", "worker_r6")[: 2 if model == FLOAT else 1]:
            cluster.supervisor.kill(victim)
        cluster.feed(images)
        for stamp, image in enumerate(images, start=1):
            expected = detections_of_whole(model, image)
            found = detections_of(cluster, stamp)
            assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
            for ours, whole in zip(found, expected, strict=True):
                np.testing.assert_allclose(ours[2:], whole[2:], rtol=1e-4, atol=1e-3)
        assert [str(report) for report in cluster.watch.reports if report.quality != 1] == []


def test_parity_hides_a_stopped_worker(tmp_path: Path) -> None:
    """Of 4 + 1 workers one stands still (SIGSTOP) and nobody knows: any four slices will do, none is computed again."""
    parameters = {"gateway": {"deadline": 10.0, "cut": "slices:4+1@8..9", "worker_timeout": 5.0, "transit": 5.0}}
    parameters["gateway"]["redundancy"] = "always"
    with live(tmp_path, robots(5), parameters) as cluster:
        images = film(5)
        cluster.feed(images[:1])
        pid = cluster.supervisor.running["worker_r2"].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            cluster.feed(images)
        finally:
            os.kill(pid, signal.SIGCONT)
        reports = cluster.watch.reports
        assert {report.status for report in reports} <= {Status.COMPLETE, Status.DECODED}
        assert all(report.quality == 1 and not report.recomputed for report in reports)


def test_a_worker_that_joins_late_takes_work(tmp_path: Path) -> None:
    parameters = {"camera": {"rate": 8.0}, **PATIENT, "worker": {"pace": 1000.0}}
    cameras = ("camera", "gateway")
    with live(tmp_path, robots(2, cameras), parameters) as cluster:
        reports = cluster.watch.reports
        cluster.until(lambda: len(reports) >= 3, "frames are reported")
        late = processes(parse_cluster({"robots": robots(3, cameras), "parameters": parameters}, "test"), profiles())
        cluster.supervisor.start([process for process in late if process.name == "worker_r3"])
        cluster.until(
            lambda: any(share.worker == "r3" for report in reports for share in report.workers), "it takes tasks"
        )
        numbers = [report.frame for report in reports]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "reported exactly once, in order"
        assert {report.status for report in reports} <= {Status.COMPLETE, Status.RECOMPUTED}


def test_a_worker_killed_by_sigkill_costs_no_frame_and_comes_back(tmp_path: Path) -> None:
    parameters = {"camera": {"rate": 8.0}, **PATIENT, "worker": {"pace": 1000.0}}
    cameras = ("camera", "gateway")
    with live(tmp_path, robots(3, cameras), parameters) as cluster:
        reports, supervisor = cluster.watch.reports, cluster.supervisor
        cluster.until(lambda: len(reports) >= 6, "frames are reported")
        first = cluster.watch.workers["r2"].session
        supervisor.kill("worker_r2")
        cluster.until(lambda: supervisor.respawns.get("worker_r2") == 1, "the worker is started again")
        back = cluster.until(
            lambda: cluster.watch.workers["r2"].session != first and cluster.watch.workers["r2"],
            "it is heard again",
        )
        counted = len(reports)

        def works_again() -> bool:
            return any(share.worker == "r2" for report in reports[counted:] for share in report.workers)

        cluster.until(works_again, "the worker takes tasks again")
        numbers = [report.frame for report in reports]
        assert back.robot == "r2"
        first_seen = numbers[0]  # the watch may begin to listen after the cluster began to work
        assert numbers == list(range(first_seen, first_seen + len(numbers))), "reported exactly once, in order"
        assert {report.status for report in reports} <= {Status.COMPLETE, Status.RECOMPUTED}
        assert all(report.quality == 1 for report in reports)


def test_a_deadline_too_short_for_the_work_gives_reports_and_stops_nothing(tmp_path: Path) -> None:
    """Frames end at their deadline while results and local stages still come in."""
    settings = {"deadline": 0.06, "cut": "tiles:2x2@0..10", "max_frames": 2}
    parameters = {"camera": {"rate": 12.0}, "gateway": settings, "all": {"pace": 1500.0}}
    with live(tmp_path, robots(2, ("camera", "gateway")), parameters) as cluster:
        reports = cluster.watch.reports
        cluster.until(lambda: len(reports) >= 40, "frames are reported")
        numbers = [report.frame for report in reports]
        assert len(set(numbers)) == len(numbers) and len({report.session for report in reports}) == 1
        late = {report.status for report in reports}
        assert late & {Status.NO_RESULT, Status.FILLED}, "the deadline was meant to be too short"
        assert not cluster.supervisor.respawns
    assert not [log.name for log in (tmp_path / "log").glob("*.log") if "Traceback" in log.read_text()]


def test_ctrl_c_ends_everything_in_order(tmp_path: Path) -> None:
    """The demo is stopped in the middle as a person would: exit code 0, no traceback, no process left."""
    command = [str(executables() / "dnn_dist"), "demo", "--frames", "10000", "--out", str(tmp_path)]
    demo = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert demo.stdout is not None
        said = next(line for line in demo.stdout if "10 frames" in line)
        children = children_of(demo.pid)
        assert len(children) == 6, "a camera, a gateway and four workers"
        demo.send_signal(signal.SIGINT)
        said += demo.communicate(timeout=PATIENCE)[0]
    finally:
        demo.kill()
    assert demo.returncode == 0, said
    said += "".join(log.read_text() for log in (tmp_path / "log").glob("*.log"))
    assert "Traceback" not in said
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert '"exit_codes"' in (tmp_path / "summary.json").read_text()


@pytest.mark.parametrize(
    ("node", "parameter", "value", "says"),
    [
        ("gateway", "model", "missing.tflite", "there is no file 'missing.tflite'"),
        ("worker", "model", "BROKEN", "broken.tflite"),
        ("gateway", "cut", "tiles:0x3", "tiles:0x3"),
        ("gateway", "cut", "tiles:99x99", "tiles:99x99"),
        ("gateway", "mode", "buying", "expected one of stealing, sharing"),
        ("worker", "worker", "Not A Name", "expected a to z"),
        ("camera", "source", "/nonexistent", "/nonexistent"),
    ],
)
def test_bad_settings_are_one_clear_line(tmp_path: Path, node: str, parameter: str, value: str, says: str) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes((share() / "models" / FLOAT).read_bytes()[:5000])
    value = value.replace("BROKEN", str(broken))
    command = [str(executables() / node), "--ros-args", "-p", f"{parameter}:={value!r}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    lines = [line for line in ended.stderr.splitlines() if line.startswith("[FATAL] ")]
    assert ended.returncode == PERMANENT, ended.stderr
    assert len(lines) == 1 and says in lines[0], ended.stderr
    assert "Traceback" not in ended.stderr


def diagnostics(cluster: Live) -> list[Any]:
    """Every status of /diagnostics from now on, as a list that grows."""
    from diagnostic_msgs.msg import DiagnosticArray

    from dnn_dist.nodes.qos import OUTPUT

    seen: list[Any] = []
    cluster.watch.receive(DiagnosticArray, "/diagnostics", OUTPUT, lambda message: seen.extend(message.status))
    return seen


def said_by(seen: list[Any], node: str, kind: str) -> str:
    """The last value of a note of this kind in a node's diagnostics; empty when there is none."""
    values = [pair.value for status in seen if node in status.name for pair in status.values if kind in pair.key]
    return values[-1] if values else ""


def test_a_worker_with_another_model_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    cluster_robots = robots(3)
    cluster_robots["r3"]["parameters"] = {"worker": {"model": INT8}}
    steady = {"gateway": {**PATIENT["gateway"], "worker_timeout": 5.0, "lease_min": 5.0}}
    with live(tmp_path, cluster_robots, steady, ready=2) as cluster:
        seen = diagnostics(cluster)
        cluster.feed(film(3))
        assert {report.status for report in cluster.watch.reports} == {Status.COMPLETE}
        assert "r3" not in {share.worker for report in cluster.watch.reports for share in report.workers}
        assert "made for model" in cluster.until(lambda: said_by(seen, "worker_r3", "plan refused"), "r3 says why")
        said = cluster.until(lambda: said_by(seen, "gateway_r1", "plan refused by worker"), "the gateway names r3")
        assert "'r3'" in said


def test_parameters_are_described_checked_and_live(tmp_path: Path) -> None:
    from rclpy.parameter import Parameter
    from rclpy.parameter_client import AsyncParameterClient

    with live(tmp_path, robots(1), PATIENT) as cluster:
        client = AsyncParameterClient(cluster.watch, "gateway_r1")
        cluster.until(client.services_are_ready, "the parameter services are there")

        def answer(future: Any) -> Any:
            cluster.until(future.done, "a parameter service answers")
            return future.result()

        def set_to(name: str, value: Any) -> Any:
            return answer(client.set_parameters([Parameter(name, value=value)])).results[0]

        (description,) = answer(client.describe_parameters(["deadline"])).descriptors
        assert "detections" in description.description
        assert description.floating_point_range[0].to_value == 60
        assert set_to("deadline", 7.5).successful
        assert not set_to("deadline", -1.0).successful
        assert "expected one of stealing, sharing" in set_to("mode", "buying").reason
        assert not set_to("cut", "tiles:1x1").successful, "another cut is another plan"
        cluster.feed(film(1))
        assert 5 < cluster.stamps()[1].budget <= 7.5, "what is left of the deadline when the frame is announced"


def test_an_idle_source_lets_its_worker_steal(tmp_path: Path) -> None:
    """Two sources, one without images: the worker on its robot computes for the other."""
    two = robots(3)
    two["r2"] = {"source": "rear", "nodes": ["gateway", "worker"]}
    parameters = {"gateway": {"deadline": 10.0, "cut": "tiles:3x3"}, "worker": {"pace": 2000.0}}
    with live(tmp_path, two, parameters, prefix="front/") as cluster:
        cluster.feed(film(6))
        shares = [share for report in cluster.watch.reports for share in report.workers]
        assert {share.worker for share in shares} == {"r1", "r2", "r3"}
        assert all((share.stolen > 0) == (share.worker != "r1") for share in shares)
        assert {report.source for report in cluster.watch.reports} == {"front"}


@pytest.mark.parametrize("victim", ["gateway_r1", "partition_r1", "aggregator_r1"])
def test_a_killed_source_takes_up_again_and_says_what_it_lost(tmp_path: Path, victim: str) -> None:
    nodes = ("gateway",) if victim == "gateway_r1" else ("partition", "aggregator")
    node = f"{nodes[0]}_r1"
    parameters = {"all": {"pace": 300.0}, **PATIENT, nodes[0]: {"deadline": 10.0, "cut": "tiles:2x2"}}
    with live(tmp_path, robots(3, ("camera", *nodes)), parameters) as cluster:
        seen = diagnostics(cluster)
        supervisor, reports = cluster.supervisor, cluster.watch.reports
        cluster.until(lambda: len(reports) >= 2, "frames are reported")
        workers = {name: child.pid for name, child in supervisor.running.items() if "worker" in name}
        cluster.until(lambda: any(state.held for state in cluster.watch.workers.values()), "workers have tasks")
        numbers = cluster.goes_on_after_a_kill(victim)
        assert {name: supervisor.running[name].pid for name in workers} == workers, "workers are untouched"
        if victim == "partition_r1":  # loses nothing: the aggregator reports what was announced
            first = [frame for session, frame in numbers if session == numbers[0][0]]
            assert sorted(first) == list(range(min(first), max(first) + 1))
            cluster.until(lambda: said_by(seen, "aggregator_r1", "source restarted"), "the aggregator says so")
        else:
            said = cluster.until(lambda: said_by(seen, node, "frames unaccounted"), "the source says what it lost")
            assert "cannot be accounted for" in said


def test_a_stopped_worker_is_named_by_its_qos_deadline_and_serves_again(tmp_path: Path) -> None:
    with live(tmp_path, robots(2, ("camera", "gateway")), PATIENT) as cluster:
        seen = diagnostics(cluster)
        reports = cluster.watch.reports
        pid = cluster.supervisor.running["worker_r2"].pid
        cluster.until(lambda: len(reports) >= 2, "frames are reported")
        os.kill(pid, signal.SIGSTOP)
        try:
            said = cluster.until(lambda: said_by(seen, "gateway_r1", "QoS deadline missed on /r2/state"), "it is named")
            assert "r2 to gateway_r1: " in said and "in time" in said
            cluster.until(lambda: "r2" in said_by(seen, "gateway_r1", "workers silent"), "the gateway misses r2")
            warned = {said["kind"] for said in WARNING.finditer(cluster.supervisor.log("gateway_r1"))}
            assert "QoS deadline missed on /r2/state" in warned, "what the demo shows of the logs"
        finally:
            os.kill(pid, signal.SIGCONT)
        before = len(reports)
        cluster.until(
            lambda: any(share.worker == "r2" for report in reports[before:] for share in report.workers),
            "the worker serves again",
        )
        assert {report.status for report in reports} <= {Status.COMPLETE, Status.RECOMPUTED}


def test_a_broken_image_behind_a_good_one_is_named_and_stops_nothing(tmp_path: Path) -> None:
    """It waits while a frame is in work, and is looked at only when that has ended."""
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from dnn_dist.nodes.images import rgb_to_image
    from dnn_dist.nodes.qos import images

    good = film(1)[0]
    broken = rgb_to_image(good, Header())
    broken.data = broken.data[: len(broken.data) // 2]
    with live(tmp_path, robots(2), PATIENT) as cluster:
        seen = diagnostics(cluster)
        pid = cluster.supervisor.running["gateway_r1"].pid
        cluster.feed([good])
        publisher = cluster.watch.create_publisher(Image, "image", images(reliable=True))
        cluster.until(publisher.get_subscription_count, "somebody listens")

        def named() -> str:
            cluster.publish(good, 2)
            cluster.watch.send(publisher, broken)
            cluster.watch.spin(0.3)
            return said_by(seen, "gateway_r1", "bad image")

        assert "bytes" in cluster.until(named, "the broken image is named")
        before = len(cluster.watch.reports)
        cluster.publish(good, 3)
        cluster.until(lambda: len(cluster.watch.reports) > before, "frames are reported")
        assert cluster.supervisor.running["gateway_r1"].pid == pid


def noise(rng: random.Random, kind: type) -> Any:
    """A message of this type with random content in every field."""
    message = kind()
    for name, type_ in kind.get_fields_and_field_types().items():
        setattr(message, name, _noise(rng, type_, getattr(message, name)))
    return message


def _noise(rng: random.Random, type_: str, default: Any) -> Any:
    from dnn_dist import msg

    if type_.startswith("sequence<"):
        inner = type_[len("sequence<") : -1]
        return [_noise(rng, inner, None) for _ in range(rng.choice([0, 1, 3, 200]))]
    if type_ == "string":
        return rng.choice(["", "front", "r1", "r2", "uint8", "../x", "a" * 300, "\u00e4\u20ac", "tiles:3x3", "{a: ["])
    if type_ == "boolean":
        return rng.random() < 0.5
    if type_ in ("float", "double"):
        return rng.choice([0.0, -1.0, 1e30, float("nan"), float("inf"), 0.5])
    for bits in (8, 16, 32, 64):
        if type_ == f"uint{bits}":
            return rng.choice([0, 1, 2, 2**bits - 1, rng.getrandbits(bits)])
        if type_ == f"int{bits}":
            return rng.choice([0, 1, -1, 2 ** (bits - 1) - 1])
    if type_.startswith("dnn_dist/"):
        return noise(rng, getattr(msg, type_.split("/")[1]))
    return type(default)() if default is not None else None


def test_garbage_on_every_topic_stops_nothing(tmp_path: Path) -> None:
    from sensor_msgs.msg import Image

    from dnn_dist import msg
    from dnn_dist.nodes.qos import FRAME, LATCHED, OUTPUT, SCATTER, STATE, heartbeats, tensors

    topics = [
        (Image, "image", OUTPUT),
        (msg.Plan, "plan", LATCHED),
        (msg.Frame, "front/frame", FRAME),
        (msg.Scatter, "front/scatter", SCATTER),
        (msg.Feed, "r1/feed", tensors(1.0)),
        (msg.Progress, "progress", STATE),
        (msg.SourceState, "source_state", STATE),
        (msg.WorkerState, "r1/state", heartbeats()),
        (msg.Work, "front/r1/work", tensors(1.0)),
        (msg.Result, "front/r1/result", tensors(1.0)),
    ]
    rng = random.Random(7)
    nodes = ("partition", "aggregator")
    with live(tmp_path, robots(2, nodes), PATIENT) as cluster:
        seen = diagnostics(cluster)
        cluster.feed(film(1))
        pids = {name: child.pid for name, child in cluster.supervisor.running.items()}
        for type_, topic, qos in topics:
            publisher = cluster.watch.create_publisher(type_, topic, qos)
            cluster.until(publisher.get_subscription_count, f"somebody listens to {topic}")
            for _ in range(40):
                cluster.watch.send(publisher, noise(rng, type_))
            cluster.watch.spin(0.1)
        before = len(cluster.watch.reports)

        def goes_on() -> bool:
            cluster.publish(film(1)[0], 1000)
            cluster.watch.spin(0.5)
            return sum(report.status == Status.COMPLETE for report in cluster.watch.reports[before:]) >= 3

        cluster.until(goes_on, "frames are complete again")
        assert {name: child.pid for name, child in cluster.supervisor.running.items()} == pids, "nothing died"
        for node, topic in (("partition_r1", "image"), ("worker_r1", "work"), ("aggregator_r1", "result")):
            cluster.until(lambda n=node, t=topic: said_by(seen, n, t), f"{node} names what was wrong on {topic}")
    assert not [log.name for log in (tmp_path / "log").glob("*.log") if "Traceback" in log.read_text()]


def test_statuses_of_messages_are_those_of_the_core() -> None:
    from dnn_dist import msg

    assert {status.name: int(status) for status in Status} == {
        name: getattr(msg.Detections, name) for name in ("COMPLETE", "DECODED", "RECOMPUTED", "FILLED", "NO_RESULT")
    }
