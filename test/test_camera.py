# SPDX-License-Identifier: Apache-2.0
"""Any camera that speaks ROS is heard, whatever its DDS settings, or a warning says what stands in the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy")

from dnn_dist.cli.supervisor import executables, share
from dnn_dist.cluster import NETWORKS, transport
from dnn_dist.dds import OLD_PROFILE, PROFILE
from dnn_dist.nodes.transport import GRANTED, WANTED
from dnn_dist.nodes.watch import Watch, watching

HERE = Path(__file__).parent
PATIENCE = 30.0  # s
TOPICS = ("image", "image/compressed")
ROUNDS = 3  # images of each size and topic


@pytest.fixture
def granted() -> Iterator[int]:
    """Bytes that the system grants a socket: 4 MB where we may ask for them, as doc/networks.md says one should."""
    before = int(GRANTED.read_text())
    if before < WANTED:
        with suppress(OSError):
            GRANTED.write_text(str(WANTED))
    yield int(GRANTED.read_text())
    if before < WANTED:
        with suppress(OSError):
            GRANTED.write_text(str(before))


def bare(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without any choice of transport, and with these values."""
    chosen = (PROFILE, OLD_PROFILE, "RMW_FASTRTPS_USE_QOS_FROM_XML", "RMW_FASTRTPS_PUBLICATION_MODE")
    kept = {name: value for name, value in os.environ.items() if name not in chosen}
    return {**kept, **(environment or {})}


@contextmanager
def running(out: Path, command: list[str], environment: Mapping[str, str]) -> Iterator[Callable[[], list[str]]]:
    """A process, and what it has printed so far, in lines. It is stopped at the end."""
    with out.open("w") as file:
        process = subprocess.Popen(command, env=dict(environment), stdout=file, stderr=subprocess.STDOUT)
    try:
        yield lambda: out.read_text().splitlines()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def camera(folder: Path, reliability: str, sizes: list[int], rate: float = 2.0) -> Any:
    """The camera of somebody else, without a profile."""
    command = [sys.executable, str(HERE / "plain_camera.py"), reliability, str(rate), *map(str, sizes)]
    return running(folder / "camera.txt", command, bare())


def until(condition: Callable[[], Any], what: str, words: Callable[[], list[str]], turn: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        turn()
        said = "\n".join(words()[-8:])
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what}\n{said}"


def images(lines: list[str]) -> dict[str, dict[int, str]]:
    """Topic -> number of an image -> its size, of what camera or listener have printed."""
    found: dict[str, dict[int, str]] = {topic: {} for topic in TOPICS}
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[0] in found:
            found[words[0]][int(words[1])] = words[2]
    return found


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
@pytest.mark.parametrize("network", ["wired", "wifi"])
def test_every_image_of_an_ordinary_camera_is_heard(
    network: str, reliability: str, ros_domain: int, granted: int, tmp_path: Path
) -> None:
    sizes = [64_000, 300_000, 900_000, 2_700_000]
    if reliability == "best_effort" and granted < WANTED:
        sizes = sizes[:1]  # one lost datagram loses an image, and larger ones overflow the socket; that is warned of
    profile = bare(transport(network, share() / "config" / "network"))
    command = [sys.executable, str(HERE / "image_listener.py")]
    with running(tmp_path / "listener.txt", command, profile) as heard, camera(tmp_path, reliability, sizes) as sent:

        def nap() -> None:
            time.sleep(0.1)

        until(lambda: all(images(heard()).values()), "an image of each topic is heard", heard, nap)
        first = {topic: min(numbers) for topic, numbers in images(heard()).items()}
        last = max(first.values()) + ROUNDS * len(sizes)
        until(lambda: all(last in numbers for numbers in images(sent()).values()), "images are sent", sent, nap)
        with suppress(AssertionError):  # which are missing is said below
            until(lambda: all(last in numbers for numbers in images(heard()).values()), "the last", heard, nap)
        for topic in TOPICS:  # those before the first one may have been sent while the two ends still met
            there, here = (images(lines())[topic] for lines in (sent, heard))
            due = {number: size for number, size in there.items() if first[topic] <= number <= last}
            missing = {number: size for number, size in due.items() if here.get(number) != size}
            assert not missing, f"{topic}, of {len(due)} images: {missing}"


