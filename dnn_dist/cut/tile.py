# SPDX-License-Identifier: Apache-2.0
"""A tile or a band as a piece, made of its walk; and the walk of a piece, made of its ports."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from dnn_dist.cut.piece import Piece, Stage, make_port
from dnn_dist.cut.walk import Strips, TileWalk, form_of, walk_tile
from dnn_dist.graph.network import Network
from dnn_dist.graph.region import Region


def tile_piece(network: Network, index: int, walk: TileWalk, given: Iterable[tuple[int, Region]] = ()) -> Piece:
    """The piece of a walk. `given`: strips (tensor, box) that it gives its neighbours beside its share."""
    strips = list(given)
    taken = ((tensor, strip) for tensor, lent in sorted(walk.strips.items()) for strip in lent)
    form = form_of(walk, network, strips)
    return Piece(
        index=index,
        inputs=(
            *(make_port(network, tensor, region) for tensor, region in walk.inputs.items()),
            *(make_port(network, tensor, strip, strip=True) for tensor, strip in taken),
        ),
        outputs=(
            *(make_port(network, tensor, region) for tensor, region in walk.outputs.items()),
            *(make_port(network, tensor, strip, strip=True) for tensor, strip in strips),
        ),
        macs=walk.macs,
        form=hashlib.sha256(form.encode()).hexdigest()[:16],
    )


def piece_walk(network: Network, stage: Stage, piece: Piece) -> TileWalk:
    """What a tile or a band does."""
    outputs = {port.tensor: port.region for port in piece.outputs if port.region is not None and not port.strip}
    given = {port.tensor: port.region for port in piece.inputs if port.region is not None and not port.strip}
    strips: dict[int, Strips] = {}
    for port in piece.inputs:
        if port.strip and port.region is not None:
            strips[port.tensor] = (*strips.get(port.tensor, ()), port.region)
    walk = walk_tile(network, stage.first, stage.last, outputs, lambda tensor, box: strips.get(tensor, ()))
    return with_inputs(walk, given)


def with_inputs(walk: TileWalk, inputs: dict[int, Region]) -> TileWalk:
    """The same tile where it is given more than it reads."""
    return replace(walk, inputs=inputs, held={**walk.held, **inputs})
