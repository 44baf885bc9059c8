# SPDX-License-Identifier: Apache-2.0
"""Chains of tiles with finer ends: while a worker computes one tile, the input of its next one comes, or the result of
the one before goes. A plan is tried with twice as many tiles in the first and in the last stage of each chain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from dnn_dist.cut.feeds import chains
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.tiles import cut_tiles
from dnn_dist.errors import CutError
from dnn_dist.graph.network import Network

_TILES = re.compile(r"tiles:(\d+)x(\d+)@")


def ends(stages: Sequence[Stage]) -> tuple[int, ...]:
    """Numbers of the stages of tiles at which a chain of several ends or begins; ends first, where more is gained."""
    several = [chain for chain in chains(stages) if len(chain) > 1]
    found = dict.fromkeys([chain[-1] for chain in several] + [chain[0] for chain in several])
    return tuple(number for number in found if _TILES.match(stages[number].spec))


def finer(network: Network, stages: Sequence[Stage], number: int) -> Iterator[tuple[Stage, ...]]:
    """The stages with twice as many tiles, in rows or in columns, in the one of this number."""
    stage, match = stages[number], _TILES.match(stages[number].spec)
    assert match is not None, "an end is a stage of tiles"
    rows, columns = int(match[1]), int(match[2])
    for grid in ((2 * rows, columns), (rows, 2 * columns)):
        try:
            cut = cut_tiles(network, grid, stage.first, stage.last)
        except CutError:  # too fine
            continue
        yield (*stages[:number], replace(cut, direct=stage.direct), *stages[number + 1 :])
