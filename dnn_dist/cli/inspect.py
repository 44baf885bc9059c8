# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist inspect MODEL`: ops, shapes, MACs and bytes; what can be tiled, and if not why."""

from __future__ import annotations

import argparse
import json
from typing import Any

from dnn_dist.cut.auto import tileable_ranges
from dnn_dist.cut.slices import why_not_sliced
from dnn_dist.cut.tiles import front_end
from dnn_dist.graph.flatbuffer import BrokenBuffer
from dnn_dist.graph.network import Network, Op, Tensor
from dnn_dist.graph.tflite import read_network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a .tflite file, or the name of a shipped one")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    network = read_network(args.model)
    facts = describe(network)
    if args.json:
        print(json.dumps(facts, indent=1))
    else:
        _print(network, facts)
    return 0


def describe(network: Network) -> dict[str, Any]:
    """All that `inspect` says, as JSON has it. Bytes and MACs are those of one run with a batch of one."""
    try:
        return _describe(network)
    except BrokenBuffer as error:  # in what reading did not look at
        raise network.file.broken(error) from None


def _describe(network: Network) -> dict[str, Any]:
    end = front_end(network) if network.ops else None
    front = network.ops[: end + 1] if end is not None else ()
    weights = {t: network.tensors[t].bytes for op in network.ops for t in op.inputs if t >= 0}
    return {
        "model": str(network.path),
        "file_bytes": len(network.file),
        "inputs": [_tensor(network.tensors[t]) for t in network.inputs],
        "outputs": [_tensor(network.tensors[t]) for t in network.outputs],
        "macs": network.macs,
        "weight_bytes": sum(size for t, size in weights.items() if network.is_stored(t)),
        "largest_activation_bytes": max((op.activation_bytes for op in network.ops), default=0),
        "ops": [_op(network, op) for op in network.ops],
        "front": {
            "first": 0,
            "last": end,
            "macs_share": sum(op.macs for op in front) / network.macs if network.macs else 0.0,
            "outputs": [_tensor(network.tensors[t]) for t in network.live_after(0, end)] if end is not None else [],
        },
        "ranges": [
            {"first": first, "last": last, "macs_share": network.macs_of(first, last) / max(1, network.macs)}
            for first, last in tileable_ranges(network)
        ],
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype}
    if tensor.scale is not None:
        facts.update(scale=tensor.scale, zero_point=tensor.zero_point)
    return facts


def _op(network: Network, op: Op) -> dict[str, Any]:
    return {
        "index": op.index,
        "kind": op.kind,
        "output_shapes": [list(network.tensors[t].shape) for t in op.outputs],
        "dtype": network.tensors[op.outputs[0]].dtype if op.outputs else "",
        "macs": op.macs,
        "weight_bytes": op.weight_bytes,
        "activation_bytes": op.activation_bytes,
        "tileable": op.tileable,
        "reason": op.reason,
        "sliceable": not (not_sliced := why_not_sliced(network, op)),
        "slice_reason": not_sliced,
        "code_reason": not_sliced or why_not_sliced(network, op, parity=1),
        "constant": op.folded,
        "part_of": op.part_of,
    }


def _print(network: Network, facts: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140
    table = Table(box=SIMPLE_HEAD)
    for name in ("op", "kind", "output", "MMACs", "weights", "activations", "slices", "tiles"):
        right = name in ("op", "MMACs", "weights", "activations")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for op in facts["ops"]:
        shapes = ", ".join("x".join(map(str, shape)) for shape in op["output_shapes"])
        table.add_row(
            str(op["index"]),
            escape(op["kind"]),
            f"{shapes} {op['dtype']}",
            f"{op['macs'] / 1e6:.2f}" if op["macs"] else "",
            _size(op["weight_bytes"]),
            _size(op["activation_bytes"]),
            ("coded" if not op["code_reason"] else "yes") if op["sliceable"] else "",
            escape(_verdict(op)),
        )
    console.print(f"{escape(facts['model'])}: {_size(facts['file_bytes'])}, {len(facts['ops'])} ops")
    for name in ("inputs", "outputs"):
        for tensor in facts[name]:
            shape = "x".join(map(str, tensor["shape"]))
            console.print(f"  {name[:-1]} {escape(tensor['name'])}: {shape} {tensor['dtype']}")
    console.print(table)
    console.print(f"{facts['macs'] / 1e6:.1f} MMACs, {_size(facts['weight_bytes'])} of weights")
    console.print(escape(_front_text(network, facts["front"])))
    if len(facts["ranges"]) > 1:
        console.print(escape(_ranges_text(network, facts["ranges"])))


def _verdict(op: dict[str, Any]) -> str:
    if op["constant"]:
        return "the same in every run"
    if op["part_of"] is not None:
        return f"yes, as one with op {op['part_of']}"
    return "yes" if op["tileable"] else f"no: {op['reason']}"


def _ranges_text(network: Network, ranges: list[dict[str, Any]]) -> str:
    share = sum(part["macs_share"] for part in ranges)
    return (
        f"{len(ranges)} ranges that can be tiled, {share:.1%} of the MACs together; "
        f"try: dnn_dist check {network.path} --cut tiles:auto"
    )


def _front_text(network: Network, front: dict[str, Any]) -> str:
    if not network.ops:
        return "The model has no ops."
    if front["last"] is None:
        return f"No front can be tiled: op 0 {network.ops[0].kind}: {network.ops[0].reason}."
    shapes = ", ".join(f"{t['shape'][1]}x{t['shape'][2]}" for t in front["outputs"])
    return (
        f"Front that can be tiled: ops 0..{front['last']}, {front['macs_share']:.1%} of the MACs, "
        f"to {shapes}; try: dnn_dist check {network.path} --cut tiles:2x2"
    )


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} B" if count else ""
    return f"{count / 1e3:.1f} kB" if count < 1_000_000 else f"{count / 1e6:.2f} MB"
