# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in the fields of our messages: it is told in one line or handled, limits hold, frames end once.

Real messages, as bytes, into the parts that run on robots, with real arrays, in virtual time; see messaged.py. An
exception that nobody expected fails the test at once.
"""

from __future__ import annotations

import os
import random

import pytest

pytest.importorskip("dnn_dist.msg", reason="messages are not built")
pytest.importorskip("rclpy", reason="no ROS 2 here")

from messaged import READ, MessageCluster
from virtual import Faults

from dnn_dist import msg
from dnn_dist.nodes import convert
from dnn_dist.run.report import Status
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.state import WorkerState
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.run.wire import TaskKey, WireError

EACH = 1000  # messages of random content a run
RUNS = int(os.environ.get("DNN_DIST_MESSAGES", "6000")) // EACH
CUTS = ["tiles:2x2@0..4;slices:2+1@5;tiles:1x2@6..8", "tiles:2x2@0..3>tiles:2x1@4..6>layers:2@7..11"]
CONTROL = {msg.WorkerState, msg.SourceState, msg.Progress, msg.Plan}
FORGED = {"control": CONTROL, "all but frames": READ.keys() - {msg.Frame}, "all": set(READ)}


def cluster_of(seed: int, kinds: set[type], **faults: float) -> MessageCluster:
    settings = DispatcherSettings(max_workers=6, max_orphans=4, backoff_max=0.5)
    limits = WorkerSettings(max_held=4, max_chained=40, max_early=20, max_sources=4, max_plans=4)
    random_ = random.Random(seed)
    return MessageCluster(
        kinds,
        random_.randint(1, 3),
        CUTS[:: random_.choice((1, -1))],
        seed,
        Faults(**faults),
        settings,
        worker=limits,
        on_demand=random_.random() < 0.3,
        prepare=0.01,
        limit=8.0,
        apart=random_.random() < 0.5,
    )


def test_a_cluster_that_speaks_by_messages_computes_every_frame_exactly() -> None:
    cluster = cluster_of(1, CONTROL)
    assert {report.quality for report in cluster.run(20, period=0.15, budget=0.6)} == {1.0}
    assert cluster.exact_frames > 10


@pytest.mark.parametrize("seed", range(RUNS))
def test_messages_of_random_content_in_the_right_session_break_no_law(seed: int) -> None:
    """Three seconds of them, while images come. Afterwards frames are whole again."""
    who = list(FORGED)[seed % 3]
    cluster = cluster_of(seed, set(FORGED[who]), forged=EACH)
    cluster.storm = 3.0
    reports = cluster.run(40, period=0.15, budget=0.4)
    assert cluster.heard > EACH / 4 and cluster.refused > EACH / 20, "messages get past the first look, and do not"
    if who != "all":
        whole = {Status.COMPLETE, Status.DECODED, Status.RECOMPUTED}
        assert {report.status for report in reports[-4:]} <= whole, "the cluster is well again"


def test_speeds_of_stages_arrive_as_they_were_sent_or_are_refused() -> None:
    state = WorkerState("w1", "r1", 1, 1, speed=1e9, speeds={("plan", 0): 2e9, ("plan", 65535): 0.5})
    assert convert.read_worker(convert.worker_message(state)) == state
    for speeds in ([float("nan")], [float("inf")], [-1.0], [1.0] * (convert.MOST + 1)):
        message = convert.worker_message(state)
        message.speeds = [msg.PlanSpeeds(plan="plan", stages=[0] * len(speeds), speeds=speeds)]
        with pytest.raises(WireError, match="speed"):
            convert.read_worker(message)
    message.speeds = [msg.PlanSpeeds(plan="plan", stages=[0, 1], speeds=[1.0])]
    with pytest.raises(WireError, match="1 of 2 stages"):
        convert.read_worker(message)


def test_tasks_of_a_worker_arrive_as_they_were_sent_those_of_a_source_in_their_order() -> None:
    most = TaskKey("b", 2**64 - 1, 2**32 - 1, 2**16 - 1, 2**16 - 1)
    held = TaskKey("b", 1, 7, 2, 3), TaskKey("a", 5, 1, 0, 9), TaskKey("b", 1, 7, 0, 1), most
    answered, seen = frozenset({TaskKey("a", 4, 0, 0, 0), *held[1:3]}), {("a", 5): 17, ("c", 1): 2**63 - 1}
    state = WorkerState("w1", "r1", 1, 1, held=held, waiting=frozenset(held[2:]), answered=answered, seen=seen)
    heard = convert.read_worker(convert.worker_message(state))
    assert heard._replace(held=held) == state
    assert heard.held == (held[0], held[2], held[1], most), "the first is the one that is computed"
