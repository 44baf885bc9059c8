# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM, from a process's first line to its last.

Python raises KeyboardInterrupt wherever it is: in the middle of an import, where it becomes an ImportError or a
traceback; in a callback of ROS, where it becomes a segmentation fault. While the interpreter shuts down, the signal
ends the process with code -2. So a process of ours has three ages:

    leave_at_once   while it imports, with nothing that would have to be tidied up: the signal ends it
    hold            while it works: the signal sets a flag, and whoever runs looks at it (`told_to_stop`)
    ignore          while it ends
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)

_before: dict[int, Any] = {}  # signal -> its handler before this module's
_told = False


def leave_at_once(code: int) -> None:
    """From now on a signal to stop ends the process, with this exit code and without a word.

    Ends the blocking of these signals with which our executables start: one that came meanwhile counts.
    """
    _handle(lambda *_: os._exit(code))


def hold() -> None:
    """From now on a signal to stop raises nothing and ends nothing; `told_to_stop` tells of it."""
    _handle(_remember)


def told_to_stop() -> bool:
    """True when a signal to stop came since `hold`."""
    return _told


def restore() -> None:
    """Handle signals as before `leave_at_once` or `hold`; nothing happens without one."""
    global _told
    while _before:
        signal.signal(*_before.popitem())
    _told = False


def ignore() -> None:
    """For a process that is ending anyway: what comes now changes neither its exit code nor its output."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _handle(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in STOPPING:
        previous = signal.signal(number, handler)
        _before.setdefault(number, previous)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def _remember(*_: object) -> None:
    global _told
    _told = True
