# SPDX-License-Identifier: Apache-2.0
"""The stages of a cut, run as robots would run them, with every piece in processes of its own.

One process writes the piece's file, another runs it: so both peaks of memory are those of that piece, and the
command itself holds nothing but the tensors between the stages.

Where stages meet directly a piece is given the boxes that it would get from other workers, cut out of what their pieces
gave; tensors within a chain are made whole nowhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np

from dnn_dist.cli.apart import apart, shared_array, shared_copy
from dnn_dist.cut.build import write_piece
from dnn_dist.cut.feeds import Feeds, Maker, fed
from dnn_dist.cut.local import whole_stage
from dnn_dist.cut.merge import merge, scatter
from dnn_dist.cut.piece import Piece, Stage
from dnn_dist.graph.network import Network
from dnn_dist.run.engine import Engine
from dnn_dist.run.wire import after_wire

Arrays = dict[int, np.ndarray]  # tensor -> its whole array, without batch axis
Kept = dict[Maker, list[np.ndarray]]  # what pieces gave that others of their chain still take
Feeding = Callable[[int, Piece], dict[int, np.ndarray]]  # number of the frame, piece -> inputs from its chain
MOST_SETS = 256
"""Sets of losses that are tried in full; of more, RANDOM_SETS drawn ones."""
RANDOM_SETS = 200


@dataclass(slots=True)
class Frame:
    """One set of inputs on its way through the stages."""

    tensors: Arrays
    wire: str = "float32"
    """What tensors between stages travel as."""


@dataclass(slots=True)
class Peaks:
    """The largest of all pieces so far, in MB."""

    cut: float = 0.0
    """Resident memory of the process that wrote a piece."""
    run: float = 0.0
    """Resident memory of the process that ran a piece."""
    local: float = 0.0
    """The same of stages that run where results are gathered."""
    piece: float = 0.0
    """Size of a piece's file, which is that of its weights."""
    above: float = 0.0
    """Of `cut`, what exceeds the size of the piece that was being written."""


@dataclass(slots=True)
class Trial:
    """What running a cut has shown."""

    peaks: Peaks = field(default_factory=Peaks)
    recovery_error: dict[str, float] = field(default_factory=dict)
    """Wire type -> largest error of a tensor after decoding, relative to its largest value."""
    loss_sets: int = 0
    """Sets of lost pieces that were tried."""


def run_whole(network: Network, frames: list[Frame]) -> tuple[list[Arrays], float]:
    """(outputs of the untouched file for each frame, peak resident MB)."""
    outputs = [[_shared(network, t) for t in network.outputs] for _ in frames]

    def work() -> list[list[np.ndarray | None]]:
        engine = Engine(network.path)
        results = [engine.run([frame.tensors[t] for t in network.inputs]) for frame in frames]
        return [_deliver(result, arrays) for result, arrays in zip(results, outputs, strict=True)]

    sent, peak = apart(work, f"{network.path} untouched")
    results = [_collect(arrays, extra) for arrays, extra in zip(outputs, sent, strict=True)]
    return [dict(zip(network.outputs, arrays, strict=True)) for arrays in results], peak


def run_stages(network: Network, stages: Sequence[Stage], frames: list[Frame], seed: int) -> Trial:
    """Adds to every frame all tensors that the aggregator gets of the stages."""
    trial = Trial()
    feeds = Feeds(network, stages)
    kept: list[Kept] = [{} for _ in frames]
    with tempfile.TemporaryDirectory(prefix="dnn_dist-") as folder:
        for number, stage in enumerate(stages):
            results = _run_levels(network, feeds, number, frames, Path(folder), trial.peaks, kept)
            for frame, received in zip(frames, results, strict=True):
                whole = merge(network, feeds.seen[number], _reported(feeds, number, received))
                frame.tensors |= {t: shared_copy(array) for t, array in whole.items()}
            if stage.coded:
                for frame, received in zip(frames, results, strict=True):
                    error = _recovery_error(network, stage, received, frame.tensors, seed)
                    trial.recovery_error[frame.wire] = max(trial.recovery_error.get(frame.wire, 0.0), error)
                trial.loss_sets += len(loss_sets(stage, seed))
            # pages of what no later stage reads are given back
            for outputs in kept:
                for maker in [maker for maker in outputs if max(feeds.takers(*maker), default=(0, 0))[0] <= number]:
                    del outputs[maker]
            later = {tensor for other in stages[number + 1 :] for tensor in other.inputs} | set(network.outputs)
            for frame in frames:
                for tensor in set(frame.tensors) - later:
                    del frame.tensors[tensor]
    return trial


