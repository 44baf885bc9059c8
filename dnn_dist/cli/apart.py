# SPDX-License-Identifier: Apache-2.0
"""Work in a process of its own, whose peak of resident memory is thereby known.

A process is forked for every piece of work: it starts small, shares arrays with its parent through memory made
by `shared_array`, and ends. A crash of the runtime ends the work and not the command.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np

from dnn_dist.errors import ModelError


def shared_array(shape: Sequence[int], dtype: str) -> np.ndarray:
    """Zeros in memory that processes forked later share. Only the pages touched count as a process's own."""
    size = prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(size, 1)), dtype, prod(shape)).reshape(shape)


def shared_copy(array: np.ndarray) -> np.ndarray:
    """The array in shared memory."""
    copy = shared_array(array.shape, array.dtype.name)
    copy[...] = array
    return copy


def apart(work: Callable[[], Any], what: str) -> tuple[Any, float]:
    """(what `work` returns, peak resident MB): run in a fork of this process.

    What it raises is raised here; ModelError when the process dies, `what` says doing what.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _run(work, writing)  # does not return
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as answers:
            answer = answers.read()
        _, status, usage = os.wait4(child, 0)
    except BaseException:  # Ctrl-C: the work is not wanted any more
        with suppress(ProcessLookupError, ChildProcessError):  # it had ended
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        raise
    if status or not answer:
        reason = (
            f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"code {os.waitstatus_to_exitcode(status)}"
        )
        raise ModelError(f"{what}: the process died ({reason}); the runtime cannot take this model, or memory ran out")
    failed, result = pickle.loads(answer)
    if failed:
        raise result
    return result, usage.ru_maxrss / 1024


def _run(work: Callable[[], Any], writing: int) -> None:
    """Runs `work`, sends (failed, result or error) and ends the process, whatever happens."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            answer = pickle.dumps((False, work()))
        except Exception as error:  # noqa: BLE001 (all of them are for the parent)
            answer = pickle.dumps((True, error))
        with os.fdopen(writing, "wb") as answers:
            answers.write(answer)
        code = 0
    finally:
        os._exit(code)
