# SPDX-License-Identifier: Apache-2.0
"""What moves over the boundary before a stage of a chain, in bytes of the model's own types: direct, and gathered.

What the chain takes from outside, and what it reports, moves in either case and is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from dnn_dist.cut.feeds import Feeds, Maker


def gathered_bytes(feeds: Feeds, stage: int) -> int:
    """If the boundary were gathered: what the stage before it made goes to the aggregator, and whole inputs go out."""
    before = feeds.stages[stage - 1]
    back = sum(
        port.bytes
        for piece in before.pieces
        for number, port in enumerate(piece.outputs)
        if number not in feeds.result(stage - 1, piece.index)
    )
    given = {piece.index: feeds.given(stage, piece.index) for piece in feeds.stages[stage].pieces}
    return back + sum(
        port.bytes
        for piece in feeds.stages[stage].pieces
        for number, port in enumerate(piece.inputs)
        if number not in given[piece.index]
    )


def direct_bytes(feeds: Feeds, stage: int, at: Mapping[Maker, int]) -> int:
    """When pieces are computed at these robots: what one of them gives another stays where both are at one."""
    return sum(
        box.bytes
        for piece in feeds.stages[stage].pieces
        for maker, boxes in feeds.feeds(stage, piece.index).items()
        for box in boxes
        if at[maker] != at[stage, piece.index]
    )


def columns(feeds: Feeds, chain: range) -> dict[Maker, int]:
    """Robots, by number, at which the pieces of a chain have most of what they take, one piece of a stage at each.

    A run of layers goes to a robot of its own: in a pipeline each has its stage.
    """
    at: dict[Maker, int] = {}
    fresh = count()
    for stage in chain:
        pieces = [piece.index for piece in feeds.stages[stage].pieces]
        gains: dict[tuple[int, int], int] = {}
        for piece in pieces if feeds.stages[stage].kind != "layers" else ():
            for maker, boxes in feeds.feeds(stage, piece).items():
                gains[piece, at[maker]] = gains.get((piece, at[maker]), 0) + sum(box.bytes for box in boxes)
        placed: dict[int, int] = {}
        free = set(at.values()) if gains else set()
        for piece, robot in sorted(gains, key=lambda pair: (-gains[pair], pair)):
            if piece not in placed and robot in free:
                placed[piece] = robot
                free.remove(robot)
        others = sorted(free)
        for piece in pieces:
            if piece not in placed:
                placed[piece] = others.pop(0) if others else next(fresh)
            at[stage, piece] = placed[piece]
    return at
