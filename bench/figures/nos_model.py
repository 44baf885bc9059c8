# SPDX-License-Identifier: Apache-2.0
"""NoS's quality model against simulation: random dataflows, whose tokens are sent one by one.

Each channel's token is lost, or late, or there when its target starts. A channel has a weight and, in each run, a
random sign, so that what comes over different paths is uncorrelated: the mean square at the sink is then what the
model calls sum_k p_k w_k^2. In some dataflows actors are coded: any N of their N + r tokens give all N.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from figure import Row, Tables, main

from dnn_dist.plan.deadlines import best, latency, uniform
from dnn_dist.plan.delay import Array, Delay, Gamma, Measured
from dnn_dist.plan.quality import Channel, Coded, Dataflow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOWS, RUNS = 200, 4000
NORMAL_95 = 1.96


def random_delay(rng: np.random.Generator) -> Delay:
    """Gamma, or what samples of one say."""
    gamma = Gamma(rng.uniform(0.5, 4.0), rng.uniform(0.2e-3, 3e-3))
    return gamma if rng.random() < 0.7 else Measured(tuple(rng.gamma(gamma.shape, gamma.scale, 40)))


def random_flow(rng: np.random.Generator) -> Dataflow:
    """Four to nine actors, each with one to three channels into it; in every second one the middle is coded."""

    def channel(source: int, target: int) -> Channel:
        return Channel(source, target, random_delay(rng), rng.uniform(0, 0.2), rng.uniform(0.2, 2.0))

    actors = int(rng.integers(4, 10))
    seconds = tuple(rng.uniform(0, 2e-3, actors))
    if rng.random() < 0.5:  # source, slices, the actor that decodes them, sink
        slices = range(1, actors - 2)
        legs = [channel(*ends) for s in slices for ends in ((0, s), (s, actors - 2))]
        pairs = tuple((2 * n, 2 * n + 1) for n in range(len(slices)))
        coded = Coded(pairs, int(rng.integers(1, len(slices) + 1)))
        return Dataflow(seconds, (*legs, channel(actors - 2, actors - 1)), (coded,))
    pairs = {(int(source), v) for v in range(1, actors) for source in rng.integers(0, v, 3)}
    pairs |= {(v, actors - 1) for v in range(actors - 1) if not any(source == v for source, _ in pairs)}
    return Dataflow(seconds, tuple(channel(*pair) for pair in sorted(pairs)))


def drawn(delay: Delay, rng: np.random.Generator, runs: int) -> Array:
    """Seconds: of a Gamma by NumPy's own generator, of samples by their distribution turned round."""
    if isinstance(delay, Gamma):
        return rng.gamma(delay.shape, delay.scale, runs)
    seconds = np.linspace(0, delay.quantile(1.0), 10_000)
    return np.interp(rng.random(runs), delay.within(seconds), seconds)


def simulate(flow: Dataflow, starts: Array, runs: int, rng: np.random.Generator) -> Array:
    """The square of what the sink makes, of each run; the source makes 1, what is missing counts as 0."""
    came, weight = [], []
    for one in flow.channels:
        arrives = starts[one.source] + flow.seconds[one.source] + drawn(one.delay, rng, runs)
        came.append((arrives <= starts[one.target]) & (rng.random(runs) >= one.loss))
        weight.append(one.weight * rng.choice((-1.0, 1.0), runs))
    for group in flow.coded:
        there = np.array([came[into] & came[out] for into, out in group.slices])
        enough = there.sum(0) >= group.needed
        for n, (into, out) in enumerate(group.slices):
            came[into] = np.ones(runs, bool)
            came[out] = (there[n] | enough) if n < group.needed else np.zeros(runs, bool)
    values = [np.ones(runs)]
    for actor in range(1, len(flow.seconds)):
        into_it = [(n, one.source) for n, one in enumerate(flow.channels) if one.target == actor]
        values.append(sum((came[n] * weight[n] * values[source] for n, source in into_it), np.zeros(runs)))
    return np.asarray(values[-1] ** 2)


def flows(count: int = FLOWS, runs: int = RUNS, seed: int = 0) -> list[Row]:
    """For each random dataflow the model's quality and the simulated one, with its 95 % interval."""
    rows: list[Row] = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        flow = random_flow(rng)
        low, high = latency(flow, 0.001), latency(flow, 0.999)
        deadline = low + rng.uniform(0.1, 0.9) * (high - low)
        optimised = bool(rng.random() < 0.5)
        starts = (best if optimised else uniform)(flow, deadline)
        scale = flow.quality(starts) / flow.kept(starts)
        seen = simulate(flow, starts, runs, rng) * scale
        margin = NORMAL_95 * float(seen.std()) / runs**0.5
        rows.append(
            {
                "flow": number,
                "actors": len(flow.seconds),
                "coded": int(bool(flow.coded)),
                "optimised": int(optimised),
                "model": float(flow.quality(starts)),
                "simulated": float(seen.mean()),
                "margin": margin,
                "snr": float(flow.snr(starts)),
            }
        )
    return rows


def within(rows: list[Row], margins: float = 1.0) -> int:
    """Of how many the model is within so many margins of the simulation."""
    return sum(abs(row["model"] - row["simulated"]) <= margins * row["margin"] for row in rows)


def tables() -> Tables:
    return {"": flows()}


def draw(tables: Tables) -> Figure:
    from drawing import COLOURS, legend, sheet

    rows = tables[""]
    figure, (axes,) = sheet(
        1,
        f"""{len(rows)} random dataflows, {RUNS} runs each, bars: 95 % intervals. {within(rows)} of them hold the
        model's value; by chance it would be {0.95 * len(rows):.0f}. Quality: power kept, of a lossless network's.""",
        height=4.8,
    )
    for coded, colour, name in ((0, "blue", "as in the paper"), (1, "orange", "with coded actors")):
        part = [row for row in rows if row["coded"] == coded]
        axes.errorbar(
            [row["model"] for row in part],
            [row["simulated"] for row in part],
            [row["margin"] for row in part],
            fmt="o",
            markersize=2.5,
            linewidth=0.8,
            color=COLOURS[colour],
            label=name,
        )
    axes.plot([0, 1], [0, 1], color=COLOURS["grey"], linewidth=0.8, zorder=0.5)
    axes.set(title="Quality: model and simulation", xlabel="model", ylabel="simulated", xlim=(0, 1), ylim=(0, 1))
    legend(axes, published=False, loc="upper left")
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
