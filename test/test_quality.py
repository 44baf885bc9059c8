# SPDX-License-Identifier: Apache-2.0
"""The quality model of deadlines against formulas, SciPy's distributions and simulation; shares of a deadline."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
sys.path.insert(0, str(Path(__file__).parents[1] / "bench" / "figures"))
import nos_model
from scipy.stats import binom, gamma

from dnn_dist.errors import PlanError
from dnn_dist.plan.deadlines import best, latency, proportional, uniform
from dnn_dist.plan.delay import Gamma, Measured
from dnn_dist.plan.quality import Channel, Coded, Dataflow, at_most, decoded

FAST, SLOW = Gamma(2, 1e-3), Gamma(3, 1.5e-3)


def fan(hidden: int, loss: float = 0.01) -> Dataflow:
    """NoS's example: a splitter, so many hosts of the hidden layer, one of the output layer."""
    hosts = range(1, hidden + 1)
    channels = [*(Channel(0, h, FAST, loss) for h in hosts), *(Channel(h, hidden + 1, SLOW, loss) for h in hosts)]
    return Dataflow((0.0,) * (hidden + 2), tuple(channels))


def test_snr_is_the_papers_formula():
    chain = Dataflow((0.0, 0.002, 0.001), (Channel(0, 1, FAST, 0.01), Channel(1, 2, SLOW, 0.02, 3.0)))
    starts = [0.0, 0.003, 0.011]
    p = 0.99 * gamma.cdf(0.003, 2, scale=1e-3) * 0.98 * gamma.cdf(0.006, 3, scale=1.5e-3)
    assert chain.quality(starts) == pytest.approx(p) and chain.snr(starts) == pytest.approx(1 / (1 - p))
    weights = (1.0, 2.0, 0.5)
    three = Dataflow(
        (0.0,) * 5,
        tuple(Channel(0, n, FAST, 0.0, w) for n, w in enumerate(weights, 1))
        + tuple(Channel(n, 4, SLOW, 0.0, 2.0) for n in (1, 2, 3)),
    )
    starts = [0.0, 0.001, 0.002, 0.003, 0.010]
    paths = [(gamma.cdf(t, 2, scale=1e-3) * gamma.cdf(0.010 - t, 3, scale=1.5e-3)) for t in starts[1:4]]
    kept = sum(p * (2 * w) ** 2 for p, w in zip(paths, weights, strict=True))
    assert three.kept(starts) == pytest.approx(kept)
    assert three.snr(starts) == pytest.approx(1 / (1 - kept / (2 * sum(weights)) ** 2))


def test_simulated_quality_is_within_its_interval():
    rows = nos_model.flows(count=200)
    expected, deviation = 0.95 * len(rows), (0.95 * 0.05 * len(rows)) ** 0.5
    assert nos_model.within(rows) >= expected - 3 * deviation
    assert nos_model.within(rows, margins=2.5) == len(rows)
    assert {row["coded"] for row in rows} == {row["optimised"] for row in rows} == {0, 1}
    assert min(row["model"] for row in rows) < 0.2 and max(row["model"] for row in rows) > 0.9


def test_at_most_so_many_missing_is_the_binomial():
    for missing in range(5):
        assert at_most(missing, np.full(6, 0.7)) == pytest.approx(binom.cdf(missing, 6, 0.3))
    assert at_most(1, np.array([0.9, 0.8, 0.5])) == pytest.approx(0.36 + 0.1 * 0.4 + 0.2 * 0.45 + 0.5 * 0.72)


def test_a_coded_slice_is_there_when_it_came_or_can_be_decoded():
    p = np.array([0.9, 0.8, 0.5])
    assert decoded(p, 0) == pytest.approx(p)
    assert decoded(p, 1) == pytest.approx([0.9 + 0.1 * 0.4, 0.8 + 0.2 * 0.45, 0.5 + 0.5 * 0.72])
    assert decoded(np.array([1.0, 1.0, 0.0]), 1) == pytest.approx([1.0, 1.0, 1.0])
    coded = Dataflow(fan(5).seconds, fan(5).channels, (Coded(tuple((n, 5 + n) for n in range(5)), 4),))
    starts = uniform(coded, 0.012)
    one = 0.99**2 * gamma.cdf(0.006, 2, scale=1e-3) * gamma.cdf(0.006, 3, scale=1.5e-3)
    assert coded.quality(starts) == pytest.approx(one + (1 - one) * one**4)
    assert coded.quality(starts) > fan(4).quality(starts[[0, 1, 2, 3, 4, 6]])


