# SPDX-License-Identifier: Apache-2.0
"""A plan of a real network as a load: seconds and memory by the planner's cost model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from dnn_dist.cut.piece import Stage
from dnn_dist.graph.network import Network
from dnn_dist.plan.cost import piece_activations, piece_seconds, piece_weights
from dnn_dist.plan.fleet import Robot
from dnn_dist.plan.plan import Plan
from dnn_dist.run.shape import PlanShape
from dnn_dist.sim.scenario import Load


def plan_load(network: Network, plan: Plan) -> Load:
    """The load of a plan for this network; PlanError when the plan is for another."""
    return stages_load(network, plan.stages(network), plan.wire, plan.replicas, plan.hash, plan.robots)


def stages_load(
    network: Network,
    stages: Sequence[Stage],
    wire: str = "float32",
    replicas: int = 1,
    name: str = "plan",
    robots: tuple[str, ...] = (),
) -> Load:
    """The load of stages, as `cut_network` gives them; `robots` take part, none named: all."""

    def seconds(robot: Robot, stage: int, piece: int) -> float:
        return piece_seconds(network, stages[stage], stages[stage].pieces[piece], robot)

    return Load(PlanShape.of(network, stages, wire, replicas, robots), seconds, _Memory(network, stages), name)


class _Memory:
    """Bytes that a robot needs for pieces: the weights of all, once where they are the same, and the largest layer."""

    def __init__(self, network: Network, stages: Sequence[Stage]) -> None:
        self._network, self._stages = network, stages
        self._largest: dict[tuple[int, str], int] = {}  # (stage, form) -> bytes

    def __call__(self, pieces: Collection[tuple[int, int]]) -> int:
        weights: dict[int, int] = defaultdict(int)
        largest = 0
        for index, number in sorted(pieces):
            stage = self._stages[index]
            piece = stage.pieces[number]
            size = piece_weights(self._network, stage, piece)
            # Slices have weights of their own; tiles and bands of a stage share theirs.
            weights[index] = weights[index] + size if stage.kind == "slices" else max(weights[index], size)
            form = (index, piece.form)
            if form not in self._largest:
                self._largest[form] = piece_activations(self._network, stage, piece)
            largest = max(largest, self._largest[form])
        return sum(weights.values()) + largest
