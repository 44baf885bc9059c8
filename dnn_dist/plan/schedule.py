# SPDX-License-Identifier: Apache-2.0
"""When everything would happen: list scheduling of a plan's pieces, by the rules of the live cluster in few lines.

What is kept of the machines in run/: pieces of a stage wait in one queue; a worker offers room for one piece and
`prefetch` more; the head of the queue goes to the worker that plan/policy.py ranks first, as live; bytes on the way
stay within a window; results go back to the gateway; a stage is settled when as many pieces came as suffice, and then
the next begins; several frames may be in work. What is left out: losses, leases, and chance. Times are means, so that
the same plan always gives the same answer, in microseconds to milliseconds.

A robot computes one thing at a time, local stages at the gateway's robot included. A link carries one message at a time
in each direction; links of one medium one in all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from statistics import fmean
from typing import Any

from dnn_dist.plan.cost import StageLoad
from dnn_dist.plan.fleet import WITHIN, Fleet, Link
from dnn_dist.plan.policy import rank, window_takes
from dnn_dist.settings import PartitionSettings, WorkerSettings


@dataclass(frozen=True, slots=True)
class Site:
    """Who computes where."""

    fleet: Fleet
    gateway: str  # robot of camera, partition and aggregator
    workers: tuple[str, ...]  # robots with a worker
    prefetch: int = WorkerSettings.prefetch  # pieces that wait at a worker
    window: int = PartitionSettings.window  # bytes of work on the way and of results expected
    speeds: tuple[float, ...] = ()  # of `workers`; what the gateway measures of them. Empty: the robots' own


@dataclass(slots=True)
class Timeline:
    """What happened. Seconds from the first frame's beginning."""

    begun: list[float] = field(default_factory=list)  # of each frame
    ended: list[float] = field(default_factory=list)
    busy: dict[int, float] = field(default_factory=dict)  # robot (its place in the fleet) -> s of computing
    air: dict[object, float] = field(default_factory=dict)  # medium, or one way of a link -> s of being occupied
    runs: set[tuple[int, int, int]] = field(default_factory=set)  # (robot, stage, piece) that were computed
    traffic: int = 0  # bytes between robots

    @property
    def latency(self) -> float:
        """Mean time that a frame takes, while the pipeline is full: without the first quarter and the last."""
        times = [end - begin for begin, end in zip(self.begun, self.ended, strict=True)]
        return fmean(times[len(times) // 4 : -(len(times) // 4) or None])

    @property
    def interval(self) -> float:
        """Mean time from one frame's end to the next's, while the pipeline is full: without first and last quarter."""
        ends = sorted(self.ended)
        quarter = len(ends) // 4
        return (ends[-1 - quarter] - ends[quarter - 1]) / (len(ends) - 2 * quarter) if quarter else ends[-1] / len(ends)


def schedule(stages: Sequence[StageLoad], site: Site, frames: int = 1, in_work: int = 1) -> Timeline:
    """Run `frames` frames through the stages, `in_work` of them at once; a frame begins as soon as it may."""
    return _Run(stages, site, frames, in_work).timeline


@dataclass(slots=True, eq=False)
class _Worker:
    place: int  # in the fleet
    number: int  # among the workers
    speed: float  # as the gateway measures it
    link_out: Link  # from the gateway
    link_back: Link
    waiting: deque[tuple[int, int, int]] = field(default_factory=deque)  # tasks here: (frame, stage, piece)
    load: int = 0  # tasks here and on the way, as the gateway sees it
    of_stage: dict[tuple[int, int], int] = field(default_factory=dict)  # (frame, stage) -> tasks among them


class _Run:
    """See the module's rules; `_at` holds what is to come."""

    def __init__(self, stages: Sequence[StageLoad], site: Site, frames: int, in_work: int) -> None:
        self.stages, self.site, self.frames = stages, site, frames
        self.timeline = Timeline()
        place = {name: number for number, name in enumerate(site.fleet.names)}
        self.gateway = place[site.gateway]
        speeds = site.speeds or tuple(site.fleet.robot(name).speed for name in site.workers)
        link = site.fleet.link
        self.workers = [
            _Worker(place[name], n, speeds[n], link(site.gateway, name), link(name, site.gateway))
            for n, name in enumerate(site.workers)
        ]
        self._at: list[tuple[float, int, Callable[..., None], Any]] = []
        self._entered = 0
        self._free: dict[object, float] = {}  # robot, link or medium -> when it is idle again
        self._queue: deque[tuple[int, int, int]] = deque()
        self._had: dict[tuple[int, int, int], list[_Worker]] = {}  # task -> workers that were given it
        self._came: dict[tuple[int, int], set[int]] = {}  # (frame, stage) -> pieces held; while it is open
        self._bytes = 0  # in the window
        self._next = 0  # frame
        for _ in range(min(frames, in_work)):
            self._begin(0.0)
        while self._at:
            now, _, what, arguments = heappop(self._at)
            what(now, *arguments)

    def _call(self, time: float, what: Callable[..., None], *arguments: Any) -> None:
        self._entered += 1
        heappush(self._at, (time, self._entered, what, arguments))

    def _occupy(self, what: object, now: float, seconds: float) -> float:
        """When a use of `what` that is asked for now will be over."""
        end = max(now, self._free.get(what, 0.0)) + seconds
        self._free[what] = end
        return end

    def _compute(self, robot: int, now: float, stage: int, piece: int) -> float:
        seconds = self.stages[stage].pieces[piece].seconds[robot]
        self.timeline.busy[robot] = self.timeline.busy.get(robot, 0.0) + seconds
        self.timeline.runs.add((robot, stage, piece))
        return self._occupy(robot, now, seconds)

    def _send(self, link: Link, way: object, now: float, size: int) -> float:
        """When a message of `size` bytes arrives."""
        if link is WITHIN:
            return now
        way, seconds = link.medium or way, link.occupied(size)
        self.timeline.traffic += size
        self.timeline.air[way] = self.timeline.air.get(way, 0.0) + seconds
        sent = self._occupy(way, now, seconds)
        return sent + (link.latency + link.mean_delay) / (1 - link.loss)

    # A frame

    def _begin(self, now: float) -> None:
        if self._next < self.frames:
            frame, self._next = self._next, self._next + 1
            self.timeline.begun.append(now)
            self.timeline.ended.append(now)
            self._call(now, self._start, frame, 0)

    def _start(self, now: float, frame: int, stage: int) -> None:
        if stage == len(self.stages):
            self.timeline.ended[frame] = now
            self._begin(now)
        elif self.stages[stage].local:
            self._call(self._compute(self.gateway, now, stage, 0), self._start, frame, stage + 1)
        else:
            load = self.stages[stage]
            self._came[frame, stage] = set()
            for piece in range(len(load.pieces)):
                self._queue.append((frame, stage, piece))
                self._had[frame, stage, piece] = []
            self._assign(now)

    # Tasks

    def _assign(self, now: float) -> None:
        room = 1 + self.site.prefetch
        for task in list(self._queue):
            load = self.stages[task[1]]
            piece, had = load.pieces[task[2]], self._had[task]
            while len(had) < load.replicas:
                size = piece.bytes_in + piece.bytes_out
                if not window_takes(size, self._bytes, self.site.window):
                    return
                able = [worker for worker in self.workers if worker.load < room and worker not in had]
                if not able:
                    break
                of = task[:2]
                best = min(able, key=lambda w: rank(w.of_stage.get(of, 0), w.load, w.speed, w.number))
                had.append(best)
                best.load += 1
                best.of_stage[of] = best.of_stage.get(of, 0) + 1
                self._bytes += size
                arrival = self._send(best.link_out, ("out", best.place), now, piece.bytes_in)
                self._call(arrival, self._arrive, best, task)
            else:
                self._queue.remove(task)
            if all(worker.load >= room for worker in self.workers):
                return

    def _arrive(self, now: float, worker: _Worker, task: tuple[int, int, int]) -> None:
        self._bytes -= self.stages[task[1]].pieces[task[2]].bytes_in
        worker.waiting.append(task)
        if len(worker.waiting) == 1:
            self._run(now, worker)
        self._assign(now)

    def _run(self, now: float, worker: _Worker) -> None:
        """Compute what heads the worker's list; what nobody wants any more is passed over."""
        while worker.waiting:
            frame, stage, piece = task = worker.waiting[0]
            if piece not in self._came.get((frame, stage), (piece,)):
                self._call(self._compute(worker.place, now, stage, piece), self._computed, worker, task)
                return
            worker.waiting.popleft()
            self._let_go(now, worker, task)
            self._bytes -= self.stages[stage].pieces[piece].bytes_out

    def _computed(self, now: float, worker: _Worker, task: tuple[int, int, int]) -> None:
        worker.waiting.popleft()
        size = self.stages[task[1]].pieces[task[2]].bytes_out
        link = worker.link_back
        self._call(now + link.latency, self._let_go, worker, task)
        self._call(self._send(link, ("back", worker.place), now, size), self._came_back, task)
        self._run(now, worker)

    def _let_go(self, now: float, worker: _Worker, task: tuple[int, int, int]) -> None:
        """The gateway hears that the worker has room again."""
        worker.load -= 1
        worker.of_stage[task[:2]] -= 1
        self._assign(now)

    def _came_back(self, now: float, task: tuple[int, int, int]) -> None:
        frame, stage, piece = task
        load = self.stages[stage]
        self._bytes -= load.pieces[piece].bytes_out
        came = self._came.get((frame, stage))
        if came is not None:
            came.add(piece)
            if len(came) >= load.needed:
                del self._came[frame, stage]
                self._queue = deque(other for other in self._queue if other[:2] != (frame, stage))
                self._call(now, self._start, frame, stage + 1)
        self._assign(now)
