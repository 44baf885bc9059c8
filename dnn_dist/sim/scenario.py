# SPDX-License-Identifier: Apache-2.0
"""What is simulated, as values."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from dnn_dist.errors import DnnDistError
from dnn_dist.plan.fleet import Fleet, Robot
from dnn_dist.plan.policy import in_work
from dnn_dist.run.gathered import GathererSettings
from dnn_dist.run.shape import PlanShape
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.sim.faults import Fault, check_faults

Seconds = Callable[[Robot, int, int], float]
"""(robot, stage, piece) -> s that the piece takes there; local stages have one piece, or none."""
Memory = Callable[[Collection[tuple[int, int]]], int]
"""Bytes that a robot needs to run these pieces, (stage, piece) each."""


class SimulationError(DnnDistError):
    """A scenario that cannot be simulated."""


@dataclass(frozen=True, slots=True)
class Load:
    """A plan as what it costs: bytes, MACs, seconds, memory."""

    shape: PlanShape
    seconds: Seconds | None = None  # None: overhead + MACs / speed of the robot
    memory: Memory | None = None  # None: not known
    plan: str = "plan"  # its name

    def time(self, robot: Robot, stage: int, piece: int) -> float:
        """Mean seconds that a piece takes on a robot."""
        if self.seconds is not None:
            return self.seconds(robot, stage, piece)
        return robot.overhead + self.shape.stages[stage].pieces[piece].macs / robot.speed


@dataclass(frozen=True, slots=True)
class Source:
    """A camera with its partition and aggregator; all on one robot unless said otherwise. Durations in seconds."""

    robot: str  # of the partition, and of the gateway where `aggregator` is empty
    load: Load
    frames: int = 20  # images of the camera
    rate: float | None = None  # images/s; None: the next image whenever one may be taken
    start: float = 0.0  # first image
    deadline: float = float("inf")  # from an image's arrival to its detections
    max_frames: int = 0  # frames in work at once, as the gateway's parameter; the newest image waits, older are dropped
    by_link: tuple[tuple[float, Load], ...] = ()
    """Plans instead of `load` for links to a server, each with the rate from which it is better, bytes/s."""
    workers: tuple[str, ...] | None = None  # robots that it reaches; None: all that compute
    aggregator: str = ""  # robot where results are gathered
    camera: str = ""  # robot that images come from, `image_bytes` each
    image_bytes: int = 0
    dispatcher: DispatcherSettings = field(default_factory=DispatcherSettings)
    """Where its `transit` and `lifespan` are the defaults, they are raised to what the links need; see `patient`."""
    gatherer: GathererSettings = field(default_factory=GathererSettings)
    name: str = ""  # empty: the robot's


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run, with all that it depends on."""

    fleet: Fleet
    sources: tuple[Source, ...]
    workers: tuple[str, ...] | None = None  # robots that compute; None: all
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    cores: float = 1.0  # jobs that a robot computes side by side at full speed: its worker's and its local stages
    build: float = 0.0  # s that a worker needs to make a plan's pieces ready
    prepare: float = 0.0  # s that it needs to make one piece ready, with `on_demand`
    lag: float = 0.0  # s at most, uniform, for which a process is busy before it takes what came
    on_demand: bool = False  # workers make a piece ready when first given it, and say so
    failing: float = 0.0  # share of computations that end in an error
    warm_up: float = 1.0  # s from the workers' start to time 0, the first image
    limit: float = 3600.0  # s; frames that are open then are counted as unreported
    exact: bool = False  # every control message by itself, see board.py; slower
    trace: int = 20_000  # spans that are kept

    def __post_init__(self) -> None:
        names = self.fleet.names
        if not self.sources:
            raise SimulationError("scenario: there is no source; name at least one robot with a camera")
        for source in self.sources:
            used = (source.robot, source.aggregator, source.camera, *(source.workers or ()))
            for robot in (*filter(None, used), *(self.workers or ())):
                if robot not in names:
                    raise SimulationError(f"scenario: no robot {robot!r} in the fleet; it has {', '.join(names[:8])}")
            for what, value, least in (("frames", source.frames, 1), ("max_frames", source.max_frames, 0)):
                if value < least:
                    raise SimulationError(f"source {source.robot!r}: {what} is {value}, expected {least} or more")
            if source.rate is not None and not source.rate > 0:
                raise SimulationError(f"source {source.robot!r}: rate is {source.rate}, expected images a second")
        check_faults(self.faults, names)


def patient(fleet: Fleet, source: Source, workers: tuple[str, ...], settings: DispatcherSettings) -> DispatcherSettings:
    """`settings` with as much `transit` as the slowest link of the source takes for a window of bytes and one work.
    What a frame has in work at once is the window where that is less.

    Who configures a live cluster does the same (its network profile); with the default of 0.1 s a work that waits for
    the medium would be taken for lost, sent again, and make the others wait longer.
    """
    senders = {source.robot, source.aggregator or source.robot} if source.load.shape.scattered else {source.robot}
    links = [fleet.link(sender, name) for sender in sorted(senders) for name in workers if name != sender]
    pieces = [piece for stage in source.load.shape.stages if not stage.local for piece in stage.pieces]
    largest = max((piece.bytes_in + piece.bytes_out for piece in pieces), default=0)
    in_frame = in_work(source.max_frames, source.load.shape.stages) * max(
        (sum(p.bytes_in + p.bytes_out for p in stage.pieces) for stage in source.load.shape.stages), default=0
    )
    size = max(largest, min(settings.window, in_frame)) + largest
    worst = max((2 * size / link.bandwidth + 10 * link.seconds(0) for link in links), default=0.0)
    return replace(
        settings, transit=max(settings.transit, worst), lifespan=max(settings.lifespan, 2 * worst)
    )
