# SPDX-License-Identifier: Apache-2.0
"""Accuracy when part of one layer is lost, on the shipped detector and on a digit classifier.

A layer is cut in eight slices of its output channels; random ones are lost, and what is lost is filled with zeros, as
a cluster does when time runs out. With parities nothing is lost until more slices are missing than there are.
Everything is computed by the pieces that robots run. The classifier (64-128-10) is trained here in a second.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import published
from figure import Row, Tables, main

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "test"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "models"))
from dataset import Scene, make_scene
from measure import score
from netbuilder import NO_ACTIVATION, RELU, NetBuilder

from dnn_dist.cut.build import build_piece
from dnn_dist.cut.merge import empty_outputs, merge, scatter
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.spec import cut_network
from dnn_dist.detect.card import load_card
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.run.engine import Engine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
SLICES = 8
SCENES = 100
SEED = 1_000_000_009  # neither a training seed nor that of the scenes on which the model card's figures were measured
LAYERS = {2: "2nd convolution", 9: "6th convolution", 16: "11th convolution"}
CODED = 9  # the layer that is also shown with parities
PARITIES = (0, 1, 3)
Tensors = dict[int, np.ndarray]


class Lossy:
    """A network of which one stage, sliced, loses pieces. What comes before it is computed once for each input."""

    def __init__(self, network: Network, layer: int, parity: int = 0) -> None:
        text = f"slices:{SLICES}+{parity}@{layer}" if parity else f"slices:{SLICES}@{layer}"
        self.network, self.parity = network, parity
        self.stages = cut_network(network, text)
        self._sliced = next(index for index, stage in enumerate(self.stages) if stage.distributed)
        self._engines = [[Engine(build_piece(network, s, piece)) for piece in s.pieces] for s in self.stages]

    def answers(self, image: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """The first output with 0, 1, ... all pieces lost, parities among them, in a random order of its own."""
        tensors: Tensors = {self.network.inputs[0]: image}
        for index in range(self._sliced):
            tensors |= self._run(index, tensors)
        stage, engines = self.stages[self._sliced], self._engines[self._sliced]
        made = {p.index: engines[p.index].run(scatter(stage, p, tensors)) for p in stage.pieces}
        order = rng.permutation(len(stage.pieces)).tolist()
        for lost in range(len(stage.pieces) + 1):
            held = {index: made[index] for index in order[lost:]}
            after = tensors | self._merged(stage, held)
            for index in range(self._sliced + 1, len(self.stages)):
                after |= self._run(index, after)
            yield after[self.network.outputs[0]]

    def _run(self, index: int, tensors: Tensors) -> Tensors:
        stage = self.stages[index]
        received = {p.index: self._engines[index][p.index].run(scatter(stage, p, tensors)) for p in stage.pieces}
        return merge(self.network, stage, received)

    def _merged(self, stage: Stage, held: dict[int, list[np.ndarray]]) -> Tensors:
        zeros = {
            t: np.zeros(self.network.tensors[t].array_shape, np.float32) for t in empty_outputs(self.network, stage)
        }
        return merge(self.network, stage, held, zeros)


def detector(scenes: int = SCENES, layers: dict[int, str] = LAYERS) -> list[Row]:
    """Mean average precision on held-out drawn scenes."""
    card = load_card(ROOT / "models" / "warehouse.yaml")
    network = read_network(ROOT / "models" / "warehouse_float32.tflite")
    drawn: list[Scene] = [make_scene((SEED, number)) for number in range(scenes)]
    found: list[Row] = []
    for layer, name in layers.items():
        for parity in PARITIES if layer == CODED else (0,):
            lossy, rng = Lossy(network, layer, parity), np.random.default_rng(layer)
            answers = [list(lossy.answers(image.astype(np.float32) / 255, rng)) for image, _ in drawn]
            for lost, outputs in enumerate(zip(*answers, strict=True)):
                pairs = ((output, truth) for output, (_, truth) in zip(outputs, drawn, strict=True))
                found.append(_row(f"{name}{_coded(parity)}", lost, parity, score(card, pairs)["mean"]))
    return found


def _row(curve: str, lost: int, parity: int, accuracy: float) -> Row:
    return {"curve": curve, "lost": lost, "of": SLICES + parity, "accuracy": float(accuracy)}


def _coded(parity: int) -> str:
    return f", {SLICES} + {parity}" if parity else ""


def digits(seed: int = 0) -> tuple[bytes, np.ndarray, np.ndarray]:
    """A classifier of scikit-learn's digits as .tflite; images (n, 8, 8, 1) and classes that it did not see."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    images, classes = load_digits(return_X_y=True)
    seen, held_out, learnt, wanted = train_test_split(images / 16, classes, test_size=0.3, random_state=seed)
    network = MLPClassifier(
        (128,), learning_rate_init=0.005, max_iter=100, tol=1e-3, n_iter_no_change=5, random_state=seed
    )
    with threadpool_limits(1):  # so small that threads would wait for one another
        trained = network.fit(seen, learnt)
    net = NetBuilder()
    x = net.input(8, 8, 1)
    for weights, bias, activation in zip(trained.coefs_, trained.intercepts_, (RELU, NO_ACTIVATION), strict=True):
        constants = [net.constant(np.ascontiguousarray(a, np.float32)) for a in (weights.T, bias)]
        output = net.tensor((1, len(bias)))
        options = {"fused_activation_function": activation}
        x = net.op("FULLY_CONNECTED", [x, *constants], output, "FullyConnectedOptions", version=1, **options)
    return net.build([x]), held_out.reshape(-1, 8, 8, 1).astype(np.float32), wanted


