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


def cut_layers(
    network: Network, speeds: Speeds, text: str, first: int = 0, last: int | None = None
) -> tuple[Stage, ...]:
    """Ops first..last (None: to the end) in one run of layers per robot, of the least bottleneck in MACs.

    Of all cuts with that bottleneck, one that carries the fewest bytes. Raises CutError when there are fewer
    ops than robots.
    """
    last = len(network.ops) - 1 if last is None else last
    count = last - first + 1
    if len(speeds) > count:
        raise CutError(f"layers:{text}: ops {first}..{last} are {count}; take layers:{count} or fewer")
    costs = [op.macs for op in network.ops[first : last + 1]]
    burdens = [point.bytes for point in cut_points(network, first, last)] + [0]
    if len(speeds) == 1:
        return (whole_stage(network, "layers", f"layers:{text}@{first}..{last}", first, last),)
    return tuple(
        whole_stage(network, "layers", f"layers:1@{first + start}..{first + end - 1}", first + start, first + end - 1)
        for start, end in contiguous(costs, burdens, speeds)
    )
