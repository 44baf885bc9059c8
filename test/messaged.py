# SPDX-License-Identifier: Apache-2.0
"""The cluster of arrays.py whose processes say all by real ROS messages, as bytes; and messages of random content.

Every value is made a message, serialized, deserialized and read by nodes/convert, as between two robots.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any

from arrays import ArrayCluster, ArraySource, ArrayWorker, Photo
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from dnn_dist import __version__, msg
from dnn_dist.errors import DnnDistError
from dnn_dist.nodes import convert
from dnn_dist.run.events import FrameRefused
from dnn_dist.run.state import Progress, SourceState, WorkerState
from dnn_dist.run.values import Feed, Frame, Outcome, PlanText, Result, Scatter, Work
from dnn_dist.run.wire import TaskKey
from dnn_dist.sim.outcome import FrameRun

KINDS: dict[type, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    WorkerState: (msg.WorkerState, convert.worker_message, convert.read_worker),
    SourceState: (msg.SourceState, convert.source_message, convert.read_source),
    Progress: (msg.Progress, convert.progress_message, convert.read_progress),
    PlanText: (msg.Plan, convert.plan_message, convert.read_plan),
    Work: (msg.Work, convert.work_message, convert.read_work),
    Feed: (msg.Feed, convert.feed_message, convert.read_feed),
    Scatter: (msg.Scatter, convert.scatter_message, convert.read_scatter),
    Result: (msg.Result, convert.result_message, convert.read_result),
    Frame: (msg.Frame, convert.frame_message, lambda m: convert.read_frame(m, Photo(0.0, header=m.header))),
}
READ = {message: read for message, _, read in KINDS.values()}


class Wire:
    """What was said, as bytes; of each kind the newest."""

    def __init__(self, kept: int = 20) -> None:
        self._kept = kept
        self.said: dict[type, list[bytes]] = {message: [] for message in READ}

    def through(self, value: Any) -> Any:
        """A value as it is read at the other end."""
        if type(value) not in KINDS:
            return value
        kind, make, read = KINDS[type(value)]
        packed = serialize_message(make(value))
        said = self.said[kind]
        said.append(packed)
        del said[: -self._kept]
        if isinstance(value, Frame):  # what its outputs need stays with the image
            return convert.read_frame(deserialize_message(packed, kind), value.about)
        return read(deserialize_message(packed, kind))


class MessageSource(ArraySource):
    """A source that speaks by messages."""

    def picture(self) -> Photo:
        photo = super().picture()
        photo.header = Header(frame_id=f"image {self.images}")
        return photo

    def carry(self, value: Any, to: str) -> None:
        if isinstance(value, Outcome):
            serialize_message(convert.report_message(value))
            serialize_message(convert.detections_message(value, []))
            self.hub.outcomes.append(value)
            assert value.report.latency <= value.report.budget + 1e-4, "a frame was reported late"
        if isinstance(value, FrameRefused) and msg.Frame in self.hub.kinds:
            return  # announcements come by a topic, so this is a process of its own, and has none to say that
        super().carry(self.hub.wire.through(value), to)

    def look_for_lost(self) -> None:
        """Of a worker that is a name only there is no heartbeat; those of others are all simulated here."""


class MessageWorker(ArrayWorker):
    """A worker that speaks by messages."""

    hub: Any

    def send(self, value: Any, to: str = "") -> None:
        super().send(self.hub.wire.through(value), to)


class MessageCluster(ArrayCluster):
    """See the module. `faults.forged` messages of random content are sent to all parts while it runs."""

    worker_class, source_class = MessageWorker, MessageSource

    def __init__(self, kinds: Collection[type], *arguments: Any, **options: Any) -> None:
        """`kinds` of messages that somebody forges."""
        self.kinds, self.wire = sorted(kinds, key=lambda kind: kind.__name__), Wire()
        self.honest = not {msg.Work, msg.Feed, msg.Result, msg.Frame} & set(kinds)
        self.announced_by_anybody: set[tuple[int, int]] = set()  # (session, frame) that the aggregator took
        self.outcomes: list[Outcome] = []  # how frames ended, of whatever session
        self.refused = self.heard = 0  # messages of random content, by `convert`
        super().__init__(*arguments, **options)

    def make_forger(self, rng: random.Random) -> Callable[[], None]:
        noise = Noise(rng, self.wire, self._good)

        def strike() -> None:
            kind = rng.choice(self.kinds)
            message = noise.message(kind)
            try:
                value = READ[kind](message)
            except DnnDistError as error:
                assert "\n" not in str(error) and len(str(error)) < 1000
                self.refused += 1
            else:
                self.heard += 1
                self._deliver(value)

        return strike

    def _good(self) -> dict[str, list[Any]]:
        """Values that may stand in fields in earnest."""
        (source,), workers = self.sources.values(), [worker for worker in self.workers.values() if worker.part]
        sessions = [worker.part.machine.session for worker in workers]
        clock, frame = max(0, int(1000 * self.agenda.now)), source.announced
        tasks = [number << 32 | stage << 16 | 1 for number in (frame, max(0, frame - 1)) for stage in (0, 1, 2)]
        return {
            **dict.fromkeys(("held", "waiting", "answered"), tasks),
            "string": [source.name, *self.workers, *self.plans, __version__],
            "session": [source.session, source.session, *sessions],
            "worker_session": sessions,
            "receiver_session": sessions,
            "sequence": [clock, clock + 1, clock + 50, clock + 1500],
            "int": [frame, frame + 1, max(0, frame - 1)],
        }

    def _deliver(self, value: Any) -> None:
        """To all who listen to its topic."""
        (source,) = self.sources.values()
        home, there = source._processes
        if isinstance(value, (WorkerState, SourceState, Progress)):
            home.deliver(source.partition, value)
        if isinstance(value, (WorkerState, Result, Frame, PlanText, Scatter)):
            there.deliver(source.aggregator, value)
        if isinstance(value, (SourceState, Progress, PlanText, Work)):
            for worker in self.workers.values():
                if not isinstance(value, Work) or value.key.source in worker.sources:  # else there is no such topic
                    worker.hear(value)
        if isinstance(value, Feed) and value.key.source in self.sources:
            for worker in self.workers.values():
                worker.hear(value)

    def kept(self, key: TaskKey) -> None:
        if msg.Frame not in self.kinds:  # else frames of several sessions may have one number
            super().kept(key)

    def report(self, run: FrameRun) -> None:
        if msg.Frame not in self.kinds:
            super().report(run)

    def check(self) -> None:
        """Laws, and limits of what is kept."""
        super().check()
        (source,) = self.sources.values()
        gatherer, dispatcher, settings = source.aggregator.machine, source.partition.machine, self.settings
        self.announced_by_anybody |= {(gatherer.session, frame) for frame in gatherer.frames}
        assert len(gatherer.frames) <= gatherer.settings.max_open and len(gatherer.early) <= gatherer.settings.max_early
        assert source.aggregator._arrived.keys() <= gatherer.early.keys()
        assert len(dispatcher.workers) <= settings.max_workers and len(dispatcher.orphans) <= settings.max_orphans
        assert all(len(view.strays) + len(view.leases) <= 100 for view in dispatcher.workers.values())
        for worker in filter(None, (worker.part for worker in self.workers.values())):
            machine, limits = worker.machine, worker.machine.settings
            assert len(machine.sources) <= limits.max_sources and len(machine.seen) <= limits.max_sources
            assert len(worker.tasks) <= 2 * limits.max_chained + 1 and len(worker._offered) <= limits.max_plans + 1
            assert len(machine.residence.early) <= limits.max_early and len(worker._fed) <= 2 * limits.max_chained
            assert len(machine.refused) <= 100 and len(machine.answered) <= 1000

    def check_end(self, name: str, frames: int, budget: float) -> None:
        ended = [(outcome.frame.session, outcome.report.frame) for outcome in self.outcomes]
        assert len(ended) == len(set(ended)), "a frame was reported twice"
        if msg.Frame not in self.kinds:  # else frames of ours may be taken for doubled
            super().check_end(name, frames, budget)
        still_open = {(self.gatherer.session, frame) for frame in self.gatherer.frames}
        assert self.announced_by_anybody <= set(ended) | still_open, "a frame was not reported"


class Noise:
    """Messages that were said, with some fields changed, or with random content in all; the session is right."""

    def __init__(self, rng: random.Random, wire: Wire, good: Callable[[], dict[str, list[Any]]]) -> None:
        """`good`: values that may stand there in earnest, by type: string, int."""
        self._rng, self._wire, self._good = rng, wire, good

    def message(self, kind: type) -> Any:
        """A message of a type as it would be received."""
        rng, said = self._rng, self._wire.said[kind]
        fresh = not said or rng.random() < 0.1
        message = kind() if fresh else deserialize_message(rng.choice(said), kind)
        leaves = list(_leaves(message))
        changed = len(leaves) if fresh else min(len(leaves), rng.choice((0, 1, 1, 2, 4)))
        for owner, name, type_ in rng.sample(leaves, changed):
            setattr(owner, name, self._value(type_, name))
        return deserialize_message(serialize_message(message), kind)

    def _value(self, type_: str, name: str) -> Any:
        rng, good = self._rng, self._good()
        if type_.startswith("sequence<"):
            inner = type_[len("sequence<") : -1]
            return [self._value(inner, name) for _ in range(rng.choice((0, 1, 3, 40)))]
        if type_ == "string":
            bad = ("", "../x", "a" * 300, "\u00e4\u20ac", "uint8", "float32", "{a: [")
            return rng.choice(good["string"] if rng.random() < 0.7 else bad)
        if type_ == "boolean":
            return rng.random() < 0.5
        if type_ in ("float", "double"):
            return rng.choice((0.0, 0.5, 1e-9, 1e30, -1.0, float("nan"), float("inf")))
        if type_.startswith("dnn_dist/"):
            inner = getattr(msg, type_.split("/")[1])()
            for owner, leaf, leaf_type in _leaves(inner):
                setattr(owner, leaf, self._value(leaf_type, leaf))
            return inner
        bits = int(type_.removeprefix("u").removeprefix("int"))
        top = 2**bits - 1 if type_.startswith("u") else 2 ** (bits - 1) - 1
        if bits == 64 and name in good and rng.random() < 0.9:
            return rng.choice(good[name])
        return min(top, rng.choice((0, 1, 2, rng.randrange(20), top, rng.getrandbits(bits), *good["int"])))


def _leaves(message: Any) -> list[tuple[Any, str, str]]:
    """(owner, field, type) of all fields, of those of messages within it too."""
    found = []
    for name, type_ in message.get_fields_and_field_types().items():
        value = getattr(message, name)
        if hasattr(value, "get_fields_and_field_types"):
            found += _leaves(value)
        else:
            found.append((message, name, type_))
            if type_.startswith("sequence<dnn_dist/"):
                found += [leaf for entry in value for leaf in _leaves(entry)]
    return found
