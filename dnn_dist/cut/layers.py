# SPDX-License-Identifier: Apache-2.0
"""A pipeline: contiguous runs of layers, one robot each; and the places where a network can be cut in two.

Ops stand in an order in which they can run, so every prefix of them is closed: no op of the front needs
anything of the rest. What has to be carried over a cut are all tensors that the front (or the caller) made
and the rest still reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnn_dist.cut.local import whole_stage
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.shares import Speeds, contiguous
from dnn_dist.errors import CutError
from dnn_dist.graph.network import Network


@dataclass(frozen=True, slots=True)
class CutPoint:
    """A cut between two ops: a front that is closed, and the rest."""

    after: int
    """Last op of the front."""
    tensors: tuple[int, ...]
    """All that the rest reads of the front or of the model's inputs, and the model's outputs made so far."""
    bytes: int
    """Of these tensors."""


def cut_points(network: Network, first: int = 0, last: int | None = None) -> tuple[CutPoint, ...]:
    """Every place between two ops of first..last."""
    last = len(network.ops) - 1 if last is None else last
    points = []
    for after in range(first, last):
        carried = dict.fromkeys(network.live_before(after + 1, len(network.ops) - 1))
        carried.update(dict.fromkeys(t for t in network.live_after(0, after) if t in network.outputs))
        points.append(CutPoint(after, tuple(carried), sum(network.tensors[t].bytes for t in carried)))
    return tuple(points)


def layer_starts(network: Network, first: int, last: int) -> tuple[int, ...]:
    """Ops of first..last before which a stage may end: `first`, and what is not cut as one with ops before it.

    Ops that only prepare constants belong to what follows. Where a tensor is carried whose shape is known only
    when it runs no stage ends, since no port could say what it takes.
    """
    inside = {index for op in network.ops for index in range(min((*op.inner, op.index)) + 1, op.index + 1)}
    for tensor in network.tensors:
        if not tensor.fixed and network.consumers[tensor.index]:
            made = network.producers.get(tensor.index, -1)
            inside.update(range(made + 1, network.consumers[tensor.index][-1] + 1))
    real = [op.index for op in network.ops[first : last + 1] if not op.folded and op.index not in inside]
    return (first, *real[1:])


def cut_layers(
    network: Network, speeds: Speeds, text: str, first: int = 0, last: int | None = None
) -> tuple[Stage, ...]:
    """Ops first..last in one run of layers per robot, of the least bottleneck in MACs.

    `last` None: to the end, but for ops whose results have a shape that only the run shows: no message can hold them
    to what the plan says.

    Of all cuts with that bottleneck, one that carries the fewest bytes. Raises CutError when there are fewer
    layers than robots.
    """
    last = last_known(network, first) if last is None else last
    starts = layer_starts(network, first, last)
    if len(speeds) > len(starts):
        raise CutError(
            f"layers:{text[:80]}: ops {first}..{last} are {len(starts)} layers that can be told apart; "
            f"take layers:{len(starts)} or fewer"
        )
    if len(speeds) == 1:
        return (whole_stage(network, "layers", f"layers:{text}@{first}..{last}", first, last),)
    ends = (*(start - 1 for start in starts[1:]), last)
    carried = {point.after: point.bytes for point in cut_points(network, first, last)}
    costs = [sum(op.macs for op in network.ops[a : b + 1]) for a, b in zip(starts, ends, strict=True)]
    spans = contiguous(costs, [carried.get(end, 0) for end in ends], speeds)
    return tuple(
        whole_stage(network, "layers", f"layers:1@{starts[a]}..{ends[b - 1]}", starts[a], ends[b - 1]) for a, b in spans
    )


def last_known(network: Network, first: int) -> int:
    """The last op of a run of layers from `first` on all of whose results have a known shape."""
    end = len(network.ops)
    makers = [network.producers.get(t, -1) for t in network.outputs if not network.tensors[t].fixed]
    if makers:
        known = max(first, min(makers))
        end = max(start for start in layer_starts(network, first, end - 1) if start <= known)
    return end - 1 if end > first else len(network.ops) - 1  # else refused, in words, by whole_stage
