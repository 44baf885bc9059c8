# SPDX-License-Identifier: Apache-2.0
"""When the results of a fully connected layer come back over Wi-Fi: CDC, Fig. 1.

A master and three devices, each of which computes the layer of 2048 in 50 ms. The delays are fitted to the two shares
that the paper gives, so that those come out by construction; the histogram between and beyond them is the model's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import published
from figure import Row, Tables, main
from wifi_delays import HISTOGRAM, cluster

from dnn_dist.run.shape import PieceShape, PlanShape, StageShape
from dnn_dist.sim import Load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEVICES, UNITS = 3, 2048
FRAMES, GAP_S = 3000, 20.0
BIN_S = 0.025
LAST_S = 0.5


def arrivals(frames: int = FRAMES, seed: int = 0) -> np.ndarray:
    """Seconds from a frame's start to each of its results."""
    piece = PieceShape(bytes_in=4 * UNITS, bytes_out=4 * UNITS, macs=UNITS * UNITS)
    shape = PlanShape((StageShape(False, (piece,) * DEVICES), StageShape(True, ())))
    load = Load(shape, lambda robot, stage, piece: published.ARRIVALS_COMPUTE_S if stage == 0 else 0.0)
    run = cluster(load, DEVICES, HISTOGRAM, frames, GAP_S, seed)
    run.run()
    return np.array(run.arrivals)


def tables() -> Tables:
    seconds = arrivals()
    edges = np.arange(0, LAST_S + BIN_S / 2, BIN_S)
    counts = np.histogram(seconds, edges)[0] / len(seconds)
    bins: list[Row] = [
        {"from_s": float(a), "to_s": float(b), "share": float(share)}
        for a, b, share in zip(edges, edges[1:], counts, strict=False)
    ]
    within: list[Row] = [
        {"within_s": limit, "share": float((seconds <= limit).mean()), "published": share}
        for limit, share in published.ARRIVALS.items()
    ]
    return {"": bins, "within": within}


def draw(tables: Tables) -> Figure:
    from drawing import COLOURS, legend, ours, sheet, theirs

    bins, within = tables[""], tables["within"]
    later = 1 - sum(row["share"] for row in bins)
    figure, (left, right) = sheet(
        2,
        f"""Results of a layer that takes {1e3 * published.ARRIVALS_COMPUTE_S:.0f} ms, from {DEVICES} devices over
        Wi-Fi; {100 * later:.0f} % come after {len(bins) * BIN_S:.1f} s. Delays of a message are
        Gamma({HISTOGRAM.shape}, {HISTOGRAM.scale} s), fitted to the two published shares; the paper's histogram itself
        is not at hand. Its text says both that 34 % are there within 100 ms, and that after that time 34 % are not.""",
    )
    left.bar(
        [1e3 * row["from_s"] for row in bins],
        [100 * row["share"] for row in bins],
        1e3 * BIN_S * 0.92,
        align="edge",
        color=COLOURS["sky"],
    )
    left.set(title="Arrivals", xlabel="ms after the frame's start", ylabel="% of the results")
    reached = np.cumsum([100 * row["share"] for row in bins])
    ours(right, [1e3 * row["to_s"] for row in bins], reached, "blue", "arrived", marker="")
    limits = [1e3 * row["within_s"] for row in within]
    theirs(right, limits, [100 * row["published"] for row in within], "blue", line=False)
    for x, row in zip(limits, within, strict=True):
        text = f"{100 * row['share']:.1f} % (published {100 * row['published']:.0f} %)"
        right.annotate(text, (x, 100 * row["share"]), (12, -14), textcoords="offset points")
    right.set(title="Arrived by then", xlabel="ms after the frame's start", ylabel="% of the results", ylim=(0, 100))
    legend(right, loc="upper left")
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
