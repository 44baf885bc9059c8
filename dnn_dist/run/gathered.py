# SPDX-License-Identifier: Apache-2.0
"""What a gatherer is told by its settings, what it holds of an open frame, and its report."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from dnn_dist.run.events import ResultArrived
from dnn_dist.run.report import FrameReport, Status, WorkerShare
from dnn_dist.run.shape import PlanShape, StageShape
from dnn_dist.settings import AggregatorSettings


@dataclass(frozen=True)
class GathererSettings(AggregatorSettings):
    """The parameters of an aggregator, and what is no parameter. Durations in seconds. All may change while running."""

    heartbeat: float = 0.1  # longest gap between two Progress messages while a frame is open
    idle_heartbeat: float = 0.4  # while none is: then it says nothing that anybody waits for
    max_early: int = 64  # results kept that overtook their frame's announcement
    max_gap: int = 1024  # frame numbers that may be missing; a longer leap is a new beginning
    history: int = 64  # frames whose times are remembered for the p95
    max_plans: int = 8  # plans that no open frame names, the last installed ones; a list by link is all of them


@dataclass(slots=True)
class GatheredFrame:
    """A frame that is open. Times in seconds."""

    plan: str
    announced_at: float
    budget: float
    stage: int = 0  # the one that is open
    stage_began: float = 0.0
    held: dict[int, set[int]] = field(default_factory=dict)  # stage -> pieces
    decoded: int = 0
    recomputed: int = 0
    filled: int = 0
    level: int = 0  # of saving
    computed: float = 0.0
    stage_computed: dict[str, float] = field(default_factory=dict)  # worker -> s in the open stage
    local: float = 0.0
    workers: dict[str, WorkerShare] = field(default_factory=dict)

    @property
    def deadline(self) -> float:
        return self.announced_at + self.budget

    @property
    def status(self) -> Status:
        """How a frame that went through all its stages ended: as its worst piece."""
        if self.filled:
            return Status.FILLED
        if self.decoded:  # exact up to rounding only, though other pieces were computed again
            return Status.DECODED
        return Status.RECOMPUTED if self.recomputed else Status.COMPLETE

    def account(self, event: ResultArrived, bytes_in: int) -> None:
        """A result is used."""
        share = self.workers.setdefault(event.worker, WorkerShare())
        share.tasks += 1
        share.stolen += event.stolen
        share.recomputed += event.attempt > 0
        share.bytes_in += bytes_in
        share.bytes_out += event.bytes
        share.computed += event.computed
        self.recomputed += event.attempt > 0
        self.stage_computed[event.worker] = self.stage_computed.get(event.worker, 0.0) + event.computed

    def why_not(self, number: int, local: bool, missing: int, enough: int, heard: bool, now: float) -> str:
        """Why the frame is given up, for a person: what was missing of the open stage, after how long, and what it may
        come from. `local`: that stage is; `heard`: a worker is.
        """
        waited = f"after {now - self.announced_at:.2f} s of {self.budget:.2f}"
        if local:
            return f"frame {number}: local stage {self.stage} was not done {waited}; allow it more, or cut it too"
        lacked = f"frame {number}: {missing} of {enough} pieces of stage {self.stage} had not come {waited}"
        if not heard:
            return f"{lacked}; no worker is heard"
        return f"{lacked}; links or workers are too slow for this plan and deadline, see report and `dnn_dist plan`"

    def report(self, number: int, status: Status, shape: PlanShape, now: float) -> FrameReport:
        """The report in which the frame ends."""
        lost = status is Status.NO_RESULT
        reporting = [(n, stage) for n, stage in enumerate(shape.stages) if stage.reports and not stage.local]
        total = sum(_macs(stage) for stage in shape.stages if not stage.local)
        done = sum(_done(shape, n, self.held.get(n, set())) for n, _ in reporting)
        return FrameReport(
            frame=number,
            plan=self.plan,
            status=status,
            quality=0.0 if lost else _quality(shape, self.held),
            macs_share=0.0 if lost else done / total if total else 1.0,
            pieces=sum(len(stage.pieces) for _, stage in reporting),
            came=sum(len(pieces) for pieces in self.held.values()) - self.recomputed,
            decoded=self.decoded,
            recomputed=self.recomputed,
            filled=self.filled,
            latency=now - self.announced_at,
            budget=self.budget,
            computed=self.computed,
            local=self.local,
            workers=self.workers,
        )


def _quality(shape: PlanShape, held: Mapping[int, Collection[int]]) -> float:
    """What the quality model of plan/quality.py says of the pieces that came: chains are channels in a row, as in
    `dataflow` of run/shares.py, and a piece's weight squared is its share of the bytes that its chain gives.
    """
    quality = 1.0
    for chain in shape.chains:
        if shape.stages[chain.start].local:
            continue
        stages = [(shape.stages[number], held.get(number, ())) for number in shape.reporting(chain.start)]
        came = sum(_bytes(stage, None if len(pieces) >= stage.enough else pieces) for stage, pieces in stages)
        quality *= came / sum(_bytes(stage) for stage, _ in stages)
    return quality


def _bytes(stage: StageShape, pieces: Collection[int] | None = None) -> int:
    """Bytes of a stage's results, parity left out: of all its pieces, or of these. A byte more of each, for it may give
    none that is told apart.
    """
    return sum(p.bytes_out + 1 for n, p in enumerate(stage.pieces[: stage.enough]) if pieces is None or n in pieces)


def _macs(stage: StageShape, pieces: Collection[int] | None = None) -> int:
    """MACs of a stage's data: of all its pieces, or of these."""
    return sum(piece.macs for n, piece in enumerate(stage.pieces[: stage.enough]) if pieces is None or n in pieces)


def _done(shape: PlanShape, number: int, held: set[int]) -> float:
    """MACs of a stage's data that were computed, by the data pieces or by parity in their stead; and of those stages
    of its chain that report nothing, the same share.
    """
    stage, reporting = shape.stages[number], shape.reporting(number)
    whole = _macs(stage)
    came = whole if len(held) >= stage.enough else _macs(stage, held)
    silent = sum(_macs(shape.stages[other]) for other in shape.chain(number) if other not in reporting)
    share = came / whole if whole else len(held) / max(1, stage.enough)
    return came + share * silent / len(reporting)