def test_shares_keep_to_precedence_and_deadline_and_are_never_worse_than_even_ones():
    gains = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        flow = nos_model.random_flow(rng)
        least = latency(flow, 0.001)
        deadline = least + rng.uniform(0.05, 1.0) * (latency(flow, 0.999) - least)
        even, optimised = uniform(flow, deadline), best(flow, deadline)
        for starts in (even, proportional(flow, deadline), optimised):
            assert flow.budgets(starts).min() > -1e-9 * deadline
            assert starts[0] == 0 and starts[-1] + flow.seconds[-1] == pytest.approx(deadline)
        assert flow.kept(optimised) >= flow.kept(even)
        gains.append(flow.quality(optimised) - flow.quality(even))
    assert np.mean(np.array(gains) > 0.01) > 0.5


def test_even_shares_are_even_on_the_longest_path():
    seconds = (0.001, 0.002, 0.003, 0.001)
    chain = [Channel(n, n + 1, FAST) for n in range(3)]
    flow = Dataflow(seconds, (*chain, Channel(0, 3, SLOW)))
    budgets = flow.budgets(uniform(flow, 0.019))
    assert budgets == pytest.approx([0.004, 0.004, 0.004, 0.017])


def test_the_best_shares_of_a_known_optimum():
    """Two channels in a row: the log of what is kept has its slope zero where f/F is equal at both."""
    flow = fan(8)
    starts = best(flow, 0.010)
    into, out = starts[1], 0.010 - starts[1]
    hazards = [gamma.pdf(t, a, scale=s) / gamma.cdf(t, a, scale=s) for t, a, s in ((into, 2, 1e-3), (out, 3, 1.5e-3))]
    assert hazards[0] == pytest.approx(hazards[1], rel=0.02)
    assert starts[1:-1] == pytest.approx(starts[1], rel=0.01)


def test_measured_delays_are_the_distribution_of_their_samples():
    rng = np.random.default_rng(1)
    delay = Measured(tuple(rng.gamma(3, 1.5e-3, 2000)))
    for share in (0.1, 0.5, 0.9):
        assert delay.quantile(share) == pytest.approx(SLOW.quantile(share), rel=0.08)
        assert delay.within(delay.quantile(share)) == pytest.approx(share, abs=1e-6)
    assert delay.within([-1.0, 0.0, 1e9]) == pytest.approx([0, 0, 1])
    before, after = Measured((0.002,) * 64).within([0.0019, 0.0021])
    assert before < 0.1 and after > 0.9


@pytest.mark.parametrize("samples", [(), (0.1, -0.1), (float("nan"),)])
def test_no_samples_are_one_line(samples):
    with pytest.raises(PlanError, match="expected one or more, none below 0 s"):
        Measured(samples)


def test_what_cannot_be_is_one_line():
    with pytest.raises(PlanError, match=r"less than the 0\.03 s of computing"):
        uniform(Dataflow((0.01, 0.01, 0.01), (Channel(0, 1, FAST), Channel(1, 2, FAST))), 0.02)
    with pytest.raises(PlanError, match="channel 0 goes from actor 1 to 0"):
        Dataflow((0.0, 0.0), (Channel(1, 0, FAST),))
    with pytest.raises(PlanError, match="actor 1 is on no path"):
        Dataflow((0.0, 0.0, 0.0), (Channel(0, 2, FAST),))
    for group in (Coded(((0,),), 2), Coded(((0,), (0,)), 1), Coded(((0,), ()), 1), Coded(((7,),), 1)):
        with pytest.raises(PlanError, match="expected channels of its own"):
            Dataflow((0.0, 0.0), (Channel(0, 1, FAST), Channel(0, 1, FAST)), (group,))


def test_what_nobody_waited_for_counts_as_longer():
    """Kaplan and Meier: half of the pieces are given up after 10 ms, of those the others tell what they would take."""
    rng = np.random.default_rng(2)
    seconds, limits = rng.gamma(3, 1.5e-3, 4000), np.where(rng.random(4000) < 0.5, 0.004, 1.0)
    came, in_vain = seconds[seconds <= limits], limits[seconds > limits]
    delay = Measured(tuple(came), tuple(in_vain))
    for share in (0.2, 0.5, 0.8):
        assert delay.quantile(share) == pytest.approx(SLOW.quantile(share), rel=0.08)
    assert Measured((0.001,) * 30, (0.002,) * 30).within(0.002) == pytest.approx(0.5, abs=0.05)
