# SPDX-License-Identifier: Apache-2.0
"""A source in virtual time: its camera, and the processes of its partition and its aggregator, one or two.

What is left out for speed: heartbeats that say nothing new are heard together, when a timeout could need them; what
the source says to all is hung up on boards (board.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dnn_dist.run.aggregator import Aggregator
from dnn_dist.run.events import FrameRefused, PeersReachable, StillHeard, WorkerReachable
from dnn_dist.run.notes import Note
from dnn_dist.run.partition import Partition, SetPlan
from dnn_dist.run.shape import PieceShape
from dnn_dist.run.state import Progress, SourceState, WorkerState
from dnn_dist.run.store import Store
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.run.values import Feed, Frame, Installed, Outcome, PlanText, Result, Scatter, Work
from dnn_dist.run.wire import TaskKey
from dnn_dist.run.world import Job
from dnn_dist.sim.board import Board
from dnn_dist.sim.listener import Listener
from dnn_dist.sim.outcome import FrameRun, Span
from dnn_dist.sim.process import Hub, Process
from dnn_dist.sim.scenario import Load, Source
from dnn_dist.sim.sizes import SizeStore


@dataclass(eq=False)
class Taken:
    """An image of the camera."""

    at: float  # s
    announced: float = 0.0  # s

    def pixels(self, sizes: Any) -> Any:
        return None


class _World(Process):
    """The process of a partition, of an aggregator, or of both."""

    def __init__(self, hub: Hub, robot: str, source: SourceRun) -> None:
        super().__init__(hub, robot)
        self._source = source

    def send(self, value: Any, to: str = "") -> None:
        self._source.carry(value, to)

    def before(self) -> None:
        self._source.listen()

    def after(self) -> None:
        self._source.look()

    def note(self, note: Note) -> None:
        super().note(note)
        if note.warn:
            self._source.look_for_lost()

    def seconds(self, job: Job) -> float:
        return self._source.local_seconds(job)

    def ended(self, job: Job, began: float) -> None:
        key, now = job.key, self.agenda.now
        if key is not None and now > began:
            self.hub.span(Span(self.robot, key.source, key.frame, key.stage, key.piece, began, now, "local"))


class SourceRun:
    """See the module."""

    def __init__(self, hub: Hub, source: Source, name: str, settings: DispatcherSettings) -> None:
        self.hub, self.source, self.name = hub, source, name
        self.agenda, self.air, self._exact = hub.agenda, hub.air, hub.scenario.exact
        self.robot, self.aggregator_robot = source.robot, source.aggregator or source.robot
        self.session = hub.draw_session()
        self.loads = {load.plan: load for load in (source.load, *(load for _, load in source.by_link))}
        self.workers: dict[str, Listener] = {}  # robot -> its worker
        self.board = {"state": Board(), "progress": Board()}
        self.images = 0  # taken by the camera
        self.ended = 0  # frames reported
        self.announced = 0
        self.bytes_in = self.bytes_out = 0  # of work and results, on links or not
        self._coming = False  # an image is on its way from the camera's robot
        self._sent: dict[int, dict[TaskKey, list[Listener]]] = {}  # frame -> tasks not done -> who was sent them
        self._in_vain: dict[str, Listener] = {}  # robot -> its worker, which may hold what nobody wants any more
        self.awaited: dict[str, Listener] = {}  # robot -> its worker, whose next result waits for progress
        self._queued = 0  # as last told
        self._known: set[str] = set()  # workers that the aggregator has heard of
        self._inbox: list[tuple[float, WorkerState]] = []  # what workers say: when it arrives (s)
        self._reading = False  # it will be read soon
        self._listen_at = float("inf") if self._exact else float("-inf")  # s; to the workers' heartbeats
        settings = DispatcherSettings(
            **{**vars(settings), "max_frames": source.max_frames, "deadline": source.deadline, "robot": source.robot}
        )
        self._patience = settings.worker_timeout
        self._soon = min(settings.lease_min, settings.transit)  # s; nothing that a state says is overdue earlier
        here = _World(hub, source.robot, self)
        self._apart = self.aggregator_robot != self.robot
        self._processes = here, _World(hub, self.aggregator_robot, self) if self._apart else here
        heard = (lambda: True) if self._apart else None
        self.partition = Partition(here, here.loop, name, self.session, settings, heard)
        self.aggregator = self._make_aggregator()

    def _make_aggregator(self) -> Aggregator:
        there, settings = self._processes[1], self.source.gatherer
        settings = type(settings)(**{**vars(settings), "robot": self.aggregator_robot})
        return Aggregator(there, there.loop, self.name, self.hub.draw_session(), settings, self.finish)

    # For tests

    def make_store(self, load: Load, images: bool = True, merges: bool = True) -> Store:
        """The tensors of a plan; `images`, `merges` as of a `TensorStore`."""
        return SizeStore(load, self._kept, self._settled, merges)

    def finish(self, store: Store, frame: int, about: Any) -> Any:
        """What the aggregator makes of a frame's results."""
        return ()

    def picture(self) -> Taken:
        """The image that the camera takes now."""
        return Taken(self.agenda.now)

    # Plans

    def begin(self) -> None:
        """Start the processes, and the camera later."""
        if self._apart:
            for load in self.loads.values():
                self._tell_aggregator(Installed(self.make_store(load, images=False)))
            self._tell_aggregator(PeersReachable(frozenset(self.workers)))
        by_link = [(rate, self.make_store(load, merges=not self._apart)) for rate, load in self.source.by_link]
        self.partition.start(self.make_store(self.source.load, merges=not self._apart), by_link)
        self.agenda.at(self.source.start, self._click)

    def set_plan(self, load: Load, answer: Any = lambda why: None) -> None:
        """Somebody asks for another plan."""
        self.loads[load.plan] = load
        here, _ = self._processes
        here.deliver(self.partition, SetPlan(lambda: self.make_store(load, merges=not self._apart), answer))

    @property
    def done(self) -> bool:
        """True when every image was reported or dropped, or died with an aggregator."""
        ended = self.dropped + self.ended + self.partition.lost
        return self.images >= self.source.frames and self.images <= ended and not self._coming

    @property
    def dropped(self) -> int:
        """Images that a newer one replaced."""
        return self.partition.dropped

    @property
    def unreported(self) -> int:
        """Frames announced and not reported."""
        return self.announced - self.ended

    # Images

    def _click(self) -> None:
        self.images += 1
        self._coming = True
        picture, camera = self.picture(), self.source.camera or self.robot
        self.air.carry(camera, self.robot, self.source.image_bytes, f"{self.name} image", self._hear_image, picture)
        if self.source.rate is not None and self.images < self.source.frames:
            self.agenda.at(self.source.start + self.images / self.source.rate, self._click)

    def _hear_image(self, picture: Taken) -> None:
        self._coming = False
        self.listen()
        self.partition.take_image(picture)
        self.look()

    def _look_for_image(self) -> None:
        """A camera without a rate takes an image whenever one may be taken."""
        more = self.source.rate is None and 0 < self.images < self.source.frames
        if more and not self._coming and self.partition.takes_images:
            self._click()

    # What the processes say

    def carry(self, value: Any, to: str) -> None:
        """Take a value to whom it concerns."""
        match value:
            case Work():
                self._carry_work(value, to)
            case SourceState():
                self._say_state(value)
            case Progress():
                self._say_progress(value)
            case Frame():
                self.announced += 1
                value.about.announced = self.agenda.now
                self.hub.announced(self.name, value.frame)
                self._say_to_aggregator("frame", value)
            case Scatter():
                self._say_to_aggregator("scatter", value)
            case Feed():
                self._carry_feed(value, to)
            case FrameRefused():
                if not self._apart:
                    self.partition.post(value)
            case Installed():
                if not self._apart:
                    self.aggregator.post(value)
                elif (plan := value.store.plan.hash) != self.source.load.plan:
                    self._tell_aggregator(Installed(self.make_store(self.loads[plan], images=False)))
            case PlanText():
                for worker in self.workers.values():
                    self.air.tell(self.robot, worker.robot, f"{self.name} plan", worker.hear, value)
            case Outcome():
                self._report(value)

    def _say_to_aggregator(self, kind: str, value: Any) -> None:
        """A control message from the partition, or a word within their process."""
        if self._apart:
            self.air.tell(self.robot, self.aggregator_robot, f"{self.name} {kind}", self._tell_aggregator, value)
        else:
            self.aggregator.post(value)

    def _tell_aggregator(self, value: Any) -> None:
        self._processes[1].deliver(self.aggregator, value)

    def _piece(self, key: TaskKey, plan: str) -> PieceShape:
        return self.loads[plan].shape.stages[key.stage].pieces[key.piece]

    def _carry_feed(self, feed: Feed, to: str) -> None:
        worker, size = self.workers[to], self._piece(feed.key, feed.plan).merged
        self.bytes_in += size
        self.air.carry(self.aggregator_robot, worker.robot, size, f"{self.name} feed", worker.hear, feed)

    def _carry_work(self, work: Work, to: str) -> None:
        worker, key = self.workers[to], work.key
        if not work.plan:  # a probe
            self.air.carry(self.robot, worker.robot, work.inputs, f"{self.name} work", worker.hear, work)
            return
        self.hub.sending(self.name, work, to)
        piece = self._piece(key, work.plan)
        size = 0 if work.again else piece.bytes_in - (piece.merged if self._apart else 0)
        self.bytes_in += size
        self._sent.setdefault(key.frame, {}).setdefault(key, []).append(worker)
        self.air.carry(self.robot, worker.robot, size, f"{self.name} work", worker.hear, work)

    def _say_state(self, state: SourceState) -> None:
        if self._exact:
            for worker in self.workers.values():
                self.air.tell(self.robot, worker.robot, f"{self.name} state", worker.hear, state)
            return
        self.board["state"].put(self.agenda.now, state)
        if state.queued or self._queued:
            for worker in self.workers.values():
                if worker.hungry:
                    worker.look_later(self)
        self._queued = state.queued

    def _say_progress(self, progress: Progress) -> None:
        if self._apart:
            here, kind = self._processes[0], f"{self.name} progress"
            self.air.tell(self.aggregator_robot, self.robot, kind, here.deliver, self.partition, progress)
        else:
            self.partition.post(progress)
        if self._exact:
            for worker in self.workers.values():
                self.air.tell(self.aggregator_robot, worker.robot, f"{self.name} progress", worker.hear, progress)
            return
        self.board["progress"].put(self.agenda.now, progress)
        for worker in (self._in_vain | self.awaited).values():
            worker.look_later(self)
        self._in_vain.clear()
        self.awaited.clear()

    def _report(self, outcome: Outcome) -> None:
        self.ended += 1
        for workers in self._sent.pop(outcome.report.frame, {}).values():
            self._give_up(workers)
        about = outcome.frame.about
        self.hub.report(FrameRun(self.name, about.at, about.announced, self.agenda.now, outcome.report))
        if self.done:
            self.hub.source_done()

    def _kept(self, frame: int, stage: int, piece: int) -> None:
        key = TaskKey(self.name, self.session, frame, stage, piece)
        self.hub.kept(key)
        sent = self._sent.get(frame, {}).pop(key, ())
        if len(sent) > 1:
            self._give_up(sent)

    def _settled(self, frame: int, stage: int) -> None:
        sent = self._sent.get(frame, {})
        for key in [key for key in sent if key.stage == stage]:
            self._give_up(sent.pop(key))

    def _give_up(self, workers: Iterable[Listener]) -> None:
        """These may hold a task that nobody wants any more; the next progress says so."""
        self._in_vain.update((worker.robot, worker) for worker in workers)

    def local_seconds(self, job: Job) -> float:
        """How long a local stage takes this time."""
        key = job.key
        if key is None:  # a plan's store is made
            return self.hub.scenario.build
        load = self.loads[job.plan]
        pieces = range(len(load.shape.stages[key.stage].pieces))
        return sum(self.hub.service(self.aggregator_robot, load, key.stage, piece) for piece in pieces)

    # What workers say

    def meet(self, worker: str) -> None:
        """A worker has been started that this source reaches."""
        self._processes[0].deliver(self.partition, WorkerReachable(worker, True))

    def hear_result(self, result: Result) -> None:
        """A result arrives at the aggregator."""
        self._tell_aggregator(result)

    def tell(self, state: WorkerState) -> None:
        """A worker says how it is. What matters here arrives as an event, over a link whose delay varies also what it
        says of our tasks, since clocks begin with that; the rest is read before the next one.
        """
        if self._exact or self.partition.awaits(state, ours=self.air.varies(state.robot, self.robot)):
            self.air.tell(state.robot, self.robot, "worker state", self._hear_worker, state)
            if self._exact and self._apart:
                self.air.tell(state.robot, self.aggregator_robot, "worker state", self._tell_aggregator, state)
        elif not self.air.cut(state.robot, self.robot) and self.partition.minds(state):
            at = self.agenda.now + self.air.mean_delay(state.robot, self.robot)
            self._inbox.append((at, state))
            if not self._reading:
                self._read_soon()  # that others are heard is told with the heartbeats

    def _hear_worker(self, state: WorkerState) -> None:
        here = self._processes[0]
        if not self._apart and (self._exact or state.worker not in self._known):
            self._known.add(state.worker)  # that it is there the aggregator hears when it could be missing
            here.deliver(self.aggregator, state)
        here.deliver(self.partition, state)

    def look(self) -> None:
        """What was left out and matters now: states that offer room for tasks that wait, and the next image."""
        if self._inbox and self.partition.waits:
            for at, unread in self._inbox:
                self.agenda.at(at, self._hear_worker, unread)
            self._inbox.clear()
        self._look_for_image()

    def _read_soon(self) -> None:
        self._reading = bool(self._inbox)
        if self._reading:
            self.agenda.at(self.agenda.now + self._soon, self._read)

    def _read(self) -> None:
        self.listen()
        self.look()
        self._read_soon()

    def listen(self) -> None:
        """Hear what said nothing new: states that wait unread, and heartbeats that were not simulated one by one."""
        now, unread = self.agenda.now, self._inbox
        self._inbox = [news for news in unread if news[0] > now]
        for at, state in unread:
            if at <= now and not self.partition.hear(state, at):
                self.partition.post(state)
        if now < self._listen_at:
            return
        heard, longest = {}, 0.0
        for name, worker in self.workers.items():
            delay = self.air.mean_delay(name, self.robot)
            longest = max(longest, delay)
            heard[name] = worker.last_beat(self.air.last_open(name, self.robot) - delay) + delay
        # Soon enough that nobody's silence ends between two times of listening.
        heartbeat = self.hub.scenario.worker.heartbeat
        self._listen_at = now + max(0.0, self._patience - heartbeat - longest) / 2
        still = StillHeard(heard)
        self.partition.post(still)
        self.aggregator.post(still)

    def look_for_lost(self) -> None:
        """Workers that were taken for gone are heard again with their next heartbeat, if they live."""
        for worker in self.partition.silent():
            self.workers[worker].beat()
