# SPDX-License-Identifier: Apache-2.0
"""Tiled stages for a whole network: as much of its work as is worth sending, in groups that fuse well.

Ops that cannot be tiled (a mean over everything, as in squeeze-and-excite) end a range; what stands between
ranges runs where results are gathered. Within a range, more fused ops mean fewer tensors sent and more work
done twice: groups are as long as a bound on that work allows, and end where little is live.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnn_dist.cut.local import cut_local
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.tiles import Grid, cut_tiles, fits, is_closed, largest_grid, tile_regions
from dnn_dist.cut.walk import walk_tile
from dnn_dist.errors import CutError
from dnn_dist.graph.network import Network

MOST_WORK = 1.5
"""Bound on the work of a group's tiles against the untiled ops'."""
LEAST_SHARE = 0.005
"""Of the network's MACs: a group with less stays where results are gathered."""
_LEAST_KEPT = 0.7  # of a group's MACs when it ends early, where less is live


def tileable_ranges(network: Network) -> tuple[tuple[int, int], ...]:
    """Maximal runs of ops that can be tiled, as (first, last), both included."""
    ranges: list[tuple[int, int]] = []
    first = None
    for op in network.ops:
        if not op.tileable:
            first = None
        elif first is None:
            first = op.index
            ranges.append((first, first))
        else:
            ranges[-1] = (first, op.index)
    return tuple((a, b) for a, b in ranges if any(not op.folded for op in network.ops[a : b + 1]))


def auto_stages(
    network: Network,
    grid: Grid = (2, 2),
    first: int = 0,
    last: int | None = None,
    balanced: bool = False,
    reuse: bool = False,
    most_work: float = MOST_WORK,
    least_share: float = LEAST_SHARE,
) -> tuple[Stage, ...]:
    """Ops first..last (None: to the end) as tiled stages with local ones between them.

    Raises CutError when nothing there can be tiled by this grid.
    """
    last = len(network.ops) - 1 if last is None else last
    cutting = _Cutting(network, grid, most_work)
    groups = [
        group
        for start, end in tileable_ranges(network)
        for group in cutting.groups(max(start, first), min(end, last))
        if network.macs_of(*group) >= least_share * network.macs
    ]
    if not groups:
        raise CutError(f"tiles:{grid[0]}x{grid[1]}@auto: no range of ops is worth tiling by this grid; see inspect")
    stages: list[Stage] = []
    done = first
    for start, end in groups:
        if start > done:
            stages.append(cut_local(network, done, start - 1))
        stages.append(cut_tiles(network, grid, start, end, balanced, reuse))
        done = end + 1
    if done <= last:
        stages.append(cut_local(network, done, last))
    return tuple(stages)


@dataclass(frozen=True, slots=True)
class _Cutting:
    network: Network
    grid: Grid
    most_work: float

    def groups(self, first: int, last: int) -> list[tuple[int, int]]:
        """Ops first..last, all tileable, in groups within the bound; those that no grid fits are left out."""
        found = []
        while first <= last:
            ends = [end for end in range(first, last + 1) if self._may_end(first, end)]
            if not ends:
                first += 1  # too small for the grid here, or the rest of a group whose start is left out
                continue
            end = self._end(first, ends)
            found.append((first, end))
            first = end + 1
        return found

    def _may_end(self, first: int, end: int) -> bool:
        if not is_closed(self.network, first, end):
            return False
        outputs = self.network.live_after(first, end)
        return bool(outputs) and fits(self.grid, largest_grid(self.network, outputs))

    def _end(self, first: int, ends: list[int]) -> int:
        """The deepest of `ends` within the bound, or one not much less deep after which less is live."""
        low, high = 0, len(ends) - 1  # the first is always taken
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._work(first, ends[middle]) <= self.most_work else (low, middle - 1)
        if low == len(ends) - 1:
            return ends[low]
        least = _LEAST_KEPT * self.network.macs_of(first, ends[low])
        candidates = [end for end in ends[: low + 1] if self.network.macs_of(first, end) >= least]
        return min(candidates, key=lambda end: (self._live_bytes(first, end), -end))

    def _work(self, first: int, last: int) -> float:
        """Work of the tiles against that of the ops."""
        network, outputs = self.network, self.network.live_after(first, last)
        tiles = [tile_regions(network.tensors[t].height, network.tensors[t].width, self.grid) for t in outputs]
        done = sum(
            walk_tile(network, first, last, dict(zip(outputs, regions, strict=True))).macs
            for regions in zip(*tiles, strict=True)
        )
        return done / max(1, network.macs_of(first, last))

    def _live_bytes(self, first: int, last: int) -> int:
        return sum(self.network.tensors[t].bytes for t in self.network.live_after(first, last))
