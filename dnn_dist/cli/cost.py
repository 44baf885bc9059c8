# SPDX-License-Identifier: Apache-2.0
"""What a cut costs by calculation: work, bytes on the way, memory; and the figures that the papers print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from math import prod
from typing import Any

from dnn_dist.cut.bands import exchanged_bytes
from dnn_dist.cut.feeds import FEEDING, Feeds
from dnn_dist.cut.memory import stage_memory
from dnn_dist.cut.piece import Port, Stage
from dnn_dist.cut.shares import Speeds
from dnn_dist.cut.spec import mark, parse_cut
from dnn_dist.cut.traffic import direct_bytes, gathered_bytes, overlap_bytes, strip_bytes
from dnn_dist.graph.geometry import Pointwise
from dnn_dist.graph.network import Network
from dnn_dist.plan.policy import columns
from dnn_dist.run.shape import PlanShape

_MIB = 2**20
_FUSED = ("tiles", "bands")


def cost(network: Network, stages: Sequence[Stage]) -> dict[str, Any]:
    """What a cut costs per frame: MACs against the whole's, bytes on the way to and from the pieces and among them."""
    feeds = Feeds(network, stages)
    distributed = [stage for stage in stages if stage.distributed]
    pieces = [piece for stage in distributed for piece in stage.pieces]
    seen = [piece for stage in feeds.seen if stage.distributed for piece in stage.pieces]
    of_stages = sum(op.macs for stage in distributed for op in map(network.ops.__getitem__, stage.ops))
    return {
        "stages": len(stages),
        "pieces": len(pieces),
        "files": sum(len({piece.form for piece in stage.pieces}) for stage in distributed),
        "distributed_macs": of_stages / network.macs if network.macs else 0.0,
        "work_ratio": sum(piece.macs for piece in pieces) / of_stages if of_stages else 1.0,
        "largest_piece_macs": max((piece.macs for piece in pieces), default=0) / network.macs if network.macs else 0.0,
        "bytes_in": sum(_travelling_bytes(network, port) for piece in seen for port in piece.inputs),
        "bytes_out": sum(port.bytes for piece in seen for port in piece.outputs),
        "bytes_direct": sum(_direct_bytes(network, feeds).values()),
        **({"bytes_strips": sum(map(strip_bytes, distributed))} if any(stage.reuses for stage in stages) else {}),
        **_published(network, feeds),
    }


def boundaries(network: Network, stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Of each boundary that is direct or may be: the bytes that it moves in either way, the others being as they are.

    Direct with each piece at the robot that has most of what it takes.
    """
    found = []
    in_force = Feeds(network, stages)
    moved = _direct_bytes(network, in_force)
    for number, (before, stage) in enumerate(pairwise(stages), 1):
        if before.kind not in FEEDING or stage.kind not in FEEDING:
            continue
        feeds, direct = in_force, moved.get(number)
        if direct is None:
            joined = replace(stage, direct=True, group=before.kind == stage.kind == "layers")
            feeds = Feeds(network, [*stages[:number], joined, *stages[number + 1 :]])
            direct = _direct_bytes(network, feeds)[number]
        found.append(
            {
                "before": before.spec,
                "after": stage.spec,
                "direct": stage.direct,
                "mark": mark(stage),
                "direct_bytes": direct,
                "gathered_bytes": gathered_bytes(feeds, number),
            }
        )
    return found


def boundary_text(facts: dict[str, Any]) -> str:
    """A boundary as a person reads it."""
    sizes = ", ".join(f"{facts[f'{way}_bytes'] / 1e6:.3f} MB {way}" for way in ("direct", "gathered"))
    return f"{facts['before']} {facts['mark']} {facts['after']}: {sizes}"


def _direct_bytes(network: Network, feeds: Feeds) -> dict[int, int]:
    """Stage -> bytes that move over the direct boundary before it, each column of a chain being on one robot."""
    found = {}
    shape = PlanShape.of(network, feeds.stages, "float32")
    for chain in feeds.chains:
        at = columns(shape.stages, chain)
        found.update({stage: direct_bytes(feeds, stage, at) for stage in chain[1:]})
    return found


def _travelling_bytes(network: Network, port: Port) -> int:
    """The camera's pixels travel as uint8, whatever type the model takes; all else as it is."""
    tensor = network.tensors[port.tensor]
    is_picture = port.tensor in network.inputs and tensor.is_image and tensor.shape[3] in (1, 3, 4)
    return prod(port.shape) if is_picture else port.bytes


def _published(network: Network, feeds: Feeds) -> dict[str, float]:
    """Figures as DeepThings prints them, in the model's own type: MiB per frame, savings of memory."""
    stages = feeds.stages
    figures: dict[str, float] = {}
    tiled = [stage for stage in stages if stage.kind == "tiles"]
    if tiled:
        given = {t for stage in tiled for t in stage.inputs}
        frame = sum(network.tensors[t].bytes for t in given if t in network.inputs)
        ports = [port for stage in tiled for piece in stage.pieces for port in (*piece.inputs, *piece.outputs)]
        figures["tile_traffic_mib"] = (frame + sum(port.bytes for port in ports if not port.strip)) / _MIB
    if any(stage.reuses for stage in tiled):
        figures["strips_mib"] = sum(overlap_bytes(network, feeds, n) for n, s in enumerate(stages) if s.reuses) / _MIB
    banded = sum(exchanged_bytes(network, *run) for run in _banded(stages))
    if banded:
        figures["bands_traffic_mib"] = banded / _MIB
    memories = [(stage_memory(network, stage), _layers(network, stage)) for stage in stages if stage.kind in _FUSED]
    if memories:
        weights = sum(m.weights for m, _ in memories)  # a robot may get a piece of any stage
        piece, whole = (weights + max(getattr(m, name) - m.weights for m, _ in memories) for name in ("piece", "whole"))
        figures["memory_saving"] = 1 - piece / whole
        layers = sum(count for _, count in memories)
        figures["layer_memory_saving"] = sum(m.layer_saving * count for m, count in memories) / layers
    return figures


def _layers(network: Network, stage: Stage) -> int:
    """How many of a stage's ops make a tensor of their own; others change their input in place."""
    ops = network.ops[stage.first : stage.last + 1]
    return sum(op.geometry is not None and not isinstance(op.geometry, Pointwise) for op in ops) or 1


def _banded(stages: Sequence[Stage]) -> Iterator[tuple[Speeds, int, int]]:
    """(speeds, first op, last op) of every run of stages that are bands for the same robots."""
    for (kind, robots), run in groupby(stages, key=lambda stage: (stage.kind, stage.spec.partition("@")[0])):
        found = list(run)
        if kind == "bands":
            yield parse_cut(robots)[0].speeds, found[0].first, found[-1].last
