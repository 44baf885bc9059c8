# SPDX-License-Identifier: Apache-2.0
"""How long a message takes, as a distribution: a published one, or what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dnn_dist.errors import PlanError

Array = NDArray[np.float64]
KNOTS = 16
"""Of the curve through measured samples."""
TICK = 1e-9
"""Seconds between knots of equal samples."""


class Delay(Protocol):
    """A distribution of seconds."""

    def within(self, seconds: ArrayLike) -> Array:
        """The probability that it takes at most so long; of any shape."""

    def quantile(self, share: float) -> float:
        """The seconds that it takes at most with this probability."""


@dataclass(frozen=True, slots=True)
class Gamma:
    """Gamma(shape, scale in s), as NoS and CDC describe their links. Needs SciPy."""

    shape: float
    scale: float

    def within(self, seconds: ArrayLike) -> Array:
        from scipy.special import gammainc

        return np.asarray(gammainc(self.shape, np.maximum(seconds, 0.0) / self.scale))

    def quantile(self, share: float) -> float:
        from scipy.special import gammaincinv

        return float(gammaincinv(self.shape, share) * self.scale)


@dataclass(frozen=True)  # no slots: cached properties need a __dict__
class Measured:
    """What samples say: each of n is the i/(n + 1) quantile, a smooth curve through `KNOTS` of them, from 0 s up.

    The last 1/(n + 1) lies between the longest sample and twice that: it may take longer than was ever seen. Smooth,
    because a solver that follows slopes loses its way on the steps of the samples themselves. Needs SciPy.
    """

    samples: tuple[float, ...]  # s, in any order

    def __post_init__(self) -> None:
        if not self.samples or not min(self.samples) >= 0:
            raise PlanError(f"delay: samples {self.samples[:4]} s; expected one or more, none below 0 s")

    def within(self, seconds: ArrayLike) -> Array:
        return np.asarray(self._curve(np.clip(seconds, 0.0, self._curve.x[-1])))

    def quantile(self, share: float) -> float:
        from scipy.optimize import brentq

        longest = self._curve.x[-1]
        return float(longest if share >= 1 else brentq(lambda seconds: self.within(seconds) - share, 0.0, longest))

    @cached_property
    def _curve(self) -> Any:
        from scipy.interpolate import PchipInterpolator

        longest = max(self.samples)
        seconds = np.array([0.0, *np.sort(self.samples), 2 * longest + TICK])
        shares = np.linspace(0.0, 1.0, len(seconds))
        knots = np.unique(np.round(np.linspace(0, len(seconds) - 1, KNOTS)).astype(int))
        increasing = seconds[knots] + TICK * np.arange(len(knots))  # samples may be equal
        return PchipInterpolator(increasing, shares[knots])
