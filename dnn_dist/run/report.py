# SPDX-License-Identifier: Apache-2.0
"""How a frame ended: one report a frame, whatever happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class Status(IntEnum):
    """How complete a frame's answer is, best first; the numbers are those of Detections.msg."""

    COMPLETE = 0  # every piece came
    DECODED = 1  # lost pieces were decoded from parity: exact up to rounding
    RECOMPUTED = 2  # lost pieces were computed again by another worker: exact
    FILLED = 3  # lost pieces were filled in
    NO_RESULT = 4  # nothing that deserves the name


@dataclass(slots=True)
class WorkerShare:
    """What one worker did for one frame."""

    tasks: int = 0  # results that were used
    stolen: int = 0  # of these, by a worker on another robot than the source's
    recomputed: int = 0  # of these, after another worker had failed
    bytes_in: int = 0  # of work that it got for these
    bytes_out: int = 0  # of their results
    computed: float = 0.0  # s


@dataclass(slots=True)
class FrameReport:
    """The one report in which every frame ends. Times in seconds."""

    frame: int
    plan: str
    status: Status
    quality: float  # 0..1: over the chains of stages, the product of the shares of their results' bytes that came
    macs_share: float  # 0..1: of the distributed MACs, those that were computed and not filled in
    pieces: int  # in distributed stages
    came: int
    decoded: int
    recomputed: int
    filled: int
    latency: float  # from the announcement to this report
    budget: float  # that the frame had
    computed: float  # sum over stages of the longest computing of a worker
    local: float  # stages at the aggregator, detection head included
    workers: dict[str, WorkerShare] = field(default_factory=dict)

    @property
    def waited(self) -> float:
        """Seconds on the way or in queues: what is neither computing nor local."""
        return max(0.0, self.latency - self.computed - self.local)
