# SPDX-License-Identifier: Apache-2.0
"""When the next message on a pair's topics is due: the QoS deadline that its subscribers ask for.

A QoS deadline bounds the gap between two messages. Between two works or two results of a worker that takes part in
every frame lies a frame's period, and what the later one may be late within its stage's share of the deadline. A source
that takes no frames owes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isinf, log

from dnn_dist.run.fleetview import WorkerView
from dnn_dist.run.notes import Note
from dnn_dist.run.shape import PlanShape

OFFERED = 0.1
"""Seconds. The shortest deadline that a subscriber may ask for: what publishers offer, always and everywhere, since an
offer cannot be changed without a new topic, and a subscriber that asks for less gets nothing at all."""
STEP = 1.5
"""Deadlines go in such steps, for each change is a new subscription."""
NEWEST = 0.3
"""Weight of the newest period in the mean."""
RESTED = 4.0
"""Mean periods after which a source has rested, so that the time to its next frame is no period."""

OVERDUE = 0.8
"""Of a stage's share. When all of it is over the frame may be at its end, and nobody waits any longer."""


@dataclass(slots=True)
class Cadence:
    """How often a source takes a frame. Times in seconds."""

    period: float = 0.0  # mean; 0: not known
    _begun: float | None = None

    def begin(self, now: float) -> None:
        """A frame begins."""
        if self._begun is not None:
            newest = now - self._begun
            if not self.period:
                self.period = newest
            elif newest <= RESTED * self.period:
                self.period += NEWEST * (newest - self.period)
        self._begun = now

    def due(self, share: float, now: float) -> float:
        """The QoS deadline for a stage's `share`, in steps; 0 while the source rests, or has taken one frame only, and
        where the share has no end.
        """
        if self._begun is None or not self.period or now - self._begun > 2 * self.period + share or isinf(share):
            return 0.0
        return stepped(self.period + share)


def stepped(seconds: float) -> float:
    """The shortest step from OFFERED on that is no shorter."""
    return float(OFFERED * STEP ** max(0, ceil(log(seconds / OFFERED, STEP) - 1e-9)))


def even_share(shape: PlanShape, deadline: float) -> float:
    """Of a frame's deadline, for one chain of stages; s."""
    return deadline / max(1, sum(not shape.stages[chain.start].local for chain in shape.chains))


def missed(source: str, view: WorkerView, share: float, deadline: float, now: float) -> Note | None:
    """No result came of a worker within its QoS deadline (s): what there is to say, if one was waited for as good as
    all of a stage's `share`. It counts as a loss of the worker's link.
    """
    stage, seconds = view.owes(now)
    if seconds < OVERDUE * share:
        return None
    view.owed = None
    view.pace.miss()
    text = f"source {source!r}: no result of worker {view.name!r} within {deadline:.2f} s; a piece of stage {stage}"
    return Note("QoS deadline missed", f"{text} was waited for {seconds:.2f} s", about=view.name)
