# SPDX-License-Identifier: Apache-2.0
"""How long this machine takes for a model, range of ops by range of ops.

Every op is a piece by itself and run on the values that the ops before it made; what is kept is the median of some
repetitions. A piece costs something just for being run. That overhead follows from what the pieces take together beyond
the whole model; the rest of each is scaled so that

    overhead + sum of the ops = the whole model

to within what rounding leaves. So a plan of few large pieces is predicted right, and one of many small ones as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from dnn_dist.cut.build import write_piece
from dnn_dist.cut.layers import layer_starts
from dnn_dist.cut.local import cut_local
from dnn_dist.cut.piece import Stage
from dnn_dist.graph.network import Network
from dnn_dist.run.engine import Engine

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds, medians. `ops` and `overhead` add up to `whole`."""

    whole: float  # the model in one piece
    apart: float  # the sum of all ranges, each as a piece of its own
    overhead: float  # of running any piece
    ops: tuple[float, ...]  # each op of the network


def ranges(network: Network) -> tuple[tuple[int, int], ...]:
    """The smallest ranges of ops that can be pieces, as (first, last), both included."""
    starts = (*layer_starts(network, 0, len(network.ops) - 1), len(network.ops))
    spans = ((a, b - 1) for a, b in pairwise(starts))
    return tuple((a, b) for a, b in spans if any(not op.folded for op in network.ops[a : b + 1]))


def measure(
    network: Network, clock: Clock, repeat: int = 9, threads: int = 1, done: Callable[[str], None] = lambda what: None
) -> Measured:
    """Measures; `clock` gives seconds, `done` is told after the whole model and each range. Raises ModelError."""
    rng = np.random.default_rng(0)
    inputs = {t: _random(network, t, rng) for t in network.inputs}
    whole, _ = _time(network, cut_local(network), inputs, clock, repeat, threads)
    done("whole model")
    tensors, spans, times = dict(inputs), ranges(network), []
    for first, last in spans:
        stage = cut_local(network, first, last)
        seconds, outputs = _time(network, stage, tensors, clock, repeat, threads)
        times.append(seconds)
        wanted = {*network.live_before(last + 1, len(network.ops) - 1)}
        tensors = {t: array for t, array in {**tensors, **outputs}.items() if t in wanted}
        done(f"ops {first}..{last}" if last > first else f"op {first} {network.ops[first].kind}")
    overhead, scaled = normalised(whole, times)
    ops = [0.0] * len(network.ops)
    for (first, last), seconds in zip(spans, scaled, strict=True):
        for op, share in _shares(network, first, last):
            ops[op] = seconds * share
    return Measured(whole, sum(times), overhead, tuple(ops))


def normalised(whole: float, times: Sequence[float]) -> tuple[float, tuple[float, ...]]:
    """(overhead, seconds of each range) from the seconds of the whole model and of each range as a piece of its own.

    Overhead + the sum of the ranges is the whole's time. No piece takes less than its overhead.
    """
    if len(times) < 2:
        return 0.0, (whole,) * len(times)
    overhead = min(max(0.0, (sum(times) - whole) / (len(times) - 1)), whole, *times)
    rest = [seconds - overhead for seconds in times]
    scale = (whole - overhead) / sum(rest) if sum(rest) else 0.0
    if not scale:
        return 0.0, (whole / len(times),) * len(times)
    return overhead, tuple(seconds * scale for seconds in rest)


def _time(
    network: Network, stage: Stage, tensors: dict[int, np.ndarray], clock: Clock, repeat: int, threads: int
) -> tuple[float, dict[int, np.ndarray]]:
    with TemporaryDirectory(prefix="dnn_dist-") as folder:
        (piece,) = stage.pieces
        engine = Engine(write_piece(network, stage, piece, Path(folder, "piece.tflite")), threads)
        arrays = [tensors[port.tensor] for port in piece.inputs]
        outputs = engine.run(arrays)  # not counted: memory and caches fill
        times = []
        for _ in range(repeat):
            began = clock()
            engine.run(arrays)
            times.append(clock() - began)
    return median(times), {port.tensor: array for port, array in zip(piece.outputs, outputs, strict=True)}


def _shares(network: Network, first: int, last: int) -> list[tuple[int, float]]:
    """How a range's time is shared out among its ops: by MACs, or equally where there are none."""
    ops = [op for op in network.ops[first : last + 1] if not op.folded]
    macs = sum(op.macs for op in ops)
    return [(op.index, op.macs / macs if macs else 1 / len(ops)) for op in ops]


def _random(network: Network, tensor: int, rng: np.random.Generator) -> np.ndarray:
    value = network.tensors[tensor]
    if value.dtype.startswith("float"):
        return rng.random(value.array_shape).astype(value.dtype)
    return rng.integers(0, 100, value.array_shape).astype(value.dtype)
