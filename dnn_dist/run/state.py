# SPDX-License-Identifier: Apache-2.0
"""What the control messages say. Each carries the whole state as it is, so that loss, doubling and reordering of
messages do no harm: the newest one is enough.

`sequence` orders the states of one sender. It starts from the sender's steady clock in milliseconds, so that a
restarted process on the same robot goes on above its former self.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from dnn_dist import __version__
from dnn_dist.run.wire import TaskKey


def next_sequence(last: int, now: float) -> int:
    """The sequence number after `last` at steady time `now` (seconds)."""
    return max(last + 1, int(now * 1000))


LEAP = 60_000
"""How much a sequence may grow beyond the time that has passed, in milliseconds. More is no clock of ours."""


def newer(sequence: int, known: int, silence: float) -> bool:
    """True when a state follows the one known, which was heard `silence` seconds ago.

    Of a state from a distant future nothing after it would be newer; so it is not believed.
    """
    return known < sequence <= known + LEAP + (1000 * silence if silence > 0 else 0)


REPLAY = 100_000
"""Work numbers of a pair that are taken for repeated when they come again; one below these is a new beginning: the one
known was none of its source's.
"""


class WorkerState(NamedTuple):
    """A worker's heartbeat, offer of room, and acknowledgement in one."""

    worker: str
    robot: str
    session: int
    sequence: int
    model: str = ""  # SHA-256 of its model file
    speed: float = 0.0  # measured over all that it computed, MAC/s; 0 while unknown
    speeds: Mapping[tuple[str, int], float] = MappingProxyType({})  # (plan, stage) -> measured, MAC/s
    plans: frozenset[str] = frozenset()  # hashes of plans whose pieces it computes
    refused: frozenset[str] = frozenset()  # hashes of plans it cannot serve
    held: tuple[TaskKey, ...] = ()  # not yet answered, the one being computed first
    waiting: frozenset[TaskKey] = frozenset()  # of these, those that lack feeds of other pieces
    answered: frozenset[TaskKey] = frozenset()  # answered, or computed for others, and not yet settled by Progress
    room: int = 0  # how many more tasks it takes
    peers: frozenset[str] = frozenset()  # workers that it can send feeds to
    offered_to: str = ""  # the one source that the room is offered to
    seen: Mapping[tuple[str, int], int] = MappingProxyType({})  # (source, session) -> last work number
    on_demand: frozenset[str] = frozenset()  # of `plans`: those whose pieces are made ready when first given
    preparing: bool = False  # weights are being read: no lease runs meanwhile
    version: str = __version__  # of dnn_dist: another one derives other pieces
    machine: str = platform.machine()  # kind of processor: of another one float32 results differ by rounding

    def speed_of(self, plan: str, stage: int) -> float:
        """Measured speed at pieces of a stage, MAC/s; 0 while unknown: it has computed none, or too many others since.

        A piece without MACs counts as one MAC.
        """
        return self.speeds.get((plan, stage), 0.0)


class SourceState(NamedTuple):
    """A source's heartbeat and the length of its queue, so that workers choose whom to serve."""

    source: str
    robot: str
    session: int
    sequence: int
    plan: str = ""  # hash of the plan for new frames
    oldest_open: int = 0  # frames below are late
    queued: int = 0  # tasks that wait for a worker
    version: str = __version__  # of dnn_dist
    deadline: float = 0.0  # s; the QoS deadline of its work and results now; 0: none, off or idle


class StageProgress(NamedTuple):
    """What an aggregator holds of one stage of one open frame."""

    held: frozenset[int] = frozenset()  # pieces
    settled: bool = False  # nothing more is wanted of this stage


class Progress(NamedTuple):
    """The only word on what is done: per open frame and stage the pieces held, and whether it is settled."""

    source: str
    session: int  # of the source whose frames these are; 0: none was announced yet
    sequence: int
    oldest_open: int = 0  # frames below are closed
    stages: Mapping[tuple[int, int], StageProgress] = MappingProxyType({})  # (frame, stage)
    aggregator: int = 0  # its session; after a restart it knows nothing of frames before
    plans: frozenset[str] = frozenset()  # hashes of the plans whose frames it takes
    peers: frozenset[str] = frozenset()  # workers that it can send feeds to
    saving: int = 0  # how much new frames should save of their bytes; see run/saving.py

    def open_stage(self, frame: int) -> int | None:
        """The stage that an open frame has come to: all before it are settled. None: it is not listed."""
        stage = 0
        while (progress := self.stages.get((frame, stage))) is not None:
            if not progress.settled:
                return stage
            stage += 1
        return None

    def over(self, key: TaskKey, whole: bool = False) -> bool:
        """True when the aggregator wants nothing more of this task, of the source and session that this is about;
        `whole`: nor does any piece of its chain.
        """
        if key.frame < self.oldest_open:
            return True
        stage = self.stages.get((key.frame, key.stage))
        return stage is not None and (stage.settled or (not whole and key.piece in stage.held))
