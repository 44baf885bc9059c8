# SPDX-License-Identifier: Apache-2.0
"""What a state machine must know of a plan: its stages, their pieces, and what each weighs. Nothing of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from dnn_dist.cut.feeds import Boxes, Feeds, Maker, made_before
from dnn_dist.cut.forms import serving
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.sides import SIDES
from dnn_dist.graph.network import Network
from dnn_dist.plan.plan import box_bytes, piece_bytes, port_bytes


@dataclass(frozen=True, slots=True)
class PieceShape:
    """One piece as load: bytes that travel to and from the worker, and the work."""

    bytes_in: int  # the model's own inputs, and what was made before its chain
    bytes_out: int
    macs: int
    feeds: Mapping[Maker, int] = field(default_factory=dict)  # what it gets from pieces of its chain -> bytes
    takers: tuple[Maker, ...] = ()  # pieces of its chain that get something of it
    merged: int = 0  # of `bytes_in`: made before its chain, so that the aggregator has them
    alone: int = 0  # MACs without strips of its neighbours; 0: it takes none


@dataclass(frozen=True, slots=True)
class StageShape:
    """One stage; a local stage runs at the aggregator and sends nothing."""

    local: bool
    pieces: tuple[PieceShape, ...]
    needed: int | None = None  # pieces that suffice, whichever they are; None: all. The first `needed` carry the data
    replicas: int = 1  # workers that compute each piece; the first answer counts
    direct: bool = False  # it takes what it can straight from the workers of the stages before
    reports: bool = True  # its pieces give the aggregator something
    chained: bool = False  # pieces give each other something: over a direct boundary, or strips; or it has a side
    group: bool = False  # it begins a group: of robots that have none of the stages before
    side: str = ""  # "front" or "rest": which side of a link it is for
    forms: tuple[int, ...] = ()  # piece -> the piece whose file computes it, on robots that have few; empty: itself

    def form(self, piece: int) -> int:
        """Which file a piece needs, on robots that make files ready when they are first given one of its pieces."""
        return self.forms[piece] if self.forms else piece

    @property
    def enough(self) -> int:
        """Pieces that suffice."""
        return len(self.pieces) if self.needed is None else self.needed

    @property
    def coded(self) -> bool:
        """True when some pieces carry parity, so that the outputs must be decoded."""
        return self.enough < len(self.pieces)


@dataclass(frozen=True)  # no slots: cached properties need a __dict__
class PlanShape:
    """All stages of a plan; the last one is local, for the head that makes detections runs there."""

    stages: tuple[StageShape, ...]
    robots: tuple[str, ...] = ()  # whose workers take part; none named: all

    @cached_property
    def chained(self) -> bool:
        """Whether it has chains, which are placed by the speeds of all workers."""
        return any(stage.chained for stage in self.stages)

    @cached_property
    def scattered(self) -> bool:
        """Whether some pieces take what the aggregator has."""
        return any(piece.merged for stage in self.stages if not stage.local for piece in stage.pieces)

    def reporting(self, stage: int) -> list[int]:
        """The stages of a stage's chain whose pieces give the aggregator something."""
        return self._reporting[self.chain(stage).start]

    @property
    def shown(self) -> int:
        """The first stage whose pieces the aggregator sees, which a picture can show."""
        return self.reporting(0)[0]

    @cached_property
    def chains(self) -> list[range]:
        """All of them, in order; a local stage is one by itself."""
        firsts = [number for number, stage in enumerate(self.stages) if not (number and stage.direct)]
        return [range(*ends) for ends in pairwise([*firsts, len(self.stages)])]

    def chain(self, stage: int) -> range:
        """The stages that are joined by direct boundaries with this one."""
        return self._chain_of[stage]

    @cached_property
    def _chain_of(self) -> list[range]:
        return [chain for chain in self.chains for _ in chain]

    @cached_property
    def _reporting(self) -> dict[int, list[int]]:
        return {chain.start: [number for number in chain if self.stages[number].reports] for chain in self.chains}

    @classmethod
    def of(
        cls, network: Network, stages: Sequence[Stage], wire: str, replicas: int = 1, robots: tuple[str, ...] = ()
    ) -> PlanShape:
        """Shape of a plan's stages. The model's own inputs travel as one byte a value, the rest by `wire`.

        `replicas` of each piece in stages that have no parity of their own.
        """
        feeds = Feeds(network, stages)
        shapes = [
            StageShape(
                local=stage.kind == "local",
                pieces=tuple(
                    PieceShape(
                        *piece_bytes(network, seen, wire),
                        seen.macs,
                        {maker: _bytes(boxes, wire) for maker, boxes in feeds.feeds(number, seen.index).items()},
                        tuple(feeds.takers(number, seen.index)),
                        sum(port_bytes(network, port, wire) for port in made_before(network, seen)),
                        seen.alone.macs if seen.alone else 0,
                    )
                    for seen in view.pieces
                ),
                needed=stage.needed if stage.coded else None,
                replicas=1 if stage.coded or feeds.chained(number) else replicas,
                direct=stage.direct,
                chained=feeds.chained(number) or stage.kind in SIDES,
                reports=bool(view.outputs),
                group=stage.direct and stage.group,
                side=stage.kind if stage.kind in SIDES else "",
                forms=serving(network, stage),
            )
            for number, (stage, view) in enumerate(zip(stages, feeds.seen, strict=True))
        ]
        if not shapes or not shapes[-1].local:
            shapes.append(StageShape(local=True, pieces=()))
        return cls(tuple(shapes), robots)


def _bytes(boxes: Boxes, wire: str) -> int:
    return sum(box_bytes(box, wire) for box in boxes)
