# SPDX-License-Identifier: Apache-2.0
"""What a worker knows of each source: how it is, what is done of its tasks, and whom to offer room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from zlib import crc32

from dnn_dist import __version__, settings
from dnn_dist.run.notes import Note
from dnn_dist.run.state import Progress, SourceState, newer
from dnn_dist.run.twins import Twins
from dnn_dist.run.wire import TaskKey


@dataclass(frozen=True)
class WorkerSettings(settings.WorkerSettings):
    """The parameters of a worker, and what is no parameter. Durations in seconds. All may change while running."""

    source_timeout: float = 1.0  # silence after which a source is offered nothing
    remember: float = 5.0  # how long an answer is listed when no Progress settles it
    max_chained: int = 1024  # tasks held, and kept, when those of chains count: a chain comes as a whole
    max_early: int = 256  # feeds kept that overtook their work
    max_speeds: int = 64  # stages whose speed is remembered, those computed last
    transit: float = 0.1  # shortest time that a result is given to arrive before the next is sent


class Owner(Protocol):
    """The worker whose views these are."""

    name: str
    robot: str
    settings: WorkerSettings

    @property
    def busy(self) -> set[str]:
        """Sources that want something of us, and are not forgotten."""


@dataclass(slots=True)
class SourceView:
    """One source as a worker sees it."""

    state: SourceState
    heard_at: float  # s
    preference: int  # the higher goes first of sources with equal queues
    progress: Progress | None = None
    progress_at: float = float("-inf")  # s; when that was heard
    twins: Twins = field(default_factory=Twins)

    @property
    def foreign(self) -> bool:
        """True when it has another version of dnn_dist."""
        return self.state.version != __version__


class SourceViews:
    """All sources that a worker knows."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self.sources: dict[str, SourceView] = {}
        self.reachable: set[str] = set()  # sources whose topics have met ours

    def hear_progress(self, progress: Progress, now: float) -> bool:
        """An aggregator said what it holds; whether more is over than before."""
        source = self.sources.get(progress.source)
        if source is None or source.state.session != progress.session:
            return False  # its state tells us of it first
        known, silence = source.progress, now - source.progress_at
        # A lower sequence is believed after a silence only: then the aggregator's robot started anew, or the one known
        # was none of its.
        stale = silence > self._owner.settings.source_timeout
        if known is None or stale or newer(progress.sequence, known.sequence, silence):
            source.progress, source.progress_at = progress, now
            return known is None or (known.oldest_open, known.stages) != (progress.oldest_open, progress.stages)
        return False

    def hear_source(self, state: SourceState, now: float) -> list[Note]:
        """A source said how it is."""
        known, timeout = self.sources.get(state.source), self._owner.settings.source_timeout
        if known is None:
            self._make_place(now)
            if len(self.sources) >= self._owner.settings.max_sources:
                text = f"source {state.source!r} ignored: {len(self.sources)} are known"
                return [Note("too many sources", text, about=state.source)]
            # Each worker has an order of its own, or all would run to the same one of equal queues.
            preference = crc32(f"{state.source} {self._owner.name}".encode())
            known = self.sources[state.source] = SourceView(state, now, preference)
            text = f"source {state.source!r} on robot {state.robot!r} joined"
            return [Note("source joined", text, warn=False, about=state.source), *_foreign(known)]
        another, silence = state.session != known.state.session, now - known.heard_at
        older = not newer(state.sequence, known.state.sequence, silence)
        if (older or (another and state.session in known.twins.former)) and silence <= timeout:
            text = f"source {state.source!r} is two processes, one on {state.robot!r}: give each a name of its own"
            two = another and known.twins.heard(now)
            return [Note("two sources of one name", text, about=state.source)] if two else []
        if another:
            known.twins.former.append(known.state.session)
            known.progress = None
        known.state, known.heard_at = state, now
        return _foreign(known) if another else []

    def _make_place(self, now: float) -> None:
        """Forget sources that fell silent and want nothing of us, when there are as many as may be remembered."""
        limits, busy = self._owner.settings, self._owner.busy
        if len(self.sources) >= limits.max_sources:
            for name, source in list(self.sources.items()):
                if name not in busy and now - source.heard_at > limits.source_timeout:
                    del self.sources[name]

    def unwanted(self, key: TaskKey, whole: bool = False) -> bool:
        """True when the aggregator wants nothing of a task any more; `whole`: nor do the pieces that it feeds."""
        source = self.sources.get(key.source)
        if source is None:
            return False
        if key.session != source.state.session or key.frame < source.state.oldest_open:
            return True
        return source.progress is not None and source.progress.over(key, whole)

    def offered_to(self, plans: Mapping[str, bool], now: float) -> str:
        """The source that room is offered to; empty when none can be served. `plans`: hash -> built."""
        timeout = self._owner.settings.source_timeout
        best: tuple[bool, int, bool, int, str] | None = None
        for source in self.sources.values():
            state = source.state
            if (
                state.source in self.reachable
                and plans.get(state.plan, False)
                and now - source.heard_at <= timeout
                and not source.foreign
            ):
                # The own robot first while it has work, then the longest queue; with no work anywhere, the own robot.
                own = state.robot == self._owner.robot
                rank = (state.queued > 0 and own, state.queued, own, source.preference, state.source)
                best = rank if best is None else max(best, rank)
        return best[-1] if best is not None else ""


def _foreign(source: SourceView) -> list[Note]:
    if not source.foreign:
        return []
    text = f"source {source.state.source!r} has dnn_dist {source.state.version[:32]!r}, this is {__version__!r}"
    text += ": its work is refused; install one version everywhere"
    return [Note("another version", text, about=source.state.source)]
