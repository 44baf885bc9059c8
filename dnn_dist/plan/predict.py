# SPDX-License-Identifier: Apache-2.0
"""What a plan would do on a fleet: latency, throughput, memory, traffic, energy. From the cost model and the schedule.

A search asks for the cost of single stages, thousands of times, and for predictions of whole plans, a few dozen times.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from dnn_dist.cut.feeds import chains
from dnn_dist.cut.local import cut_local
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.spec import cut_text
from dnn_dist.graph.network import Network
from dnn_dist.plan.cost import StageLoad, chain_load, piece_activations, piece_memory, piece_weights
from dnn_dist.plan.fleet import Fleet, Robot
from dnn_dist.plan.policy import in_work
from dnn_dist.plan.schedule import Handling, Site, Timeline, schedule
from dnn_dist.settings import PartitionSettings, WorkerSettings

GATEWAY = Handling(0.001, 200e6)
"""What a message costs on a PC of 2.8 GHz, by the plans of bench/prediction.py."""
FRAMES, LEAST_FRAMES = 6, 24
"""Frames that throughput is taken from, for each frame in work at once; and at least so many."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is given, whatever the plan."""

    fleet: Fleet
    gateway: str  # robot of the camera and of what gathers
    wire: str = PartitionSettings.wire  # as in a plan
    max_frames: int = PartitionSettings.max_frames  # in work at once; 0: as many as the plan needs, see policy.in_work
    alone: int = 1  # those of a plan that is no pipeline, where `max_frames` is 0
    prefetch: int = WorkerSettings.prefetch  # pieces that wait at a worker
    window: int = PartitionSettings.window  # bytes on the way, as the gateway's parameter
    handling: Handling = GATEWAY  # of messages
    redundancy: str = PartitionSettings.redundancy  # as the gateway's parameter


@dataclass(frozen=True, slots=True)
class Prediction:
    """Means in steady state."""

    latency: float  # s, of a frame
    throughput: float  # frames/s, when images never lack
    memory: int  # bytes of weights and of the largest layer, at the robot that needs most
    traffic: int  # bytes of a frame between robots
    energy: float | None  # J a frame of all robots that take part; None: the power of one is not known
    busy: dict[str, float] = field(default_factory=dict, hash=False)  # robot -> s of computing a frame
    robot_memory: dict[str, int] = field(default_factory=dict, hash=False)  # robot -> bytes
    too_small: tuple[str, ...] = ()  # robots with less memory than they would need


@dataclass(frozen=True, slots=True)
class ChainCost:
    """One chain by itself, one frame. Costs of chains add up to those of a plan, if one frame is in work at a time."""

    latency: float = 0.0  # s
    work: float = 0.0  # s of computing, over all robots
    local: float = 0.0  # s of these in local stages
    air: float = 0.0  # s for which the busiest link or medium is occupied
    worker_weights: int = 0  # bytes at the worker that holds most
    gateway_weights: int = 0  # bytes of local stages
    activations: int = 0  # bytes of the largest layer of any piece; does not add up

    def __add__(self, other: ChainCost) -> ChainCost:
        return ChainCost(
            self.latency + other.latency,
            self.work + other.work,
            self.local + other.local,
            self.air + other.air,
            self.worker_weights + other.worker_weights,
            self.gateway_weights + other.gateway_weights,
            max(self.activations, other.activations),
        )


