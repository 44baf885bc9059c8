# SPDX-License-Identifier: Apache-2.0
"""Seconds for a frame against the number of devices: DeepThings, Fig. 13.

Simulated on the machines of the live cluster. Three figures of the testbed are fitted to all three curves together
(deepthings.yaml says which and how well); what a method adds or saves is not. The curves with reuse of
overlapped data are the paper's alone: ours (grids 3x3r and 5x5r of testbed.py) are not drawn yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import published
from figure import Tables, main
from testbed import latency, testbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS = {"MoDNN": ("MoDNN", "3x3"), "sharing 3x3": ("sharing", "3x3"), "stealing 3x3": ("stealing", "3x3")}
"""Published curve -> our method and grid; the curves that are not here are not ours yet."""


def tables() -> Tables:
    rows = []
    for curve, seconds in published.LATENCY_S.items():
        for devices, theirs in zip(published.DEVICES, seconds, strict=True):
            row = {"curve": curve, "devices": devices, "published_s": theirs}
            if curve in OURS:
                method, grid = OURS[curve]
                row["seconds"] = latency(testbed(), method, devices, grid)
            rows.append(row)
    return {"": rows}


def draw(tables: Tables) -> Figure:
    from drawing import legend, ours, sheet, theirs

    pi = testbed().robot("pi1")
    air = testbed().link("pi1", "pi2")
    figure, (left, right) = sheet(
        2,
        f"""YOLOv2's first 16 layers on 1 to 6 Raspberry Pi 3, one core each. Fitted to the three curves on the left:
        a Pi computes {pi.speed / 1e9:.3f} GMAC/s after {1e3 * pi.overhead:.0f} ms for each piece, one Wi-Fi channel
        carries {8e-6 * air.bandwidth:.1f} Mbit/s for all. Right: published curves with reuse.""",
        sharey=True,
        height=4.4,
    )
    colours = {"MoDNN": "red", "sharing 3x3": "sky", "stealing 3x3": "green"}
    reuse = {"stealing and reuse 3x3": "purple", "stealing and reuse 5x5": "orange"}
    for curve, colour in {**colours, **reuse}.items():
        axes = left if curve in OURS else right
        rows = [row for row in tables[""] if row["curve"] == curve]
        x = [row["devices"] for row in rows]
        theirs(axes, x, [row["published_s"] for row in rows], colour, label="" if curve in OURS else curve)
        if curve in OURS:
            ours(axes, x, [row["seconds"] for row in rows], colour, curve)
    left.set(title="Latency of one frame", xlabel="devices", ylabel="s", ylim=(0, 28))
    right.set(title="With reuse: published only", xlabel="devices")
    for axes in (left, right):
        axes.set_xticks(published.DEVICES)
        legend(axes)
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
