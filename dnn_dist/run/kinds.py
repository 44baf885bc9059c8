# SPDX-License-Identifier: Apache-2.0
"""Workers of another kind than their source: of another version, or another kind of machine."""

from __future__ import annotations

import platform

from dnn_dist import __version__
from dnn_dist.run.notes import Note
from dnn_dist.run.state import WorkerState


class Kinds:
    """What a source has to say of workers that it hears for the first time, or again after a restart."""

    def __init__(self, machine: str = platform.machine()) -> None:
        self._machine, self._told = machine, False

    def notes(self, state: WorkerState) -> list[Note]:
        """A worker of another version derives other pieces and is named each time; of two kinds of machine the first
        worker is named, once: the runtime has other kernels there, and float32 results differ by rounding with who
        computes which piece.
        """
        if state.version != __version__:
            text = f"worker {state.worker!r} has dnn_dist {state.version[:32]!r}, this is {__version__!r}"
            text += ": it gets no work; install one version everywhere"
            return [Note("another version", text, about=state.worker)]
        if state.machine == self._machine or self._told:
            return []
        self._told = True
        text = f"worker {state.worker!r} is {state.machine[:32]!r}, this is {self._machine!r}"
        text += ": float32 results differ by rounding, with who computes which piece"
        return [Note("two kinds of machine", text)]
