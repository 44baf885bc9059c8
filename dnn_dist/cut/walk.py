# SPDX-License-Identifier: Apache-2.0
"""One tile of a range of ops, walked back from the boxes it must give to the boxes it must be given.

In a chain each op needs one box of its input. In a DAG several ops read one tensor; the tile then holds the
smallest box around all their needs, and a reader of less reads a slice. Ops that this tile's outputs do not
depend on do not appear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dnn_dist.graph.geometry import Geometry, Need
from dnn_dist.graph.network import Network, Op
from dnn_dist.graph.region import Region


@dataclass(frozen=True, slots=True)
class Step:
    """One op as a tile runs it."""

    op: int
    need: Need


@dataclass(frozen=True, slots=True)
class TileWalk:
    """All that a tile does, in the order of running."""

    inputs: dict[int, Region]
    """Box of each tensor that the tile is given."""
    steps: tuple[Step, ...]
    held: dict[int, Region]
    """Box that the tile has of each tensor, given or made."""
    outputs: dict[int, Region]
    """Box of each tensor that it must give; within what it holds."""
    macs: int


def walk_tile(network: Network, first: int, last: int, outputs: Mapping[int, Region]) -> TileWalk:
    """The tile of ops first..last (all tileable) that gives the boxes `outputs` (tensor -> box)."""
    wanted: dict[int, Region] = dict(outputs)
    steps: list[Step] = []
    macs = 0
    for op in reversed(network.ops[first : last + 1]):
        target = op.outputs[0]
        if target not in wanted:
            continue
        need = _geometry(op).need(wanted[target])
        for tensor in network.activations(op):
            wanted[tensor] = wanted[tensor] | need.input if tensor in wanted else need.input
        steps.append(Step(op.index, need))
        whole = network.tensors[target]
        macs += op.macs // (whole.height * whole.width) * need.output.size
    steps.reverse()
    made = {network.ops[step.op].outputs[0]: step.need.output for step in steps}
    inputs = {tensor: wanted[tensor] for tensor in network.live_before(first, last) if tensor in wanted}
    return TileWalk(inputs, tuple(steps), {**inputs, **made}, dict(outputs), macs)


def _geometry(op: Op) -> Geometry:
    assert op.geometry is not None, f"op {op.index} {op.kind} is no op that tiles can hold"
    return op.geometry


def form_of(walk: TileWalk, network: Network) -> str:
    """What tells this tile's graph from another's: sizes and relative places, not its place in the image."""
    parts = [f"{t}:{r.height}x{r.width}" for t, r in walk.inputs.items()]
    for step in walk.steps:
        need, pads = step.need, step.need.pads
        crops = [_relative(need.input, walk.held[t]) for t in network.activations(network.ops[step.op])]
        parts.append(
            f"{step.op}{'s' if need.same else ''}:{'/'.join(crops)}"
            f"+{pads.top},{pads.bottom},{pads.left},{pads.right}>{need.output.height}x{need.output.width}"
        )
    parts.extend(f"{t}={_relative(r, walk.held[t])}" for t, r in walk.outputs.items())
    return " ".join(parts)


def _relative(part: Region, whole: Region) -> str:
    return f"{part.y0 - whole.y0},{part.x0 - whole.x0},{part.height}x{part.width}"
