# SPDX-License-Identifier: Apache-2.0
"""One frame between a robot and a server: Wang, Duan and Wu (ICCCN 2021), five networks on three links.

LO: all on the robot. RO: all on the server. DSL: the minimum cut of summed times. EJ: the best closed set of layers
when paths go in Extended Johnson's order. Best: the best closed set and order. All by calculation, in
`dnn_dist/plan/front.py` and `paths.py`. With it the paper's example of an order of paths, and one where its bound does
not hold.

Fitted, to LO and RO alone: each network's time on the robot; one time on the server, for all networks; the rate of each
link. That meets RO within 2.4 %, but for ResNet18 on 4G (5.5 %): its input is GoogLeNet's, and on 4G it takes 67 ms
longer, on Wi-Fi 11 ms less, which no rates explain. What is left is put on the link's rate in that measurement. How a
network's time is shared out among its layers is not fitted: convolutions and fully connected layers take as long for a
MAC as VGG16's did on a Raspberry Pi 3. The paper names its networks and prints no layers: Siamese and multi-stream have
two and three of AlexNet's streams here, for multi-stream's LO is three times AlexNet's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import published
from figure import Row, Tables, main
from networks import alexnet_p, googlenet, multi_stream, resnet18, siamese, siamese_koch, vgg16

from dnn_dist.graph.network import Network
from dnn_dist.plan.between import Layered, layered
from dnn_dist.plan.front import best_cut
from dnn_dist.plan.minimum_cut import minimum_cut
from dnn_dist.plan.paths import Paths, best_order, extended_johnson, ordered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORKS: dict[str, Callable[[], Network]] = {
    "AlexNet-P": alexnet_p,
    "GoogLeNet": googlenet,
    "ResNet18": resnet18,
    "Siamese": siamese,
    "multi-stream": multi_stream,
}
METHODS = ("LO", "RO", "DSL", "EJ", "best")
COUNTER_EXAMPLE = ((2, 20, 83), *[(1, 20, 1)] * 4)
_CONVOLUTIONS, _FC2 = 13, 14  # of VGG16's layers with weights; its first fully connected one swaps


@dataclass(frozen=True, slots=True)
class Profile:
    """What is fitted."""

    server: float  # ms of a whole network, whichever
    rates: dict[str, float]  # link -> bytes/ms
    deviations: dict[tuple[str, str], float]  # network, link -> rate in that measurement / the link's

    def rate(self, network: str, link: str) -> float:
        """Bytes/ms in that measurement."""
        return self.rates[link] * self.deviations[network, link]


def input_bytes(name: str) -> int:
    """Of all inputs, float32."""
    network = NETWORKS[name]()
    return sum(network.tensors[tensor].bytes for tensor in network.inputs)


@cache
def profile() -> Profile:
    """Least squares of the relative deviations from RO: bytes / rate + server."""
    cells = [
        (name, link, ro) for name, (_, by_link) in published.COOPERATIVE.items() for link, (ro, _) in by_link.items()
    ]
    rows = [[*(input_bytes(name) * (link == other) for other in published.LINKS), 1.0] for name, link, _ in cells]
    times = np.array([ro for *_, ro in cells])
    found, *_ = np.linalg.lstsq(np.array(rows) / times[:, None], np.ones(len(cells)), rcond=None)
    server, rates = float(found[-1]), dict(zip(published.LINKS, (1 / found[:-1]).tolist(), strict=True))
    hours = {(name, link): input_bytes(name) / (ro - server) / rates[link] for name, link, ro in cells}
    return Profile(server, rates, hours)


def shares(network: Network) -> np.ndarray:
    """Each op's share of a network's time."""
    layers = [op.macs for op in vgg16().ops if op.macs]
    convolution = sum(layers[:_CONVOLUTIONS]) / sum(published.VGG16_LAYER_S[:_CONVOLUTIONS])  # MAC/s
    dense = layers[_FC2] / published.VGG16_LAYER_S[_FC2]
    seconds = np.array([op.macs / (dense if op.kind == "FULLY_CONNECTED" else convolution) for op in network.ops])
    return seconds / seconds.sum()


def between(name: str, link: str, network: Network | None = None) -> Layered:
    """A network with its times in ms; `network` instead of ours of that name."""
    network, fitted = network or NETWORKS[name](), profile()
    on_robot = shares(network) * published.COOPERATIVE[name][0]
    rate = fitted.rate(name, link)

    def send(tensors: Sequence[int]) -> float:
        return sum(network.tensors[tensor].bytes for tensor in tensors) / rate

    return layered(network, on_robot.tolist(), (shares(network) * fitted.server).tolist(), send)


def cell(name: str, link: str) -> list[Row]:
    """One network on one link, all methods."""
    graph = between(name, link).graph
    ej = best_cut(graph, lambda paths: ordered(paths, "Extended Johnson"))
    best = best_cut(graph)
    lo, (ro, theirs) = published.COOPERATIVE[name][0], published.COOPERATIVE[name][1][link]
    row = {"network": name, "link": link}
    return [
        {**row, "method": "LO", "ms": graph.summed(graph.whole), "published": lo},
        {**row, "method": "RO", "ms": graph.summed(graph.least), "published": ro},
        {**row, "method": "DSL", "ms": graph.summed(minimum_cut(graph))},
        {**row, "method": "EJ", "ms": ej.makespan, "published": theirs},
        {**row, "method": "best", "ms": best.makespan, "order by": best.paths.rule, "gap": best.paths.gap},
    ]


def table() -> list[Row]:
    return [row for name in NETWORKS for link in published.LINKS for row in cell(name, link)]


def fitted() -> list[Row]:
    """Of each measurement: the rate of the link, and how far RO is off without the measurement's own rate."""
    found = profile()
    return [
        {
            "network": name,
            "link": link,
            "mbit_s": 8e-3 * found.rates[link],
            "server_ms": found.server,
            "rate_deviation": found.deviations[name, link] - 1,
            "ro_deviation": (input_bytes(name) / found.rates[link] + found.server) / ro - 1,
        }
        for name, (_, by_link) in published.COOPERATIVE.items()
        for link, (ro, _) in by_link.items()
    ]


