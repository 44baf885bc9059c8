# SPDX-License-Identifier: Apache-2.0
"""What came of a simulated run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from dnn_dist.run.report import FrameReport, Status
from dnn_dist.sim.air import Carried
from dnn_dist.sim.faults import Fault


class Span(NamedTuple):
    """A computation, for the chart. Times in seconds."""

    robot: str
    source: str
    frame: int
    stage: int
    piece: int
    begin: float
    end: float
    kind: str  # "task"; "local": a stage at the aggregator; "lost": the worker died in it


@dataclass(frozen=True, slots=True)
class FrameRun:
    """One frame's way. Times in seconds after the first image of the run."""

    source: str
    taken: float  # image taken
    announced: float
    reported: float
    report: FrameReport

    @property
    def latency(self) -> float:
        """From the image to its report, with waiting for a place among the frames in work."""
        return self.reported - self.taken


@dataclass(frozen=True, slots=True)
class RobotUse:
    """What one robot did."""

    tasks: int  # computed
    busy: float  # s in which it computed
    energy: float | None  # J; None where the fleet does not say what it draws
    memory: int  # bytes of the pieces it computed, where known, and of inputs that waited at most
    sent: int  # bytes of tensors over links
    received: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's results. Times in seconds, energy in joules."""

    frames: tuple[FrameRun, ...]  # by time of report
    seconds: float  # from the first image to the last report
    images: int  # taken by the cameras
    dropped: int  # images that a newer one replaced
    unreported: int  # frames that were open at the limit of time
    robots: Mapping[str, RobotUse]
    links: Mapping[tuple[str, str], Carried]  # (from, to), where anything went
    traffic: int  # bytes of tensors over links, each counted once
    resent: int  # bytes sent again because a link lost them
    tasks: int  # computed, also those in vain
    notes: Mapping[str, int]  # kind -> how often
    trace: tuple[Span, ...]  # the first computations
    faults: tuple[Fault, ...]
    events: int  # simulated, for the curious

    @property
    def latencies(self) -> list[float]:
        """Of all frames that have a result, in order of report."""
        return [run.latency for run in self.frames if run.report.status is not Status.NO_RESULT]

    def percentile(self, p: float) -> float:
        """Latency that `p` percent of the frames with a result keep (nearest rank); nan when there is none."""
        ordered = sorted(self.latencies)
        rank = max(0, min(len(ordered) - 1, -int(-p * len(ordered) // 100) - 1))
        return ordered[rank] if ordered else float("nan")

    @property
    def throughput(self) -> float:
        """Frames with a result a second, all sources together."""
        return len(self.latencies) / self.seconds if self.seconds > 0 else 0.0

    @property
    def statuses(self) -> dict[str, int]:
        """How the frames ended: name of the status -> frames."""
        counts = {status.name.lower(): 0 for status in Status}
        for run in self.frames:
            counts[run.report.status.name.lower()] += 1
        return counts

    @property
    def quality(self) -> float:
        """Mean over all frames, 0..1."""
        return sum(run.report.quality for run in self.frames) / len(self.frames) if self.frames else 0.0

    @property
    def energy(self) -> float | None:
        """Of all robots over the whole run, J; None where one is not known."""
        energies = [use.energy for use in self.robots.values()]
        return None if None in energies else sum(energy or 0.0 for energy in energies)

    def of(self, source: str) -> list[FrameRun]:
        """The frames of one source."""
        return [run for run in self.frames if run.source == source]
