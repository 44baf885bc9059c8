# SPDX-License-Identifier: Apache-2.0
"""Rows, channels or layers shared out among robots of given speeds.

Speeds are any positive numbers, in the order of the robots; only their ratios count. Everything here is
deterministic, since every robot derives a plan's pieces by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import numpy as np

Speeds = tuple[float, ...]
Span = tuple[int, int]  # half-open


@lru_cache(256)  # asked for every band of a layer
def least_time(size: int, speeds: Speeds) -> tuple[Span, ...]:
    """Half-open spans that cover [0, size) in order, so that the last of the robots is ready soonest.

    A robot of speed s takes h / s for h rows. The least time T in which all rows can be done is the size-th
    smallest of all h / s; each robot in turn takes what it can do in T, until nothing is left. With equal
    speeds that is ceil(size / n) rows each, less for the last ones, as MoDNN and DeepThings count; a span may
    be empty.
    """
    times = np.arange(1, size + 1) / np.asarray(speeds, float)[:, None]
    least = np.sort(times, axis=None)[size - 1] if size else 0.0
    ends = np.minimum(np.cumsum((times <= least).sum(axis=1)), size)
    return tuple(pairwise((0, *ends.tolist())))


def proportional(size: int, speeds: Speeds) -> tuple[Span, ...]:
    """Half-open spans that cover [0, size) in order, each within one of its share; none empty if size allows.

    Boundary j is floor(size * (speeds up to j) / (all speeds)), moved where a span would be empty.
    """
    exact = [Fraction(speed) for speed in speeds]
    count, total = len(exact), sum(exact)
    ends, done = [0], Fraction(0)
    for number, speed in enumerate(exact, 1):
        done += speed
        end = int(size * done / total)
        if size >= count:
            end = min(max(end, ends[-1] + 1), size - (count - number))
        ends.append(end)
    return tuple(pairwise(ends))


def contiguous(costs: Sequence[int], burdens: Sequence[int], speeds: Speeds) -> tuple[Span, ...]:
    """Spans of layers, one for each robot in order and none empty, of the least bottleneck.

    `costs[i]` is the work of layer i, `burdens[i]` the bytes to carry if a span ends after it. The time of the
    slowest robot is least, and of all such ways the bytes carried are fewest. Dynamic programming over
    (robot, end of its span), O(layers^2 x robots). There must be as many layers as robots.
    """
    layers = len(costs)
    work = np.concatenate(([0], np.cumsum(np.asarray(costs, float))))
    span_work = work[None, :] - work[:, None]  # [start, end]
    span_work[np.tril_indices(layers + 1)] = np.inf  # no span is empty
    bottleneck = np.full(layers + 1, np.inf)
    bottleneck[0] = 0
    for speed in speeds:
        bottleneck = np.maximum(bottleneck[:, None], span_work / speed).min(axis=0)
    # within the least bottleneck (up to rounding), the fewest bytes
    allowed = [np.where(span_work / speed <= bottleneck[layers] * (1 + 1e-12), 0.0, np.inf) for speed in speeds]
    carried = np.full(layers + 1, np.inf)
    carried[0] = 0
    toll = np.append(np.asarray(burdens, float)[: layers - 1], 0.0)  # of ending after layer i
    choices = []
    for fits in allowed:
        totals = carried[:, None] + fits
        choices.append(totals.argmin(axis=0))
        carried = totals.min(axis=0) + np.concatenate(([0.0], toll))
    ends = [layers]
    for choice in reversed(choices):
        ends.append(int(choice[ends[-1]]))
    return tuple(pairwise(reversed(ends)))
