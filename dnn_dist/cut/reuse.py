# SPDX-License-Identifier: Apache-2.0
"""Reuse of overlapped tiles: what a tile computes beyond its share, its neighbours need not compute again.

After DeepThings (Zhao, Barijough, Gerstlauer, 2018), for DAGs. Tiles have levels in a checkerboard, (row + column) % 2.
Those of level 0 run as plain fused tiles and give strips of what they make. Those of level 1 walk back from their
outputs; of each tensor on the way they make only what no neighbour lends, and stitch it with up to four strips. Strips
to the left and right span all rows of the box, those above and below the columns that are left: so corners are covered,
and each pixel comes from one side. Where neighbours have all of a tensor the tile makes nothing of it, and needs
nothing for it.

A tile whose strips do not come in time runs in full: its work brings the input of the full tile in any case, of which
the smaller one reads a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dnn_dist.cut.piece import Piece
from dnn_dist.cut.tile import tile_piece, with_inputs
from dnn_dist.cut.walk import Lend, Strips, TileWalk, beside, walk_tile, without
from dnn_dist.graph.network import Network
from dnn_dist.graph.region import Region

Grid = tuple[int, int]  # rows, columns
_Given = list[dict[tuple[int, Region], None]]  # of each tile, the strips that it gives: (tensor, box), each once


def reusing_pieces(
    network: Network, first: int, last: int, grid: Grid, full: Sequence[TileWalk]
) -> tuple[Piece, ...]:
    """The tiles of ops first..last, those of level 0 first. `full`: each without reuse, row by row."""
    levels = [[place for place in range(len(full)) if sum(divmod(place, grid[1])) % 2 == level] for level in (0, 1)]
    given: _Given = [{} for _ in full]
    taking = [
        walk_tile(network, first, last, full[place].outputs, _lend(full, place, _neighbours(place, grid), given))
        for place in levels[1]
    ]
    pieces = [tile_piece(network, index, full[place], given[place]) for index, place in enumerate(levels[0])]
    for place, walk in zip(levels[1], taking, strict=True):
        pieces.append(_taking(network, len(pieces), full[place], walk))
    return tuple(pieces)


def _taking(network: Network, index: int, full: TileWalk, walk: TileWalk) -> Piece:
    if not walk.strips:
        return tile_piece(network, index, full)
    inputs = {t: box | walk.inputs[t] if t in walk.inputs else box for t, box in full.inputs.items()}
    alone = tile_piece(network, index, with_inputs(full, inputs))
    return replace(tile_piece(network, index, with_inputs(walk, inputs)), alone=alone)


def _neighbours(place: int, grid: Grid) -> tuple[int, ...]:
    """The tiles to the left, to the right, above and below, as far as there are any."""
    row, column = divmod(place, grid[1])
    places = (row, column - 1), (row, column + 1), (row - 1, column), (row + 1, column)
    return tuple(y * grid[1] + x for y, x in places if 0 <= y < grid[0] and 0 <= x < grid[1])


def _lend(full: Sequence[TileWalk], place: int, neighbours: Sequence[int], given: _Given) -> Lend:
    """What neighbours lend a tile: of all but its outputs, of which it makes its own share."""

    def lend(tensor: int, box: Region) -> Strips:
        found: list[Region] = []
        for neighbour in neighbours if tensor not in full[place].outputs else ():
            held = full[neighbour].wanted.get(tensor)
            strip = _strip(box, held) if held else None
            if strip:
                given[neighbour][tensor, strip] = None
                found.append(strip)
                box = without(box, (strip,))
        return tuple(found)

    return lend


def _strip(box: Region, held: Region) -> Region | None:
    """What somebody who holds `held` has of a box, if that spans it from side to side and lies at a side."""
    shared = box & held
    if shared.empty:
        return None
    if beside(shared, box):
        return shared if box.x0 == shared.x0 or box.x1 == shared.x1 else None
    across = (shared.x0, shared.x1) == (box.x0, box.x1)
    return shared if across and (box.y0 == shared.y0 or box.y1 == shared.y1) else None
