# SPDX-License-Identifier: Apache-2.0
"""One tile of a range of ops, walked back from the boxes it must give to the boxes it must be given.

In a chain each op needs one box of its input. In a DAG several ops read one tensor; the tile then holds the
smallest box around all their needs, and a reader of less reads a slice. Ops that this tile's outputs do not
depend on do not appear. Where others lend strips of what an op makes (reuse.py), the tile makes the rest alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_

from dnn_dist.graph.geometry import Geometry, Need, Pointwise, Transposed
from dnn_dist.graph.network import Network, Op
from dnn_dist.graph.region import Region


@dataclass(frozen=True, slots=True)
class Step:
    """One op as a tile runs it."""

    op: int
    need: Need


Strips = tuple[Region, ...]
"""Boxes at the sides of a box, in order: each spans from side to side what those before it left."""
Lend = Callable[[int, Region], Strips]
"""(tensor, the box that a tile wants) -> strips of it that others have."""


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
    wanted: dict[int, Region]
    """Box of each tensor that its outputs depend on: what it holds but for a rim, which may be wrong."""
    strips: dict[int, Strips]
    """Of tensors that it makes a part of: the rest, as others lend it."""


def walk_tile(
    network: Network, first: int, last: int, outputs: Mapping[int, Region], lend: Lend = lambda tensor, box: ()
) -> TileWalk:
    """The tile of ops first..last (all tileable) that gives the boxes `outputs` (tensor -> box)."""
    wanted: dict[int, Region] = dict(outputs)
    strips: dict[int, Strips] = {}
    steps: list[Step] = []
    macs = 0
    for op in reversed(network.ops[first : last + 1]):
        targets = [tensor for tensor in op.outputs if tensor in wanted]
        if not targets:
            continue
        for tensor in targets:
            if lent := lend(tensor, wanted[tensor]):
                strips[tensor] = lent
        rests = [without(wanted[tensor], strips.get(tensor, ())) for tensor in targets]
        if all(rest.empty for rest in rests):
            continue  # others have all of it
        need = _geometry(op).need(reduce(or_, (rest for rest in rests if not rest.empty)))
        for tensor, box in operands(network, op, need).items():
            wanted[tensor] = wanted[tensor] | box if tensor in wanted else box
        steps.append(Step(op.index, need))
        macs += step_macs(network, steps[-1])
    steps.reverse()
    made = {tensor: step.need.output for step in steps for tensor in network.ops[step.op].outputs}
    made |= {tensor: wanted[tensor] for tensor in strips}
    inputs = {tensor: wanted[tensor] for tensor in network.live_before(first, last) if tensor in wanted}
    return TileWalk(inputs, tuple(steps), {**inputs, **made}, dict(outputs), macs, wanted, strips)


def without(box: Region, strips: Strips) -> Region:
    """What strips leave of a box."""
    for strip in strips:
        y0, y1, x0, x1 = box.y0, box.y1, box.x0, box.x1
        if beside(strip, box):
            x0, x1 = (strip.x1, x1) if strip.x0 == x0 else (x0, strip.x0)
        else:
            y0, y1 = (strip.y1, y1) if strip.y0 == y0 else (y0, strip.y0)
        box = Region(y0, y1, x0, x1)
    return box


def beside(strip: Region, box: Region) -> bool:
    """Whether a strip spans all rows of a box, so that it lies to its left or right; else above or below."""
    return (strip.y0, strip.y1) == (box.y0, box.y1)


def operands(network: Network, op: Op, need: Need) -> dict[int, Region]:
    """The box that a tile of `op` reads of each activation."""
    boxes = {}
    for tensor in network.sources(op):
        whole = network.tensors[tensor]
        stretched = isinstance(op.geometry, Pointwise) and (whole.height, whole.width) == (1, 1)
        boxes[tensor] = Region.whole(1, 1) if stretched else need.input
    return boxes


def step_macs(network: Network, step: Step) -> int:
    """Multiply-accumulates of a step: its share of the pixels that the op's MACs are counted by."""
    op = network.ops[step.op]
    macs = op.macs + sum(network.ops[inner].macs for inner in op.inner)
    part, whole = step_pixels(network, step)
    return macs * part // whole


def step_pixels(network: Network, step: Step) -> tuple[int, int]:
    """Pixels of a step, and those of its whole op, by which the op's work is counted."""
    op = network.ops[step.op]
    by_input = isinstance(op.geometry, Transposed)
    whole = network.tensors[network.sources(op)[0] if by_input else op.outputs[0]]
    box = step.need.input if by_input else step.need.output
    return box.size, whole.height * whole.width


def _geometry(op: Op) -> Geometry:
    assert op.geometry is not None, f"op {op.index} {op.kind} is no op that tiles can hold"
    return op.geometry


def form_of(walk: TileWalk, network: Network, given: Iterable[tuple[int, Region]]) -> str:
    """What tells this tile's graph from another's: sizes and relative places, not its place in the image.

    `given`: boxes of tensors that it gives beside its outputs.
    """
    parts = [f"{t}:{r.height}x{r.width}" for t, r in walk.inputs.items()]
    for step in walk.steps:
        need, pads = step.need, step.need.pads
        boxes = operands(network, network.ops[step.op], need)
        crops = [_relative(box, walk.held[tensor]) for tensor, box in boxes.items()]
        parts.append(
            f"{step.op}{'s' if need.same else ''}:{'/'.join(crops)}"
            f"+{pads.top},{pads.bottom},{pads.left},{pads.right}>{need.output.height}x{need.output.width}"
        )
    made = {tensor: step.need.output for step in walk.steps for tensor in network.ops[step.op].outputs}
    parts.extend(_lent(walk, tensor, made.get(tensor)) for tensor in walk.strips)
    parts.extend(f"{t}={_relative(r, walk.held[t])}" for t, r in (*walk.outputs.items(), *given))
    return " ".join(parts)


def _lent(walk: TileWalk, tensor: int, made: Region | None) -> str:
    """`made`: what the tile itself makes of the tensor; None where others lend all of it."""
    strips, wanted = walk.strips[tensor], walk.wanted[tensor]
    own = _relative(without(wanted, strips), made) if made else ""
    return f"{tensor}<{'/'.join((own, *(_relative(strip, wanted) for strip in strips)))}"


def _relative(part: Region, whole: Region) -> str:
    return f"{part.y0 - whole.y0},{part.x0 - whole.x0},{part.height}x{part.width}"
