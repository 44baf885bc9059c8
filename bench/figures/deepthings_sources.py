# SPDX-License-Identifier: Apache-2.0
"""Maximum latency and throughput with 1 to 6 cameras on six devices: DeepThings, Fig. 14.

Every camera's next frame begins when its last has ended. What the paper compares is the maximum latency over the
sources: of each camera the mean of its frames, and of these the greatest. MoDNN works in lock step: all devices on one
frame, so that frames of several cameras wait for one another. Under stealing a device works on its own camera's tiles
first, then takes some of whoever has most waiting. Simulated on the testbed as fitted to another figure
(deepthings.yaml): everything here is held out.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import published
from figure import Row, Tables, main
from testbed import CURVES as FIG13
from testbed import MOST, latency, run, source, testbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = 8


CURVES = {"MoDNN": "red", "sharing 3x3": "sky", "stealing 3x3": "green", "stealing and reuse 3x3": "purple"}
"""Curve -> colour."""
COMPARED = ("stealing 3x3", "stealing and reuse 3x3")
"""Each with MoDNN, beside the published changes."""
_OF = {"max_s": published.SOURCES_LATENCY_CHANGE, "frames_per_s": published.SOURCES_THROUGHPUT_CHANGE}
_SHOWN = {
    "max_s": "maximum latency",
    "mean_s": "mean latency",
    "slowest_s": "slowest frame",
    "frames_per_s": "throughput",
}


def modnn() -> list[Row]:
    """Frames wait in line; the time of one is simulated."""
    one = latency(testbed(), *FIG13["MoDNN"], MOST)
    rows = []
    for n in range(1, MOST + 1):
        seconds = dict.fromkeys(("max_s", "mean_s", "slowest_s"), n * one)
        rows.append({"curve": "MoDNN", "sources": n, **seconds, "frames_per_s": 1 / one})
    return rows


def tiled(curve: str) -> list[Row]:
    """A way of Fig. 13 with several cameras."""
    rows = []
    for count in range(1, MOST + 1):
        cameras = [source(*FIG13[curve], MOST, f"pi{n}", FRAMES) for n in range(1, count + 1)]
        outcome = run(testbed(), cameras)
        assert len(outcome.latencies) == count * FRAMES
        each = [
            fmean(frame.latency for frame in outcome.frames if frame.source == camera.name) for camera in cameras
        ]
        rows.append(
            {
                "curve": curve,
                "sources": count,
                "max_s": max(each),
                "mean_s": fmean(each),
                "slowest_s": max(outcome.latencies),
                "frames_per_s": outcome.throughput,
            }
        )
    return rows


def changes(rows: list[Row]) -> list[Row]:
    """Stealing against MoDNN, averaged over the numbers of cameras and at the most of them."""
    of = {name: [row for row in rows if row["curve"] == name] for name in CURVES}
    found = []
    for curve in COMPARED:
        for what in _SHOWN:
            change = [b[what] / a[what] - 1 for a, b in zip(of["MoDNN"], of[curve], strict=True)]
            row = {"curve": curve, "of": what, "mean_change": fmean(change), "change_at_6": change[-1]}
            found.append({**row, "published": _OF[what]} if what in _OF else row)
    return found


def tables() -> Tables:
    rows = [row for curve in CURVES for row in (modnn() if curve == "MoDNN" else tiled(curve))]
    return {"": rows, "changes": changes(rows)}


def _percent(change: float) -> str:
    return f"{100 * change:+.0f} %"


def _told(row: Row) -> str:
    return f"{_SHOWN[row['of']]} {_percent(row['mean_change'])} ({_percent(row['change_at_6'])})"


def draw(tables: Tables) -> Figure:
    from drawing import implied, legend, ours, sheet

    told = [f"{curve}: " + ", ".join(_told(r) for r in tables["changes"] if r["curve"] == curve) for curve in COMPARED]
    figure, axes = sheet(
        2,
        f"""Six devices, each camera as fast as its frames are done. Thin: the slowest frame. Change against
        MoDNN, mean of 1 to 6 cameras (with six): {"; ".join(told)}. Published are two changes and no curves; dotted is
        what they make of our MoDNN. Held out: nothing is fitted to this figure.""",
        height=4.6,
    )
    of = {curve: [row for row in tables[""] if row["curve"] == curve] for curve in CURVES}
    for curve, colour in CURVES.items():
        rows = of[curve]
        x = [row["sources"] for row in rows]
        ours(axes[0], x, [row["max_s"] for row in rows], colour, curve)
        if curve != "MoDNN":
            axes[0].plot(x, [row["slowest_s"] for row in rows], color=axes[0].lines[-1].get_color(), linewidth=0.8)
        ours(axes[1], x, [row["frames_per_s"] for row in rows], colour, curve)
    for axis, what in zip(axes, _OF, strict=True):
        rows, change = of["MoDNN"], _OF[what]
        y = [row[what] * (1 + change) for row in rows]
        implied(axis, [row["sources"] for row in rows], y, f"our MoDNN {_percent(change)}, as published")
        axis.set_xticks(range(1, MOST + 1))
    axes[0].set(title="Maximum latency over cameras", xlabel="cameras", ylabel="latency of a frame, s", ylim=(0, 60))
    axes[1].set(title="Throughput of all", xlabel="cameras", ylabel="frames/s", ylim=(0, None))
    for axis in axes:
        legend(axis, published=False)
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
