# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM, from a process's first line to its last.

Python raises KeyboardInterrupt wherever it is: in the middle of an import, where it becomes an ImportError or a
traceback; in a callback of ROS, where it becomes a segmentation fault. While the interpreter shuts down, the signal
ends the process with code -2. Here a signal to stop sets a flag, and whoever runs looks at it.
"""

from __future__ import annotations

import signal
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)

_before: dict[int, Any] = {}  # signal -> its handler before `hold`
_told = False


def hold() -> None:
    """From now on a signal to stop raises nothing and ends nothing; `told_to_stop` tells of it.

    Ends the blocking of these signals with which our executables start: one that came meanwhile counts.
    """
    for number in STOPPING:
        previous = signal.signal(number, _remember)
        _before.setdefault(number, previous)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def told_to_stop() -> bool:
    """True when a signal to stop came since `hold`."""
    return _told


def restore() -> bool:
    """Undo `hold`; nothing happens without one. Returns whether a signal came meanwhile."""
    global _told
    while _before:
        signal.signal(*_before.popitem())
    came, _told = _told, False
    return came


def ignore() -> None:
    """For a process that is ending anyway: what comes now changes neither its exit code nor its output."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _remember(*_: object) -> None:
    global _told
    _told = True
