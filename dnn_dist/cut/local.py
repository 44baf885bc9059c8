# SPDX-License-Identifier: Apache-2.0
"""A range of ops as one piece, untouched: a model's tail at the aggregator, a run of layers elsewhere."""

from __future__ import annotations

from dnn_dist.cut.piece import Piece, Stage, make_port
from dnn_dist.errors import CutError
from dnn_dist.graph.network import Network


def cut_local(network: Network, first: int = 0, last: int | None = None) -> Stage:
    """Ops first..last (None: to the end) as one piece, run where results are gathered."""
    last = len(network.ops) - 1 if last is None else last
    return whole_stage(network, "local", f"local@{first}..{last}", first, last)


def whole_stage(
    network: Network, kind: str, spec: str, first: int = 0, last: int = 0, ops: tuple[int, ...] = ()
) -> Stage:
    """Ops first..last, or these `ops` (ascending), as a stage of one piece that takes and gives whole tensors."""
    first, last = (ops[0], ops[-1]) if ops else (first, last)
    if not 0 <= first <= last < len(network.ops):
        raise CutError(f"@{first}..{last}: the model has ops 0..{len(network.ops) - 1}")
    numbers = ops or range(first, last + 1)
    if len(numbers) == last - first + 1:
        ops = ()
    if len(numbers) == len(network.ops):
        inputs, outputs = network.inputs, network.outputs  # the file itself, whatever it does with them
    else:
        inputs, outputs = network.read_by(numbers), network.made_by(numbers)
        if unknown := [t for t in inputs if not network.tensors[t].fixed]:
            raise CutError(f"{spec} takes {_unknown(network, unknown[0])}; begin the stage elsewhere")
    if kind != "local" and (unknown := [t for t in outputs if not network.tensors[t].fixed]):
        raise CutError(f"{spec} gives {_unknown(network, unknown[0])}; leave these ops to a local stage")
    piece = Piece(
        index=0,
        inputs=tuple(make_port(network, tensor, None) for tensor in inputs),
        outputs=tuple(make_port(network, tensor, None) for tensor in outputs),
        macs=sum(network.ops[number].macs for number in numbers),
        form=kind,
    )
    return Stage(kind, spec, first, last, (piece,), inputs, outputs, chosen=ops)


def _unknown(network: Network, tensor: int) -> str:
    value = network.tensors[tensor]
    return f"'{value.name[:80]}' {list(value.shape)}, whose shape is known only when it runs"
