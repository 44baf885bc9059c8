# SPDX-License-Identifier: Apache-2.0
"""A cluster on the air, as shipped: what stays on a robot is not paced, and nearly all frames are complete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy")

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import air
from medium import Weather

from dnn_dist.cli.supervisor import executables, share
from dnn_dist.cluster import PACED, read_cluster, shipped_file, transport
from dnn_dist.dds import OLD_NAMES, derived
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.fleet import read_fleet
from dnn_dist.plan.predict import Circumstances
from dnn_dist.plan.rules import Goal
from dnn_dist.plan.search import search
from dnn_dist.shipped import find_model

HERE = Path(__file__).parent
CONFIG = HERE.parent / "config"
PATIENCE = 30.0  # s
LEAST = 0.95  # of the frames have nothing missing


def tags(element: ElementTree.Element) -> list[str]:
    return [one.tag.partition("}")[2] for one in element.iter()]


@pytest.mark.parametrize("profile", ["lan.xml", "wifi.xml"])
def test_an_unpaced_writer_is_the_default_one_without_flow_controller(profile: str) -> None:
    text = (CONFIG / "network" / profile).read_bytes()
    before = ElementTree.fromstring(text)
    after = ElementTree.fromstring(derived(text, ["/image", "/front/r1/work"]))
    default, *others = (element for element in after.iter() if element.tag.endswith("data_writer"))
    assert default.get("is_default_profile") == "true" and tags(default)[0] == "data_writer"
    assert [one.get("profile_name") for one in others] == ["/image", "/front/r1/work"][: 2 * (b"flow_" in text)]
    for other in others:
        assert other.get("is_default_profile") is None
        pacing = {"publishMode", "flow_controller_name", "kind"}
        assert [tag for tag in tags(other) if tag not in pacing] == [t for t in tags(default) if t not in pacing]
        assert "flow_controller_name" in tags(default) and "flow_controller_name" not in tags(other)
    assert len(tags(before)) == len(tags(after)) - sum(len(tags(other)) for other in others)


@pytest.mark.parametrize("profile", ["lan.xml", "wifi.xml"])
def test_fast_dds_2_finds_its_own_words(profile: str) -> None:
    """It refuses elements that it does not know."""
    text = (CONFIG / "network" / profile).read_bytes()
    before, after = (tags(ElementTree.fromstring(derived(text, [], old))) for old in (False, True))
    assert set(OLD_NAMES) <= set(before), "no entry is stale"
    assert after == [OLD_NAMES.get(tag, tag) for tag in before]


def test_a_named_topic_is_not_held_back_and_others_are(ros_domain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from std_msgs.msg import UInt8MultiArray

    from dnn_dist.nodes.qos import tensors
    from dnn_dist.nodes.watch import watching

    network = share() / "config" / "network"
    for name, value in transport("wifi", network).items():
        monkeypatch.setenv(name, value)
    came: dict[str, list[float]] = {"free": [], "paced": []}
    with watching({}) as watch:
        for topic, times in came.items():
            watch.receive(UInt8MultiArray, topic, tensors(), lambda _, times=times: times.append(time.monotonic()))
        sender = subprocess.Popen(
            [sys.executable, str(HERE / "paced_sender.py")],
            env={**os.environ, **transport("wifi", network, ["/free"])},
        )
        try:
            end = time.monotonic() + PATIENCE
            while len(came["paced"]) < 10 and time.monotonic() < end:
                watch.spin(0.1)
        finally:
            sender.terminate()
            assert sender.wait(PATIENCE) == 0
    assert [len(times) for times in came.values()] == [10, 10]
    free, paced = (times[-1] - times[0] for times in came.values())
    values = dict(zip(*parsed(network / "wifi.xml"), strict=True))
    rate = float(values["max_bytes_per_period"]) / float(values["period_ms"]) * 1000
    assert paced > 0.8 * 900_000 / rate, "as slowly as the profile says"
    assert free < paced / 2


def parsed(path: Path) -> tuple[list[str], list[str]]:
    tree = ElementTree.parse(path).getroot()
    return tags(tree), [one.text or "" for one in tree.iter()]


def test_the_shipped_cut_is_what_the_planner_chooses_for_the_air() -> None:
    cluster = read_cluster(CONFIG / shipped_file("wifi"))
    network = read_network(find_model(str(cluster.parameters["all"]["model"])))
    fleet = read_fleet(CONFIG / "fleets" / "four_pi3_wifi.yaml")
    given = Circumstances(fleet, fleet.names[0], "float32", 1, window=PACED["wifi"]["window"])
    best = search(network, given, Goal("latency", None, 0)).best
    assert best.cut == cluster.parameters["gateway"]["cut"]
    assert 2 * best.prediction.latency < cluster.parameters["gateway"]["deadline"]


def test_the_demo_on_the_network_profile_of_the_air_is_complete(ros_domain: int, tmp_path: Path) -> None:
    command = [str(executables() / "dnn_dist"), "demo", "--network", "wifi", "--frames", "40", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "summary.json").read_text())
    exact = sum(told["reported"][status] for status in ("complete", "decoded", "recomputed"))
    assert told["frames_reported"] >= 40 and exact >= LEAST * told["frames_reported"], told["reported"]
    assert sum(worker["tasks"] > 0 for worker in told["workers"].values()) == 4, "together"
    assert "profile: wifi.xml" in (tmp_path / "log" / "gateway_r1.log").read_text()


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/net/tun", os.W_OK), reason="network namespaces need root and /dev/net/tun"
)
def test_on_an_emulated_air_nearly_all_frames_are_complete(tmp_path: Path) -> None:
    """Camera and four workers on five robots; 20 Mbit/s for all, one packet in a hundred is lost."""
    try:
        with air.flying(air.shipped(), tmp_path, share() / "config" / "network") as fleet:
            found = air.measure(fleet, Weather(rate=20e6, delay=5e-3, loss=0.01), 15.0)
    except RuntimeError as error:
        if "the air can't be made" in str(error):
            pytest.skip(str(error))
        raise
    reported = sum(found["frames"].values())
    exact = sum(found["frames"][status.name.lower()] for status in air.EXACT)
    assert reported >= 20 and exact >= LEAST * reported, found
    assert found["lost"] > 0.005, "the air was bad"
