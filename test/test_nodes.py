# SPDX-License-Identifier: Apache-2.0
"""What nodes do around the parts of the runtime, without ROS around the nodes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("dnn_dist.msg", reason="messages are not built")

from std_msgs.msg import Header
from virtual import shape

from dnn_dist import msg
from dnn_dist.errors import DnnDistError
from dnn_dist.nodes import convert
from dnn_dist.nodes.worker import WorkerNode
from dnn_dist.nodes.world import RosWorld
from dnn_dist.run.aggregator import Aggregator
from dnn_dist.run.computer import Computer
from dnn_dist.run.gathered import GathererSettings
from dnn_dist.run.notes import Notebook
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.state import SourceState
from dnn_dist.run.values import Installed, Outcome
from dnn_dist.run.world import Loop
from dnn_dist.sim.scenario import Load
from dnn_dist.sim.sizes import SizePieces, SizeStore


class OnlyTopics(WorkerNode):
    """The worker's node without ROS: its topics are entries of a set."""

    def __init__(self, max_sources: int) -> None:
        self.topics: set[str] = set()
        self.time, self.notes, self.parts = 0.0, Notebook(), []
        self._pairs, self._reachable, self._name = {}, {}, "w1"
        self._settings = SimpleNamespace(now=SimpleNamespace(lifespan=1.0))
        self.world = RosWorld(self, lambda: 0.0)
        settings = WorkerSettings(worker="w1", robot="r1", max_sources=max_sources)
        pieces = SizePieces(lambda plan: shape(1), on_demand=False)
        self.part = Computer(self.world, self.world.loop, 1, "model", pieces, settings)

    def receive(self, type_: type, topic: str, *rest: Any, **more: Any) -> Any:
        self.topics.add(topic)
        return SimpleNamespace(topic=topic, get_publisher_count=lambda: 1)

    def offer(self, type_: type, topic: str, qos: Any, **more: Any) -> Any:
        self.topics.add(topic)
        return SimpleNamespace(topic=topic, get_subscription_count=lambda: 1)

    def let_go(self, end: Any) -> None:
        self.topics.remove(end.topic)

    destroy_subscription = destroy_publisher = let_go

    def now(self) -> float:
        return self.time

    def note(self, note: Any) -> None:
        self.notes.add(note)

    def wake_at(self, when: float, tick: Any) -> None:
        pass


def test_a_worker_lets_go_of_the_topics_of_sources_that_it_forgets() -> None:
    node = OnlyTopics(max_sources=2)
    for number in range(6):
        node.time += 2.0
        node._hear_source(convert.source_message(SourceState(f"s{number}", "r1", 7, 1)))
        assert {topic.split("/")[0] for topic in node.topics} == node._pairs.keys()
        assert node.part.knows(f"s{number}")
    assert len(node.topics) == 4 and "internal error" not in node.notes.counts
    with pytest.raises(DnnDistError, match="forgotten"):
        node._hear_work("s0", msg.Work(key=msg.TaskKey(source="s0")))


class Said:
    """A world that keeps what is sent; nothing takes time, and nobody expects an exception."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.notes = Notebook()

    def now(self) -> float:
        return 0.1

    def wake(self, when: float, call: Any) -> None:
        pass

    def send(self, value: Any, to: str = "") -> None:
        self.values.append(value)

    def run(self, job: Any, done: Any) -> None:
        pass

    def note(self, note: Any) -> None:
        self.notes.add(note)

    def caught(self, error: Exception, where: str) -> None:
        raise error


class OpenFrames(SizeStore):
    """Which frames are open."""

    def __init__(self) -> None:
        super().__init__(Load(shape(1)))
        self.frames: list[int] = []

    def begin(self, frame: int, pixels: Any = None) -> None:
        assert frame not in self.frames
        self.frames.append(frame)

    def release(self, frame: int) -> None:
        self.frames.remove(frame)


def test_a_restarted_source_may_announce_a_number_that_it_left_open() -> None:
    """Frame 0 of before is reported with its own session and header, and frame 0 of now is in work."""
    world, store = Said(), OpenFrames()
    part = Aggregator(world, Loop(world), "cam", 1, GathererSettings(), lambda store, frame, about: ())
    part.post(Installed(store))

    def announce(session: int) -> list[Any]:
        """What became of it at once."""
        header = Header(frame_id=f"camera of {session}")
        message = msg.Frame(source="cam", session=session, plan="plan", budget=1.0, height=4, width=4)
        del world.values[:]
        part.post(convert.read_frame(message, SimpleNamespace(header=header)))
        return [type(value).__name__ for value in world.values]

    assert "FrameRefused" not in announce(7)
    assert "FrameRefused" in announce(7), "that is the same frame"
    assert "FrameRefused" not in announce(8)
    outcomes = [value for value in world.values if isinstance(value, Outcome)]
    (report,) = (convert.report_message(outcome) for outcome in outcomes)
    assert (report.session, report.header.frame_id, report.status) == (7, "camera of 7", 4)
    assert store.frames == [0] and part.health() == {"frames open": 1}
    assert "FrameRefused" in announce(7), "a session that has ended announces nothing any more"
    assert store.frames == [0]
