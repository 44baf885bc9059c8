# SPDX-License-Identifier: Apache-2.0
"""Bytes sent for a frame against the number of devices: DeepThings, Fig. 12.

Sharing and MoDNN follow from the cut alone. What stealing sends depends on who takes which tile when: it is counted in
the simulator, on the machines of the live cluster (testbed.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import published
from figure import Row, Tables, main
from networks import yolov2_first16
from testbed import run, source, testbed

from dnn_dist.cli.cost import cost
from dnn_dist.cut.spec import cut_network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIB = 2**20
FRAMES = 5
REUSE = {"stealing and reuse 3x3": "3x3r", "stealing and reuse 5x5": "5x5r"}
"""Curves of ours alone -> grid; strips go from robot to robot."""


def modnn() -> list[float]:
    """MiB for each number of devices."""
    network = yolov2_first16()
    return [cost(network, cut_network(network, f"bands:{n}"))["bands_traffic_mib"] for n in published.DEVICES]


def sharing(grid: str) -> float:
    """MiB, for any number of devices: the frame to the gateway, tiles out, results back."""
    network = yolov2_first16()
    mib: float = cost(network, cut_network(network, f"tiles:{grid}"))["tile_traffic_mib"]
    return mib


def stealing(grid: str) -> list[float]:
    """MiB for each number of devices: stolen tiles to their thieves, all results to the gateway."""
    outcomes = [run(testbed(), [source("stealing", grid, n, frames=FRAMES)]) for n in published.DEVICES]
    return [outcome.traffic / FRAMES / MIB for outcome in outcomes]


def tables() -> Tables:
    curves = {"MoDNN": (modnn(), published.MODNN_TRAFFIC_MIB)}
    for grid, mib in published.SHARING_TRAFFIC_MIB.items():
        curves[f"sharing {grid}"] = ([sharing(grid)] * len(published.DEVICES), (mib,) * len(published.DEVICES))
    for grid, curve in published.STEALING_TRAFFIC_MIB.items():
        curves[f"stealing {grid}"] = (stealing(grid), curve)
    rows: list[Row] = [
        {"curve": name, "devices": n, "mib": mine, "published_mib": theirs}
        for name, (our, their) in curves.items()
        for n, mine, theirs in zip(published.DEVICES, our, their, strict=True)
    ]
    for name, grid in REUSE.items():
        mine = zip(published.DEVICES, stealing(grid), strict=True)
        rows += [{"curve": name, "devices": devices, "mib": mib} for devices, mib in mine]
    return {"": rows}


def draw(tables: Tables) -> Figure:
    from drawing import legend, ours, sheet, theirs

    figure, (axes,) = sheet(
        1,
        """YOLOv2's first 16 layers at 608 x 608, float32 on the wire. Sharing sends the same for any number of devices.
        Stealing is counted in the simulator, on the testbed as fitted to another figure; with one device it sends the
        result only. Published: sharing as printed, the others read off the plot; with reuse, ours alone.""",
        height=4.6,
    )
    colours = ("red", "sky", "blue", "black", "green", "purple", "orange", "grey")
    curves = list(dict.fromkeys(row["curve"] for row in tables[""]))
    for curve, colour, marker in zip(curves, colours, "os^DvPX*", strict=True):
        rows = [row for row in tables[""] if row["curve"] == curve]
        x = [row["devices"] for row in rows]
        if curve not in REUSE:
            theirs(axes, x, [row["published_mib"] for row in rows], colour, marker)
        ours(axes, x, [row["mib"] for row in rows], colour, curve, marker)
    axes.set(title="Traffic of one frame", xlabel="devices", ylabel="sent for a frame, MiB", ylim=(0, 22))
    axes.set_xticks(published.DEVICES)
    legend(axes, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
