# SPDX-License-Identifier: Apache-2.0
"""What all nodes share: one executor, one timer that follows what is due next, notes that reach log and /diagnostics,
and an orderly end.

A node has four steps, apart from each other so that a managed node can call them one by one:
construct (parameters), `configure()` (load what may fail), `start()` (topics and timer), `stop()`.
"""

from __future__ import annotations

import ctypes
import faulthandler
import itertools
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.exceptions import InvalidParameterException, ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile

from dnn_dist.errors import PERMANENT, UNEXPECTED, DnnDistError
from dnn_dist.nodes.alarms import NEVER, Alarms
from dnn_dist.nodes.disturb import Disturbance
from dnn_dist.nodes.endpoint import RCLError, make_endpoint
from dnn_dist.nodes.joining import join, joined
from dnn_dist.nodes.lifesign import LifeSign
from dnn_dist.nodes.qos import OUTPUT
from dnn_dist.nodes.transport import transport_asked_for, transport_refused
from dnn_dist.run.health import HOLD, judge
from dnn_dist.run.net import Net
from dnn_dist.run.notes import Note, Notebook
from dnn_dist.signals import hold, leave_at_once, told_to_stop

STUCK = 4.0
"""Seconds after which an end that hangs below rclpy says where, and is over with code 1. Python takes no signal while
its main thread waits in C++, so that only SIGKILL would end it; seen once in a thousand ends."""

DISCOVERY = 1.0
"""Seconds for which a failing node waits for listeners of /rosout."""

DELIVERY = 0.25
"""Seconds for which it stays when it knows of one."""

IDLE = 3600.0
"""Seconds between two rings of a timer that nobody has set."""


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
        # Not the node's own clock, which may stand still (use_sim_time) or be set back.
        self._timer = self.create_timer(IDLE, self._ring, clock=Clock(clock_type=ClockType.STEADY_TIME))
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
        """Publish; a peer that leaves at this moment is a note and no end."""
        try:
            publisher.publish(message)
        except RCLError as error:
            self.note(Note("publish failed", f"{publisher.topic_name}: {' '.join(str(error).split())}"))

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


def _no_page_faults() -> None:
    """Keep large freed buffers: fresh pages for every message would cost more than the message (glibc)."""
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 1 << 29)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass  # not glibc: slower, not wrong


def make_executor() -> Any:
    """The cheapest executor there is: events where rclpy has them, else one thread. Never several threads."""
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        from rclpy.executors import SingleThreadedExecutor

        return SingleThreadedExecutor()
    return EventsExecutor()


def run(make: Callable[[], Shell], arguments: list[str] | None = None) -> int:
    """Run one node until it is told to stop. Returns the exit code of its process, see errors.py."""
    _no_page_faults()
    # Signals are not given to rclpy: they must never be raised in the middle of a callback, and launch and the terminal
    # may both send one, where the second must not cut the end short.
    leave_at_once(0)
    times = [time.monotonic()]
    node: Shell | None = None
    code = 0
    try:
        join(arguments)
        executor = make_executor()
        node = make()
        joined()
        executor.add_node(node)
        times.append(time.monotonic())
        hold()  # from here on there are files and devices to give back
        for step in (node.configure, node.start):
            if not told_to_stop():
                step()
                times.append(time.monotonic())
        if not told_to_stop():
            took = [after - before for before, after in itertools.pairwise(times)]
            node.get_logger().info("started: ROS {:.3f} s, loading {:.3f} s, topics {:.3f} s".format(*took))
        while rclpy.ok() and not told_to_stop():
            if node.ending:
                code = UNEXPECTED
                _say_last(node.ending)
                break
            executor.spin_once(timeout_sec=0.2)
    except ExternalShutdownException:
        pass
    except Exception as error:  # noqa: BLE001 (the process ends here, in one line)
        if rclpy.ok() or not isinstance(error, RCLError):
            code, text = _last_words(error, node is not None)
            _say_last(text)
    finally:
        if node is not None:
            node.stop()
            faulthandler.dump_traceback_later(STUCK, exit=True)
            with suppress(RCLError):
                node.destroy_node()
        rclpy.try_shutdown()
    return code


def _last_words(error: Exception, constructed: bool) -> tuple[int, str]:
    """Exit code and text for an error that ends the process."""
    text = " ".join(str(error).split())
    if isinstance(error, DnnDistError):
        return error.exit_code, text
    if not constructed and isinstance(error, (InvalidParameterException, ParameterException, ValueError)):
        return PERMANENT, text  # a parameter of another type, or out of range
    place = traceback.extract_tb(error.__traceback__)[-1]
    return UNEXPECTED, f"{type(error).__name__} at {place.filename}:{place.lineno}: {text}"


def _say_last(text: str) -> None:
    """To the terminal and to /rosout, and wait until whoever listens there can have it."""
    if Shell.latest is None or not rclpy.ok():
        print(f"dnn_dist: error: {text}", file=sys.stderr)
        return
    Shell.latest.get_logger().fatal(text)
    # /rosout is reliable and keeps what was said, but only while its writer lives; a process that fails at its start
    # is younger than DDS needs to find the listeners.
    end = time.monotonic() + DISCOVERY
    while time.monotonic() < end and not told_to_stop():
        if Shell.latest.count_subscribers("/rosout"):
            end = min(end, time.monotonic() + DELIVERY)
        time.sleep(0.02)
