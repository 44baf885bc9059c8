# SPDX-License-Identifier: Apache-2.0
"""The process of a node: its executor, its signals, its last words and exit code."""

from __future__ import annotations

import ctypes
import faulthandler
import itertools
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import rclpy
from rclpy.exceptions import InvalidParameterException, ParameterException
from rclpy.executors import ExternalShutdownException

from dnn_dist.errors import PERMANENT, UNEXPECTED, DnnDistError
from dnn_dist.nodes.endpoint import RCLError
from dnn_dist.nodes.joining import join, joined
from dnn_dist.nodes.shell import Shell
from dnn_dist.signals import hold, leave_at_once, told_to_stop

STUCK = 4.0
"""Seconds after which an end that hangs below rclpy says where, and is over with code 1. Python takes no signal while
its main thread waits in C++, so that only SIGKILL would end it; seen once in a thousand ends."""

DISCOVERY = 1.0
"""Seconds for which a failing node waits for listeners of /rosout."""

DELIVERY = 0.25
"""Seconds for which it stays when it knows of one."""


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
