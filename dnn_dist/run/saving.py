# SPDX-License-Identifier: Apache-2.0
"""What a source saves of a frame's bytes before it gives up pieces, where its parameters allow it.

Frames that lack pieces because links are too slow may travel smaller: float tensors as `narrow` says, then pixels as
JPEG of quality `jpeg` as well. The aggregator knows how frames ended, and says in Progress how much new ones should
save (`Thrift`); the partition knows what that comes to (`savings`). A frame keeps its saving for life.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from dnn_dist.plan.plan import WIRES
from dnn_dist.settings import PartitionSettings

MOST = 2
"""Of `Thrift.level`: all that there is."""
FIRST, LAST = 30, 480
"""Whole frames before one tries with less saving; doubled each time that this fails."""


class Saving(NamedTuple):
    """How a frame travels."""

    wire: str = WIRES[0]  # of float32 tensors, unless the plan's is narrower
    jpeg: int = 0  # quality of pixels; 0: as they are

    def __str__(self) -> str:
        """As in the frame's report: empty, or for example "float16, jpeg 80"."""
        return ", ".join([self.wire] * (self.wire != WIRES[0]) + [f"jpeg {self.jpeg}"] * (self.jpeg > 0))


NONE = Saving()


def narrower(*wires: str) -> str:
    """Of several wires the one of fewest bytes.

    >>> narrower("float32", "float16")
    'float16'
    """
    return max(wires, key=WIRES.index)


def savings(settings: PartitionSettings) -> tuple[Saving, ...]:
    """What frames may save, least first."""
    wire = settings.narrow
    allowed = [NONE, Saving(wire), Saving(wire, settings.jpeg)]
    return tuple(dict.fromkeys(allowed))


@dataclass(slots=True)
class Thrift:
    """How much new frames should save, from how others ended."""

    level: int = 0  # 0..MOST
    _whole: int = 0  # frames in a row that lacked nothing, since the level changed
    _patience: int = FIRST
    _tries: bool = False  # the level was lowered last

    def note(self, lacked: bool, level: int) -> None:
        """A frame of a level has ended; `lacked`: pieces of it had not come in time."""
        if level != self.level:
            return  # it was begun before the level changed
        if lacked:
            if self._tries and self._whole < FIRST:
                self._patience = min(LAST, 2 * self._patience)
            self.level, self._whole, self._tries = min(MOST, self.level + 1), 0, False
            return
        self._whole += 1
        if self._whole < self._patience:
            return
        if self.level:
            self.level, self._whole, self._tries = self.level - 1, 0, True
        else:
            self._patience = FIRST
