# SPDX-License-Identifier: Apache-2.0
"""Frames of which nobody will report, because a source or an aggregator was restarted: counted, and let go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dnn_dist.run.notes import Note
from dnn_dist.run.state import Progress, WorkerState


@dataclass(slots=True)
class Restarts:
    """What a source knows of such frames."""

    source: str
    session: int
    most: int  # frames that are remembered
    orphans: set[tuple[int, int]] = field(default_factory=set)  # (session, frame) that cannot be accounted for
    _aggregator: int | None = None  # session of the one that was heard last
    _unconfirmed: set[int] = field(default_factory=set)  # closed by time, and not known to be reported

    @property
    def aggregator(self) -> int | None:
        """Session of the aggregator that was heard last."""
        return self._aggregator

    def in_state(self, state: WorkerState) -> list[Note]:
        """Frames of a former session of this source that a worker still has tasks of."""
        found = {
            (key.session, key.frame)
            for key in (*state.held, *state.answered)
            if key.source == self.source and key.session != self.session
        }
        if not found or not self._count(found):
            return []
        text = f"source {self.source!r} was restarted; {len(self.orphans)} frames of before cannot be accounted for"
        return [Note("frames unaccounted for", text)]

    def closed_by_time(self, frames: Iterable[int]) -> None:
        """These frames were closed here, and no aggregator said that it had."""
        if len(self._unconfirmed) < self.most:
            self._unconfirmed.update(frames)

    def lost_with_aggregator(self, progress: Progress, frames: Iterable[int]) -> tuple[set[int], list[Note]]:
        """Of the open `frames`, those that an aggregator took to its grave: the one that speaks now is another, and
        knows nothing of them.
        """
        known, self._aggregator = self._aggregator, progress.aggregator
        first = progress.oldest_open if progress.session else float("inf")
        closed = {number for number in (*frames, *self._unconfirmed) if number < first}
        self._unconfirmed -= closed
        if not closed or known in (None, progress.aggregator):
            return set(), []
        self._count({(self.session, number) for number in closed})
        text = f"the aggregator of source {self.source!r} was restarted; {len(self.orphans)} frames of before"
        return closed.intersection(frames), [Note("frames unaccounted for", f"{text} cannot be accounted for")]

    def _count(self, found: set[tuple[int, int]]) -> bool:
        """Remember them, as far as there is a place; whether there were new ones."""
        before = len(self.orphans)
        self.orphans.update(sorted(found - self.orphans)[: self.most - before])
        return len(self.orphans) > before
