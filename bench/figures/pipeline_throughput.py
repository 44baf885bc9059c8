# SPDX-License-Identifier: Apache-2.0
"""Frames a second on 1 to 12 Raspberry Pi 3, AlexNet and VGG16: Hadidi et al. 2018, and the edge-centric framework.

Simulated on the machines of the live cluster, frames as fast as they are done. Two ways: a pipeline of as many runs of
layers as there are devices (the cut `layers:n`), and what the planner chooses for throughput when the simulator judges
its best few. Seconds of a layer are the published ones for VGG16, and follow from them for AlexNet; a message takes
2 ms and 0.2 ms for each kB, as the papers' own assignment of tasks reckons. Nothing is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import published
from figure import Row, Tables, main
from networks import NETWORKS, vgg16

from dnn_dist.cut.layers import layer_starts
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.spec import cut_network
from dnn_dist.graph.network import Network
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.plan.predict import Circumstances, Prediction, Predictor
from dnn_dist.plan.rules import Goal
from dnn_dist.plan.search import search
from dnn_dist.run.gathered import GathererSettings
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.sim import Scenario, Source, simulate
from dnn_dist.sim.loads import stages_load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEVICES = range(1, 13)
PLANNED = {"alexnet": (2, 4, 6, 8), "vgg16": (2, 4, 8, 10)}  # a search with a simulator takes seconds
ROUNDS = 2  # of the frames in work at once, that are timed
MEMORY = 700_000_000  # bytes that a Pi 3 has left for a model
MESSAGE = Link(bandwidth=5e6, latency=0.002)
OPEN = 3  # frames in work at once, for each device
MOST_PREDICTED = 10  # of these, that the planner reckons with, one for each device at most: it takes its time
WINDOW = 10**12  # bytes on the way: no limit
PIPELINE, CHOSEN = "pipeline, a run of layers each", "the planner's choice"
_CONVOLUTIONS = 13
_FC2 = 14  # place among VGG16's layers with weights: the first fully connected one swaps, the third is small


@cache
def layer_seconds(name: str) -> tuple[float, ...]:
    """Seconds of each op on a Pi 3; pools take none."""
    layers = [op.macs for op in vgg16().ops if op.macs]
    convolution = sum(layers[:_CONVOLUTIONS]) / sum(published.VGG16_LAYER_S[:_CONVOLUTIONS])  # MAC/s
    dense = layers[_FC2] / published.VGG16_LAYER_S[_FC2]
    if name == "vgg16":
        given = iter(published.VGG16_LAYER_S)
        return tuple(next(given) if op.macs else 0.0 for op in vgg16().ops)
    return tuple(op.macs / (convolution if op.kind == "CONV_2D" else dense) for op in NETWORKS[name]().ops)


def fleet(name: str, devices: int) -> Fleet:
    """So many Pis, the first of which has the camera."""
    measured = {NETWORKS[name]().sha256: layer_seconds(name)}
    pis = (Robot(f"pi{n}", 2.1e9, memory=MEMORY, measured=measured) for n in range(1, devices + 1))
    return Fleet(tuple(pis), (LinkRule((), MESSAGE),))


def pipeline_rate(
    network: Network,
    devices: Fleet,
    stages: Sequence[Stage],
    workers: tuple[str, ...] | None = None,
    rounds: int = ROUNDS,
) -> float:
    """Frames a second, once the pipeline is full and while it is. The camera is at the first robot."""
    dispatcher = DispatcherSettings(window=WINDOW)
    many = OPEN * len(devices.robots)
    gatherer = GathererSettings(max_open=2 * many)
    timed = rounds * many
    source = Source(
        devices.names[0],
        stages_load(network, stages),
        frames=timed + 2 * many,
        max_frames=many,
        dispatcher=dispatcher,
        gatherer=gatherer,
    )
    outcome = simulate(Scenario(devices, (source,), workers=workers or None, limit=1e9))
    ended = [frame.reported for frame in outcome.frames]
    return timed / (ended[many + timed - 1] - ended[many - 1])


def throughput(
    name: str, devices: int, stages: Sequence[Stage], workers: tuple[str, ...] | None = None, rounds: int = ROUNDS
) -> float:
    """Frames a second of a network on so many devices."""
    return pipeline_rate(NETWORKS[name](), fleet(name, devices), stages, workers, rounds)


def pipeline(name: str, devices: int) -> float:
    """Frames a second of the cut layers:n; with more devices than layers some have the same."""
    network: Network = NETWORKS[name]()
    count = min(devices, len(layer_starts(network, 0, len(network.ops) - 1)))
    return throughput(name, devices, cut_network(network, f"layers:{count}"))


def chosen(name: str, devices: int) -> tuple[float, str]:
    """Frames a second of the plan that the planner chooses for throughput, the simulator judging; and its cut."""
    network = NETWORKS[name]()
    given = Circumstances(fleet(name, devices), "pi1", max_frames=min(MOST_PREDICTED, OPEN * devices), window=WINDOW)
    predictor = Predictor(network, given)

    def evaluate(stages: Sequence[Stage], workers: tuple[str, ...], replicas: int) -> Prediction:
        rate = throughput(name, devices, stages, workers)  # as it is drawn: fewer frames may flatter a plan
        return replace(predictor(stages, workers, replicas), throughput=rate)

    best = search(network, given, Goal("throughput"), evaluate, predictor).best
    return throughput(name, devices, best.stages, best.workers), best.cut


def tables() -> Tables:
    rows: list[Row] = []
    for name, points in published.THROUGHPUT.items():
        for devices in DEVICES:
            row = {"network": name, "devices": devices, "curve": PIPELINE, "frames_per_s": pipeline(name, devices)}
            rows.append({**row, "published": points[devices]} if devices in points else row)
        for devices in PLANNED[name]:
            rate, cut = chosen(name, devices)
            rows.append({"network": name, "devices": devices, "curve": CHOSEN, "frames_per_s": rate, "cut": cut})
    return {"": rows}


def draw(tables: Tables) -> Figure:
    from drawing import COLOURS, legend, ours, sheet, theirs

    figure, axes = sheet(
        2,
        """Raspberry Pi 3, published seconds of each layer (VGG16: 9.9 s in all, of which 2.5 s for a first fully
        connected layer that swaps), messages of 2 ms and 0.2 ms/kB. Thin: as many times one device. Nothing is
        fitted.""",
        height=4.4,
    )
    for ax, (name, points) in zip(axes, published.THROUGHPUT.items(), strict=True):
        alone = 1 / sum(layer_seconds(name))
        ax.plot([0, 12], [0, 12 * alone], color=COLOURS["grey"], linewidth=0.8)
        for curve, colour, marker in ((PIPELINE, "sky", "o"), (CHOSEN, "green", "s")):
            rows = [row for row in tables[""] if (row["network"], row["curve"]) == (name, curve)]
            ours(ax, [row["devices"] for row in rows], [row["frames_per_s"] for row in rows], colour, curve, marker)
        theirs(ax, list(points), list(points.values()), "red", line=False)
        title = {"alexnet": "AlexNet", "vgg16": "VGG16"}[name]
        ax.set(title=title, xlabel="devices", ylabel="frames/s", xlim=(0, 12.5), ylim=(0, None))
        ax.set_xticks(range(0, 13, 2))
        legend(ax, loc="upper left")
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
