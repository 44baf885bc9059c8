# SPDX-License-Identifier: Apache-2.0
"""Shapes of plans with chains, made or by seed: tiles that feed their neighbours, pipelines, skips, mixtures."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dnn_dist.cut.feeds import Maker
from dnn_dist.run.shape import PieceShape, PlanShape, StageShape

LOCAL = StageShape(True, (PieceShape(0, 0, 2),))  # 2 ms at the gateway


@dataclass(frozen=True)
class Tiles:
    """A stage of equal pieces in a row; each gets its own piece of the stage before, and a border of its neighbours."""

    pieces: int = 3
    macs: int = 10
    direct: bool = True
    reach: int = 1  # neighbours on either side that give a border
    skip: int = 0  # it also takes what the stage so many before the one before made; 0: no
    reports: bool = False
    group: bool = False  # begins a group: robots that have none of the stages before
    given: int = 0  # bytes of inputs that come with the work of a piece that is fed
    parity: int = 0
    replicas: int = 1
    local: bool = False
    reuse: bool = False  # the second half of the pieces takes strips of the first

    @property
    def givers(self) -> int:
        """Pieces that give strips, if any take them."""
        return (self.pieces + 1) // 2 if self.reuse and self.pieces > 1 else self.pieces


def chain(*stages: Tiles) -> PlanShape:
    """The plan of these stages with a local end. The last of each chain reports."""
    made: list[StageShape] = []
    first = 0
    for number, tiles in enumerate(stages):
        first = first if tiles.direct and number else number
        ends = number + 1 == len(stages) or not stages[number + 1].direct
        makers = [n for n in (number - 1, number - 1 - tiles.skip) if first <= n < number]
        pieces = tuple(
            PieceShape(
                100 if number == first else tiles.given,
                50 if ends or tiles.reports else 0,
                tiles.macs,
                {
                    (n, p): 40 if near else 10
                    for n in dict.fromkeys(makers)
                    for p, near in _near(index, tiles, len(made[n].pieces))
                },
                merged=0 if not first else 100 if number == first else tiles.given // 2,
            )
            for index in range(tiles.pieces + tiles.parity)
        )
        pieces = tuple(_taking(piece, number, index, tiles) for index, piece in enumerate(pieces))
        made.append(
            StageShape(
                tiles.local,
                pieces,
                needed=tiles.pieces if tiles.parity else None,
                replicas=tiles.replicas,
                direct=number > first,
                reports=ends or tiles.reports,
                chained=number > first or not ends or tiles.givers < tiles.pieces,
                group=tiles.group and number > first,
            )
        )
    return PlanShape((*_with_takers(made), LOCAL))


def _taking(piece: PieceShape, number: int, index: int, tiles: Tiles) -> PieceShape:
    """A piece with the strips that it takes of its stage, if any."""
    own = index - tiles.givers
    if own < 0 or index >= tiles.pieces:
        return piece
    strips = {(number, giver): 20 for giver in {own, min(own + 1, tiles.givers - 1)}}
    return replace(piece, feeds={**piece.feeds, **strips}, macs=1 + tiles.macs // 4, alone=tiles.macs)


def _near(index: int, tiles: Tiles, others: int) -> list[tuple[int, bool]]:
    """Pieces of a stage of `others` that lie near one of these, and whether it lies just there."""
    begin, end = index * others / tiles.pieces, (index + 1) * others / tiles.pieces
    own = range(int(begin), max(int(begin) + 1, -int(-end // 1)))
    all_ = range(max(0, own.start - tiles.reach), min(others, own.stop + tiles.reach))
    return [(piece, piece in own) for piece in all_]


def _with_takers(stages: Sequence[StageShape]) -> list[StageShape]:
    takers: dict[Maker, list[Maker]] = {}
    for number, stage in enumerate(stages):
        for index, piece in enumerate(stage.pieces):
            for maker in piece.feeds:
                takers.setdefault(maker, []).append((number, index))

    def told(number: int, pieces: Iterable[PieceShape]) -> tuple[PieceShape, ...]:
        return tuple(replace(p, takers=tuple(takers.get((number, n), ()))) for n, p in enumerate(pieces))

    return [replace(stage, pieces=told(number, stage.pieces)) for number, stage in enumerate(stages)]


def random_plan(rng: random.Random) -> PlanShape:
    """A plan of one to five stages of which most are joined."""
    stages: list[Tiles] = []
    for number in range(rng.randint(1, 5)):
        direct = number > 0 and not (stages[-1].parity or stages[-1].local) and rng.random() < 0.8
        kind = rng.choice(("tiles", "tiles", "tiles", "layers", "coded", "local"))
        tiles = Tiles(
            pieces=1 if kind in ("layers", "local") else rng.choice((1, 2, 3, 4, 6)),
            macs=rng.choice((1, 10, 30)),
            direct=direct,
            reach=rng.choice((0, 1, 1, 2)),
            skip=rng.choice((0, 0, 1, 2)),
            reports=rng.random() < 0.2,
            group=kind == "layers" or rng.random() < 0.2,
            given=rng.choice((0, 0, 60)),
        )
        if kind == "coded":
            tiles = replace(tiles, direct=False, parity=rng.choice((1, 2)))
        if kind == "local":
            tiles = replace(tiles, direct=False, local=True)
        if kind == "tiles":
            tiles = replace(tiles, reuse=rng.random() < 0.3)
        stages.append(tiles)
    return chain(*stages)
