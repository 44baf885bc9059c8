# SPDX-License-Identifier: Apache-2.0
"""The minimum cut between robot and server: the baseline that adds up times and lets nothing overlap.

After Hu, Bao, Wang and Liu, "Dynamic Adaptive DNN Surgery for Inference Acceleration on the Edge" (INFOCOM 2019), which
the Extended Johnson paper calls DSL. Needs networkx, as nothing that runs on a robot does: the extra `planning`.
"""

from __future__ import annotations

from math import isinf

from dnn_dist.errors import PlanError
from dnn_dist.plan.front import Front, LayerGraph


def minimum_cut(graph: LayerGraph) -> Front:
    """The front of the least sum of computing, sending and computing again (`LayerGraph.summed`).

    A layer on the server's side costs its time there, on the robot's its time here; a tensor that the other side reads
    costs its time on the link, however many read it. Edges back to the maker are infinite, or a layer of the front
    might take from the rest. PlanError when networkx is missing.
    """
    try:
        import networkx
    except ImportError:
        raise PlanError("the minimum cut needs networkx; pip install networkx, or dnn_dist[planning]") from None
    flow = networkx.DiGraph()
    for number, layer in enumerate(graph.layers):
        flow.add_edge(number, "server", capacity=_whole(layer.robot))
        if isinf(layer.server):
            flow.add_edge("robot", number)  # without a capacity: infinite
        else:
            flow.add_edge("robot", number, capacity=_whole(layer.server))
        flow.add_edge(number, ("sent", number), capacity=_whole(layer.send))
        for maker in layer.takes:
            flow.add_edge(("sent", maker), number)
            flow.add_edge(number, maker)
    _, (here, _) = networkx.minimum_cut(flow, "robot", "server")
    return sum(1 << number for number in range(len(graph.layers)) if number in here)


def _whole(seconds: float) -> int:
    """In picoseconds: with fractions, rounding would leave edges of the cut that are nearly full."""
    return round(seconds * 1e12)
