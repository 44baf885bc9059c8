# SPDX-License-Identifier: Apache-2.0
"""Layers on devices as a pipeline: the greedy task assignment of the edge-centric framework, and the exact answer.

After Cao et al., "An Edge-Centric Scalable Intelligent Framework To Collaboratively Execute DNN", and Hadidi et al.,
"Musical Chair". For a number of devices: consecutive layers are grouped into tasks while they fit a device's memory.
Too many tasks: the neighbours that need the least memory together are merged. Too few, or a layer that fits no device:
a task is replaced by its variant on one more device that is fastest, messages included. Of variants there are two: data
parallel, the devices take turns with frames; and model parallel, each computes its part of every frame.

The exact answer divides the same layers into contiguous tasks with variants, of the least bottleneck, by dynamic
programming over (layers, devices). The greedy one is here as the published baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count, pairwise
from math import prod

from dnn_dist.cut.layers import layer_starts
from dnn_dist.cut.local import cut_local
from dnn_dist.errors import PlanError
from dnn_dist.graph.network import Network
from dnn_dist.plan.cost import piece_memory, piece_seconds
from dnn_dist.plan.fleet import Robot

LARGE = 10_000
"""Outputs of a fully connected layer from which on it is divided rather than fed frame by frame."""
KINDS = ("whole", "data parallel", "model parallel")


def message_seconds(size: float) -> float:
    """Time of a message of `size` bytes between two devices, as the paper measured it: 0.0002 s per kB + 0.002 s."""
    return 0.0002 * size / 1000 + 0.002


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as a device sees it."""

    seconds: float  # on one device
    memory: int  # bytes of weights and tensors
    output: int  # bytes
    divisible: bool = False  # model parallel pays: a fully connected layer of about 10 000 outputs or more


@dataclass(frozen=True, slots=True)
class Task:
    """Layers [first, end) on so many devices."""

    first: int
    end: int
    devices: int = 1
    kind: str = "whole"


@dataclass(frozen=True, slots=True)
class Assignment:
    """Tasks in order, and what they give."""

    tasks: tuple[Task, ...]
    interval: float  # s between two frames: the slowest task's
    latency: float  # s of a frame through all tasks, messages included
    memory: int  # bytes at the device that needs most

    @property
    def devices(self) -> int:
        return sum(task.devices for task in self.tasks)


@dataclass(frozen=True)
class Pipeline:
    """What is to be assigned; all devices are alike."""

    layers: tuple[Layer, ...]
    capacity: float = float("inf")  # bytes of one device
    input: int = 0  # bytes of a frame
    message: Callable[[float], float] = message_seconds

    def memory(self, task: Task) -> float:
        """Bytes at each of the task's devices. Model parallel divides weights, data parallel does not."""
        whole = sum(layer.memory for layer in self.layers[task.first : task.end])
        return whole / task.devices if task.kind == "model parallel" else whole

    def latency(self, task: Task) -> float:
        """Seconds of one frame: its message in, and computing."""
        size = self.layers[task.first - 1].output if task.first else self.input
        seconds = sum(layer.seconds for layer in self.layers[task.first : task.end])
        if task.kind != "model parallel":
            return seconds + self.message(size)
        # Each device takes the whole input and computes its part; the parts come together at the next.
        return seconds / task.devices + task.devices * self.message(size)

    def interval(self, task: Task) -> float:
        """Seconds between two frames that the task can take."""
        return self.latency(task) / (task.devices if task.kind == "data parallel" else 1)

    def fits(self, task: Task) -> bool:
        return self.memory(task) <= self.capacity

    def variants(self, first: int, end: int, devices: int) -> tuple[Task, ...]:
        """Ways to run layers [first, end) on exactly so many devices."""
        if devices == 1:
            return (Task(first, end),)
        split = all(layer.divisible for layer in self.layers[first:end])
        return tuple(Task(first, end, devices, kind) for kind in (KINDS[1:] if split else KINDS[1:2]))

    def assignment(self, tasks: Sequence[Task]) -> Assignment:
        return Assignment(
            tuple(tasks),
            max(map(self.interval, tasks)),
            sum(map(self.latency, tasks)),
            int(max(map(self.memory, tasks))),
        )


def pipeline_of(network: Network, robot: Robot, message: Callable[[float], float] = message_seconds) -> Pipeline:
    """A network's layers on devices like this robot; those that run in place belong to the layer before."""
    starts = (*layer_starts(network, 0, len(network.ops) - 1), len(network.ops))
    layers = []
    for first, after in pairwise(starts):
        stage = cut_local(network, first, after - 1)
        (piece,) = stage.pieces
        dense = network.ops[after - 1].kind == "FULLY_CONNECTED"
        layers.append(
            Layer(
                seconds=piece_seconds(network, stage, piece, robot),
                memory=piece_memory(network, stage, piece),
                output=sum(port.bytes for port in piece.outputs),
                divisible=dense and max(prod(port.shape) for port in piece.outputs) >= LARGE,
            )
        )
    capacity = float("inf") if robot.memory is None else robot.memory
    return Pipeline(tuple(layers), capacity, sum(network.tensors[t].bytes for t in network.inputs), message)


