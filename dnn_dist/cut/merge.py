# SPDX-License-Identifier: Apache-2.0
"""From whole tensors to what a piece takes, and from what it gives back to whole tensors.

Arrays have no batch axis. `tensors` maps the network's tensor numbers to whole arrays. Stages that are not coded
may be gathered piece by piece as results come; `merge` makes the tensors of any stage at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dnn_dist.cut.coding import decode, finish
from dnn_dist.cut.exact import joined
from dnn_dist.cut.piece import Piece, Port, Stage
from dnn_dist.graph.network import Network


def scatter(
    stage: Stage, piece: Piece, tensors: Mapping[int, np.ndarray], given: Mapping[int, np.ndarray] | None = None
) -> list[np.ndarray]:
    """The arrays that `piece` takes, in the order of its ports: views of the whole arrays, or what is `given`."""
    del stage  # all kinds take whole tensors or boxes of them
    given = given or {}
    return [given[n] if n in given else _cut_out(port, tensors) for n, port in enumerate(piece.inputs)]


def _cut_out(port: Port, tensors: Mapping[int, np.ndarray]) -> np.ndarray:
    whole = tensors[port.tensor]
    return whole if port.region is None else whole[port.region.slices]


def empty_outputs(network: Network, stage: Stage) -> dict[int, np.ndarray]:
    """Whole arrays of zeros for every tensor that the stage makes, to gather into.

    Of the type that the pieces give, which in a coded stage of an int8 model is float32; float64 for sums in parts.
    """
    types = {port.tensor: "float64" if stage.parts else port.dtype for piece in stage.pieces for port in piece.outputs}
    return {t: np.zeros(network.tensors[t].array_shape, types[t]) for t in stage.outputs}


def gather(stage: Stage, piece: Piece, outputs: Sequence[np.ndarray], into: dict[int, np.ndarray]) -> None:
    """Writes what `piece` gave (in the order of its ports) where it belongs in the whole arrays.

    Raises ValueError when an array does not have its port's shape or type: then nothing was written.
    A parity belongs nowhere; it is only checked.
    """
    check_outputs(stage, piece, outputs)
    if piece.index >= stage.needed:
        return
    for port, array in zip(piece.outputs, outputs, strict=True):
        _place(port, array, into)


def _place(port: Port, array: np.ndarray, into: dict[int, np.ndarray]) -> None:
    if port.channels is not None:
        into[port.tensor][..., slice(*port.channels)] = array
    elif port.region is not None:
        into[port.tensor][port.region.slices] = array
    else:
        into[port.tensor] = array


def check_outputs(stage: Stage, piece: Piece, outputs: Sequence[np.ndarray]) -> None:
    """Raises ValueError when the arrays are not what `piece` gives.

    Only the run shows some shapes: those of a local stage are not doubted, nor those that the file leaves empty.
    """
    if len(outputs) != len(piece.outputs):
        raise ValueError(f"piece {piece.index} of {stage.spec} gives {len(piece.outputs)} arrays, got {len(outputs)}")
    for port, array in zip(piece.outputs, outputs, strict=True):
        fits = array.shape == port.shape or port.shape == () or stage.kind == "local"
        if not fits or array.dtype.name != port.dtype:
            raise ValueError(
                f"piece {piece.index} of {stage.spec}: '{port.name}' is {port.dtype} {port.shape}, "
                f"got {array.dtype.name} {array.shape}"
            )


def merge(
    network: Network,
    stage: Stage,
    received: Mapping[int, Sequence[np.ndarray]],
    filling: Mapping[int, np.ndarray] | None = None,
) -> dict[int, np.ndarray]:
    """The stage's whole tensors from what its pieces gave (index -> outputs), decoded and finished.

    Any `stage.needed` pieces are enough. Where fewer came, the missing boxes or channels are those of `filling`
    (tensor -> whole array, for example the last frame's); without it ValueError is raised.
    """
    for index, outputs in received.items():
        check_outputs(stage, stage.pieces[index], outputs)
    if stage.parts:
        received = {index: [joined(array) for array in outputs] for index, outputs in received.items()}
    if stage.coded and len(received) >= stage.needed:
        received = decode(stage, received)
    missing = [piece for piece in stage.pieces[: stage.needed] if piece.index not in received]
    if missing and filling is None:
        raise ValueError(f"{stage.spec}: {len(received)} of {stage.needed} pieces that are needed have come")
    into = empty_outputs(network, stage)
    for index in sorted(set(received) & set(range(stage.needed))):
        for port, array in zip(stage.pieces[index].outputs, received[index], strict=True):
            _place(port, array, into)
    whole = finish(network, stage, into) if stage.coded else into
    for piece in missing:
        for port, array in zip(piece.outputs, filled(piece, filling or {}), strict=True):
            _place(port, array, whole)
    return whole


def filled(piece: Piece, filling: Mapping[int, np.ndarray]) -> list[np.ndarray]:
    """What a piece would have given, taken from whole (finished) tensors."""
    taken = []
    for port in piece.outputs:
        whole = filling[port.tensor]
        if port.channels is not None:
            whole = whole[..., slice(*port.channels)]
        taken.append(whole if port.region is None else whole[port.region.slices])
    return taken
