# SPDX-License-Identifier: Apache-2.0
"""A network as layers with times, to be cut in front and rest (front.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dnn_dist.cut.layers import layer_starts
from dnn_dist.graph.network import Network
from dnn_dist.plan.front import Front, Layer, LayerGraph, members, source


@dataclass(frozen=True, slots=True)
class Layered:
    """A network's layers: its inputs first, then ops that are cut as one."""

    graph: LayerGraph
    ops: tuple[range, ...]
    """Layer -> its ops in the file's order; an input has none."""

    def ops_of(self, layers: Front) -> tuple[int, ...]:
        """Ops of a set of layers, ascending."""
        return tuple(op for number in members(layers) for op in self.ops[number])


def layered(network: Network, robot: Sequence[float], server: Sequence[float], send: Callable[[int], float]) -> Layered:
    """A network between a robot and a server.

    `robot`, `server`: seconds of each op there; `send`: bytes -> seconds on the link. What the rest reads of a model's
    input is sent as it is there.
    """
    starts = layer_starts(network, 0, len(network.ops) - 1)
    ops = [range(0)] * len(network.inputs)
    layers = [source(send(network.tensors[tensor].bytes)) for tensor in network.inputs]
    made = {tensor: number for number, tensor in enumerate(network.inputs)}  # tensor -> layer
    for first, after in pairwise((*starts, len(network.ops))):
        results = network.live_after(first, after - 1)
        takes = {made[tensor] for tensor in network.live_before(first, after - 1)}
        size = sum(network.tensors[tensor].bytes for tensor in results)
        layers.append(Layer(sum(robot[first:after]), sum(server[first:after]), send(size), tuple(sorted(takes))))
        made.update(dict.fromkeys(results, len(ops)))
        ops.append(range(first, after))
    return Layered(LayerGraph(tuple(layers)), tuple(ops))


def ranges(ops: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Ascending numbers of ops as ranges (first, last), both included."""
    found: list[tuple[int, int]] = []
    for op in ops:
        if found and found[-1][1] == op - 1:
            found[-1] = found[-1][0], op
        else:
            found.append((op, op))
    return tuple(found)
