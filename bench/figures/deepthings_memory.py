# SPDX-License-Identifier: Apache-2.0
"""Memory of a device, layer by layer, whole and cut: DeepThings' memory figure and its two savings.

A device holds one layer's input, output and weights at a time. All by calculation, nothing is fitted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import published
from figure import Row, Tables, main
from networks import yolov2, yolov2_first16

from dnn_dist.cli.cost import cost
from dnn_dist.cut.memory import layer_memory
from dnn_dist.cut.spec import cut_network
from dnn_dist.graph.geometry import Pointwise
from dnn_dist.graph.network import Op

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIB = 2**20
CUTS = {"bands:4": "MoDNN, 4 bands", "tiles:3x3": "tiles 3x3", "tiles:5x5": "tiles 5x5"}


def savings() -> list[Row]:
    """Of the largest footprint (with the weights of all layers) and of the mean layer, beside the published ones."""
    network = yolov2_first16()
    found = []
    for cut in CUTS:
        facts = cost(network, cut_network(network, cut))
        pairs = {
            "largest": (facts["memory_saving"], published.MEMORY_SAVING[cut]),
            "layer": (facts["layer_memory_saving"], published.LAYER_MEMORY_SAVING[cut]),
        }
        found += [{"cut": cut, "of": what, "saving": a, "published": b} for what, (a, b) in pairs.items()]
    return found


def layers() -> list[Row]:
    """MiB of each layer (input, output, its own weights), whole and for the piece that needs most."""
    network = yolov2_first16()
    table: dict[int, dict[str, object]] = {}
    for cut in CUTS:
        for stage in cut_network(network, cut):
            for layer in layer_memory(network, stage):
                row = table.setdefault(layer.op, {"op": layer.op, "layer": network.ops[layer.op].kind})
                row["weights_mib"] = layer.weights / MIB
                row["whole_mib"] = (layer.weights + layer.whole) / MIB
                row[f"{cut}_mib"] = (layer.weights + layer.piece) / MIB
    return [table[op] for op in sorted(table)]


def shares() -> list[Row]:
    """What the first 16 of Darknet's 32 layers have of YOLOv2: of its MACs, and of what layers take and give.

    Darknet's layers are the convolutions (with their activation), pools, SPACE_TO_DEPTH and CONCATENATION of the file,
    and two that the file lacks: a route that repeats a tensor, and the region layer behind the last.
    """
    network, first = yolov2(), len(yolov2_first16().ops)
    route = network.tensors[network.ops[first].outputs[0]].bytes  # the output that goes past the last pool
    region = sum(network.tensors[tensor].bytes for tensor in network.outputs)
    held = [0 if isinstance(op.geometry, Pointwise) and op.kind != "CONCATENATION" else _held(op) for op in network.ops]
    macs = [op.macs for op in network.ops]
    found = {
        "computation": sum(macs[:first]) / sum(macs),
        "memory": sum(held[:first]) / (sum(held) + 2 * route + 2 * region),
    }
    return [{"of": of, "share": share, "published": published.FIRST16_SHARES[of]} for of, share in found.items()]


def _held(op: Op) -> int:
    """Bytes that a layer takes and gives."""
    network = yolov2()
    return sum(network.tensors[tensor].bytes for tensor in (*network.sources(op), *op.outputs))


def tables() -> Tables:
    return {"layers": layers(), "savings": savings(), "shares": shares()}


def draw(tables: Tables) -> Figure:
    from drawing import COLOURS, sheet

    by_layer, by_cut = tables["layers"], tables["savings"]
    told = ", ".join(
        f"{100 * row['share']:.1f} % of its {row['of']} ({100 * row['published']:.3g} published)"
        for row in tables["shares"]
    )
    figure, (left, right) = sheet(
        2,
        f"""YOLOv2's first 16 layers at 608 x 608, float32; they have {told}: MACs, and bytes of each layer's input and
        output. Left: a layer's input, output and weights, for the piece that
        needs most. Right: saving of the largest footprint (weights of all layers and the largest layer), and mean
        saving of a layer; lines mark what DeepThings published.""",
        width_ratios=(1.5, 1),
    )
    colours = ("grey", "red", "sky", "blue")
    keys = ["whole_mib", *(f"{cut}_mib" for cut in CUTS)]
    for index, (key, label, colour) in enumerate(zip(keys, ["whole", *CUTS.values()], colours, strict=True)):
        x = [number + (index - 1.5) * 0.21 for number in range(1, len(by_layer) + 1)]
        left.bar(x, [float(row[key]) for row in by_layer], 0.21, color=COLOURS[colour], label=label)
    left.set(title="Memory by layer", ylabel="input, output and weights, MiB")
    pools = [str(n) for n, row in enumerate(by_layer, 1) if "POOL" in str(row["layer"])]
    left.set_xlabel(f"layer ({', '.join(pools)}: pools)")
    left.set_xticks(range(1, len(by_layer) + 1))
    left.grid(axis="x", visible=False)
    left.legend()
    for index, what in enumerate(("largest", "layer")):
        part = [row for row in by_cut if row["of"] == what]
        for number, (row, colour) in enumerate(zip(part, colours[1:], strict=True)):
            x = index + (number - 1) * 0.28
            right.bar(x, 100 * float(row["saving"]), 0.26, color=COLOURS[colour])
            level = 100 * float(row["published"])
            right.plot([x - 0.14, x + 0.14], [level, level], color="black", linewidth=2)
            right.text(x, level + 2, f"{100 * float(row['saving']):.1f}\n({level:.0f})", ha="center", fontsize=8)
    right.set(title="Saved, % (published)", ylim=(0, 100), ylabel="% of the whole")
    right.set_xticks([0, 1], ["largest footprint", "mean of layers"])
    right.grid(axis="x", visible=False)
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
