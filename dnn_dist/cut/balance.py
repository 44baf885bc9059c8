# SPDX-License-Identifier: Apache-2.0
"""Where to cut rows and columns so that the dearest tile of a grid costs least.

Tiles at the border need less of their surroundings than inner ones. The cost of a tile is the sum over its ops
of MACs a pixel x rows x columns, and rows follow from the tile's rows alone, columns from its columns alone. So
with the columns given, rows are cut best by trying bounds: as many rows to each part as stay within it. Rows and
columns in turn, until nothing gains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

from dnn_dist.cut.walk import step_macs, walk_tile
from dnn_dist.graph.network import Network
from dnn_dist.graph.region import Region

Places = tuple[int, ...]  # from 0 to the size, ascending
Shares = Callable[[int, int], np.ndarray]  # (start, end) -> for each op, its rows (or columns) against its whole
_ROUNDS = 4  # of rows and columns; the second rarely gains
_HALVINGS = 24  # of the bound: to a millionth


@dataclass(frozen=True, slots=True)
class Cuts:
    """Places along rows and columns of the smallest output."""

    rows: Places
    columns: Places

    def of(self, height: int, width: int) -> tuple[Places, Places]:
        """The same on a tensor that is as large or larger: ascending there too."""
        return _stretched(self.rows, height), _stretched(self.columns, width)


def _stretched(places: Places, size: int) -> Places:
    return tuple(place * size // places[-1] for place in places)


def balanced_cuts(network: Network, first: int, last: int, outputs: tuple[int, ...], grid: tuple[int, int]) -> Cuts:
    """Cuts of ops first..last, whose outputs are `outputs`, into grid[0] x grid[1] tiles."""
    sizes = [(network.tensors[t].height, network.tensors[t].width) for t in outputs]
    height, width = min(h for h, _ in sizes), min(w for _, w in sizes)
    whole = (0, height), (0, width)

    def work(axis: int, start: int, end: int) -> np.ndarray:
        """MACs of each op for start..end of one axis of the outputs and all of the other."""
        spans = [whole[0], whole[1]]
        spans[axis] = (start, end)
        boxes = {t: _scaled(spans, (height, width), size) for t, size in zip(outputs, sizes, strict=True)}
        found = np.zeros(last - first + 1)
        for step in walk_tile(network, first, last, boxes).steps:
            found[step.op - first] = step_macs(network, step)
        return found

    total = work(0, 0, height)

    def share(axis: int) -> Shares:
        @cache
        def of(start: int, end: int) -> np.ndarray:
            shares: np.ndarray = work(axis, start, end) / np.maximum(total, 1)
            return shares

        return of

    shares = [share(0), share(1)]
    places = [_even(height, grid[0]), _even(width, grid[1])]
    best = _dearest(shares, total, places)
    for _ in range(_ROUNDS):
        before = best
        for axis in (0, 1):
            weights = np.array([shares[1 - axis](*span) * total for span in pairwise(places[1 - axis])])
            found = _least_bound(shares[axis], weights, whole[axis][1], grid[axis])
            trial = [found, places[1]] if axis == 0 else [places[0], found]
            cost = _dearest(shares, total, trial)
            if cost < best:
                best, places = cost, trial
        if best == before:
            break
    return Cuts(*places)


def _scaled(spans: Sequence[tuple[int, int]], size: tuple[int, int], to: tuple[int, int]) -> Region:
    """The box of a tensor of size `to` that stands where `spans` do on one of `size`."""
    (y0, y1), (x0, x1) = ((a * t // s, b * t // s) for (a, b), s, t in zip(spans, size, to, strict=True))
    return Region(y0, y1, x0, x1)


def _even(size: int, parts: int) -> Places:
    return tuple(size * part // parts for part in range(parts + 1))


def _dearest(shares: list[Shares], total: np.ndarray, places: list[Places]) -> float:
    rows, columns = (np.array([shares[axis](*span) for span in pairwise(places[axis])]) for axis in (0, 1))
    return float((rows * total @ columns.T).max())


def _least_bound(share: Shares, weights: np.ndarray, size: int, parts: int) -> Places:
    """Cuts of one axis in `parts` with the least bound on any tile; `weights`: ops' costs, for each other span."""

    def cost(start: int, end: int) -> float:
        return float((weights @ share(start, end)).max())

    def filled(bound: float) -> Places | None:
        """Cuts with each part as long as the bound lets it; None when they do not reach the end."""
        places = [0]
        for part in range(1, parts + 1):
            start, longest = places[-1], size - (parts - part)  # at least one row for each part to come
            short, long = start + 1, longest
            if cost(start, short) > bound:
                return None
            while short < long:  # the longest within the bound; a longer part costs no less
                middle = (short + long + 1) // 2
                short, long = (middle, long) if cost(start, middle) <= bound else (short, middle - 1)
            places.append(short)
        return tuple(places) if places[-1] == size else None

    low, high = 0.0, cost(0, size)
    best = _even(size, parts)
    for _ in range(_HALVINGS):
        bound = (low + high) / 2
        found = filled(bound)
        if found is None:
            low = bound
        else:
            high, best = bound, found
    return best