def other_siamese() -> list[Row]:
    """EJ if the Siamese network were the one that is called so first: the paper's three figures speak against it."""
    rows: list[Row] = []
    for link in published.LINKS:
        graph = between("Siamese", link, siamese_koch()).graph
        ej = best_cut(graph, lambda paths: ordered(paths, "Extended Johnson"))
        rows.append({"link": link, "ms": ej.makespan, "published": published.COOPERATIVE["Siamese"][1][link][1]})
    return rows


def orders() -> list[Row]:
    """The worked example, every order of its paths."""
    paths = Paths.of(published.PATHS)
    ej = extended_johnson(paths)
    found = [
        {"order": " ".join(str(path + 1) for path in order), "s": paths.makespan(order), "ej": order == ej}
        for order in permutations(range(len(published.PATHS)))
    ]
    return sorted(found, key=lambda row: (row["s"], not row["ej"], row["order"]))


def counter_example() -> list[Row]:
    """Where Extended Johnson takes more than 5/3 of the best order."""
    paths = Paths.of(COUNTER_EXAMPLE)
    best = best_order(paths).makespan
    ej = paths.makespan(extended_johnson(paths))
    return [{"ej_s": ej, "best_s": best, "ratio": ej / best, "published_ratio": published.EJ_RATIO}]


def tables() -> Tables:
    return {
        "": table(),
        "fitted": fitted(),
        "siamese": other_siamese(),
        "orders": orders(),
        "counter_example": counter_example(),
    }


def draw(tables: Tables) -> Figure:
    from drawing import COLOURS, legend, sheet

    (counter,) = tables["counter_example"]
    figure, axes = sheet(
        3,
        f"""Time of a frame as a share of the better of LO and RO, to which the profile is fitted; EJ is not fitted.
        Last: every order of the paper's four paths, Extended Johnson's in red. With (2, 20, 83) and four times
        (1, 20, 1) it takes {counter["ej_s"]:.0f} and the best order {counter["best_s"]:.0f}: {counter["ratio"]:.2f}
        times, not 5/3 at most.""",
        rows=2,
        height=6.4,
    )
    hollow = {"marker": "o", "linestyle": "none", "markerfacecolor": "none", "markersize": 10}
    styles = {"DSL": ("sky", "^"), "EJ": ("red", "o"), "best": ("green", "s")}
    for ax, name in zip(axes, NETWORKS, strict=False):
        for number, link in enumerate(published.LINKS):
            cells = {r["method"]: r for r in tables[""] if (r["network"], r["link"]) == (name, link)}
            alone = min(cells["LO"]["ms"], cells["RO"]["ms"])
            for method, (colour, marker) in styles.items():
                label = method if not number else None
                side = {"DSL": -0.15, "EJ": 0.0, "best": 0.15}[method]
                share = cells[method]["ms"] / alone
                ax.plot([number + side], [share], marker, color=COLOURS[colour], label=label, linestyle="none")
            theirs = min(cells["LO"]["published"], cells["RO"]["published"])
            ax.plot([number], [cells["EJ"]["published"] / theirs], color=COLOURS["red"], **hollow)
        ax.set(title=name, ylim=(0, 1.1), xlim=(-0.5, 2.5), ylabel="of the better of LO and RO")
        ax.set_xticks(range(3), published.LINKS)
    legend(axes[0], loc="lower left")
    ax = axes[-1]
    rows = tables["orders"]
    ax.bar(range(len(rows)), [row["s"] for row in rows], color=[COLOURS["red" if r["ej"] else "grey"] for r in rows])
    ax.set(title="every order of four paths", ylabel="time of the frame, s", xlabel="orders, best first")
    ax.set_xticks([])
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
