# SPDX-License-Identifier: Apache-2.0
"""What moves over the boundary before a stage of a chain, in bytes of the model's own types: direct, and gathered; and
what tiles of one stage lend each other.

What the chain takes from outside, and what it reports, moves in either case and is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping

from dnn_dist.cut.feeds import Feeds, Maker, lenders
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.tile import piece_walk
from dnn_dist.graph.network import Network


def gathered_bytes(feeds: Feeds, stage: int) -> int:
    """If the boundary were gathered: what the stage before it made goes to the aggregator, and whole inputs go out."""
    made, reported = (
        sum(port.bytes for piece in stages[stage - 1].pieces for port in piece.outputs if not port.strip)
        for stages in (feeds.stages, feeds.seen)
    )
    taken, given = (
        sum(port.bytes for piece in stages[stage].pieces for port in piece.inputs if not port.strip)
        for stages in (feeds.stages, feeds.seen)
    )
    return made - reported + taken - given


def direct_bytes(feeds: Feeds, stage: int, at: Mapping[Maker, int]) -> int:
    """When pieces are computed at these robots: what one of them gives another stays where both are at one."""
    return sum(
        box.bytes
        for piece in feeds.stages[stage].pieces
        for maker, boxes in feeds.feeds(stage, piece.index).items()
        for box in boxes
        if at[maker] != at[stage, piece.index] and maker[0] != stage
    )


def strip_bytes(stage: Stage) -> int:
    """What tiles lend each other, wherever they are computed."""
    return sum(port.bytes for piece in stage.pieces for port in piece.inputs if port.strip)


def overlap_bytes(network: Network, feeds: Feeds, stage: int) -> int:
    """The same as DeepThings counts it: all that lenders have of what a tile wants, so that corners count twice."""
    pieces = feeds.stages[stage].pieces
    walks = {piece.index: piece_walk(network, feeds.stages[stage], piece) for piece in pieces}
    total = 0
    for taker, walk in walks.items():
        for _, lender in lenders((stage, taker), feeds.feeds(stage, taker)):
            for tensor in set(walk.strips) & set(walks[lender].wanted):
                value, shared = network.tensors[tensor], walk.wanted[tensor] & walks[lender].wanted[tensor]
                total += value.bytes * shared.size // (value.height * value.width)
    return total