@pytest.fixture
def watch(ros_domain: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    for name, value in transport("local", share() / "config" / "network").items():
        monkeypatch.setenv(name, value)  # and unset after the test
    with watching({}) as node:
        yield node


def gateway(folder: Path, environment: Mapping[str, str]) -> Any:
    """A gateway as `ros2 run` starts it, that computes all by itself."""
    command = [str(executables() / "gateway"), "--ros-args", "-p", "cut:=local", "-p", "deadline:=5.0"]
    return running(folder / "gateway.txt", command, bare(environment))


def test_a_node_that_was_started_without_a_profile_takes_the_shipped_one(
    watch: Watch, granted: int, tmp_path: Path
) -> None:
    with gateway(tmp_path, {}) as said, camera(tmp_path, "reliable", [900_000]):
        until(lambda: len(watch.reports) >= 3, "frames are reported", said, lambda: watch.spin(0.1))
        assert any("profile: lan.xml" in line for line in said()), said()


def test_who_asks_for_a_profile_keeps_it(ros_domain: int, tmp_path: Path) -> None:
    mine = profile_with(tmp_path / "mine.xml", {"receiveBufferSize": 10**6})
    with gateway(tmp_path, {PROFILE: str(mine)}) as said:
        until(lambda: any("profile: " in line for line in said()), "the profile is said", said, lambda: time.sleep(0.1))
        assert any("profile: mine.xml" in line for line in said())


def profile_with(path: Path, values: Mapping[str, int], name: str = "lan.xml") -> Path:
    """A shipped profile with other values."""
    tree = ElementTree.parse(share() / "config" / "network" / name)
    for element in tree.iter():
        value = values.get(element.tag.partition("}")[2])
        element.text = element.text if value is None else str(value)
    ElementTree.register_namespace("", "http://www.eprosima.com")
    tree.write(path)
    return path


def test_silence_where_images_are_published_is_a_warning_that_stays(watch: Watch, tmp_path: Path) -> None:
    """A profile that truncates datagrams of other processes, as 0.1's did, stands for whatever may be wrong."""
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

    from dnn_dist.nodes.qos import OUTPUT

    deaf = profile_with(tmp_path / "deaf.xml", {"maxMessageSize": 1400})
    told: list[tuple[bytes, str]] = []

    def hear(message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "/gateway":
                values = {entry.key: entry.value for entry in status.values}
                told.append((status.level, values.get("no images on /image", "")))

    watch.receive(DiagnosticArray, "/diagnostics", OUTPUT, hear)
    environment = {**transport("local", share() / "config" / "network"), PROFILE: str(deaf)}
    with gateway(tmp_path, environment) as said, camera(tmp_path, "best_effort", [900_000]):
        until(
            lambda: sum(bool(text) for _, text in told) >= 4, "diagnostics say so", said, lambda: watch.spin(0.1)
        )
        silent = [(level, text) for level, text in told if text]
        assert {level for level, _ in silent} == {DiagnosticStatus.WARN}, "and stay at it"
        for word in ("/someones_camera", "none came for", f"net.core.rmem_max={WANTED}"):
            assert word in silent[-1][1]
        lines = [line for line in said() if "no images on /image" in line]
        assert len(lines) == 1 and "/someones_camera" in lines[0], lines
        assert not watch.reports


def test_small_socket_buffers_are_one_warning(ros_domain: int, tmp_path: Path) -> None:
    """A profile that asks for more than this system grants, whatever that is."""
    most = int(GRANTED.read_text())
    asking = profile_with(tmp_path / "asking.xml", {"receiveBufferSize": 2 * most})
    with gateway(tmp_path, {**transport("local", tmp_path), PROFILE: str(asking)}) as said:
        until(lambda: any("plan " in line for line in said()), "it runs", said, lambda: time.sleep(0.1))
        lines = [line for line in said() if "small socket buffers" in line]
        assert len(lines) == 1 and f"net.core.rmem_max={2 * most}" in lines[0], said()


@pytest.mark.parametrize("profile", sorted(set(NETWORKS.values())))
def test_a_profile_hears_datagrams_of_any_size(profile: str) -> None:
    """A transport's maxMessageSize is also the size of its receive buffer; others send up to 65 500 bytes."""
    tree = ElementTree.parse(share() / "config" / "network" / profile)
    values = {element.tag.partition("}")[2]: element.text or "" for element in tree.iter()}
    assert int(values["maxMessageSize"]) >= 65_500
    assert int(values["receiveBufferSize"]) == WANTED


def test_a_demo_without_a_camera_takes_the_images_of_ones_own(ros_domain: int, tmp_path: Path) -> None:
    """It says where to publish; the number of workers is the parameter file's."""
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "robots: {r1: {source: front, nodes: [gateway, worker]}, r2: {nodes: [worker]}}\n"
        "parameters: {gateway: {cut: 'tiles:2x2@0..10', deadline: 10.0}}\n"
    )
    command = [str(executables() / "dnn_dist"), "demo", "--params", str(file), "--frames", "3", "--pace", "0"]
    demo = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert demo.stdout is not None
        asked = next((line for line in demo.stdout if "publish images on image" in line), "")
        told = dict(word.split("=") for word in asked.split() if "=" in word)
        assert told["ROS_DOMAIN_ID"] == str(ros_domain), asked
        driver = [sys.executable, str(HERE / "plain_camera.py"), "reliable", "4.0", "300000"]
        with running(tmp_path / "camera.txt", driver, bare(told)):
            said = demo.communicate(timeout=2 * PATIENCE)[0]
    finally:
        demo.kill()
    assert demo.returncode == 0, said
    assert "complete 3" in said and {"r1", "r2"} <= set(said.split()), said
    reports = [json.loads(line) for line in (tmp_path / "out/reports.jsonl").read_text().splitlines()]
    assert [report["status"] for report in reports] == ["complete"] * 3
    for report in reports:
        parts = sum(report[part] for part in ("computed", "local", "waited"))
        assert parts == pytest.approx(report["latency"], abs=1e-5)
        assert sum(share["tasks"] for share in report["workers"]) == report["pieces"] == 4
