# SPDX-License-Identifier: Apache-2.0
"""When everything would happen: list scheduling of a plan's pieces, by the rules of the live cluster in few lines.

What is kept of the machines in run/: pieces of a stage wait in one queue; a worker offers room for one piece and
`prefetch` more; the head of the queue goes to the worker that plan/policy.py ranks first, as live; bytes on the way
stay within a window; results go back to the gateway; a stage is settled when as many pieces came as suffice, and then
the next begins; several frames may be in work. A chain is placed as a whole, as plan/policy.py deals its columns; a
piece of it begins when its work and all its feeds are there, and what it gives leaves for who needs it as soon as it is
computed. What is left out: losses, leases, and chance. Times are means, so that the same plan always gives the same
answer, in microseconds to milliseconds.

A robot computes one thing at a time, the oldest frame first, local stages at the gateway's robot included. A link
carries one message at a time in each direction; links of one medium one in all. Beside computing the gateway handles
one message at a time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from statistics import fmean
from typing import Any

from dnn_dist.cut.feeds import Maker
from dnn_dist.plan.cost import StageLoad
from dnn_dist.plan.fleet import WITHIN, Fleet, Link
from dnn_dist.plan.policy import columns, deal, keep_sides, rank, window_takes
from dnn_dist.settings import PartitionSettings, WorkerSettings


@dataclass(frozen=True, slots=True)
class Handling:
    """What a message of tensors costs beside its way: encoding, decoding, cutting, merging. Of the gateway's the next
    has to wait meanwhile.
    """

    fixed: float = 0.0  # s
    rate: float = math.inf  # bytes/s

    def seconds(self, size: int) -> float:
        return self.fixed + size / self.rate


@dataclass(frozen=True, slots=True)
class Site:
    """Who computes where."""

    fleet: Fleet
    gateway: str  # robot of camera, partition and aggregator
    workers: tuple[str, ...]  # robots with a worker
    prefetch: int = WorkerSettings.prefetch  # pieces that wait at a worker
    window: int = PartitionSettings.window  # bytes of work on the way and of results expected
    speeds: tuple[float, ...] = ()  # of `workers`; what the gateway measures of them. Empty: the robots' own
    handling: Handling = Handling()
    redundancy: str = PartitionSettings.redundancy  # of a healthy fleet: on demand there is none


@dataclass(slots=True)
class Timeline:
    """What happened. Seconds from the first frame's beginning."""

    begun: list[float] = field(default_factory=list)  # of each frame
    ended: list[float] = field(default_factory=list)  # inf: never, for nobody makes what a piece waits for
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
        if ends[-1] == math.inf:
            return math.inf
        quarter = len(ends) // 4
        return (ends[-1 - quarter] - ends[quarter - 1]) / (len(ends) - 2 * quarter) if quarter else ends[-1] / len(ends)


def schedule(stages: Sequence[StageLoad], site: Site, frames: int = 1, in_work: int = 1) -> Timeline:
    """Run `frames` frames through the stages, `in_work` of them at once; a frame begins as soon as it may."""
    return _Run(stages, site, frames, in_work).timeline


_Task = tuple[int, int, int]  # frame, stage, piece


@dataclass(slots=True, eq=False)
class _Worker:
    place: int  # in the fleet
    number: int  # among the workers
    name: str
    speed: float  # as the gateway measures it
    link_out: Link  # from the gateway
    link_back: Link
    ready: list[tuple[int, int, _Task]] = field(default_factory=list)  # heap of (frame, arrival, task)
    running: bool = False
    load: int = 0  # tasks here and on the way, as the gateway sees it
    of_stage: dict[tuple[int, int], int] = field(default_factory=dict)  # (frame, stage) -> tasks among them


