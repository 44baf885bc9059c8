# SPDX-License-Identifier: Apache-2.0
"""What pieces take and give. These are values; the bytes of a piece come from `build.build_piece`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    channels: tuple[int, int] | None = None
    """Which channels [c0, c1) of the tensor's last axis; None: all, or (a parity's output) a sum of several."""
    strip: bool = False
    """Whether it goes from one piece of a stage to another: no share of what the stage makes, see reuse.py."""

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
    alone: Piece | None = None
    """Of a piece that takes strips: what gives the same without them, of the same other inputs."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Pieces that together make some tensors of the network from others."""

    kind: str
    """"tiles", "bands", "slices", "layers" (one piece, run elsewhere), "front" (one piece, run where the image is),
    "rest" (one piece, run on a server), or "local": one piece, run where the results are gathered."""
    spec: str
    """The text that cuts this stage alone: tiles:3x3@0..15. How it meets the one before: `direct`, `group`."""
    first: int
    last: int
    """Ops first to last, both included, in the network's order."""
    pieces: tuple[Piece, ...]
    inputs: tuple[int, ...]
    """Tensors taken, whole, of which the pieces take boxes."""
    outputs: tuple[int, ...]
    """Tensors made, whole, of which the pieces make boxes or channels."""
    parity: int = 0
    """How many of the pieces, the last ones, are parities: sums of the others' weights (see coding.py)."""
    direct: bool = False
    """Whether the stage takes what it can straight from the workers of the stages before it, see feeds.py."""
    group: bool = False
    """Whether the stage begins a group: other robots compute it than the stages before, so that these have the next
    frame meanwhile. Only of direct ones."""
    finish: str = ""
    """Coded stages: the fused activation (schema's name) that the merged tensors still lack; else empty."""
    chosen: tuple[int, ...] = ()
    """The stage's ops, ascending, where it has not all of first..last, see sides.py."""
    parts: tuple[int, ...] = ()
    """Coded stages of int8 models whose sums may be too large for float32: where the parts of the input channels
    end that are summed apart. Pieces then give twice the channels, see exact.py."""

    @property
    def ops(self) -> Sequence[int]:
        """Numbers of its ops, ascending."""
        return self.chosen or range(self.first, self.last + 1)

    @property
    def needed(self) -> int:
        """How many pieces, whichever, are enough for all outputs; without parity that is all."""
        return len(self.pieces) - self.parity

    @property
    def coded(self) -> bool:
        """Whether pieces give values before the activation, so that all must be merged before any is used."""
        return self.parity > 0

    @property
    def distributed(self) -> bool:
        return self.kind != "local"

    @property
    def reuses(self) -> bool:
        """Whether pieces give each other strips."""
        return any(piece.alone is not None for piece in self.pieces)

    @property
    def levels(self) -> tuple[Stage, ...]:
        """The stage with its pieces that take no strips, and with those that do, if there are any."""
        levels = ([p for p in self.pieces if p.alone is None], [p for p in self.pieces if p.alone is not None])
        return tuple(replace(self, pieces=tuple(pieces)) for pieces in levels if pieces)


def make_port(
    network: Network,
    tensor: int,
    region: Region | None,
    channels: tuple[int, int] | None = None,
    strip: bool = False,
) -> Port:
    """The port of a tensor, or of a box of it, or of some of its channels."""
    value = network.tensors[tensor]
    if channels is not None:
        shape = (*value.array_shape[:-1], channels[1] - channels[0])
        return Port(tensor, value.name, value.dtype, None, shape, channels)
    if region is None:
        return Port(tensor, value.name, value.dtype, None, value.array_shape)
    shape = (region.height, region.width, value.shape[3])
    return Port(tensor, value.name, value.dtype, region, shape, strip=strip)
