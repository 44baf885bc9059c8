# SPDX-License-Identifier: Apache-2.0
"""A thread that computes one job after the other, so that the executor never waits for one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from dnn_dist.nodes.shell import Shell


class Lane:
    """Jobs run in order on one thread; `done(result, error)` is then called by the executor."""

    def __init__(self, shell: Shell, name: str) -> None:
        self._shell = shell
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Callable[[Any, Exception | None], None]] | None]
        self._jobs = queue.SimpleQueue()
        self._waiting = 0
        self._ending = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """True while a job runs or waits."""
        return self._waiting > 0

    def submit(self, job: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        """Queue a job. Only the executor's thread may call this."""
        self._waiting += 1
        self._jobs.put((job, done))

    def stop(self) -> None:
        """Let the running job end, drop the others."""
        self._ending = True
        self._jobs.put(None)
        self._thread.join(timeout=5.0)

    def _work(self) -> None:
        while (entry := self._jobs.get()) is not None and not self._ending:
            job, done = entry
            result, error = None, None
            try:
                result = job()
            except Exception as caught:  # noqa: BLE001  whatever a job raises is its answer, not the end of this thread
                error = caught
            self._shell.soon(partial(self._end, done, result, error))

    def _end(self, done: Callable[[Any, Exception | None], None], result: Any, error: Exception | None) -> None:
        self._waiting -= 1
        done(result, error)


def one_line(error: Exception) -> str:
    """An exception as one line of text."""
    return " ".join(str(error).split()) or type(error).__name__
