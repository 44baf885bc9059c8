# SPDX-License-Identifier: Apache-2.0
"""Fits deepthings.yaml: a Pi's speed and overhead and the Wi-Fi's bandwidth, to the published latencies of Fig. 13.

    python bench/figures/fit_deepthings.py

Prints what belongs into deepthings.yaml. Every step simulates 18 frames; two minutes in all. Least squares on the
logarithms, since a tenth of five seconds should count as much as a tenth of twenty. The curves have steps, where one
more device saves a robot a tile; differences are therefore taken over 0.2 %.
"""

from __future__ import annotations

import numpy as np
import published
from scipy.optimize import least_squares
from testbed import GATEWAY, METHODS, latency

from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot

START = (0.8e9, 0.05, 5e6)  # MAC/s, s, bytes/s
_CURVES = {"MoDNN": "MoDNN", "sharing": "sharing 3x3", "stealing": "stealing 3x3"}


def fleet(speed: float, overhead: float, bandwidth: float) -> Fleet:
    """The testbed with these MAC/s, seconds for each run of a piece, and bytes/s of the channel."""
    pis = tuple(Robot(f"pi{n}", speed, overhead) for n in published.DEVICES)
    air = Link(bandwidth, latency=0.001, medium="wifi")
    return Fleet((*pis, Robot(GATEWAY, speed)), (LinkRule((), air),))


def residuals(logarithms: np.ndarray) -> np.ndarray:
    """Logarithms of simulated / published, of every method and number of devices."""
    guess = fleet(*np.exp(logarithms))
    ratios = [
        latency(guess, method, devices, frames=1) / seconds
        for method in METHODS
        for devices, seconds in zip(published.DEVICES, published.LATENCY_S[_CURVES[method]], strict=True)
    ]
    return np.log(ratios)


def main() -> None:
    found = least_squares(residuals, np.log(START), diff_step=0.002, max_nfev=30)
    speed, overhead, bandwidth = np.exp(found.x)
    print(
        f"speed: {speed / 1e9:.3f} GMAC/s, overhead: {1e3 * overhead:.0f} ms, bandwidth: {8e-6 * bandwidth:.1f} Mbit/s"
    )
    print(f"root mean square of the deviations: {100 * np.sqrt(np.mean(found.fun**2)):.1f} %")


if __name__ == "__main__":
    main()
