# SPDX-License-Identifier: Apache-2.0
"""A robot and a server on real nodes: networks of several inputs, images of several topics, front and rest."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")
pytest.importorskip("dnn_dist.msg", reason="messages are not built")

from cutting import FIXTURES
from live import Live, live
from netbuilder import NetBuilder
from test_live import detections_of, film

from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.modelcard import card_of
from dnn_dist.nodes.planning import load_head, load_network, make_plan
from dnn_dist.run.report import Status
from dnn_dist.run.store import TensorStore
from dnn_dist.settings import NODES, meanings

pytestmark = pytest.mark.usefixtures("ros_domain")

ROBOTS = {"pi": {"source": "front", "nodes": ["gateway", "worker"]}, "server": {"nodes": ["worker"]}}
APART = {
    "pi": {"source": "front", "nodes": ["partition", "worker"]},
    "server": {"source": "front", "nodes": ["aggregator", "worker"]},
}


@pytest.fixture(scope="module")
def multi_stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three streams of two convolutions (ops 0 and 1, 2 and 3, 4 and 5); their results are added (6, 7), and so on."""
    net, streams = NetBuilder(seed=3), []
    for side in (24, 32, 24):
        x = net.conv(net.input(side, side, 3), 8, (3, 3), stride=(side // 8, side // 8))
        streams.append(net.conv(x, 6, (3, 3)))
    x = net.binary("ADD", net.binary("ADD", streams[0], streams[1]), streams[2])
    path = tmp_path_factory.mktemp("models") / "multi_stream.tflite"
    path.write_bytes(net.build([net.unary("SOFTMAX", net.dense(net.conv(x, 4, (3, 3), stride=(4, 4)), 5))]))
    return path


def scores_of_whole(model: Path, images: list[np.ndarray]) -> list[tuple[int, np.float32]]:
    """What the untouched model says, run in this process."""
    network = load_network(str(model))
    card = card_of(network)
    store = TensorStore(network, make_plan(network, card, "local"))
    boxes = [Letterbox(*image.shape[:2], *size) for image, size in zip(images, store.input_sizes, strict=True)]
    store.begin(0, [box.apply(image) for box, image in zip(boxes, images, strict=True)])
    store.run_local(0, 0)
    head = load_head(network, card)
    head.score_threshold = 0.0
    return [(found.class_id, np.float32(found.score)) for found in head(store.results(0), boxes[0])]


def scores_of(cluster: Live, stamp: int) -> list[tuple[int, np.float32]]:
    return [(class_id, score) for class_id, _, score, *_ in detections_of(cluster, stamp)]


def reported(cluster: Live, stamp: int, images: list[tuple[str, np.ndarray, int]]) -> None:
    """Publish images (topic, image, what is added to the stamp) until a frame of that stamp is reported: a subscription
    may give way to a reliable one meanwhile.
    """
    sent = float("-inf")

    def come() -> bool:
        nonlocal sent
        if time.monotonic() - sent > 3.0:
            sent = time.monotonic()
            for topic, image, later in images:
                cluster.publish(image, stamp + later, topic)
        return stamp in cluster.stamps()

    cluster.until(come, f"image {stamp} is reported")


def whole(cluster: Live) -> bool:
    return {Status(report.status) for report in cluster.watch.reports} <= {Status.COMPLETE, Status.RECOMPUTED}


def settings(model: Path, cut: str, images: str, robots: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a source that is wherever the robots have it."""
    source = {"score_threshold": 0.0, "images": images, "cut": cut, "deadline": 10.0}
    source |= {"worker_timeout": 3.0, "lease_min": 3.0}  # a robot that a busy machine holds up is not gone
    nodes = ("gateway",) if robots is ROBOTS else ("partition", "aggregator")
    known = {node: meanings(NODES[node]).keys() & source.keys() for node in nodes}
    return {"all": {"model": str(model)}, **{node: {key: source[key] for key in known[node]} for node in nodes}}


SIAMESE = FIXTURES / "zoo" / "siamese_float32.tflite"


@pytest.mark.parametrize(
    ("robots", "cut"),
    [
        (ROBOTS, "front@9..12>front@0..3>rest@13..17>rest@4..8>rest@18..21"),
        (ROBOTS, "front@0..8>rest@9..17>rest@18..21"),
        (APART, "front@9..17>front@0..1>rest@2..8>rest@18..21"),
        (APART, "rest"),
    ],
)
def test_two_cameras_and_a_siamese_network(tmp_path: Path, robots: dict[str, Any], cut: str) -> None:
    """Pairs by stamp, whichever comes first; a frame equals the whole model's bit for bit."""
    left, right = film(3), film(3, 200, 240)
    with live(tmp_path, robots, settings(SIAMESE, cut, "left right", robots)) as cluster:
        cluster.until(lambda: all(s.peers for s in cluster.watch.workers.values()), "the two have met")
        for stamp, pair in enumerate(zip(left, right, strict=True), start=1):
            topics = [("left", pair[0]), ("right", pair[1])]
            reported(cluster, 10 * stamp, [("left", right[0], -1), *((t, i, 0) for t, i in topics[:: (-1) ** stamp])])
            assert scores_of(cluster, 10 * stamp) == scores_of_whole(SIAMESE, list(pair))
        assert whole(cluster) and not cluster.supervisor.respawns
        # The first frame may have come before the partition heard of the server; then the robot did it alone.
        fronts, count = cut.count("front"), 1 + cut.count(">")
        assert {share.worker for share in cluster.stamps()[10 * len(left)].workers} == {"server"}
        for worker, stages in (("pi", range(fronts)), ("server", range(fronts, count))):
            assert {stage for _, stage in cluster.watch.workers[worker].speeds} >= set(stages)
    assert not [log.name for log in (tmp_path / "log").glob("*.log") if "Traceback" in log.read_text()]


def test_three_streams_of_one_camera(tmp_path: Path, multi_stream: Path) -> None:
    """One topic for all inputs, scaled to each."""
    cut = "front@2..3>front@0>rest@4..5>rest@1+6>rest"
    with live(tmp_path, ROBOTS, settings(multi_stream, cut, "", ROBOTS)) as cluster:
        cluster.until(lambda: all(s.peers for s in cluster.watch.workers.values()), "the two have met")
        images = film(3)
        cluster.feed(images)
        for stamp, image in enumerate(images, start=1):
            found = scores_of(cluster, stamp)
            assert len(found) == 5 and found == scores_of_whole(multi_stream, [image] * 3)
        assert whole(cluster)


def test_without_its_server_a_robot_goes_on_alone_and_gives_work_away_again(tmp_path: Path) -> None:
    """The server's worker is killed: the robot computes the rest itself, and no frame is lost."""
    cut = "front@9..12>front@0..3>rest@13..17>rest@4..8>rest@18..21"
    image = film(1)[0]
    with live(tmp_path, ROBOTS, settings(SIAMESE, cut, "", ROBOTS)) as cluster:
        cluster.until(lambda: all(s.peers for s in cluster.watch.workers.values()), "the two have met")
        cluster.feed([image])
        expected, session = scores_of_whole(SIAMESE, [image] * 2), cluster.watch.workers["server"].session
        cluster.supervisor.kill("worker_server")
        reported(cluster, 2, [("image", image, 0)])
        assert scores_of(cluster, 2) == expected
        cluster.until(lambda: cluster.watch.workers["server"].session != session, "the server is back")
        stamps = iter(range(3, 1000))

        def given_away() -> bool:
            stamp = next(stamps)
            reported(cluster, stamp, [("image", image, 0)])
            assert scores_of(cluster, stamp) == expected
            return any(share.worker == "server" for share in cluster.stamps()[stamp].workers)

        cluster.until(given_away, "the server computes again")
        assert whole(cluster)
