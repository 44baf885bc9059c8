# SPDX-License-Identifier: Apache-2.0
"""What all nodes share: one executor, one timer that follows what is due next, notes that reach log and /diagnostics,
and an orderly end.

A node has four steps, apart from each other so that a managed node can call them one by one:
construct (parameters), `configure()` (load what may fail), `start()` (topics and timer), `stop()`.
"""

from __future__ import annotations

import inspect
import os
import random
import time
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile

from dnn_dist.errors import DnnDistError
from dnn_dist.nodes.alarms import NEVER, Alarms
from dnn_dist.nodes.disturb import Disturbance
from dnn_dist.nodes.endpoint import RCLError, make_endpoint, quieten
from dnn_dist.nodes.lifesign import LifeSign
from dnn_dist.nodes.qos import OUTPUT
from dnn_dist.nodes.transport import transport_asked_for, transport_refused
from dnn_dist.run.health import HOLD, judge
from dnn_dist.run.net import Net
from dnn_dist.run.notes import Note, Notebook

IDLE = 3600.0
"""Seconds between two rings of a timer that nobody has set."""

GAP = 0.01
"""Seconds between two states of one topic. To say and to hear one takes more time than most of what it tells of: at
full load each task changes the states of its worker twice and those of its source three times."""


def new_session() -> int:
    """A random number that tells this process from its former self."""
    return random.SystemRandom().getrandbits(63) | 1


class NodePart:
    """What a node is made of: it has something to say, and an end."""

    def change(self) -> None:
        """Parameters have changed."""

    def health(self) -> dict[str, Any]:
        """What diagnostics say of it."""
        return {}

    def troubles(self) -> list[str]:
        """What is wrong now, the most important first."""
        return []

    def stop(self) -> None:
        """End threads and give devices back."""