@dataclass(frozen=True, slots=True)
class _Chain:
    """What all frames share."""

    first: int
    stop: int
    at: Mapping[Maker, _Worker]  # (stage, piece) -> who has it
    waits: Mapping[Maker, int]  # -> messages that it waits for: feeds, and its work if that brings anything
    given: tuple[Maker, ...]  # those whose work brings something, or who have nothing else to wait for
    takers: Mapping[Maker, Mapping[int, tuple[int, tuple[Maker, ...]]]]
    """Piece -> worker that needs something of it -> bytes, and the pieces there that need it."""
    given_bytes: int  # of all works
    size: int  # bytes on the way to or from the gateway at once: works, or long after them results
    reported: int  # pieces whose results the gateway gets


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
            _Worker(place[name], n, name, speeds[n], link(site.gateway, name), link(name, site.gateway))
            for n, name in enumerate(site.workers)
        ]
        self._chain_of = {stage: chain for chain in self._chains() for stage in range(chain.first, chain.stop)}
        self._at: list[tuple[float, int, Callable[..., None], Any]] = []
        self._entered = 0
        self._free: dict[object, float] = {}  # robot, link or medium -> when it is idle again
        self._queue: deque[_Task] = deque()  # of a chain, its first piece stands for all
        self._had: dict[_Task, list[_Worker]] = {}  # task -> workers that were given it
        self._came: dict[tuple[int, int], set[Maker]] = {}  # (frame, stage) -> pieces held; while it is open
        self._waits: dict[_Task, int] = {}  # piece of a chain -> messages that it still waits for
        self._bytes = 0  # in the window
        self._next = 0  # frame
        for _ in range(min(frames, in_work)):
            self._begin(0.0)
        while self._at:
            now, _, what, arguments = heappop(self._at)
            what(now, *arguments)

    def _chains(self) -> Iterator[_Chain]:
        first = 0
        while first < len(self.stages):
            stop = first + 1
            while stop < len(self.stages) and self.stages[stop].direct:
                stop += 1
            fed = any(piece.feeds for piece in self.stages[first].pieces)
            if stop > first + 1 or fed or self.stages[first].side:
                yield self._chain(self.stages[first:stop], first)
            first = stop

    def _chain(self, stages: Sequence[StageLoad], first: int) -> _Chain:
        column_of = columns(stages, range(len(stages)))
        seconds = [[0.0] * len(self.workers) for _ in range(1 + max(column_of.values()))]
        for (stage, piece), column in column_of.items():
            for worker in self.workers:
                seconds[column][worker.number] += stages[stage].pieces[piece].seconds[worker.place]
        own = [worker.number for worker in self.workers if worker.place == self.gateway]
        keep_sides(seconds, {c: stages[n].side for (n, _), c in column_of.items() if stages[n].side}, own)
        dealt = deal(seconds, own[0] if own else None)
        at = {key: self.workers[dealt[column]] for key, column in column_of.items()}
        loads = {key: stages[key[0]].pieces[key[1]] for key in at}
        given = tuple(key for key, load in loads.items() if load.bytes_in or not load.feeds)
        waits = {key: int(key in given) for key in at}
        takers: dict[Maker, dict[int, tuple[int, tuple[Maker, ...]]]] = {}
        for taker, worker in at.items():
            for maker, size in loads[taker].feeds.items():
                waits[taker] += 1
                sent, pieces = takers.setdefault(maker, {}).get(worker.number, (0, ()))
                takers[maker][worker.number] = sent + size, (*pieces, taker)
        size, made = sum(load.bytes_in for load in loads.values()), sum(load.bytes_out for load in loads.values())
        reported = sum(load.bytes_out > 0 for load in loads.values())
        return _Chain(first, first + len(stages), at, waits, given, takers, size, max(size, made), reported)

    def _call(self, time: float, what: Callable[..., None], *arguments: Any) -> None:
        self._entered += 1
        heappush(self._at, (time, self._entered, what, arguments))

    def _after(self, time: float, now: float, what: Callable[..., None], *arguments: Any) -> None:
        if time > now:
            self._call(time, what, *arguments)
        else:
            what(now, *arguments)

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
        sent = now
        if size:
            way, seconds = link.medium or way, link.occupied(size)
            self.timeline.traffic += size
            self.timeline.air[way] = self.timeline.air.get(way, 0.0) + seconds
            sent = self._occupy(way, now, seconds)
        return sent + (link.latency + link.mean_delay) / (1 - link.loss)

    def _handle(self, now: float, size: int) -> float:
        """When the gateway has done with a message of `size` bytes that it sends or has got."""
        return self._occupy("gateway", now, self.site.handling.seconds(size)) if size else now

    def _give(self, now: float, worker: _Worker, task: _Task) -> None:
        """Send a work."""
        size = self.stages[task[1]].pieces[task[2]].bytes_in
        self._after(self._handle(now, size), now, self._leave, worker, task, size)

    def _leave(self, now: float, worker: _Worker, task: _Task, size: int) -> None:
        self._call(self._send(worker.link_out, ("out", worker.place), now, size), self._arrive, worker, task)

    # A frame

    def _begin(self, now: float) -> None:
        if self._next < self.frames:
            frame, self._next = self._next, self._next + 1
            self.timeline.begun.append(now)
            self.timeline.ended.append(math.inf)
            self._call(now, self._start, frame, 0)

    def _start(self, now: float, frame: int, stage: int) -> None:
        if stage == len(self.stages):
            self.timeline.ended[frame] = now
            self._begin(now)
        elif self.stages[stage].local:
            self._call(self._compute(self.gateway, now, stage, 0), self._start, frame, stage + 1)
        else:
            self._came[frame, stage] = set()
            for piece in range(1 if stage in self._chain_of else self._begun_with(self.stages[stage])):
                self._queue.append((frame, stage, piece))
                self._had[frame, stage, piece] = []
            self._assign(now)

    def _begun_with(self, load: StageLoad) -> int:
        """Pieces of a stage that go out at once."""
        return len(load.pieces) if self.site.redundancy == "always" else load.needed

    # Tasks

    def _assign(self, now: float) -> None:
        room = 1 + self.site.prefetch
        for task in list(self._queue):
            load, chain = self.stages[task[1]], self._chain_of.get(task[1])
            piece, had = load.pieces[task[2]], self._had[task]
            size = chain.size if chain else piece.bytes_in + piece.bytes_out
            if chain:
                if not window_takes(size, self._bytes, self.site.window):
                    return
                self._bytes += chain.given_bytes
                self._queue.remove(task)
                self._place(now, task[0], chain)
                continue
            while len(had) < (load.replicas if self.site.redundancy == "always" else 1):
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
                self._give(now, best, task)
            else:
                self._queue.remove(task)

    def _place(self, now: float, frame: int, chain: _Chain) -> None:
        """Give every piece of a chain to its worker."""
        for (stage, piece), messages in chain.waits.items():
            self._waits[frame, chain.first + stage, piece] = messages
        for stage, piece in chain.given:
            self._give(now, chain.at[stage, piece], (frame, chain.first + stage, piece))

    def _arrive(self, now: float, worker: _Worker, task: _Task) -> None:
        self._bytes -= self.stages[task[1]].pieces[task[2]].bytes_in
        self._feed(now, worker, (task,))
        self._assign(now)

    def _feed(self, now: float, worker: _Worker, tasks: Sequence[_Task]) -> None:
        """Something that these pieces wait for is there."""
        for task in tasks:
            left = self._waits.get(task, 1) - 1
            self._waits[task] = left
            if not left:
                del self._waits[task]
                self._entered += 1
                heappush(worker.ready, (task[0], self._entered, task))
        if not worker.running:
            self._run(now, worker)

    def _run(self, now: float, worker: _Worker) -> None:
        """Compute what heads the worker's list; what nobody wants any more is passed over."""
        worker.running = False
        while worker.ready:
            frame, stage, piece = task = heappop(worker.ready)[-1]
            if task[1:] not in self._came.get((frame, stage), (task[1:],)) or stage in self._chain_of:
                worker.running = True
                if stage in self._chain_of:
                    self._bytes += self.stages[stage].pieces[piece].bytes_out
                self._call(self._compute(worker.place, now, stage, piece), self._computed, worker, task)
                return
            self._let_go(now, worker, task)
            self._bytes -= self.stages[stage].pieces[piece].bytes_out

    def _computed(self, now: float, worker: _Worker, task: _Task) -> None:
        frame, stage, piece = task
        chain = self._chain_of.get(stage)
        link = worker.link_back
        if chain:
            for number, (size, pieces) in chain.takers.get((stage - chain.first, piece), {}).items():
                taker = self.workers[number]
                arrival = self._send(
                    self.site.fleet.link(worker.name, taker.name), (worker.place, taker.place), now, size
                )
                tasks = tuple((frame, chain.first + of, index) for of, index in pieces)
                if taker is not worker:
                    arrival += self.site.handling.seconds(size)  # beside computing
                self._call(arrival, self._feed, taker, tasks)
        else:
            self._call(now + link.latency, self._let_go, worker, task)
        size = self.stages[stage].pieces[piece].bytes_out
        if size or not chain:
            self._call(self._send(link, ("back", worker.place), now, size), self._back, task)
        self._run(now, worker)

    def _let_go(self, now: float, worker: _Worker, task: _Task) -> None:
        """The gateway hears that the worker has room again."""
        worker.load -= 1
        worker.of_stage[task[:2]] -= 1
        self._assign(now)

    def _back(self, now: float, task: _Task) -> None:
        size = self.stages[task[1]].pieces[task[2]].bytes_out
        self._after(self._handle(now, size), now, self._came_back, task)

    def _came_back(self, now: float, task: _Task) -> None:
        frame, stage, piece = task
        chain, load = self._chain_of.get(stage), self.stages[stage]
        self._bytes -= load.pieces[piece].bytes_out
        open_ = (frame, chain.first if chain else stage)
        came = self._came.get(open_)
        if came is not None:
            came.add((stage, piece))
            if len(came) >= (chain.reported if chain else load.needed):
                del self._came[open_]
                self._queue = deque(other for other in self._queue if other[:2] != open_)
                self._call(now, self._start, frame, chain.stop if chain else stage + 1)
        self._assign(now)
