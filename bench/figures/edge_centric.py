# SPDX-License-Identifier: Apache-2.0
"""YOLOv3 at 320 x 320 on one to eight Raspberry Pi 3: the one published result of the edge-centric framework.

About 15 s for an image on one device, about 0.5 frames/s on eight. A Pi's speed is fitted to the 15 s; a message takes
2 ms and 0.2 ms for each kB, as the paper's assignment of tasks reckons. Three ways: the paper's greedy assignment
(layers in groups, devices that take turns), the exact one (both by calculation, `dnn_dist/plan/task_assignment.py`),
and the cut `layers:n`, a run of layers for each device, simulated on the machines of the live cluster.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import published
from figure import Row, Tables, main
from networks import yolov3
from pipeline_throughput import MEMORY, MESSAGE, ROUNDS, pipeline_rate

from dnn_dist.cut.spec import cut_network
from dnn_dist.plan.fleet import Fleet, LinkRule, Robot
from dnn_dist.plan.task_assignment import Pipeline, exact, greedy, pipeline_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEVICES = range(1, 9)
GREEDY, EXACT, LAYERS = "the paper's greedy assignment", "exact assignment", "a run of layers each, simulated"


@cache
def pi() -> Robot:
    """Of the speed that makes an image take as long as published."""
    return Robot("pi", yolov3().macs / published.YOLOV3_ONE_S, memory=MEMORY)


@cache
def assigned() -> Pipeline:
    return pipeline_of(yolov3(), pi())


def fleet(devices: int) -> Fleet:
    """So many Pis, the first of which has the camera."""
    pis = tuple(Robot(f"pi{n}", pi().speed, memory=MEMORY) for n in range(1, devices + 1))
    return Fleet(pis, (LinkRule((), MESSAGE),))


def simulated(devices: int, rounds: int) -> float:
    """Frames a second of the cut layers:n; `rounds` of the frames in work at once are timed."""
    network = yolov3()
    return pipeline_rate(network, fleet(devices), cut_network(network, f"layers:{devices}"), rounds=rounds)


def rates(devices: int, rounds: int = ROUNDS) -> dict[str, float]:
    """Frames a second, each way."""
    ways = {GREEDY: greedy, EXACT: exact}
    by_turns = {way: 1 / assign(assigned(), devices).interval for way, assign in ways.items()}
    return {**by_turns, LAYERS: simulated(devices, rounds)}


def tables() -> Tables:
    theirs = {1: 1 / published.YOLOV3_ONE_S, 8: published.YOLOV3_EIGHT}
    rows: list[Row] = []
    for devices in DEVICES:
        for way, rate in rates(devices).items():
            row = {"devices": devices, "curve": way, "frames_per_s": rate}
            rows.append({**row, "published": theirs[devices]} if devices in theirs else row)
    return {"": rows}


def draw(tables: Tables) -> Figure:
    from drawing import COLOURS, legend, ours, sheet, theirs

    rates_of = {way: [row["frames_per_s"] for row in tables[""] if row["curve"] == way] for way in (GREEDY, EXACT)}
    alike = "Both assignments are as fast on any of these." if rates_of[GREEDY] == rates_of[EXACT] else ""
    figure, (ax,) = sheet(
        1,
        f"""Raspberry Pi 3 at {pi().speed / 1e9:.2f} GMAC/s, fitted to 15 s on one; messages of 2 ms and 0.2 ms/kB.
        Thin: as many times one device. {alike}""",
        height=4.4,
    )
    ax.plot([0, 8], [0, 8 / published.YOLOV3_ONE_S], color=COLOURS["grey"], linewidth=0.8)
    for way, colour, marker in ((GREEDY, "red", "^"), (EXACT, "green", "s"), (LAYERS, "sky", "o")):
        rows = [row for row in tables[""] if row["curve"] == way]
        ours(ax, [row["devices"] for row in rows], [row["frames_per_s"] for row in rows], colour, way, marker)
    theirs(ax, [1, 8], [1 / published.YOLOV3_ONE_S, published.YOLOV3_EIGHT], "black", line=False)
    ax.set(title="YOLOv3 at 320 x 320", xlabel="devices", ylabel="frames/s", xlim=(0, 8.5), ylim=(0, None))
    legend(ax, loc="upper left")
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
