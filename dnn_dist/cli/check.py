# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist check MODEL --cut tiles:3x3`: the proof that a model can be cut, against the untouched file.

Every piece is written and run as robots would, each in a process of its own. What a stage makes is merged for the
stages that follow, or goes as boxes straight from piece to piece, and all outputs of the model are compared. With
parities every set of pieces that may be lost is left out in turn. Exit code 0: equal, and something was cut; 1: not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from dnn_dist.cli.apart import shared_copy
from dnn_dist.cli.cost import boundaries, boundary_text, cost
from dnn_dist.cli.trial import Arrays, Frame, run_stages, run_whole, stage_differences
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.spec import cut_network, cut_text
from dnn_dist.cut.tiles import NothingToTile
from dnn_dist.errors import DnnDistError, ModelError
from dnn_dist.graph.network import Network, Tensor
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.bylink import is_by_link, parse_by_link
from dnn_dist.plan.plan import WIRES, check_wire

MOST_RECOVERY_ERROR = 1e-4
"""Of a tensor after decoding, relative to its largest value."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a .tflite file")
    parser.add_argument(
        "--cut",
        required=True,
        help="how to cut: tiles:3x3, bands:4, slices:4+1, layers:3, each with @FIRST..LAST ops if wanted; "
        "several separated by ';' (tensors meet at the aggregator), '>' (go straight from robot to robot) or "
        "'>>' (to other robots: a pipeline of groups); bands are joined by '>' within, layers by '>>', with a g "
        "(bands:4g) by ';'; or cuts by link, as the parameter by_link has them, each checked",
    )
    parser.add_argument(
        "--wire",
        choices=WIRES[1:],
        action="append",
        default=[],
        help="also say what error it brings when float32 tensors travel as this; may be given twice",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs (default 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def run(args: argparse.Namespace) -> int:
    if args.seed < 0:
        raise ModelError("--seed: random inputs are drawn from seeds of 0 and more")
    network = read_network(args.model)
    cuts = [step.cut for step in parse_by_link(args.cut)] if is_by_link(args.cut) else [args.cut]
    return max([_check(args, network, cut) for cut in cuts])


def _check(args: argparse.Namespace, network: Network, cut: str) -> int:
    """Check one cut, and print what came of it."""
    try:
        with _silenced():
            facts = check(network, cut, args.seed, args.wire)
    except NothingToTile as error:
        print(f"dnn_dist: error: {args.model}: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(facts))
    else:
        for key, value in facts.items():
            for text in value if isinstance(value, list) else [value]:
                text = boundary_text(text) if isinstance(text, dict) else text
                print(f"{key:24}{text:.4g}" if isinstance(text, float) else f"{key:24}{text}")
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


def check(network: Network, cut: str, seed: int = 0, wires: Sequence[str] = ()) -> dict[str, Any]:
    """Cuts, runs and compares. `max_abs_diff` is in the units that the outputs are stored in."""
    started = time.monotonic()
    stages = cut_network(network, cut)
    for wire in wires:
        check_wire(network, stages, wire)
    _load_runtime()
    inputs = [draw(network, np.random.default_rng(seed)) for draw in (_pixels, _gaussian)]
    frames = [
        Frame({t: shared_copy(array) for t, array in arrays.items()}, wire)
        for wire in ("float32", *wires)
        for arrays in inputs
    ]
    expected, whole_peak = run_whole(network, frames[: len(inputs)])
    trial = run_stages(network, stages, frames, seed)
    differences = [
        max((_difference(array, frame.tensors[t]) for t, array in outputs.items() if t in frame.tensors), default=0.0)
        for frame, outputs in zip(frames, expected * (1 + len(wires)), strict=True)
    ]
    difference = max(differences[: len(inputs)])
    largest = max((_largest(network, t, array) for outputs in expected for t, array in outputs.items()), default=0.0)
    coded = any(stage.coded for stage in stages)
    bound = MOST_RECOVERY_ERROR * largest if coded else 0.0
    facts: dict[str, Any] = {
        "model": str(network.path),
        "cut": cut_text(stages),
        "dtype": network.tensors[network.inputs[0]].dtype if network.inputs else "",
        "holds": difference <= bound
        and trial.recovery_error.get("float32", 0.0) <= MOST_RECOVERY_ERROR
        and any(stage.distributed for stage in stages),
        **cost(network, stages),
        "boundaries": boundaries(network, stages),
        "max_abs_diff": difference,
    }
    if coded:
        facts |= {"worst_recovery_error": trial.recovery_error["float32"], "loss_sets": trial.loss_sets}
    for number, wire in enumerate(wires, 1):
        error = max(differences[number * len(inputs) : (number + 1) * len(inputs)])
        facts[f"{wire}_wire_error"] = error / largest if largest else error
        if coded:
            facts[f"{wire}_recovery_error"] = trial.recovery_error[wire]
    if difference:
        facts["notes"] = _notes(network, stages, inputs)
    return {
        **facts,
        "piece_mb": trial.peaks.piece,
        "cut_peak_rss_mb": trial.peaks.cut,
        "run_peak_rss_mb": trial.peaks.run,
        "local_peak_rss_mb": trial.peaks.local,
        "whole_peak_rss_mb": whole_peak,
        "peak_rss_mb": max(trial.peaks.cut, trial.peaks.run),
        "seconds": time.monotonic() - started,
    }


def _load_runtime() -> None:
    """So that processes forked from this one need not load it each; without it the engine says what is missing."""
    if find_spec("ai_edge_litert"):
        try:
            import_module("ai_edge_litert.interpreter")
        except ImportError as error:
            raise DnnDistError(f"the runtime cannot be loaded, reinstall ai-edge-litert: {error}") from None


def _notes(network: Network, stages: Sequence[Stage], inputs: Sequence[Arrays]) -> list[str]:
    """Which stages differ from their ops run whole, and by how much."""
    gaps = stage_differences(network, stages, [Frame(dict(arrays)) for arrays in inputs], _difference)
    return [
        f"{stage.spec}: differs by up to {gap:.3g} from its ops "
        f"({', '.join(sorted({network.ops[number].kind for number in stage.ops}))}) run whole"
        for stage, gap in gaps.items()
        if gap
    ]


def _largest(network: Network, tensor: int, array: np.ndarray) -> float:
    """Largest absolute value of an array, in stored units from the zero point."""
    values = np.abs(array.astype(np.float64) - network.tensors[tensor].zero_point)
    return float(values.max(initial=0.0, where=np.isfinite(values)))


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