def _run_levels(
    network: Network, feeds: Feeds, number: int, frames: list[Frame], folder: Path, peaks: Peaks, kept: list[Kept]
) -> list[dict[int, list[np.ndarray]]]:
    """Outputs of every piece of a stage for each frame, also in `kept`; those that take strips of others run last."""
    results: list[dict[int, list[np.ndarray]]] = [{} for _ in frames]

    def feeding(frame: int, piece: Piece) -> dict[int, np.ndarray]:
        return fed(feeds, number, piece.index, kept[frame])

    for level in feeds.stages[number].levels:
        found = _run_pieces(network, level, frames, folder, peaks, feeding)
        for received, result, outputs in zip(found, results, kept, strict=True):
            result.update(received)
            outputs.update({(number, piece): arrays for piece, arrays in received.items()})
    return results


def _reported(feeds: Feeds, stage: int, received: dict[int, list[np.ndarray]]) -> dict[int, list[np.ndarray]]:
    """What the aggregator gets of what pieces gave."""
    return {piece: [arrays[n] for n in feeds.result(stage, piece)] for piece, arrays in received.items()}


def stage_differences(
    network: Network,
    stages: Iterable[Stage],
    frames: list[Frame],
    difference: Callable[[np.ndarray, np.ndarray], float],
) -> dict[Stage, float]:
    """How far each distributed stage is from the same ops in one piece, on the same inputs."""
    gaps = {}
    with tempfile.TemporaryDirectory(prefix="dnn_dist-") as folder:
        for stage in stages:
            whole = whole_stage(network, "local", stage.spec, ops=tuple(stage.ops))
            outputs = [
                merge(network, whole, received)
                for received in _run_pieces(network, whole, frames, Path(folder), Peaks())
            ]
            if stage.distributed:
                reader = replace(stage, direct=False, pieces=(), inputs=stage.outputs)
                alone = Feeds(network, (replace(stage, direct=False), reader))
                kept: list[Kept] = [{} for _ in frames]
                results = _run_levels(network, alone, 0, frames, Path(folder), Peaks(), kept)
                gaps[stage] = max(
                    difference(expected[tensor], array)
                    for expected, received in zip(outputs, results, strict=True)
                    for tensor, array in merge(network, alone.seen[0], _reported(alone, 0, received)).items()
                )
            for frame, arrays in zip(frames, outputs, strict=True):
                frame.tensors.update(arrays)
    return gaps


def _run_pieces(
    network: Network, stage: Stage, frames: list[Frame], folder: Path, peaks: Peaks, feeding: Feeding | None = None
) -> list[dict[int, list[np.ndarray]]]:
    """Outputs of every piece for each frame; what `feeding` does not give is cut out of the frame's whole tensors."""
    results = [
        {piece.index: [shared_array(port.shape, port.dtype) for port in piece.outputs] for piece in stage.pieces}
        for _ in frames
    ]
    by_form: dict[str, list[Piece]] = {}
    for piece in stage.pieces:
        by_form.setdefault(piece.form, []).append(piece)
    for pieces in by_form.values():
        name = f"piece {pieces[0].index} of {stage.spec}"

        def cut(pieces: list[Piece] = pieces) -> Path:
            return write_piece(network, stage, pieces[0], folder / "piece.tflite")

        path, peak = apart(cut, f"{name} being written")
        size = path.stat().st_size / 2**20
        if stage.distributed:
            peaks.cut, peaks.piece = max(peaks.cut, peak), max(peaks.piece, size)
            peaks.above = max(peaks.above, peak - size)

        def run(pieces: list[Piece] = pieces, path: Path = path) -> list[list[list[np.ndarray | None]]]:
            engine = Engine(path)
            return [
                [
                    _deliver(_run_piece(network, stage, piece, engine, frame, given), result[piece.index])
                    for piece in pieces
                    for given in [feeding(number, piece) if feeding else {}]
                ]
                for number, (frame, result) in enumerate(zip(frames, results, strict=True))
            ]

        sent, peak = apart(run, name)
        for result, extras in zip(results, sent, strict=True):
            for piece, extra in zip(pieces, extras, strict=True):
                result[piece.index] = _collect(result[piece.index], extra)
        if stage.distributed:
            peaks.run = max(peaks.run, peak)
        else:
            peaks.local = max(peaks.local, peak)
    return results


