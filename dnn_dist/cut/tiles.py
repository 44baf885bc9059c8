# SPDX-License-Identifier: Apache-2.0
"""Fused Tile Partitioning: the output of a range of ops in a grid of tiles, each from its own input crop.

After DeepThings (Zhao, Barijough, Gerstlauer, 2018), for DAGs and every size: tile j of a width W in M
columns is [floor(W*j/M), floor(W*(j+1)/M)), which is never empty while M <= W.
"""

from __future__ import annotations

from itertools import pairwise

from dnn_dist.cut.balance import balanced_cuts
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.reuse import reusing_pieces
from dnn_dist.cut.tile import tile_piece
from dnn_dist.cut.walk import walk_tile
from dnn_dist.errors import CutError
from dnn_dist.graph.network import Network
from dnn_dist.graph.region import Region

Grid = tuple[int, int]  # rows, columns
_MOST_TILES = 4096
# The deepest front is cut less deep where its last ops are too small for the grid (a pool over everything,
# say), but never so that less than this share of its work is left: then the grid is wrong, not the depth.
_LEAST_SHARE_OF_FRONT = 0.5


class NothingToTile(CutError):
    """The range starts with an op that cannot be tiled: the model's fault, not the text's."""


def split(size: int, parts: int) -> tuple[tuple[int, int], ...]:
    """Half-open intervals that cover [0, size) once, each within one of the others' length."""
    return tuple(pairwise(size * part // parts for part in range(parts + 1)))


def tile_regions(height: int, width: int, grid: Grid) -> tuple[Region, ...]:
    """The tiles of a height x width tensor, row by row: each pixel in exactly one, none empty."""
    return tuple(Region(*y, *x) for y in split(height, grid[0]) for x in split(width, grid[1]))


def cut_tiles(
    network: Network,
    grid: Grid,
    first: int = 0,
    last: int | None = None,
    balanced: bool = False,
    reuse: bool = False,
) -> Stage:
    """Ops first..last (None: the deepest that can be) in grid[0] x grid[1] tiles.

    Every tensor that is live after `last` is an output, cut by the same grid on its own size. Tiles are equal
    parts of the outputs; when `balanced`, equal parts of the work: those at the border, which need less of
    their surroundings, are then larger. With `reuse` neighbours give each other what both would compute (reuse.py);
    those that give come first.
    Raises CutError when an op of the range cannot be tiled or the grid is finer than an output.
    """
    if min(grid) < 1:
        raise CutError(f"tiles:{grid[0]}x{grid[1]}: a grid has at least one row and one column")
    if grid[0] * grid[1] > _MOST_TILES:
        raise CutError(f"tiles:{grid[0]}x{grid[1]}: more than {_MOST_TILES} tiles; take a coarser grid")
    if not 0 <= first < len(network.ops) or (last is not None and not first <= last < len(network.ops)):
        end = "" if last is None else last
        raise CutError(f"@{first}..{end}: the model has ops 0..{len(network.ops) - 1}")
    if last is None:
        last = _deepest(network, grid, first)
    for op in network.ops[first : last + 1]:
        if not op.tileable:
            raise CutError(f"op {op.index} {op.kind} cannot be tiled: {op.reason}; end the range before it")
    if not is_closed(network, first, last):
        raise CutError(f"@{first}..{last} splits a dilated convolution, which is several ops; inspect names them")
    outputs = network.live_after(first, last)
    if not outputs:
        raise CutError(f"@{first}..{last}: these ops make nothing that is used but constants; take a longer range")
    largest = largest_grid(network, outputs)
    if not fits(grid, largest):
        raise CutError(_too_fine(grid, first, last, largest))
    tiles = _regions(network, first, last, outputs, grid, balanced)
    shares = [dict(zip(outputs, regions, strict=True)) for regions in zip(*tiles, strict=True)]
    walks = [walk_tile(network, first, last, share) for share in shares]
    if reuse:
        pieces = reusing_pieces(network, first, last, grid, walks)
    else:
        pieces = tuple(tile_piece(network, index, walk) for index, walk in enumerate(walks))
    read = {port.tensor for piece in pieces for port in piece.inputs}
    inputs = tuple(t for t in network.live_before(first, last) if t in read)
    spec = f"tiles:{grid[0]}x{grid[1]}{'b' * balanced}{'r' * reuse}@{first}..{last}"
    return Stage("tiles", spec, first, last, pieces, inputs, outputs)


def _regions(
    network: Network, first: int, last: int, outputs: tuple[int, ...], grid: Grid, balanced: bool
) -> list[tuple[Region, ...]]:
    """The tiles of each output."""
    sizes = [(network.tensors[t].height, network.tensors[t].width) for t in outputs]
    if not balanced:
        return [tile_regions(height, width, grid) for height, width in sizes]
    cuts = balanced_cuts(network, first, last, outputs, grid)
    return [
        tuple(Region(*y, *x) for y in pairwise(rows) for x in pairwise(columns))
        for rows, columns in (cuts.of(height, width) for height, width in sizes)
    ]


def front_end(network: Network, first: int = 0) -> int | None:
    """The last op of the run of tileable ops from `first` on; None when `first` cannot be tiled."""
    last = None
    for op in network.ops[first:]:
        if not op.tileable:
            break
        if is_closed(network, first, op.index):
            last = op.index
    return last


def is_closed(network: Network, first: int, last: int) -> bool:
    """Whether ops that are cut as one are all in first..last or none of them."""
    ops = network.ops[first : last + 1]
    return all((op.part_of or first) <= last and first <= min(op.inner, default=first) for op in ops)


def _deepest(network: Network, grid: Grid, first: int) -> int:
    end = front_end(network, first)
    if end is None:
        op = network.ops[first]
        raise NothingToTile(f"nothing can be tiled: op {op.index} {op.kind}: {op.reason}")
    work = network.macs_of(first, end)
    best: tuple[int, Grid] = (end, largest_grid(network, network.live_after(first, end)))
    for last in range(end, first - 1, -1):
        if network.macs_of(first, last) < _LEAST_SHARE_OF_FRONT * work:
            break
        largest = largest_grid(network, network.live_after(first, last))
        if fits(grid, largest) and is_closed(network, first, last):
            return last
        best = max(best, (last, largest), key=lambda candidate: candidate[1])
    raise CutError(_too_fine(grid, first, *best))


def largest_grid(network: Network, outputs: tuple[int, ...]) -> Grid:
    """The finest grid in which no tile of these tensors is empty."""
    sizes = [(network.tensors[t].height, network.tensors[t].width) for t in outputs]
    return min((h for h, _ in sizes), default=0), min((w for _, w in sizes), default=0)


def fits(grid: Grid, largest: Grid) -> bool:
    """Whether `grid` is no finer than `largest`."""
    return grid[0] <= largest[0] and grid[1] <= largest[1]


def _too_fine(grid: Grid, first: int, last: int, largest: Grid) -> str:
    return (
        f"tiles:{grid[0]}x{grid[1]}: ops {first}..{last} give at most {largest[0]}x{largest[1]} tiles; "
        f"take a grid up to {largest[0]}x{largest[1]} or cut fewer ops (@{first}..LAST)"
    )
