# SPDX-License-Identifier: Apache-2.0
"""What a device that fails costs, with and without coding: AlexNet on five devices, as CDC reports it.

The setting of the straggler figure: fully connected layers in five slices on five devices of a fixed division, with and
without a sixth one for the parity. In mid-frame one of the devices dies for good; the cluster's own timeouts notice.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import published
from cdc_stragglers import sliced
from figure import Row, Tables, main
from wifi_delays import MESSAGE, cluster

from dnn_dist.sim.faults import Fault

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEVICES = 5
RUNS, FRAMES, GAP_S = 60, 9, 10.0
HIT = 3  # the frame in which the device dies
MOMENTS = ("before", "hit", "after")


def latencies(parity: int, runs: int = RUNS) -> dict[str, np.ndarray]:
    """Seconds of the frames before the failure, of the one that it hits, and after, of all runs."""
    found: dict[str, list[float]] = {moment: [] for moment in MOMENTS}
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        # From a fifth of a second on: before it the master computes the convolutions.
        fault = Fault(HIT * GAP_S + rng.uniform(0.2, 0.8), "kill", f"pi{rng.integers(1, DEVICES + 1)}")
        run = cluster(sliced(DEVICES, parity), DEVICES + parity, MESSAGE, FRAMES, GAP_S, seed, (fault,)).run()
        if len(run.latencies) != FRAMES:
            raise RuntimeError(f"seed {seed}: {len(run.latencies)} of {FRAMES} frames have a result, {run.notes}")
        for frame, seconds in enumerate(run.latencies):
            found[MOMENTS[(frame >= HIT) + (frame > HIT)]].append(seconds)
    return {moment: np.array(seconds) for moment, seconds in found.items()}


def tables() -> Tables:
    given = {("plain", "before"): published.ALEXNET_S, ("plain", "after"): published.ALEXNET_FAILED_S}
    rows: list[Row] = []
    for parity, way in enumerate(("plain", "coded")):
        seconds = latencies(parity)
        for moment in MOMENTS:
            row = {"way": way, "moment": moment, "mean_s": float(seconds[moment].mean())}
            row |= {"to_before": row["mean_s"] / float(seconds["before"].mean())}
            if (way, moment) in given:
                row["published_s"] = given[way, moment]
            rows.append(row)
    return {"": rows}


def draw(tables: Tables) -> Figure:
    from drawing import COLOURS, legend, sheet

    figure, (axes,) = sheet(
        1,
        f"""AlexNet, fully connected layers in {DEVICES} slices, messages of {1e3 * MESSAGE.scale:.0f} ms,
        {RUNS} failures. After a failure without coding four devices compute five slices.""",
    )
    names = {"before": "before", "hit": "the frame\nof the failure", "after": "after"}
    for shift, way, colour, label in ((-0.2, "plain", "orange", "5 devices"), (0.2, "coded", "blue", "5 + 1, coded")):
        rows = [row for row in tables[""] if row["way"] == way]
        places = [n + shift for n in range(len(rows))]
        axes.bar(places, [1e3 * row["mean_s"] for row in rows], 0.36, color=COLOURS[colour], label=label)
        for place, row in zip(places, rows, strict=True):
            if "published_s" in row:
                hollow = {"marker": "o", "markerfacecolor": "white", "markersize": 9.5}
                axes.plot([place], [1e3 * row["published_s"]], color=COLOURS["black"], **hollow)
    axes.set_xticks(range(len(MOMENTS)), [names[moment] for moment in MOMENTS])
    axes.set(title="Latency when a device fails", ylabel="latency of a frame, ms")
    legend(axes, loc="upper left")
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
