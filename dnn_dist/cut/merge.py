# SPDX-License-Identifier: Apache-2.0
"""From whole tensors to what a piece takes, and from what it gives back to whole tensors.

Arrays have no batch axis. `tensors` maps the network's tensor numbers to whole arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dnn_dist.cut.piece import Piece, Stage
from dnn_dist.graph.network import Network


def scatter(stage: Stage, piece: Piece, tensors: Mapping[int, np.ndarray]) -> list[np.ndarray]:
    """The arrays that `piece` takes, in the order of its ports: views of the whole arrays."""
    del stage  # tiles and local pieces alike take boxes; slices of channels will not
    return [
        tensors[port.tensor] if port.region is None else tensors[port.tensor][port.region.slices]
        for port in piece.inputs
    ]


def empty_outputs(network: Network, stage: Stage) -> dict[int, np.ndarray]:
    """Whole arrays of zeros for every tensor that the stage makes, to gather into."""
    return {
        tensor: np.zeros(network.tensors[tensor].array_shape, network.tensors[tensor].dtype)
        for tensor in stage.outputs
    }


def gather(stage: Stage, piece: Piece, outputs: Sequence[np.ndarray], into: dict[int, np.ndarray]) -> None:
    """Writes what `piece` gave (in the order of its ports) where it belongs in the whole arrays.

    Raises ValueError when an array does not have its port's shape or type: then nothing was written.
    """
    if len(outputs) != len(piece.outputs):
        raise ValueError(
            f"piece {piece.index} of {stage.spec} gives {len(piece.outputs)} arrays, got {len(outputs)}"
        )
    for port, array in zip(piece.outputs, outputs, strict=True):
        if array.shape != port.shape or array.dtype.name != port.dtype:
            raise ValueError(
                f"piece {piece.index} of {stage.spec}: '{port.name}' is {port.dtype} {port.shape}, "
                f"got {array.dtype.name} {array.shape}"
            )
    for port, array in zip(piece.outputs, outputs, strict=True):
        if port.region is None:
            into[port.tensor] = array
        else:
            into[port.tensor][port.region.slices] = array
