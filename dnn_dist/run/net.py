# SPDX-License-Identifier: Apache-2.0
"""The one net for exceptions that nobody expected: each is counted and named, and too many in a row end the process.

None may reach rclpy: its events executor turns it into a segmentation fault.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

from dnn_dist.run.notes import Note

MOST_IN_A_ROW = 20
"""Exceptions without anything between them that went well; then the process is beyond help."""


class Net:
    """See the module."""

    def __init__(self, note: Callable[[Note], None], end: Callable[[str], None]) -> None:
        """`end` ends the process, with one line that says why."""
        self._note, self._end = note, end
        self._total = self._row = 0

    def caught(self, error: Exception, where: str) -> None:
        """An exception was caught while `where` was done."""
        self._total += 1
        self._row += 1
        frames = traceback.extract_tb(error.__traceback__)
        at = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
        text = f"{type(error).__name__} in {at} while {where}: {' '.join(str(error).split()) or 'no text'}"
        self._note(Note("internal error", f"{text}; please report it", about=at))
        if self._row >= MOST_IN_A_ROW:
            self._end(f"{self._row} internal errors in a row, the last: {text}")

    def run(self, call: Callable[[], None], where: str) -> None:
        """Make a call from outside: of a topic, a timer, or a job's end."""
        before = self._total
        try:
            call()
        except Exception as error:  # noqa: BLE001  this is the net
            self.caught(error, where)
        if self._total == before:
            self._row = 0
