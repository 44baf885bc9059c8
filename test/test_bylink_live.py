# SPDX-License-Identifier: Apache-2.0
"""Plans by the rate of the link on real nodes: work is given away, and taken back while the server stands still.

Here the link is the loopback; one whose rate changes is in `bench/link.py`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")
pytest.importorskip("dnn_dist.msg", reason="messages are not built")

from live import Live, live
from test_live import diagnostics, film, said_by
from test_sides_live import ROBOTS, SIAMESE, reported, scores_of, scores_of_whole, whole

from dnn_dist.modelcard import card_of
from dnn_dist.nodes.planning import load_network, make_plan

pytestmark = pytest.mark.usefixtures("ros_domain")

SOME, ALL = "front@0..8>rest@9..17>rest@18..21", "rest@0..8>rest@9..21"


def parameters(by_link: str) -> dict[str, dict[str, object]]:
    given = {"score_threshold": 0.0, "cut": "front", "by_link": by_link, "deadline": 20.0}
    return {"all": {"model": str(SIAMESE)}, "gateway": given}


@contextmanager
def stopped(cluster: Live, name: str) -> Iterator[None]:
    """A process stands still for a while."""
    process = cluster.supervisor.running[name]
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def test_work_is_given_away_while_the_link_is_good(tmp_path: Path) -> None:
    """Every frame is reported, whole, and equal to the model's own answer, whatever the plan."""
    network, image = load_network(str(SIAMESE)), film(1)[0]
    plans = {cut: make_plan(network, card_of(network), cut).hash for cut in ("front", SOME, ALL)}
    expected = scores_of_whole(SIAMESE, [image] * 2)
    with live(tmp_path, ROBOTS, parameters(f"0.4 {SOME} | 0.8 {ALL}")) as cluster:
        stamps, seen = count(1), diagnostics(cluster)

        def frame() -> str:
            """The plan of one more frame."""
            stamp = next(stamps)
            reported(cluster, stamp, [("image", image, 0)])
            assert scores_of(cluster, stamp) == expected
            return str(cluster.stamps()[stamp].plan)

        cluster.until(lambda: frame() == plans[ALL], "work is given away")
        with stopped(cluster, "worker_server"):
            cluster.until(lambda: frame() == plans["front"], "the robot goes on alone")
            cluster.until(lambda: said_by(seen, "gateway", "plan by link since").endswith("no server is heard"), "why")
        cluster.until(lambda: frame() == plans[ALL], "work is given away again")
        cluster.until(lambda: "Mbit/s" in said_by(seen, "gateway", "rate pi server"), "the rate")
        assert whole(cluster) and not cluster.supervisor.respawns
        frames = [report.frame for report in cluster.watch.reports]
        assert sorted(frames) == list(range(len(frames))), "each frame is reported once"


@pytest.mark.parametrize(("by_link", "why"), [("fast front>rest", "is no step"), ("1 front@0..99>rest", "99")])
def test_a_list_that_cannot_be_ends_the_gateway_in_one_line(tmp_path: Path, by_link: str, why: str) -> None:
    with live(tmp_path, ROBOTS, parameters(by_link), ready=0) as cluster:
        cluster.until(lambda: "gateway_pi" in cluster.supervisor.ended, "it ends for good")
        assert why in cluster.supervisor.ended["gateway_pi"]
