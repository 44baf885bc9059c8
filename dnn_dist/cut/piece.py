# SPDX-License-Identifier: Apache-2.0
"""What pieces take and give. These are values; the bytes of a piece come from `build.build_piece`."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from dnn_dist.graph.network import Network
from dnn_dist.graph.region import Region
from dnn_dist.graph.schema import ITEM_BITS


@dataclass(frozen=True, slots=True)
class Port:
    """One array that a piece takes or gives."""

    tensor: int
    """The network's tensor that it is, or a box of it."""
    name: str
    dtype: str
    region: Region | None
    """The box of the tensor; None: the whole tensor."""
    shape: tuple[int, ...]
    """Of the array: H x W x C of the box, without the batch axis."""

    @property
    def bytes(self) -> int:
        return prod(self.shape) * ITEM_BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class Piece:
    """What one robot can run by itself."""

    index: int
    """Within its stage."""
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    macs: int
    """Multiply-accumulates of one run."""
    form: str
    """Pieces of one stage with equal form share one .tflite file."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Pieces that together make some tensors of the network from others."""

    kind: str
    """"tiles", or "local": one piece, run where the results are gathered."""
    spec: str
    """The text that cuts this stage alone: tiles:3x3@0..15."""
    first: int
    last: int
    """Ops first to last, both included, in the network's order."""
    pieces: tuple[Piece, ...]
    inputs: tuple[int, ...]
    """Tensors taken, whole, of which the pieces take boxes."""
    outputs: tuple[int, ...]
    """Tensors made, whole, of which the pieces make boxes."""

    @property
    def distributed(self) -> bool:
        return self.kind != "local"


def make_port(network: Network, tensor: int, region: Region | None) -> Port:
    """The port of a tensor, or of a box of it."""
    value = network.tensors[tensor]
    if region is None:
        return Port(tensor, value.name, value.dtype, None, value.array_shape)
    shape = (region.height, region.width, value.shape[3])
    return Port(tensor, value.name, value.dtype, region, shape)
