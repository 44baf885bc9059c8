# SPDX-License-Identifier: Apache-2.0
"""A network between a robot and a server: its layers with times there (front.py), and the cut that a division comes to.

Of a division each path becomes a stage of the front, with what it needs that no path before it computes, and a stage of
the rest, with what the server can go on with when its tensor has come. Stages stand in the order of the paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dnn_dist.cut.layers import last_known, layer_starts
from dnn_dist.cut.sides import side_text
from dnn_dist.graph.network import Network
from dnn_dist.plan.cost import op_seconds
from dnn_dist.plan.fleet import Fleet, Link, Robot
from dnn_dist.plan.front import Division, Front, Layer, LayerGraph, best_cut, members, source
from dnn_dist.plan.plan import tensor_bytes


@dataclass(frozen=True, slots=True)
class Layered:
    """A network's layers: its inputs first, then ops that are cut as one, as far as shapes are known."""

    graph: LayerGraph
    ops: tuple[range, ...]
    """Layer -> its ops in the file's order; an input has none."""

    def cut(self, division: Division) -> str:
        """The text of a division's cut."""
        return ">".join(side_text(kind, ops) for kind, ops in self._stages(division) if ops)

    def _stages(self, division: Division) -> Iterator[tuple[str, list[int]]]:
        graph, front = self.graph, division.front
        done: Front = 0
        for tensor in division.sent:
            yield "front", self._ops_of(graph.needs[tensor] & ~done)
            done |= graph.needs[tensor]
        yield "front", self._ops_of(front & ~done)
        come, done = 0, front
        for tensor in division.sent:
            come |= 1 << tensor
            free = come
            for number in members(graph.whole & ~front):
                if not graph.takes[number] & ~free:
                    free |= 1 << number
            yield "rest", self._ops_of(free & ~done)
            done |= free

    def _ops_of(self, layers: Front) -> list[int]:
        return [op for number in members(layers) for op in self.ops[number]]


def layered(
    network: Network, robot: Sequence[float], server: Sequence[float], send: Callable[[Sequence[int]], float]
) -> Layered:
    """A network with its times: `robot`, `server`: seconds of each op there; `send`: of these tensors on the link."""
    ops = [range(0)] * len(network.inputs)
    layers = [source(send((tensor,))) for tensor in network.inputs]
    made = {tensor: number for number, tensor in enumerate(network.inputs)}  # tensor -> layer
    last = last_known(network, 0)
    for first, after in pairwise((*layer_starts(network, 0, last), last + 1)):
        results = network.live_after(first, after - 1)
        takes = {made[tensor] for tensor in network.live_before(first, after - 1)}
        layers.append(Layer(sum(robot[first:after]), sum(server[first:after]), send(results), tuple(sorted(takes))))
        made.update(dict.fromkeys(results, len(ops)))
        ops.append(range(first, after))
    return Layered(LayerGraph(tuple(layers)), tuple(ops))


@dataclass(frozen=True, slots=True)
class Between:
    """The best way to divide a network between two robots, when computing and sending overlap."""

    cut: str
    division: Division

    def __str__(self) -> str:
        paths, count = self.division.paths, len(self.division.crossing)
        order = f"in an order by {paths.rule}, {paths.gap:.1%} above the bound" if count > 1 else "in the only order"
        return f"front and rest: {count} tensor{'s' * (count != 1)} from robot to server, {order}"


def between(network: Network, robot: Robot, server: Robot, link: Link, wire: str) -> Between:
    """The cut for a robot that has the inputs and a server that it sends to by this link."""

    def send(tensors: Sequence[int]) -> float:
        return link.occupied(sum(tensor_bytes(network, tensor, wire) for tensor in tensors))

    found = layered(network, op_seconds(network, robot), op_seconds(network, server), send)
    division = best_cut(found.graph)
    return Between(found.cut(division), division)


def servers(fleet: Fleet, own: str, speeds: Mapping[str, float]) -> Iterator[str]:
    """Robots that the robot `own` could give the rest of a network to; of those that are alike the first."""
    alike: dict[object, str] = {}
    for robot in fleet.robots:
        if robot.name != own:
            alike.setdefault((speeds[robot.name], robot.memory, fleet.link(own, robot.name)), robot.name)
    yield from alike.values()
