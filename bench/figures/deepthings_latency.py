# SPDX-License-Identifier: Apache-2.0
"""Seconds for a frame against the number of devices: DeepThings, Fig. 13.

Simulated on the machines of the live cluster. Three figures of the testbed are fitted to one curve, stealing
(deepthings.yaml); the other curves are held out: nothing of them was looked at for the fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import published
from figure import Row, Tables, main
from testbed import CURVES, FITTED, latency, testbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "MoDNN": "red",
    "sharing 3x3": "sky",
    "stealing 3x3": "green",
    "stealing and reuse 3x3": "purple",
    "stealing and reuse 5x5": "orange",
}


def tables() -> Tables:
    rows: list[Row] = []
    for curve, seconds in published.LATENCY_S.items():
        for devices, theirs in zip(published.DEVICES, seconds, strict=True):
            row = {"curve": curve, "devices": devices, "published_s": theirs}
            if curve in CURVES:
                row |= {"seconds": latency(testbed(), *CURVES[curve], devices), "held_out": int(curve != FITTED)}
            rows.append(row)
    return {"": rows, "deviations": deviations(rows)}


def deviations(rows: list[Row]) -> list[Row]:
    """Of ours from the published seconds of each curve: root mean square of the logarithms, the most, the mean."""
    found: list[Row] = []
    for curve in CURVES:
        ratios = np.array([row["seconds"] / row["published_s"] for row in rows if row["curve"] == curve])
        found.append(
            {
                "curve": curve,
                "held_out": int(curve != FITTED),
                "rms": float(np.sqrt(np.mean(np.log(ratios) ** 2))),
                "most": float(np.abs(ratios - 1).max()),
                "mean": float(np.mean(ratios) - 1),
            }
        )
    return found


def draw(tables: Tables) -> Figure:
    from drawing import legend, ours, sheet, theirs

    pi = testbed().robot("pi1")
    air = testbed().link("pi1", "pi2")
    off = {row["curve"]: f"{100 * row['rms']:.1f} %" for row in tables["deviations"]}
    held_out = ", ".join(f"{curve} {off[curve]}" for curve in CURVES if curve != FITTED)
    missing = [curve for curve in published.LATENCY_S if curve not in CURVES]
    figure, (left, right) = sheet(
        2,
        f"""YOLOv2's first 16 layers on 1 to 6 Raspberry Pi 3, one core each. Three figures are fitted to the six points
        on the left ({off[FITTED]} off, root mean square): a Pi computes {pi.speed / 1e9:.3f} GMAC/s after
        {1e3 * pi.overhead:.1f} ms for each layer of a piece, one Wi-Fi channel carries
        {8e-6 * air.bandwidth:.1f} Mbit/s for all. Right: curves that were held out ({held_out}). Published points are
        read off the paper's plot.
        {"Published alone: " + ", ".join(missing) + "." if missing else ""}""",
        sharey=True,
        height=4.8,
    )
    for curve, seconds in published.LATENCY_S.items():
        axes, colour = left if curve == FITTED else right, COLOURS[curve]
        alone = curve not in CURVES
        theirs(axes, published.DEVICES, seconds, colour, label=f"{curve}, published alone" if alone else "")
        if not alone:
            mine = [row["seconds"] for row in tables[""] if row["curve"] == curve]
            ours(axes, published.DEVICES, mine, colour, curve)
    left.set(title="Fitted", xlabel="devices", ylabel="latency of a frame, s", ylim=(0, 28))
    right.set(title="Held out", xlabel="devices")
    for axes in (left, right):
        axes.set_xticks(published.DEVICES)
        legend(axes)
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
