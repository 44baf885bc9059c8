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
"""Seconds that are no delay at all."""
JUMP = 0.01
"""Of the longest time: so much later lie the knots of equal samples, all together."""


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
    """What samples say, a smooth curve from 0 s up through `KNOTS` of their quantiles. Needs SciPy.

    Of n samples the i-th is the i/(n + 1) quantile; `in_vain` are times after which nobody waited any longer, and count
    as Kaplan and Meier have it. What is then left of the probability lies between the longest time and twice that: it
    may take longer than was ever seen. Smooth, because a solver that follows slopes loses its way on steps.
    """

    samples: tuple[float, ...]  # s, in any order
    in_vain: tuple[float, ...] = ()  # s

    def __post_init__(self) -> None:
        if not self.samples or not min(self.samples + self.in_vain) >= 0:
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
        from scipy.stats import CensoredData, ecdf

        count, longest = len(self.samples) + len(self.in_vain), max(self.samples + self.in_vain)
        found = ecdf(CensoredData(uncensored=self.samples, right=self.in_vain)).cdf
        known = found.probabilities * count / (count + 1)
        levels = np.linspace(0.0, known[-1], KNOTS)[1:]
        reached = found.quantiles[np.minimum(np.searchsorted(known, levels), len(known) - 1)]
        seconds = np.array([0.0, *reached, longest, 2 * longest])
        shares = np.array([0.0, *levels, known[-1], 1.0])
        return PchipInterpolator(seconds + (longest + TICK) * JUMP * np.linspace(0, 1, len(seconds)), shares)
