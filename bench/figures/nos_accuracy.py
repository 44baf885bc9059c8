# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a digit classifier against the tightness of its deadline: NoS's example of shares by quality.

Ten hosts: one splits the image in 16 tokens and sends each of them to eight, which hold 16 of the 128 hidden neurons
each and send theirs to one that holds the output layer. Links delay by Gamma(2, 1 ms) and Gamma(3, 1.5 ms); which ones
are into the hidden layer and which out of it is not known here, so both ways are computed. 1 % is lost. What is late or
lost is replaced by zeros. The classifier (64-128-10, scikit-learn's digits) is trained here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import published
from figure import Row, Tables, main

from dnn_dist.plan.deadlines import best, latency, uniform
from dnn_dist.plan.delay import Array, Gamma
from dnn_dist.plan.quality import Channel, Dataflow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEDS = 20
RHOS = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
HOSTS, SIDE = 8, 4  # of the hidden layer; of the grid of tokens
FAST, SLOW, LOSS = Gamma(2, 1e-3), Gamma(3, 1.5e-3), 0.01
LINKS = {"slow into the hidden layer": (SLOW, FAST), "slow out of the hidden layer": (FAST, SLOW)}
STUDENT_95 = 2.093  # of 19 degrees of freedom


@dataclass(frozen=True, slots=True)
class Classifier:
    """Weights and biases by layer; images (n, 8, 8) and classes that it did not see."""

    weights: tuple[Array, Array]
    biases: tuple[Array, Array]
    images: Array
    classes: Array


def trained(seed: int) -> Classifier:
    """Another half of the digits and other first weights for each seed."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    images, classes = load_digits(return_X_y=True)
    seen, held_out, learnt, wanted = train_test_split(images / 16, classes, test_size=0.5, random_state=seed)
    network = MLPClassifier((16 * HOSTS,), learning_rate_init=0.005, max_iter=100, tol=1e-3, random_state=seed)
    with threadpool_limits(1):  # so small that threads would wait for one another
        network.fit(seen, learnt)
    return Classifier(tuple(network.coefs_), tuple(network.intercepts_), held_out.reshape(-1, 8, 8), wanted)


def flow(into: Gamma, out: Gamma) -> Dataflow:
    """The ten hosts. All tokens of a host have the same delays and the same share, so one channel stands for them."""
    hosts = range(1, HOSTS + 1)
    channels = [*(Channel(0, h, into, LOSS) for h in hosts), *(Channel(h, HOSTS + 1, out, LOSS) for h in hosts)]
    return Dataflow((0.0,) * (HOSTS + 2), tuple(channels))


def accuracy(network: Classifier, hosts: Dataflow, starts: Array, rng: np.random.Generator) -> float:
    """Share of the images that are named rightly when each host starts at `starts`; every image meets other delays."""
    (hidden, output), count = network.weights, len(network.images)
    budgets = hosts.budgets(starts)
    into, out = (hosts.channels[n].delay for n in (0, HOSTS))
    tokens = _there(rng, into, (count, HOSTS, SIDE, SIDE), budgets[:HOSTS, None, None])
    pixels = np.repeat(np.repeat(tokens, 8 // SIDE, axis=2), 8 // SIDE, axis=3) * network.images[:, None]
    made = np.einsum("nhp,hpu->nhu", pixels.reshape(count, HOSTS, 64), hidden.reshape(64, HOSTS, -1).swapaxes(0, 1))
    made = np.maximum(made + network.biases[0].reshape(HOSTS, -1), 0)
    made *= _there(rng, out, (count, HOSTS), budgets[HOSTS:])[:, :, None]
    answers = made.reshape(count, -1) @ output + network.biases[1]
    return float((answers.argmax(1) == network.classes).mean())


def _there(rng: np.random.Generator, delay: Gamma, shape: tuple[int, ...], budgets: Array) -> Array:
    """Which messages come in time."""
    return (rng.gamma(delay.shape, delay.scale, shape) <= budgets) & (rng.random(shape) >= LOSS)


def compared(networks: list[Classifier], links: str, rhos: Sequence[float] = RHOS) -> Iterator[Row]:
    """Each network with delays of its own, the same for both ways to share a deadline.

    The deadline is `rho` of the way between the latencies at which every channel delivers 0.001 and 0.999.
    """
    hosts = flow(*LINKS[links])
    least, most = (latency(hosts, share) for share in (0.001, 0.999))
    for rho in rhos:
        deadline = least + rho * (most - least)
        ways = {"uniform": uniform(hosts, deadline), "optimised": best(hosts, deadline)}
        pairs = np.array(
            [
                [accuracy(network, hosts, starts, np.random.default_rng(seed)) for starts in ways.values()]
                for seed, network in enumerate(networks)
            ]
        )
        gains = pairs[:, 1] - pairs[:, 0]
        row: dict[str, Any] = {"links": links, "rho": rho, "deadline_s": deadline}
        row |= {way: float(mean) for way, mean in zip(ways, pairs.mean(0), strict=True)}
        row |= {"gain": float(gains.mean()), "margin": STUDENT_95 * float(gains.std(ddof=1)) / len(networks) ** 0.5}
        row |= {f"{way}_quality": float(hosts.quality(starts)) for way, starts in ways.items()}
        if rho in published.TIGHTNESS:
            row |= dict(zip(("published_uniform", "published_optimised"), published.TIGHTNESS[rho], strict=True))
        yield row


def tables() -> Tables:
    networks = [trained(seed) for seed in range(SEEDS)]
    return {"": [row for links in LINKS for row in compared(networks, links)]}


def draw(tables: Tables) -> Figure:
    from drawing import COLOURS, legend, ours, sheet, theirs

    figure, (left, right) = sheet(
        2,
        f"""Ten hosts, links of Gamma(2, 1 ms) and Gamma(3, 1.5 ms), 1 % loss; {SEEDS} classifiers of scikit-learn's
        digits (64-128-10), each with the same delays for both ways. Published: 784-128-10, read off. Bars: 95 %
        intervals of the paired gain. Dashed: uniform shares.""",
    )
    for links, colour in zip(LINKS, ("blue", "green"), strict=True):
        rows = [row for row in tables[""] if row["links"] == links]
        x = [row["rho"] for row in rows]
        ours(left, x, [100 * row["optimised"] for row in rows], colour, links)
        left.plot(x, [100 * row["uniform"] for row in rows], color=COLOURS[colour], linestyle="--")
        gains, margins = ([100 * row[key] for row in rows] for key in ("gain", "margin"))
        right.errorbar(x, gains, margins, fmt="o-", color=COLOURS[colour], label=links, capsize=2)
    known = list(published.TIGHTNESS)
    even, optimised = (np.array([100 * pair[n] for pair in published.TIGHTNESS.values()]) for n in (0, 1))
    theirs(left, known, optimised, "grey", label="published, optimised")
    theirs(left, known, even, "black", label="published, uniform")
    theirs(right, known, optimised - even, "grey")
    left.set(title="Accuracy", xlabel="tightness of the deadline, rho", ylabel="% named rightly", ylim=(0, 100))
    right.set(title="Gain by shares of the best SNR", xlabel="tightness of the deadline, rho", ylabel="points gained")
    legend(left, published=False, loc="lower right")
    legend(right)
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