def _deliver(made: Sequence[np.ndarray], into: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    """Writes arrays where the parent sees them; returns those whose shape only the run has shown."""
    sent: list[np.ndarray | None] = []
    for array, place in zip(made, into, strict=True):
        fits = array.shape == place.shape and array.dtype == place.dtype
        if fits:
            place[...] = array
        sent.append(None if fits else array)
    return sent


def _collect(shared: Sequence[np.ndarray], sent: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    return [array if extra is None else extra for array, extra in zip(shared, sent, strict=True)]


def _run_piece(
    network: Network, stage: Stage, piece: Piece, engine: Engine, frame: Frame, given: dict[int, np.ndarray]
) -> list[np.ndarray]:
    """What arrives of a piece's outputs, given what arrives of its inputs."""
    inputs = scatter(stage, piece, frame.tensors, given)
    if stage.distributed:
        inputs = [
            array if port.tensor in network.inputs else _travelled(network, port.tensor, array, frame.wire)
            for port, array in zip(piece.inputs, inputs, strict=True)
        ]
    outputs = engine.run(inputs)
    if not stage.distributed:
        return outputs
    return [
        _travelled(network, port.tensor, output, frame.wire)
        for port, output in zip(piece.outputs, outputs, strict=True)
    ]


def _travelled(network: Network, tensor: int, array: np.ndarray, wire: str) -> np.ndarray:
    """The array as it arrives."""
    value = network.tensors[tensor]
    if array.dtype.name != value.dtype:  # sums of an int8 model are exact integers, which only float32 holds
        return array
    return after_wire(array, value.scale or 0.0, value.zero_point, wire)


def _recovery_error(
    network: Network, stage: Stage, received: dict[int, list[np.ndarray]], whole: Arrays, seed: int
) -> float:
    """Decodes without every set of pieces that may be lost: the largest error against `whole`, relative."""
    worst = 0.0
    for lost in loss_sets(stage, seed):
        decoded = merge(network, stage, {i: outputs for i, outputs in received.items() if i not in lost})
        for tensor, array in decoded.items():
            zero_point = network.tensors[tensor].zero_point
            gap = np.abs(array.astype(np.float64) - whole[tensor]).max(initial=0.0)
            largest = np.abs(whole[tensor].astype(np.float64) - zero_point).max(initial=0.0)
            worst = max(worst, float(gap / largest) if largest else float(gap > 0))
    return worst


def loss_sets(stage: Stage, seed: int) -> list[tuple[int, ...]]:
    """Every set of up to `stage.parity` pieces that has some data in it, or RANDOM_SETS drawn ones."""
    count, parity = len(stage.pieces), stage.parity
    if sum(comb(count, size) for size in range(1, parity + 1)) <= MOST_SETS:
        every = (lost for size in range(1, parity + 1) for lost in combinations(range(count), size))
        return [lost for lost in every if lost[0] < stage.needed]
    rng = np.random.default_rng(seed)
    return [tuple(sorted(rng.choice(count, parity, replace=False).tolist())) for _ in range(RANDOM_SETS)]


def _shared(network: Network, tensor: int) -> np.ndarray:
    value = network.tensors[tensor]
    return shared_array(value.array_shape, value.dtype)