def classifier(seed: int = 0) -> list[Row]:
    """Share of held-out digits that are named rightly, the hidden layer of 128 being the one that loses."""
    model, images, classes = digits(seed)
    found: list[Row] = []
    with TemporaryDirectory(prefix="dnn_dist-") as folder:
        path = Path(folder, "digits.tflite")
        path.write_bytes(model)
        network = read_network(path)
        for parity in PARITIES[:2]:
            lossy, rng = Lossy(network, 0, parity), np.random.default_rng(seed)
            answers = np.array([[output.argmax() for output in lossy.answers(image, rng)] for image in images])
            right = (answers == classes[:, None]).mean(axis=0)
            name = f"hidden layer{_coded(parity)}"
            found += [_row(name, lost, parity, share) for lost, share in enumerate(right)]
    return found


def tables() -> Tables:
    return {"detector": detector(), "digits": classifier()}


def draw(tables: Tables) -> Figure:
    from drawing import COLOURS, legend, ours, sheet

    figure, axes = sheet(
        2,
        f"""Output channels of one layer in {SLICES} slices, random ones lost and filled with zeros; with 8 + r slices,
        r of them parities, up to r losses cost nothing. Left: the shipped detector on {SCENES} drawn scenes. Right:
        64-128-10 classifier of scikit-learn's digits. Shaded: where CDC says in words that the accuracy of
        Inception v3, without parity, drops heavily, and is close to zero; the points of its curve are not at hand.""",
        height=4.6,
    )
    colours = ("blue", "sky", "green", "red", "purple", "orange")
    for ax, (name, rows), ylabel in zip(axes, tables.items(), ("mAP at IoU 0.5", "accuracy"), strict=True):
        curves = list(dict.fromkeys(row["curve"] for row in rows))
        for curve, colour, marker in zip(curves, colours, "osDv^P", strict=False):
            part = [row for row in rows if row["curve"] == curve]
            ours(ax, [100 * r["lost"] / r["of"] for r in part], [r["accuracy"] for r in part], colour, curve, marker)
        for start, end, alpha in (
            (published.ACCURACY_HURT_ABOVE, published.ACCURACY_GONE_ABOVE, 0.10),
            (published.ACCURACY_GONE_ABOVE, 1.0, 0.22),
        ):
            ax.axvspan(100 * start, 100 * end, color=COLOURS["grey"], alpha=alpha, linewidth=0)
            said = "CDC:\nhurt" if end < 1 else "CDC: near zero"
            high = name == "detector"  # where its curves are not
            ax.text(100 * start + 1.5, 1.0 if high else 0.02, said, va="top" if high else "bottom", fontsize=8)
        ax.set(
            title=f"Loss in one layer: {name}",
            xlabel="lost, % of the slices and parities sent",
            ylabel=ylabel,
            ylim=(0, 1.02),
            xlim=(0, 100),
        )
        legend(ax, published=False, loc="upper left", bbox_to_anchor=(-0.02, -0.15), ncol=2)
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