class Predictor:
    """Predictions for one network. Calling it is evaluating a plan; remembers what it was asked about stages."""

    def __init__(self, network: Network, given: Circumstances) -> None:
        self.network, self.given = network, given
        self.speeds = {robot.name: _speed(network, robot) for robot in given.fleet.robots}
        """Robot -> MAC/s, as the gateway will measure it."""
        self._loads: dict[tuple[str, int], tuple[StageLoad, ...]] = {}
        self._costs: dict[tuple[str, tuple[str, ...], int, bool], ChainCost] = {}
        self._activations: dict[tuple[str, str], int] = {}

    def __call__(self, stages: Sequence[Stage], workers: tuple[str, ...], replicas: int = 1) -> Prediction:
        """What the plan of these stages does when these robots have workers, `replicas` for each uncoded piece."""
        given = self.given
        loads = [load for chain in chains(stages) for load in self.load(stages[chain.start : chain.stop], replicas)]
        open_ = in_work(given.max_frames, stages, given.alone)
        frames = max(LEAST_FRAMES, FRAMES * open_) if open_ > 1 else 1
        full = schedule(loads, self.site(workers), frames, open_)
        interval = full.interval
        names, count = given.fleet.names, len(full.ended)
        busy = {names[robot]: seconds / count for robot, seconds in full.busy.items()}
        memory = self._memory(stages, full)
        limits = {name: given.fleet.robot(name).memory for name in memory}
        return Prediction(
            latency=full.latency,
            throughput=1 / interval if interval else float("inf"),
            memory=max(memory.values(), default=0),
            traffic=full.traffic // count,
            energy=self._energy(busy, interval),
            busy=busy,
            robot_memory=memory,
            too_small=tuple(name for name, limit in limits.items() if limit is not None and memory[name] > limit),
        )

    def cost(
        self, chain: Sequence[Stage], workers: tuple[str, ...], replicas: int = 1, memory: bool = True
    ) -> ChainCost:
        """One chain by itself; without `memory` its bytes of memory are left at 0, which is much quicker for tiles."""
        key = (cut_text(chain), workers, replicas, memory)
        if key not in self._costs:
            timeline = schedule(self.load(chain, replicas), self.site(workers))
            weights: dict[tuple[int, int], int] = defaultdict(int)
            for robot, stage, piece in timeline.runs if memory else ():
                weights[robot, stage] += self._weights(chain[stage], piece, weights[robot, stage])
            held: dict[int, int] = defaultdict(int)
            for (robot, _), size in weights.items():
                held[robot] += size
            work, most = sum(timeline.busy.values()), max(held.values(), default=0)
            local = chain[0].kind == "local"
            pieces = ((stage, n) for stage in chain for n in range(len(stage.pieces)))
            self._costs[key] = ChainCost(
                latency=timeline.latency,
                work=work,
                local=work if local else 0.0,
                air=max(timeline.air.values(), default=0.0),
                worker_weights=0 if local else most,
                gateway_weights=most if local else 0,
                activations=max(self._largest(*piece) for piece in pieces) if memory else 0,
            )
        return self._costs[key]

    def load(self, chain: Sequence[Stage], replicas: int = 1) -> tuple[StageLoad, ...]:
        key = (cut_text(chain), replicas)
        if key not in self._loads:
            self._loads[key] = chain_load(self.network, chain, self.given.fleet.robots, self.given.wire, replicas)
        return self._loads[key]

    @cached_property
    def whole_memory(self) -> int:
        """Bytes that one robot needs for the whole network."""
        whole = cut_local(self.network)
        return piece_memory(self.network, whole, whole.pieces[0])

    def site(self, workers: tuple[str, ...]) -> Site:
        speeds = tuple(self.speeds[name] for name in workers)
        given = self.given
        return Site(
            given.fleet,
            given.gateway,
            workers,
            given.prefetch,
            given.window,
            speeds,
            given.handling,
            given.redundancy,
        )

    def _memory(self, stages: Sequence[Stage], timeline: Timeline) -> dict[str, int]:
        """Robot -> bytes: the weights of all that it runs of a frame, and its largest layer."""
        names = self.given.fleet.names
        weights: dict[tuple[int, int], int] = defaultdict(int)  # (robot, stage)
        largest: dict[int, int] = defaultdict(int)
        for robot, stage, piece in sorted(timeline.runs):
            weights[robot, stage] += self._weights(stages[stage], piece, weights[robot, stage])
            largest[robot] = max(largest[robot], self._largest(stages[stage], piece))
        return {
            names[robot]: size + sum(held for (holder, _), held in weights.items() if holder == robot)
            for robot, size in largest.items()
        }

    def _weights(self, stage: Stage, piece: int, held: int) -> int:
        """Bytes of weights that a piece adds to those held of its stage: tiles and runs of layers share all of them."""
        return piece_weights(self.network, stage, stage.pieces[piece]) if stage.kind == "slices" or not held else 0

    def _largest(self, stage: Stage, piece: int) -> int:
        key = (stage.spec, stage.pieces[piece].form)
        if key not in self._activations:
            self._activations[key] = piece_activations(self.network, stage, stage.pieces[piece])
        return self._activations[key]

    def _energy(self, busy: dict[str, float], interval: float) -> float | None:
        """Joules a frame: those who compute, at their busy power while they do, at their idle power otherwise."""
        total = 0.0
        for name, seconds in busy.items():
            robot = self.given.fleet.robot(name)
            if robot.idle is None or robot.busy is None:
                return None
            total += robot.busy * seconds + robot.idle * max(0.0, interval - seconds)
        return total


def _speed(network: Network, robot: Robot) -> float:
    measured = sum(robot.measured.get(network.sha256, ()))
    return network.macs / measured if measured else robot.speed
