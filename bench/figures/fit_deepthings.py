# SPDX-License-Identifier: Apache-2.0
"""Fits deepthings.yaml: a Pi's speed and overhead and the Wi-Fi's bandwidth, to one published curve of Fig. 13.

    python bench/figures/fit_deepthings.py

Prints what belongs into deepthings.yaml, and how far the curves that were held out are off. Fitted is stealing in 3x3
tiles on 1 to 6 devices, and nothing else: six points for three figures. Every step simulates 18 frames; some minutes
in all. Least squares on the logarithms, since a tenth of five seconds should count as much as a tenth of twenty. The
curves have steps, where one more device saves a robot a tile; differences are therefore taken over 0.2 %, and there are
two starts.
"""

from __future__ import annotations

import numpy as np
import published
from scipy.optimize import least_squares
from testbed import CURVES, FITTED, GATEWAY, latency

from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot

STARTS = ((0.85e9, 0.005, 4e6), (0.9e9, 0.015, 6e6))  # MAC/s, s for each layer of a piece, bytes/s


def fleet(speed: float, overhead: float, bandwidth: float) -> Fleet:
    """The testbed with these MAC/s, seconds for each layer of a piece, and bytes/s of the channel."""
    pis = tuple(Robot(f"pi{n}", speed, overhead) for n in published.DEVICES)
    air = Link(bandwidth, latency=0.001, medium="wifi")
    return Fleet((*pis, Robot(GATEWAY, speed)), (LinkRule((), air),))


def deviations(testbed: Fleet, curve: str, frames: int = 3) -> np.ndarray:
    """Logarithms of simulated / published of one curve, for each number of devices."""
    ratios = [
        latency(testbed, *CURVES[curve], devices, frames=frames) / seconds
        for devices, seconds in zip(published.DEVICES, published.LATENCY_S[curve], strict=True)
    ]
    return np.log(ratios)


def _fitted(logarithms: np.ndarray) -> np.ndarray:
    return deviations(fleet(*np.exp(logarithms).tolist()), FITTED)


def main() -> None:
    fits = [least_squares(_fitted, np.log(start), diff_step=0.002, max_nfev=30) for start in STARTS]
    found = min(fits, key=lambda fit: fit.cost)
    speed, overhead, bandwidth = np.exp(found.x).tolist()
    print(
        f"speed: {speed / 1e9:.4f} GMAC/s, overhead: {1e3 * overhead:.2f} ms, bandwidth: {8e-6 * bandwidth:.2f} Mbit/s"
    )
    for curve in CURVES:
        off = deviations(fleet(speed, overhead, bandwidth), curve)
        rms, most = np.sqrt(np.mean(off**2)), np.abs(np.expm1(off)).max()
        kind = "fitted" if curve == FITTED else "held out"
        print(f"{curve} ({kind}): root mean square {100 * rms:.1f} %, at most {100 * most:.1f} %")


if __name__ == "__main__":
    main()
