# SPDX-License-Identifier: Apache-2.0
"""What nodes do around their machines, without ROS around the nodes."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("dnn_dist.msg", reason="messages are not built")

from std_msgs.msg import Header
from virtual import shape

from dnn_dist import msg
from dnn_dist.errors import DnnDistError
from dnn_dist.nodes import convert
from dnn_dist.nodes.aggregator import Aggregator, FrameInfo
from dnn_dist.nodes.worker import WorkerNode
from dnn_dist.run import gatherer as g
from dnn_dist.run import worker as w
from dnn_dist.run.notes import Notebook
from dnn_dist.run.state import SourceState


class OnlyTopics(WorkerNode):
    """The worker's node without ROS: its topics are entries of a set."""

    def __init__(self, max_sources: int) -> None:
        self.topics: set[str] = set()
        self.time, self.notes = 0.0, Notebook()
        self._pairs, self._tasks, self._name = {}, {}, "w1"
        self._settings, self._state = SimpleNamespace(now=SimpleNamespace(lifespan=1.0)), None
        self._machine = w.Worker("w1", "r1", 1, "model", w.WorkerSettings(max_sources=max_sources))

    def receive(self, type_: type, topic: str, *rest: Any) -> Any:
        self.topics.add(topic)
        return SimpleNamespace(topic=topic, get_publisher_count=lambda: 1)

    def offer(self, type_: type, topic: str, qos: Any) -> Any:
        self.topics.add(topic)
        return SimpleNamespace(topic=topic, get_subscription_count=lambda: 1)

    def let_go(self, end: Any) -> None:
        self.topics.remove(end.topic)

    destroy_subscription = destroy_publisher = let_go

    def now(self) -> float:
        return self.time

    def send(self, publisher: Any, message: Any) -> None:
        pass

    wake_at = send

    def get_logger(self) -> Any:
        return logging.getLogger(__name__)


def test_a_worker_lets_go_of_the_topics_of_sources_that_it_forgets() -> None:
    node = OnlyTopics(max_sources=2)
    for number in range(6):
        node.time += 2.0
        node._hear_source(convert.source_message(SourceState(f"s{number}", "r1", 7, 1)))
        assert {topic.split("/")[0] for topic in node.topics} == node._machine.sources.keys() == node._pairs.keys()
    assert len(node.topics) == 4
    with pytest.raises(DnnDistError, match="forgotten"):
        node._hear_work("s0", msg.Work(key=msg.TaskKey(source="s0")))


class Store:
    """Which frames are open, and what their first word was."""

    plan, shape = SimpleNamespace(hash="plan"), shape(1)

    def __init__(self) -> None:
        self.frames: dict[int, Any] = {}

    def begin(self, frame: int, pixels: Any) -> None:
        assert frame not in self.frames
        self.frames[frame] = pixels

    def release(self, frame: int) -> None:
        del self.frames[frame]


def test_a_restarted_source_may_announce_a_number_that_it_left_open() -> None:
    """Frame 0 of before is reported with its own session and header, and frame 0 of now is in work."""
    sent: list[Any] = []
    shell = SimpleNamespace(
        session=1,
        notes=Notebook(),
        now=lambda: 0.1,
        wake_at=lambda when, tick: None,
        send=lambda publisher, message: sent.append(message),
    )
    shell.note = shell.notes.add
    part = Aggregator(shell, SimpleNamespace(now=SimpleNamespace(source="cam", timer_slack=0.0)))
    part._machine = g.Gatherer("cam")
    part._overlay = SimpleNamespace(get_subscription_count=lambda: 0)
    part._detections = part._report = part._progress = part._vision = None
    store = Store()
    part.install(store)

    def announce(session: int) -> bool:
        about = FrameInfo(store, Header(frame_id=f"camera of {session}"), None, 0, None)
        return part.announce(0, session, "plan", 1.0, about, f"pixels of {session}")

    assert announce(7)
    assert not announce(7), "that is the same frame"
    assert announce(8)
    reports = [message for message in sent if isinstance(message, msg.FrameReport)]
    assert [(report.session, report.header.frame_id) for report in reports] == [(7, "camera of 7")]
    assert store.frames == {0: "pixels of 8"} and part._machine.frames.keys() == {0}