def greedy(pipeline: Pipeline, devices: int) -> Assignment:
    """The paper's assignment. PlanError when a layer fits no device and cannot be divided, or devices are too few."""
    tasks = _grouped(pipeline)
    while sum(task.devices for task in tasks) > devices:
        pairs = [(pipeline.memory(a) + pipeline.memory(b), n) for n, (a, b) in enumerate(pairwise(tasks))]
        if not pairs:
            raise _too_few(devices)
        merged = min(pairs)[1]  # though it may be more than a device's memory: it swaps, as theirs did
        tasks[merged : merged + 2] = [Task(tasks[merged].first, tasks[merged + 1].end)]
    while (spare := devices - sum(task.devices for task in tasks)) > 0:
        better = [_better(pipeline, task, spare) for task in tasks]
        slowest = max(range(len(tasks)), key=lambda n: pipeline.interval(tasks[n]))
        if better[slowest] == [tasks[slowest]]:
            break  # nothing makes the bottleneck faster
        tasks[slowest : slowest + 1] = better[slowest]
    return pipeline.assignment(tasks)


def _grouped(pipeline: Pipeline) -> list[Task]:
    """Runs of layers, each as long as a device holds; a layer that none holds on as many devices as hold it."""
    tasks: list[Task] = []
    for number, layer in enumerate(pipeline.layers):
        if tasks and pipeline.fits(grown := Task(tasks[-1].first, number + 1)) and tasks[-1].devices == 1:
            tasks[-1] = grown
        elif layer.memory <= pipeline.capacity:
            tasks.append(Task(number, number + 1))
        elif layer.divisible:
            parts = (Task(number, number + 1, n, "model parallel") for n in count(2))
            tasks.append(next(task for task in parts if pipeline.fits(task)))
        else:
            raise PlanError(
                f"layer {number} needs {layer.memory / 1e6:.0f} MB, a device has {pipeline.capacity / 1e6:.0f} MB, "
                "and it cannot be divided; take devices with more memory"
            )
    return tasks


def _better(pipeline: Pipeline, task: Task, spare: int) -> list[Task]:
    """The task with one more device in its fastest way: divided in two tasks, data parallel or model parallel."""
    more = task.devices + 1
    ways = [[variant] for variant in pipeline.variants(task.first, task.end, more) if pipeline.fits(variant)]
    if task.devices == 1:
        ways += [[Task(task.first, at), Task(at, task.end)] for at in range(task.first + 1, task.end)]
    ways.append([task])
    return min(ways, key=lambda way: max(map(pipeline.interval, way)))


def exact(pipeline: Pipeline, devices: int) -> Assignment:
    """Of all contiguous divisions with variants on up to so many devices one of the least bottleneck.

    O(layers^2 devices^2). PlanError when nothing fits.
    """
    layers = len(pipeline.layers)

    @cache
    def best(end: int, left: int) -> tuple[float, tuple[Task, ...]]:
        """(bottleneck, tasks) of layers [0, end) on at most `left` devices."""
        if not end:
            return 0.0, ()
        ways: list[tuple[float, tuple[Task, ...]]] = []
        for first in range(end):
            for used in range(1, left + 1):
                fitting = [task for task in pipeline.variants(first, end, used) if pipeline.fits(task)]
                before, tasks = best(first, left - used) if fitting else (float("inf"), ())
                ways += [(max(before, pipeline.interval(task)), (*tasks, task)) for task in fitting]
        return min(ways, key=lambda way: way[0], default=(float("inf"), ()))

    bottleneck, tasks = best(layers, devices)
    if bottleneck == float("inf"):
        raise _too_few(devices)
    return pipeline.assignment(tasks)


def _too_few(devices: int) -> PlanError:
    return PlanError(f"{devices} devices are too few for these layers; take more of them, or some with more memory")


VGG16_PI3 = (
    *(0.247, 1.25, 0.50, 0.92, 0.40, 0.766, 0.766, 0.373, 0.70, 0.70, 0.21, 0.21, 0.21),
    *(2.483, 0.114, 0.063),
)
"""Seconds of VGG16's layers on a Raspberry Pi 3, 13 convolutions and 3 fully connected ones, as the paper measured
them; the first fully connected one swaps."""
