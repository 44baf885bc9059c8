# SPDX-License-Identifier: Apache-2.0
"""What it saves not to wait for the last of the slices: CDC, Fig. 5b.

AlexNet: its convolutions on the master, each of its fully connected layers in slices on 3 to 6 devices, with and
without one more that computes the parity. Any N of N + 1 results are enough then. Times are a Pi 3's as published:
convolutions at 2.1 GMAC/s, fully connected layers, which wait for the memory, at 0.147 GMAC/s.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import published
from figure import Row, Tables, main
from networks import alexnet, vgg16
from wifi_delays import HISTOGRAM, MESSAGE, Delays, cluster

from dnn_dist.cut.spec import cut_network
from dnn_dist.run.shape import PlanShape
from dnn_dist.sim import Load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEVICES = (2, 3, 4, 5, 6)
FRAMES, GAP_S = 300, 20.0
FIRST_DENSE = 8  # op of AlexNet
DELAYS = {"messages of 80 ms, exponential": MESSAGE, "delays of the arrival figure": HISTOGRAM}
_CONV = slice(0, 13)  # of the published seconds by layer
_FC2 = 14


def speeds() -> tuple[float, float]:
    """MAC/s of a Pi 3 in convolutions and in fully connected layers, from VGG16's published seconds."""
    macs = [op.macs for op in vgg16().ops if op.macs]
    dense = macs[_FC2] / published.VGG16_LAYER_S[_FC2]  # the first swaps, the third is small
    return sum(macs[_CONV]) / sum(published.VGG16_LAYER_S[_CONV]), dense


def sliced(devices: int, parity: int) -> Load:
    """AlexNet with each of its fully connected layers in slices, and parities."""
    network = alexnet()
    coded = f"+{parity}" if parity else ""
    stages = cut_network(network, f"slices:{devices}{coded}@{FIRST_DENSE}..{len(network.ops) - 1}")
    convolution, dense = speeds()
    macs = [[piece.macs for piece in stage.pieces] for stage in stages]

    def seconds(robot: object, stage: int, piece: int) -> float:
        if stage == len(stages):  # the head
            return 0.0
        return macs[stage][piece] / (dense if stages[stage].distributed else convolution)

    return Load(PlanShape.of(network, stages, "float32"), seconds)


def latency(devices: int, parity: int, delays: Delays, frames: int = FRAMES, seed: int = 0) -> float:
    """Mean seconds of a frame; frames are far apart."""
    outcome = cluster(sliced(devices, parity), devices + parity, delays, frames, GAP_S, seed).run()
    return fmean(outcome.latencies)


def tables() -> Tables:
    rows: list[Row] = []
    for name, delays in DELAYS.items():
        for devices in DEVICES:
            plain, coded = (latency(devices, parity, delays) for parity in (0, 1))
            row = {"curve": name, "devices": devices, "plain_s": plain, "coded_s": coded, "gain": 1 - coded / plain}
            if devices in published.STRAGGLER_GAIN:
                row["published"] = published.STRAGGLER_GAIN[devices]
            rows.append(row)
    return {"": rows}


def draw(tables: Tables) -> Figure:
    from drawing import COLOURS, legend, ours, sheet, theirs

    convolution, dense = speeds()
    figure, (left, right) = sheet(
        2,
        f"""AlexNet, fully connected layers in slices, one parity; convolutions ({convolution / 1e9:.1f} GMAC/s) on the
        master, fully connected layers at {dense / 1e9:.3f} GMAC/s. Nothing is fitted to the published gain. Dashed:
        without the parity, which waits for the last device.""",
        height=4.4,
    )
    for name, colour in zip(DELAYS, ("green", "purple"), strict=True):
        rows = [row for row in tables[""] if row["curve"] == name]
        x = [row["devices"] for row in rows]
        ours(left, x, [row["coded_s"] for row in rows], colour, name)
        left.plot(x, [row["plain_s"] for row in rows], color=COLOURS[colour], linestyle="--")
        ours(right, x, [100 * row["gain"] for row in rows], colour, name)
    gains = published.STRAGGLER_GAIN
    theirs(right, list(gains), [100 * gain for gain in gains.values()], "grey")
    left.set(title="With a parity", xlabel="devices (data slices)", ylabel="latency of a frame, s", ylim=(0, None))
    right.set(title="Saved by the parity", xlabel="devices (data slices)", ylabel="% of the latency", ylim=(0, 70))
    for axes in (left, right):
        axes.set_xticks(DEVICES)
    legend(right, loc="upper left")
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
