# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in the fields of our messages: it is told in one line or handled, limits hold, frames end once."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

pytest.importorskip("dnn_dist.msg", reason="messages are not built")

from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import shape

from dnn_dist import msg
from dnn_dist.errors import DnnDistError
from dnn_dist.nodes import convert
from dnn_dist.run import dispatcher as d
from dnn_dist.run import gatherer as g
from dnn_dist.run import worker as w
from dnn_dist.run.state import SourceState, WorkerState
from dnn_dist.run.wire import WireError

PLAN, SOURCE, MINE = "plan", 7, 1  # a plan in force, the source's session, the worker's
GOOD = st.sampled_from(["cam", "w1", PLAN])
BAD = st.sampled_from(["", "../x", "a" * 300, "\u00e4\u20ac", "uint8"]) | st.text(max_size=5)


def mostly(good: st.SearchStrategy[Any], anything: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Nine in ten good: a message with several fields should often get past the first look."""
    return st.integers(0, 9).flatmap(lambda chance: anything if chance == 0 else good)


@cache
def field(type_: str) -> st.SearchStrategy[Any]:
    """Values of a field: those that may stand there in earnest, the extremes, and any other."""
    if type_.startswith("sequence<"):
        return st.lists(field(type_[len("sequence<") : -1]), max_size=3)
    if type_ in ("float", "double"):
        return mostly(st.sampled_from([0.0, 0.5]), st.floats(width=32 if type_ == "float" else 64))
    for bits in (8, 16, 32, 64):
        if type_ == f"uint{bits}":
            return mostly(st.sampled_from([0, 0, 1, SOURCE]), st.just(2**bits - 1) | st.integers(0, 2**bits - 1))
        if type_ == f"int{bits}":
            return mostly(st.sampled_from([0, 1]), st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
    if type_.startswith("dnn_dist/"):
        return messages(getattr(msg, type_.split("/")[1]))
    return {"string": mostly(GOOD, BAD), "boolean": st.booleans()}.get(type_, st.none())


@cache
def messages(kind: type) -> st.SearchStrategy[Any]:
    """Messages of a type with anything in every field; those of other packages stay as they are."""
    fields = {name: field(type_) for name, type_ in kind.get_fields_and_field_types().items()}

    def make(values: dict[str, Any]) -> Any:
        message = kind()
        for name, value in values.items():
            if value is not None:
                setattr(message, name, value)
        return message

    return st.fixed_dictionaries(fields).map(make)


class Machines:
    """The three machines with frame 0 in work, as the nodes would feed them; limits are small."""

    def __init__(self) -> None:
        self.dispatcher = d.Dispatcher("cam", "r1", SOURCE, d.DispatcherSettings(max_workers=4, max_orphans=4))
        self.gatherer = g.Gatherer("cam", g.GathererSettings(max_early=4))
        limits = w.WorkerSettings(max_held=4, max_sources=4, max_plans=4)
        self.worker = w.Worker("w1", "r1", MINE, "model", limits)
        self.told: list[str] = []  # what was wrong
        self.ended: list[Any] = []  # reports
        state = WorkerState("w1", "r1", MINE, 1, plans=frozenset({PLAN}), room=2, offered_to="cam")
        self.handle(self.dispatcher, d.PlanInstalled(PLAN, shape(3)), d.WorkerReachable("w1", True))
        self.handle(self.gatherer, g.PlanInstalled(PLAN, shape(3)), g.FrameAnnounced(SOURCE, 0, PLAN, 1.0))
        self.handle(self.dispatcher, d.WorkerHeard(state), d.StageReady(0, 0, PLAN, 1.0))
        self.handle(self.worker, w.PlanOffered(PLAN), w.PlanBuilt(PLAN), w.SourceReachable("cam", True))
        self.handle(self.worker, w.SourceHeard(SourceState("cam", "r1", SOURCE, 1, PLAN, queued=3)))

    def handle(self, machine: Any, *events: Any, now: float = 0.1) -> None:
        for event in events:
            actions = machine.handle(event, now)
            for action in actions:
                if isinstance(action, d.SendWork):
                    assert action.number < 2**64, "it does not fit into the message"
            self.told += [action.kind for action in actions if isinstance(action, d.Note)]
            self.ended += [action.report for action in actions if isinstance(action, g.Publish)]

    def take(self, message: Any) -> None:
        """What the nodes do with a message."""
        match message:
            case msg.WorkerState():
                self.handle(self.dispatcher, d.WorkerHeard(convert.read_worker(message)))
            case msg.SourceState():
                self.handle(self.worker, w.SourceHeard(convert.read_source(message)))
            case msg.Progress():
                progress = convert.read_progress(message)
                self.handle(self.dispatcher, d.ProgressHeard(progress))
                self.handle(self.worker, w.ProgressHeard(progress))
            case msg.Work():
                key, budget = convert.read_key(message.key), convert.seconds(message.budget, "budget")
                for tensor in message.inputs:
                    convert.read_tensor(tensor)
                number = convert.work_number(message.number)
                arrived = w.WorkArrived(key, message.plan, message.worker_session, number, budget)
                self.handle(self.worker, arrived)
            case msg.Result():
                key, error = convert.read_key(message.key), message.error[:200]
                size = sum(convert.read_tensor(tensor).bytes for tensor in message.outputs)
                arrived = (message.worker, False, message.attempt, message.computed, size, error)
                self.handle(self.gatherer, g.ResultArrived(key, message.plan, *arrived))
            case msg.Frame():
                budget = convert.seconds(message.budget, "budget")
                announced = g.FrameAnnounced(message.session, message.frame, message.plan, budget)
                self.handle(self.gatherer, announced)

    def check(self) -> None:
        """What is kept has limits."""
        assert len(self.dispatcher.workers) <= 4 and len(self.dispatcher.orphans) <= 4
        assert len(self.worker.held) + len(self.worker.outbox) <= 4
        assert len(self.worker.sources) <= 4 and len(self.worker.seen) <= 4
        assert len(self.gatherer.early) <= 4 and len(self.gatherer.frames) <= self.gatherer.settings.max_open
        assert all(len(view.strays) + len(view.leases) <= 100 for view in self.dispatcher.workers.values())


KINDS = (msg.WorkerState, msg.SourceState, msg.Progress, msg.Work, msg.Result, msg.Frame)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_anything_in_any_field_is_told_or_handled(kind: type, data: st.DataObject) -> None:
    """Doubled, so that every message is also a replay."""
    machines, wrong = Machines(), 0
    for message in data.draw(st.lists(messages(kind), max_size=6)):
        for _ in range(2):
            try:
                machines.take(message)
            except DnnDistError as error:
                assert "\n" not in str(error)
                wrong += 1
            machines.check()
    now = 0.1
    while machines.gatherer.frames:
        now = max(now, min(frame.deadline for frame in machines.gatherer.frames.values()))
        machines.handle(machines.gatherer, g.Tick(), now=now)
        for number, frame in list(machines.gatherer.frames.items()):
            if frame.stage == 1:
                machines.handle(machines.gatherer, g.LocalDone(machines.gatherer.session, number, 1, 0.01), now=now)
    assert [report.budget for report in machines.ended].count(1.0) >= 1, "frame 0 is reported"


def test_speeds_of_stages_arrive_as_they_were_sent_or_are_refused() -> None:
    state = WorkerState("w1", "r1", MINE, 1, speed=1e9, speeds={(PLAN, 0): 2e9, (PLAN, 65535): 0.5})
    assert convert.read_worker(convert.worker_message(state)) == state
    for speeds in ([float("nan")], [float("inf")], [-1.0], [1.0] * (convert.MOST + 1)):
        message = convert.worker_message(state)
        message.speeds = [msg.StageSpeed(plan=PLAN, stage=0, speed=speed) for speed in speeds]
        with pytest.raises(WireError, match="speed"):
            convert.read_worker(message)


@given(st.lists(st.one_of(*map(messages, KINDS)), max_size=25))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_all_kinds_together_keep_the_limits(received: list[Any]) -> None:
    machines = Machines()
    for message in received:
        try:
            machines.take(message)
        except DnnDistError:
            continue
        machines.check()
    machines.handle(machines.dispatcher, d.Tick(), now=0.5)
    machines.handle(machines.worker, w.Tick(), now=0.5)
