# SPDX-License-Identifier: Apache-2.0
"""Latency and throughput with 1 to 6 cameras on six devices: DeepThings, Fig. 14.

Every camera's next frame begins when its last has ended. MoDNN works in lock step: all devices on one frame, so that
frames of several cameras wait for one another. Under stealing a device works on its own camera's tiles first, then
takes some of whoever has most waiting. Simulated on the fitted testbed.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import published
from figure import Row, Tables, main
from testbed import MOST, latency, run, source, testbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = 8


def modnn() -> list[Row]:
    """Frames wait in line; the time of one is simulated."""
    one = latency(testbed(), "MoDNN", MOST)
    return [
        {"curve": "MoDNN", "sources": n, "mean_s": n * one, "slowest_s": n * one, "frames_per_s": 1 / one}
        for n in range(1, MOST + 1)
    ]


def tiled(method: str, grid: str) -> list[Row]:
    rows = []
    for count in range(1, MOST + 1):
        cameras = [source(method, MOST, grid, f"pi{n}", FRAMES) for n in range(1, count + 1)]
        outcome = run(testbed(), cameras)
        assert len(outcome.latencies) == count * FRAMES
        rows.append(
            {
                "curve": f"{method} {grid}",
                "sources": count,
                "mean_s": fmean(outcome.latencies),
                "slowest_s": max(outcome.latencies),
                "frames_per_s": outcome.throughput,
            }
        )
    return rows


def changes(rows: list[Row]) -> list[Row]:
    """Stealing against MoDNN, averaged over the numbers of cameras and at the most of them."""
    of = {name: [row for row in rows if row["curve"] == name] for name in ("MoDNN", "stealing 3x3")}
    found = []
    for what, theirs in (
        ("mean_s", published.SOURCES_LATENCY_CHANGE),
        ("frames_per_s", published.SOURCES_THROUGHPUT_CHANGE),
    ):
        change = [b[what] / a[what] - 1 for a, b in zip(of["MoDNN"], of["stealing 3x3"], strict=True)]
        found.append({"of": what, "mean_change": fmean(change), "change_at_6": change[-1], "published": theirs})
    return found


def tables() -> Tables:
    rows = [*modnn(), *tiled("sharing", "3x3"), *tiled("stealing", "3x3")]
    return {"": rows, "changes": changes(rows)}


def _percent(change: float) -> str:
    return f"{100 * change:+.0f} %"


def draw(tables: Tables) -> Figure:
    from drawing import legend, ours, sheet

    latency_change, throughput_change = tables["changes"]
    figure, axes = sheet(
        2,
        f"""Six devices, each camera as fast as its frames are done. Thin: slowest frame. Stealing against MoDNN, mean
        of 1 to 6 cameras: latency {_percent(latency_change["mean_change"])} (published
        {_percent(latency_change["published"])}), throughput {_percent(throughput_change["mean_change"])}, with 6
        cameras {_percent(throughput_change["change_at_6"])} (published {_percent(throughput_change["published"])}).
        The paper's curves are not at hand, only these two figures.""",
    )
    for curve, colour in (("MoDNN", "red"), ("sharing 3x3", "sky"), ("stealing 3x3", "green")):
        rows = [row for row in tables[""] if row["curve"] == curve]
        x = [row["sources"] for row in rows]
        ours(axes[0], x, [row["mean_s"] for row in rows], colour, curve)
        if curve != "MoDNN":
            axes[0].plot(x, [row["slowest_s"] for row in rows], color=axes[0].lines[-1].get_color(), linewidth=0.8)
        ours(axes[1], x, [row["frames_per_s"] for row in rows], colour, curve)
    axes[0].set(title="Latency, mean", xlabel="cameras", ylabel="s", ylim=(0, None))
    axes[1].set(title="Throughput of all", xlabel="cameras", ylabel="frames/s", ylim=(0, None))
    legend(axes[0], published=False)
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
