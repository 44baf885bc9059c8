# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of doc/concepts.md from the project's own cuts, codes and simulator: `make pictures`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from dnn_dist.camera.scene import SceneFilm
from dnn_dist.cli.gantt import draw_gantt
from dnn_dist.cut.feeds import Feeds
from dnn_dist.cut.spec import cut_network
from dnn_dist.graph.region import Region
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.fleet import read_fleet
from dnn_dist.plan.plan import Plan
from dnn_dist.run.report import Status
from dnn_dist.sim import Scenario, Source, parse_faults, plan_load, simulate

ROOT = Path(__file__).resolve().parents[1]
OUT = Path(__file__).parent / "pictures"
MODEL = ROOT / "models/warehouse_float32.tflite"
FLEET = ROOT / "config/fleets/six_pi3.yaml"
COLOURS = ("#3f9fd1", "#d98200", "#00805c", "#a8527f", "#6e6e6e")  # Okabe and Ito's, darkened


def sheet(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    matplotlib.rcParams.update({"font.size": 9, "axes.titlesize": 9.5, "axes.titlelocation": "left"})
    figure = pyplot.figure(figsize=(width, height), layout="constrained", dpi=110)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    return figure, list(np.ravel(figure.subplots(1, columns, squeeze=False)))


def box(axes: Axes, region: Region, colour: str, fill: float = 0.0, **style: object) -> None:
    """A region's outline; `fill` is how much its colour covers."""
    place = (region.x0 - 0.5, region.y0 - 0.5), region.width, region.height
    if fill:
        axes.add_patch(Rectangle(*place, facecolor=colour, alpha=fill, linewidth=0))
    axes.add_patch(Rectangle(*place, fill=False, edgecolor=colour, **{"linewidth": 2, **style}))


def bare(axes: Axes, region: Region, title: str) -> None:
    axes.set(xlim=(-3, region.width + 2), ylim=(region.height + 2, -2), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    axes.set_title(title)


def tiles_and_halo() -> Figure:
    """One tile of 2x2 through ops 0 to 10 of the shipped detector: what it makes, and what it needs for that."""
    network = read_network(MODEL)
    (stage,) = (stage for stage in cut_network(network, "tiles:2x2@0..10") if stage.distributed)
    image, _ = SceneFilm(2).frame(8)
    figure, (left, right) = sheet(9.2, 3.7, 2)
    inputs = [piece.inputs[0].region for piece in stage.pieces]
    outputs = [piece.outputs[0].region for piece in stage.pieces]
    scale = image.shape[0] // network.tensors[stage.outputs[0]].shape[1]
    left.imshow(image)
    for region in outputs:
        share = Region(*(scale * edge for edge in (region.y0, region.y1, region.x0, region.x1)))
        box(left, share, "white", linewidth=1.2)
    box(left, inputs[0], COLOURS[1], 0.25)
    right.imshow(np.zeros((*network.tensors[stage.outputs[0]].shape[1:3], 3)) + 0.93)
    for number, region in enumerate(outputs):
        box(right, region, COLOURS[1] if number == 0 else "#808080", 0.35 if number == 0 else 0, linewidth=1.2)
        right.text((region.x0 + region.x1 - 1) / 2, (region.y0 + region.y1 - 1) / 2, f"tile {number}", ha="center")
    one, whole = inputs[0], sum(region.size for region in inputs)
    bare(left, Region(0, image.shape[0], 0, image.shape[1]), f"needed for tile 0: {one.height} x {one.width} pixels")
    made = outputs[0]
    bare(right, Region(0, 16, 0, 20), f"made by tile 0: {made.height} x {made.width} of the tensor after op 10")
    macs = sum(piece.macs for piece in stage.pieces) / sum(op.macs for op in network.ops[:11])
    text = (
        f"White: quarters of the image, {image.shape[0] // 2} x {image.shape[1] // 2}. The rest of the box is halo. "
        f"All four tiles together read {whole / image[..., 0].size:.2f} images and compute {macs:.2f} times the work."
    )
    figure.supxlabel(text, fontsize=8, color="#404040")
    return figure


def direct_boundaries() -> Figure:
    """What meets at a boundary: gathered at the aggregator, or straight from tile to tile."""
    network = read_network(MODEL)
    cut = "tiles:2x2@0..7>tiles:2x2@8..10"
    feeds = Feeds(network, cut_network(network, cut))
    boundary, taker = feeds.stages[0], feeds.stages[1].pieces[0]
    _, rows, columns, _ = network.tensors[boundary.outputs[0]].shape
    whole = Region(0, rows, 0, columns)
    figure, (left, right) = sheet(9.2, 4.3, 2)
    for axes in (left, right):
        for piece in boundary.pieces:
            region = piece.outputs[0].region
            box(axes, region, COLOURS[piece.index], 0.3 if axes is left else 0.12, linewidth=1)
            # At the outer corners, since what goes over a boundary is drawn along the inner edges.
            x, side = (region.x0 + 1, "left") if piece.index % 2 == 0 else (region.x1 - 2, "right")
            y = region.y0 + 3 if piece.index < 2 else region.y1 - 2
            axes.text(x, y, f"worker {piece.index}", fontsize=8, ha=side)
    middle = columns / 2 - 0.5, rows / 2 - 0.5
    sent = sum(piece.outputs[0].bytes for piece in boundary.pieces)
    back = sum(port.bytes for piece in feeds.stages[1].pieces for port in piece.inputs)
    for piece in boundary.pieces:
        region = piece.outputs[0].region
        centre = (region.x0 + region.x1) / 2, (region.y0 + region.y1) / 2
        style = {"arrowstyle": "<|-|>", "mutation_scale": 12, "color": "#404040", "shrinkB": 16}
        left.add_patch(FancyArrowPatch(centre, middle, **style))
    left.text(*middle, "aggregator", ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "#404040"})
    bare(left, whole, f"gathered ( ; ): {(sent + back) / 1000:.0f} kB go to the aggregator and out again")
    box(right, taker.inputs[0].region, "black", linewidth=1.6, linestyle="--")
    for (_, maker), boxes in feeds.feeds(1, 0).items():
        for one in boxes:
            box(right, one.region, COLOURS[maker], 0.7 if maker else 0.25, linewidth=0.8)
            start = (one.region.x0 + one.region.x1) / 2, (one.region.y0 + one.region.y1) / 2
            if maker:
                style = {"arrowstyle": "-|>", "mutation_scale": 12, "color": "#202020"}
                right.add_patch(FancyArrowPatch(start, (columns / 4, rows / 4), **style))
    crossed = sum(
        one.bytes
        for piece in feeds.stages[1].pieces
        for (_, maker), boxes in feeds.feeds(1, piece.index).items()
        for one in boxes
        if maker != piece.index
    )
    bare(right, whole, f"direct ( > ): {crossed / 1000:.0f} kB go from worker to worker")
    text = f"The tensor between op 7 and op 8 of the shipped detector ({cut}); dashed: what worker 0 needs of it next."
    figure.supxlabel(text, fontsize=8, color="#404040")
    return figure


def slices_and_parity() -> Figure:
    """Four slices of a convolution's channels, their parity, and the slice that comes out of it."""
    rng = np.random.default_rng(1)
    pixels, weights = rng.normal(size=(40, 9)), rng.normal(size=(9, 32))
    slices = [pixels @ part for part in np.split(weights, 4, axis=1)]
    parity = pixels @ sum(np.split(weights, 4, axis=1))
    lost = 2
    decoded = parity - sum(part for number, part in enumerate(slices) if number != lost)
    figure, axes = sheet(9.2, 3.2, 6)
    most = max(np.abs(one).max() for one in (*slices, parity))
    titles = [
        *(f"worker {n}\nchannels {8 * n}..{8 * n + 7}" for n in range(4)),
        "worker 4\nparity",
        "decoded\nat the aggregator",
    ]
    for number, (one, array, title) in enumerate(zip(axes, [*slices, parity, decoded], titles, strict=True)):
        one.imshow(array, cmap="RdBu", vmin=-most, vmax=most, aspect="auto", alpha=0.15 if number == lost else 1)
        one.set(xticks=[], yticks=[])
        one.set_title(title, fontsize=8.5)
        one.spines[:].set_edgecolor("#c00000" if number == lost else "#808080")
    axes[lost].text(0.5, 0.5, "late\nor dead", transform=axes[lost].transAxes, ha="center", color="#c00000")
    error = np.abs(decoded - slices[lost]).max() / np.abs(slices[lost]).max()
    text = (
        "slices:4+1. The parity's weights are the sum of the others' weights, so its result is the sum of theirs:\n"
        "parity - 0 - 1 - 3 = 2. Any four of five are enough. "
        f"Largest error of this one: {error:.0e} of the largest value; int8 models decode exactly."
    )
    figure.supxlabel(text, fontsize=8, color="#404040")
    return figure


def scenario(cut: str, faults: str, deadline: float, frames: int, rate: float) -> Scenario:
    """The shipped detector on six Raspberry Pi 3, the first with the camera."""
    network, fleet = read_network(MODEL), read_fleet(FLEET)
    source = Source(
        "pi1", plan_load(network, Plan(model=network.sha256, cut=cut)), frames=frames, rate=rate, deadline=deadline
    )
    return Scenario(fleet, (source,), faults=parse_faults(faults, fleet.names, frames / rate))


def leases() -> Callable[[Path], None]:
    """A worker dies while it computes: frames over robots, simulated."""
    outcome = simulate(scenario("tiles:2x3@0..10", "kill pi2@0.57, restart pi2@1.3", 1.0, 6, 4.0))
    return lambda path: draw_gantt(
        outcome, path, "pi2 dies at 0.57 s; its task goes to another, and it is back at 1.3 s"
    )


def degradation() -> Figure:
    """What comes of frames while two of six robots are dead, by the deadline that they are given."""
    deadlines = [0.2, 0.23, 0.26, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 1.0]
    faults = "kill pi2@0.55, restart pi2@4, kill pi5@6.05, restart pi5@9, slow pi3 x6@10..15"
    counts = []
    for deadline in deadlines:
        what = scenario("tiles:2x3@0..10", faults, deadline, 40, 2.0)
        counts.append(Counter(run.report.status for run in simulate(replace(what, seed=3)).frames))
    figure, (axes,) = sheet(7.4, 3.4)
    bottom = np.zeros(len(deadlines))
    words = {
        Status.COMPLETE: ("complete", "#00805c"),
        Status.RECOMPUTED: ("recomputed: a lease ended, another worker did it", "#3f9fd1"),
        Status.FILLED: ("filled: a gap holds the last frame's tile", "#d98200"),
        Status.NO_RESULT: ("no result", "#6e6e6e"),
    }
    for status, (word, colour) in words.items():
        share = np.array([100 * count[status] / sum(count.values()) for count in counts])
        axes.bar(range(len(deadlines)), share, bottom=bottom, color=colour, label=word, width=0.85)
        bottom += share
    axes.set_xticks(range(len(deadlines)), [f"{1000 * deadline:.0f}" for deadline in deadlines])
    axes.set(xlabel="deadline, ms", ylabel="% of 40 frames", ylim=(0, 100))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    text = (
        "Simulated: 2x3 tiles of the shipped detector on six Raspberry Pi 3; pi2 and pi5 die and come back, "
        "pi3 is six times slower for a while."
    )
    figure.supxlabel(text, fontsize=7, color="#404040")
    return figure


PICTURES = {
    "halo": tiles_and_halo,
    "direct": direct_boundaries,
    "parity": slices_and_parity,
    "leases": leases,
    "degradation": degradation,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}; all by default")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the pictures (doc/pictures)")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(PICTURES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; take of {', '.join(PICTURES)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or PICTURES:
        made, path = PICTURES[name](), arguments.out / f"{name}.png"
        if isinstance(made, Figure):
            made.savefig(path, metadata={"Software": None})
        else:
            made(path)
        print(path)


if __name__ == "__main__":
    main()
