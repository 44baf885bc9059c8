# SPDX-License-Identifier: Apache-2.0
"""What a state machine must know of a plan: its stages, their pieces, and what each weighs. Nothing of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dnn_dist.cut.piece import Stage
from dnn_dist.graph.network import Network
from dnn_dist.plan.plan import piece_bytes


@dataclass(frozen=True, slots=True)
class PieceShape:
    """One piece as load: bytes that travel to and from the worker, and the work."""

    bytes_in: int
    bytes_out: int
    macs: int


@dataclass(frozen=True, slots=True)
class StageShape:
    """One stage; a local stage runs at the aggregator and sends nothing."""

    local: bool
    pieces: tuple[PieceShape, ...]
    needed: int | None = None  # pieces that suffice, whichever they are; None: all. The first `needed` carry the data
    replicas: int = 1  # workers that compute each piece; the first answer counts

    @property
    def enough(self) -> int:
        """Pieces that suffice."""
        return len(self.pieces) if self.needed is None else self.needed

    @property
    def coded(self) -> bool:
        """True when some pieces carry parity, so that the outputs must be decoded."""
        return self.enough < len(self.pieces)


@dataclass(frozen=True, slots=True)
class PlanShape:
    """All stages of a plan; the last one is local, for the head that makes detections runs there."""

    stages: tuple[StageShape, ...]
    robots: tuple[str, ...] = ()  # whose workers take part; none named: all

    @classmethod
    def of(
        cls, network: Network, stages: Sequence[Stage], wire: str, replicas: int = 1, robots: tuple[str, ...] = ()
    ) -> PlanShape:
        """Shape of a plan's stages. The model's own inputs travel as one byte a value, the rest by `wire`.

        `replicas` of each piece in stages that have no parity of their own.
        """
        shapes = [
            StageShape(
                local=stage.kind == "local",
                pieces=tuple(PieceShape(*piece_bytes(network, piece, wire), piece.macs) for piece in stage.pieces),
                needed=stage.needed if stage.coded else None,
                replicas=1 if stage.coded else replicas,
            )
            for stage in stages
        ]
        if not shapes or not shapes[-1].local:
            shapes.append(StageShape(local=True, pieces=()))
        return cls(tuple(shapes), robots)
