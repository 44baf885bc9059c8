# SPDX-License-Identifier: Apache-2.0
"""What a state machine must know of a plan: its stages, their pieces, and what each weighs. Nothing of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dnn_dist.cut.piece import Port, Stage
from dnn_dist.graph.network import Network


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


@dataclass(frozen=True, slots=True)
class PlanShape:
    """All stages of a plan; the last one is local, for the head that makes detections runs there."""

    stages: tuple[StageShape, ...]

    @classmethod
    def of(cls, network: Network, stages: Sequence[Stage]) -> PlanShape:
        """Shape of a plan's stages. The model's own inputs travel as one byte a value."""
        shapes = [
            StageShape(
                local=stage.kind == "local",
                pieces=tuple(
                    PieceShape(
                        bytes_in=sum(_bytes(port, pixels=port.tensor in network.inputs) for port in piece.inputs),
                        bytes_out=sum(_bytes(port) for port in piece.outputs),
                        macs=piece.macs,
                    )
                    for piece in stage.pieces
                ),
            )
            for stage in stages
        ]
        if not shapes or not shapes[-1].local:
            shapes.append(StageShape(local=True, pieces=()))
        return cls(tuple(shapes))


def _bytes(port: Port, pixels: bool = False) -> int:
    return int(np.prod(port.shape)) * (1 if pixels else np.dtype(port.dtype).itemsize)
