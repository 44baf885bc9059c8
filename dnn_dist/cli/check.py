# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist check MODEL --cut tiles:3x3`: the proof that a model can be cut, against the untouched file.

Every piece runs as a robot would run it, one after the other in this process; the merged tensors go through
the stages that follow, and all outputs of the model are compared. Exit code 0: equal, and something was cut;
1: not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np

from dnn_dist.cut.build import build_piece
from dnn_dist.cut.merge import empty_outputs, gather, scatter
from dnn_dist.cut.piece import Port, Stage
from dnn_dist.cut.spec import cut_network
from dnn_dist.cut.tiles import NothingToTile
from dnn_dist.errors import ModelError
from dnn_dist.graph.network import Network, Tensor
from dnn_dist.graph.tflite import read_network
from dnn_dist.run.engine import Engine

Arrays = dict[int, np.ndarray]  # tensor -> its whole array, without batch axis


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a .tflite file")
    parser.add_argument(
        "--cut", required=True, help="how to cut: tiles:ROWSxCOLUMNS, or with @FIRST..LAST ops"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs (default 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def run(args: argparse.Namespace) -> int:
    if args.seed < 0:
        raise ModelError("--seed: random inputs are drawn from seeds of 0 and more")
    network = read_network(args.model)
    try:
        with _silenced():
            facts = check(network, args.cut, args.seed)
    except NothingToTile as error:
        print(f"dnn_dist: error: {args.model}: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(facts))
    else:
        for key, value in facts.items():
            print(f"{key:18}{value:.4g}" if isinstance(value, float) else f"{key:18}{value}")
    return 0 if facts["holds"] else 1


@contextmanager
def _silenced() -> Iterator[None]:
    """The runtime writes notes to file descriptor 2 by itself; errors come back as exceptions too."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def check(network: Network, cut: str, seed: int = 0) -> dict[str, Any]:
    """Cuts, runs and compares. `max_abs_diff` is in the units that the outputs are stored in."""
    started = time.monotonic()
    stages = cut_network(network, cut)
    inputs = [draw(network, np.random.default_rng(seed)) for draw in (_pixels, _gaussian)]
    whole = Engine(network.file.read())
    expected = [whole.run([arrays[t] for t in network.inputs]) for arrays in inputs]
    for stage in stages:
        _run_stage(network, stage, inputs)
    difference = max(
        _difference(reference, arrays[tensor])
        for arrays, references in zip(inputs, expected, strict=True)
        for tensor, reference in zip(network.outputs, references, strict=True)
        if tensor in arrays  # an output that the file holds as a constant is made by no stage
    )
    facts = {**cost(network, stages), "max_abs_diff": difference}
    return {
        "model": str(network.path),
        "cut": ";".join(stage.spec for stage in stages),
        "dtype": network.tensors[network.inputs[0]].dtype if network.inputs else "",
        "holds": difference == 0 and any(stage.distributed for stage in stages),
        **facts,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "seconds": time.monotonic() - started,
    }


def cost(network: Network, stages: tuple[Stage, ...]) -> dict[str, Any]:
    """What a cut costs per frame: MACs against the whole's, and bytes on the way to and from the pieces."""
    distributed = [stage for stage in stages if stage.distributed]
    pieces = [piece for stage in distributed for piece in stage.pieces]
    of_stages = sum(op.macs for stage in distributed for op in network.ops[stage.first : stage.last + 1])
    return {
        "pieces": len(pieces),
        "files": sum(len({piece.form for piece in stage.pieces}) for stage in distributed),
        "distributed_macs": of_stages / network.macs if network.macs else 0.0,
        "work_ratio": sum(piece.macs for piece in pieces) / of_stages if of_stages else 1.0,
        "bytes_in": sum(_travelling_bytes(network, port) for piece in pieces for port in piece.inputs),
        "bytes_out": sum(port.bytes for piece in pieces for port in piece.outputs),
    }


def _travelling_bytes(network: Network, port: Port) -> int:
    """The camera's pixels travel as uint8, whatever type the model takes; all else as it is."""
    tensor = network.tensors[port.tensor]
    is_picture = port.tensor in network.inputs and tensor.is_image and tensor.shape[3] in (1, 3, 4)
    return prod(port.shape) if is_picture else port.bytes


def _run_stage(network: Network, stage: Stage, frames: list[Arrays]) -> None:
    """Adds what the stage makes to every frame; one engine at a time is alive."""
    made = [empty_outputs(network, stage) for _ in frames]
    by_form: dict[str, list[int]] = {}
    for number, piece in enumerate(stage.pieces):
        by_form.setdefault(piece.form, []).append(number)
    for numbers in by_form.values():
        engine = Engine(build_piece(network, stage, stage.pieces[numbers[0]]))
        for number in numbers:
            piece = stage.pieces[number]
            for arrays, into in zip(frames, made, strict=True):
                gather(stage, piece, engine.run(scatter(stage, piece, arrays)), into)
    for arrays, into in zip(frames, made, strict=True):
        arrays |= into


def _difference(expected: np.ndarray, got: np.ndarray) -> float:
    """The largest absolute difference; the largest float there is where one is no number and the other is."""
    if expected.shape != got.shape:
        return sys.float_info.max
    if expected.tobytes() == got.tobytes():
        return 0.0
    with np.errstate(invalid="ignore"):
        gaps = np.abs(expected.astype(np.float64) - got.astype(np.float64))
    equal = (expected == got) | ((expected != expected) & (got != got))
    return float(np.nan_to_num(np.where(equal, 0.0, gaps), nan=sys.float_info.max).max(initial=0.0))


def _pixels(network: Network, rng: np.random.Generator) -> Arrays:
    """Inputs as a camera gives them: multiples of 1/255, or any value of an integer type."""
    return {t: _draw(network.tensors[t], rng, gaussian=False) for t in network.inputs}


def _gaussian(network: Network, rng: np.random.Generator) -> Arrays:
    return {t: _draw(network.tensors[t], rng, gaussian=True) for t in network.inputs}


def _draw(tensor: Tensor, rng: np.random.Generator, gaussian: bool) -> np.ndarray:
    shape, dtype = tensor.array_shape, tensor.dtype
    if dtype in ("float32", "float16", "float64"):
        values = rng.normal(0, 1, shape) if gaussian else rng.integers(0, 256, shape) / 255
        return np.asarray(values).astype(dtype)
    if dtype in ("int8", "uint8", "int16"):
        limits = np.iinfo(dtype)
        if gaussian:
            spread = (limits.max - limits.min) / 8
            return np.clip(rng.normal(tensor.zero_point, spread, shape), limits.min, limits.max).astype(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    if dtype in ("int32", "int64", "bool"):
        return rng.integers(0, 2, shape).astype(dtype)  # indices and switches: small ones are always valid
    raise ModelError(f"random values for input '{tensor.name}' of type {dtype} cannot be made")