class Shell(Node):
    """A node with notes, diagnostics and a timer that fires when its machine wants to be woken."""

    robot = ""  # that it runs on, as diagnostics name it
    latest: Shell | None = None  # of this process; says why it ends when its parameters are refused

    def __init__(self, name: str) -> None:
        super().__init__(name)
        Shell.latest = self
        self.session = new_session()
        self.notes = Notebook()
        self.net = Net(self.note, self._end)
        self.ending = ""  # why the process must end; see run()
        self.parts: list[NodePart] = []
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", OUTPUT)
        self._life_sign = LifeSign(os.environ)
        self._alarms = Alarms()

        def ring() -> None:
            self._ring()

        # rclpy derives it at each ring, which takes longer than most of what rings
        ring.__signature__ = inspect.Signature()  # type: ignore[attr-defined]
        # Not the node's own clock, which may stand still (use_sim_time) or be set back.
        self._timer = self.create_timer(IDLE, ring, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._rings_at = NEVER  # s; when `_timer` was told to
        self.every(1.0, self._publish_diagnostics)
        self.disturbance = Disturbance.of(self.get_name())
        self.get_logger().info(transport_asked_for())
        if said := transport_refused():
            self.note(said)

    def configure(self) -> None:
        """Load what may fail: model, plan, camera. Raises DnnDistError in one line."""

    def start(self) -> None:
        """Connect the topics and begin."""

    def stop(self) -> None:
        """End threads and give devices back; topics go with the node."""
        for part in self.parts:
            part.stop()

    def change(self) -> None:
        """Parameters have changed."""
        for part in self.parts:
            part.change()

    # Time

    @staticmethod
    def now() -> float:
        """The steady clock, seconds; the only clock that decides anything."""
        return time.monotonic()

    def wake_at(self, when: float, tick: Callable[[], None]) -> None:
        """Have `tick` called at steady time `when`, and not at the time that an earlier call for it named."""
        self._alarms.move(when, tick)
        self._set_timer()

    def later(self, when: float, call: Callable[[], None]) -> None:
        """Have `call` run once by the executor at steady time `when`; calls of equal time keep their order."""
        self._alarms.at(when, call)
        self._set_timer()

    def every(self, period: float, call: Callable[[], None]) -> None:
        """Have `call` run by the executor each `period` seconds."""
        self._alarms.every(period, call, self.now())
        self._set_timer()

    def _ring(self) -> None:
        self._rings_at = NEVER
        self._alarms.run(self.now(), lambda call: self.net.run(call, "a timer rang"))
        self._set_timer()

    def _set_timer(self) -> None:
        due = self._alarms.next()
        if due < self._rings_at:  # put off: it rings in vain once, which is cheaper than to set it at every message
            self._rings_at = due
            self._timer.timer_period_ns = int(min(max(due - self.now(), 0.0005), IDLE) * 1e9)
            self._timer.reset()

    def soon(self, call: Callable[[], None]) -> None:
        """Have `call` run by the executor; the one thing that other threads may use."""
        if self.executor is not None:
            self.executor.create_task(lambda: self.net.run(call, "a job ended"))

    def tell(self, note: Note) -> None:
        """A note that /diagnostics has at once."""
        self.note(note)
        self._publish_diagnostics()

    def _end(self, why: str) -> None:
        self.ending = why

    # Notes

    def note(self, note: Note) -> None:
        """Count a note, and log it if its Notebook says so."""
        self._log(self.notes.say(note, self.now()), note.warn)

    def _log(self, line: str, warn: bool) -> None:
        # Two calls: rclpy refuses a call site that changes its severity.
        if line and warn:
            self.get_logger().warning(line)
        elif line:
            self.get_logger().info(line)

    def _publish_diagnostics(self) -> None:
        now = self.now()
        self._log(self.notes.sum_up(now), warn=True)
        found = judge(self.troubles(), self.notes.warned(now - HOLD))
        try:
            self._life_sign.say(found)
        except OSError as error:
            self.note(Note("no sign of life", f"whoever started this node can't be told that it lives: {error}"))
        values = {f"trouble {number}": trouble for number, trouble in enumerate(found.troubles, start=1)}
        values |= {key: str(value) for key, value in self.health().items()}
        values |= {kind: f"{n} x, last: {self.notes.texts[kind]}" for kind, n in self.notes.counts.items()}
        status = DiagnosticStatus(
            level=DiagnosticStatus.OK if found.well else DiagnosticStatus.WARN,
            name=self.get_fully_qualified_name(),
            message=found.message,
            hardware_id=self.robot,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self.send(self._diagnostics, array)

    def troubles(self) -> list[str]:
        """What is wrong now, in words, the most important first; /diagnostics warns while there is any.

        For conditions that last, e.g. "no image for 7 s". What happens at one moment is a note.
        """
        return [trouble for part in self.parts for trouble in part.troubles()]

    def health(self) -> dict[str, Any]:
        """What /diagnostics says of this node beside its troubles and notes."""
        return {key: value for part in self.parts for key, value in part.health().items()}

    # Topics

    def send(self, publisher: Any, message: Any) -> None:
        """Publish. When a peer leaves at this moment that is a note, and the node goes on."""
        try:
            publisher.publish(message)
        except RCLError as error:
            self.note(Note("publish failed", f"{publisher.topic_name}: {' '.join(str(error).split())}"))

    def states(
        self, type_: type, topic: str, qos: QoSProfile, message: Callable[[Any], Any], gap: float = GAP
    ) -> Callable[..., None]:
        """What says states on a topic, each a whole one: the first at once, of those within `gap` (s) after it the
        newest when that is over. `message`: of a state.
        """
        publisher, said, waiting = self.offer(type_, topic, qos), [float("-inf")], list[Any]()

        def say() -> None:
            said[0] = self.now()
            self.send(publisher, message(waiting.pop()))

        def send(state: Any, to: str) -> None:
            waiting.append(state)
            if len(waiting) > 1:
                del waiting[0]
            elif self.now() >= said[0] + gap:
                say()
            else:
                self.later(said[0] + gap, say)

        return send

    def destroy_subscription(self, subscription: Any) -> bool:
        """As rclpy's, for subscriptions whose QoS events may still be waiting."""
        quieten(subscription)
        return bool(super().destroy_subscription(subscription))

    def destroy_publisher(self, publisher: Any) -> bool:
        """As rclpy's, for publishers whose QoS events may still be waiting."""
        quieten(publisher)
        return bool(super().destroy_publisher(publisher))

    def receive(
        self,
        type_: type,
        topic: str,
        qos: QoSProfile,
        handle: Callable[[Any], None],
        sender: str = "",
        missed: Callable[[], None] | None = None,
        overrides: Sequence[QoSPolicyKind] = (),
    ) -> Any:
        """Subscribe; a message that is wrong is a note, and QoS events are notes that name the topic.

        `sender`: the only one on this topic, for what is said of missed deadlines; or `missed`, called instead.
        `overrides`: what parameters may override of its QoS; ConfigError when these are wrong.
        """

        def checked(message: Any) -> None:
            try:
                handle(message)
            except DnnDistError as error:
                self.note(Note(f"bad message on {topic}", str(error)))

        def guarded(message: Any) -> None:
            self.net.run(lambda: checked(message), f"hearing {topic}")

        taken = self.disturbance.around(guarded, self.now, self.later) if self.disturbance else guarded
        pair = f"{sender} to {self.get_name()}: " if sender else ""

        def late(event: Any) -> None:
            if missed is not None:
                self.net.run(missed, f"a QoS deadline on {topic}")
            else:
                self.note(Note(f"QoS deadline missed on {topic}", f"{pair}{event.total_count} x nothing came in time"))

        return make_endpoint(
            self.create_subscription,
            SubscriptionEventCallbacks,
            self.note,
            late,
            topic,
            *(type_, topic, taken, copy(qos)),  # rclpy writes overrides into it
            overrides=overrides,
        )

    def offer(
        self, type_: type, topic: str, qos: QoSProfile, overrides: Sequence[QoSPolicyKind] = (), owed: bool = True
    ) -> Any:
        """A publisher whose QoS events are notes that name the topic. `overrides`: as `receive` has them. `owed`: it is
        a fault when nothing is sent within the deadline that it offers.
        """

        def late(event: Any) -> None:
            self.note(Note(f"QoS deadline missed on {topic}", f"{event.total_count} x nothing was sent in time"))

        told = late if owed else None
        arguments = (type_, topic, copy(qos))
        return make_endpoint(
            self.create_publisher, PublisherEventCallbacks, self.note, told, topic, *arguments, overrides=overrides
        )
