# SPDX-License-Identifier: Apache-2.0
"""What a deadline costs in quality: NoS's model of a dataflow over links that lose and delay.

After Mirzazad, Zhao and Gerstlauer, "Quality/Latency-Aware Real-time Scheduling of Distributed Streaming IoT
Applications" (CODES+ISSS 2019). Actor v starts at ts(v), whatever has come by then, and takes e(v). What is late counts
as lost, and is replaced. A channel from u to v therefore delivers with

    p = (1 - loss) F(ts(v) - ts(u) - e(u))            F: distribution of its delay

and a path k from source to sink with p_k, the product of its channels', and weight w_k, the product of theirs. The
signal-to-noise ratio at the sink is

    SNR = 1 / (1 - sum_k p_k w_k^2 / (sum_k w_k)^2)

Coding, which the paper has not: of N + r slices any N are enough, so that a slice is there when it came itself, or at
most r are missing with it. `plan/deadlines.py` finds the best ts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from dnn_dist.errors import PlanError
from dnn_dist.plan.delay import Array, Delay


@dataclass(frozen=True, slots=True)
class Channel:
    """From one actor to another."""

    source: int
    target: int
    delay: Delay
    loss: float = 0.0  # probability that it never comes
    weight: float = 1.0  # of what it carries, in what its target makes


@dataclass(frozen=True, slots=True)
class Coded:
    """The slices of one layer, from one actor to another."""

    slices: tuple[tuple[int, ...], ...]  # of each, the channels that it goes over in a row; as many for each
    needed: int  # slices that are enough, whichever they are. The first `needed` carry the data, the others parity


@dataclass(frozen=True)  # no slots: cached properties need a __dict__
class Dataflow:
    """Actors, numbered so that channels go upwards. The first one is the source, the last one the sink.

    PlanError where the numbers do not fit together.
    """

    seconds: tuple[float, ...]  # e(v), of each actor
    channels: tuple[Channel, ...]
    coded: tuple[Coded, ...] = ()

    def __post_init__(self) -> None:
        last = len(self.seconds) - 1
        for number, one in enumerate(self.channels):
            if not 0 <= one.source < one.target <= last:
                raise PlanError(
                    f"dataflow: channel {number} goes from actor {one.source} to {one.target}; "
                    f"expected a lower and a higher one of 0 to {last}"
                )
        for actor in range(len(self.seconds)):
            leaves = any(one.source == actor for one in self.channels)
            if (actor > 0 and not self._into[actor]) or (actor < last and not leaves):
                raise PlanError(f"dataflow: actor {actor} is on no path from source to sink; give it channels")
        for group in self.coded:
            over = [channel for channels in group.slices for channel in channels]
            alike = len({len(channels) for channels in group.slices}) == 1 and bool(over)
            good = alike and len(set(over)) == len(over) and set(over) <= set(range(len(self.channels)))
            if not good or not 0 < group.needed <= len(group.slices):
                raise PlanError(
                    f"dataflow: coded slices {group.slices}, {group.needed} needed; expected channels of its own for "
                    "each, as many for all, and at most as many needed as there are"
                )

    @cached_property
    def _into(self) -> list[list[int]]:
        """Of each actor, the channels that end there."""
        return [[n for n, one in enumerate(self.channels) if one.target == v] for v in range(len(self.seconds))]

    @cached_property
    def weights(self) -> Array:
        """Of each channel; 0 where it carries a parity, which says nothing that the slices do not."""
        weights = np.array([one.weight for one in self.channels])
        for group in self.coded:
            weights[[channels[-1] for channels in group.slices[group.needed :]]] = 0.0
        return weights

    def budgets(self, starts: ArrayLike) -> Array:
        """Seconds that each channel has, for starts ts (..., actors)."""
        ts, seconds = np.asarray(starts, np.float64), np.asarray(self.seconds)
        sources, targets = ([getattr(one, end) for one in self.channels] for end in ("source", "target"))
        return np.asarray(ts[..., targets] - ts[..., sources] - seconds[sources])

    def delivery(self, starts: ArrayLike) -> Array:
        """The probability that what a channel carries is there when it is wanted (..., channels): p."""
        budgets = self.budgets(starts)
        delivered = np.empty_like(budgets)
        for channels, one in self._alike:
            delivered[..., channels] = (1 - one.loss) * one.delay.within(budgets[..., channels])
        return delivered

    @cached_property
    def _alike(self) -> list[tuple[list[int], Channel]]:
        """Channels of one distribution and loss, to be looked up at once."""
        found: dict[tuple[int, float], list[int]] = {}
        for number, one in enumerate(self.channels):
            found.setdefault((id(one.delay), one.loss), []).append(number)
        return [(numbers, self.channels[numbers[0]]) for numbers in found.values()]

    def kept(self, starts: ArrayLike) -> Array:
        """sum_k p_k w_k^2, for starts ts (..., actors)."""
        delivered = self.delivery(starts)
        for group in self.coded:
            slices = np.array(group.slices)
            there = delivered[..., slices].prod(-1)
            delivered[..., slices.ravel()] = 1.0
            delivered[..., slices[:, -1]] = decoded(there, len(slices) - group.needed)
        return self._over_paths(delivered * self.weights**2)

    def snr(self, starts: ArrayLike) -> Array:
        """The signal-to-noise ratio at the sink; at least 1. Infinite where one path that never fails is all."""
        with np.errstate(divide="ignore"):
            return np.asarray(1 / (1 - self.kept(starts) / self._over_paths(self.weights) ** 2))

    def quality(self, starts: ArrayLike) -> Array:
        """What is kept of all that a lossless network would give, 0..1; it grows where the SNR does."""
        return self.kept(starts) / self._over_paths(self.weights**2)

    def _over_paths(self, factors: Array) -> Array:
        """The sum over all paths of the product of their channels' factors (..., channels)."""
        reached = np.ones((*factors.shape[:-1], len(self.seconds)))
        for actor, channels in enumerate(self._into[1:], 1):
            sources = [self.channels[n].source for n in channels]
            reached[..., actor] = (reached[..., sources] * factors[..., channels]).sum(-1)
        return np.asarray(reached[..., -1])


def at_most(missing: int, delivery: Array) -> Array:
    """The probability that at most so many of independent messages are missing. delivery: (..., messages)."""
    counts = np.zeros((*delivery.shape[:-1], missing + 1))  # probability that 0, 1, ... are missing so far
    if missing < 0:
        return np.zeros(delivery.shape[:-1])
    counts[..., 0] = 1.0
    for n in range(delivery.shape[-1]):
        p = delivery[..., n, None]
        one_more = counts[..., :-1] * (1 - p)
        counts *= p
        counts[..., 1:] += one_more
    return np.asarray(counts.sum(-1))


def decoded(delivery: Array, parities: int) -> Array:
    """The probability that each slice of a coded group is there: it came, or at most `parities` are missing with it.

    delivery: (..., slices), parities included.
    """
    if not parities:
        return delivery
    count = delivery.shape[-1]
    others = [[other for other in range(count) if other != one] for one in range(count)]
    return np.asarray(delivery + (1 - delivery) * at_most(parities - 1, delivery[..., others]))
