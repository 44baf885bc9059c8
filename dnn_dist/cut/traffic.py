# SPDX-License-Identifier: Apache-2.0
"""What moves over the boundary before a stage of a chain, in bytes of the model's own types: direct, and gathered.

What the chain takes from outside, and what it reports, moves in either case and is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping

from dnn_dist.cut.feeds import Feeds, Maker


def gathered_bytes(feeds: Feeds, stage: int) -> int:
    """If the boundary were gathered: what the stage before it made goes to the aggregator, and whole inputs go out."""
    made, reported = (
        sum(port.bytes for piece in stages[stage - 1].pieces for port in piece.outputs)
        for stages in (feeds.stages, feeds.seen)
    )
    taken, given = (
        sum(port.bytes for piece in stages[stage].pieces for port in piece.inputs)
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
        if at[maker] != at[stage, piece.index]
    )
