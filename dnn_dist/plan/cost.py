# SPDX-License-Identifier: Apache-2.0
"""What a piece costs a robot: seconds, bytes of memory, bytes on the way.

Seconds come from what `dnn_dist profile` measured of each op, times the share of the op that the piece computes; where
nothing was measured, from MACs and the robot's speed. Then ops without weights (a pool, an addition) cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from dnn_dist.cut.feeds import Feeds, Maker
from dnn_dist.cut.memory import stage_memory
from dnn_dist.cut.piece import Piece, Stage
from dnn_dist.cut.sides import SIDES
from dnn_dist.cut.tile import piece_walk
from dnn_dist.graph.geometry import Pad, Pointwise
from dnn_dist.graph.network import Network
from dnn_dist.plan.fleet import Robot
from dnn_dist.plan.plan import box_bytes, piece_bytes
from dnn_dist.settings import PartitionSettings


def piece_seconds(network: Network, stage: Stage, piece: Piece, robot: Robot) -> float:
    """Mean seconds that `robot` takes for one run of the piece."""
    measured = robot.measured.get(network.sha256) if robot.measured else None
    if measured is None or len(measured) != len(network.ops):
        return robot.overhead + piece.macs / robot.speed
    return robot.overhead + sum(measured[op] * share for op, share in op_shares(network, stage, piece).items())


def op_seconds(network: Network, robot: Robot) -> tuple[float, ...]:
    """Mean seconds that `robot` takes for each op, as measured or by its speed."""
    measured = robot.measured.get(network.sha256) if robot.measured else None
    if measured is None or len(measured) != len(network.ops):
        return tuple(op.macs / robot.speed for op in network.ops)
    return measured


def op_shares(network: Network, stage: Stage, piece: Piece) -> Mapping[int, float]:
    """Op -> how much of it the piece computes, 1 is the whole op. Tiles overlap: over all of them it may exceed 1."""
    known = _shares(network)
    key = (stage.spec, piece.form)
    if key not in known:
        known[key] = _op_shares(network, stage, piece)
    return known[key]


@lru_cache(maxsize=16)
def _shares(network: Network) -> dict[tuple[str, str], Mapping[int, float]]:
    """Of one network: (stage, form of the piece) -> its shares. Kept, since a search asks again and again."""
    return {}


def _op_shares(network: Network, stage: Stage, piece: Piece) -> Mapping[int, float]:
    if stage.kind == "slices":
        filters = network.tensors[stage.outputs[0]].shape[-1]
        return {stage.first: piece.outputs[0].shape[-1] / filters}
    if stage.kind not in ("tiles", "bands"):
        return {number: 1.0 for number in stage.ops if not network.ops[number].folded}
    shares = {}
    for step in piece_walk(network, stage, piece).steps:
        op = network.ops[step.op]
        whole = network.tensors[op.outputs[0]]
        share = step.need.output.size / (whole.height * whole.width)
        shares.update(dict.fromkeys((*op.inner, op.index), share))  # ops cut as one are measured one by one
    return shares


def op_macs(network: Network, robots: Sequence[Robot]) -> tuple[float, ...]:
    """MACs of each op; where a robot measured its ops, all MACs divided in proportion to their seconds."""
    found: list[tuple[float, ...]] = [robot.measured.get(network.sha256, ()) for robot in robots]
    seconds = next((times for times in found if len(times) == len(network.ops) and sum(times) > 0), None)
    if seconds is None:
        return tuple(float(op.macs) for op in network.ops)
    return tuple(network.macs * second / sum(seconds) for second in seconds)


def piece_weights(network: Network, stage: Stage, piece: Piece) -> int:
    """Bytes of the weights that a robot holds for the piece; slices divide them, tiles do not."""
    weights = sum(network.ops[number].weight_bytes for number in stage.ops if not network.ops[number].folded)
    if stage.kind == "slices":
        return weights * piece.outputs[0].shape[-1] // network.tensors[stage.outputs[0]].shape[-1]
    return weights


def piece_activations(network: Network, stage: Stage, piece: Piece) -> int:
    """Bytes of the largest layer of the piece, its input and its output (DeepThings' way to count)."""
    if stage.kind == "slices":
        return sum(port.bytes for port in (*piece.inputs, *piece.outputs))
    if stage.kind in ("tiles", "bands"):
        alone = stage_memory(network, replace(stage, pieces=(piece,)))
        return alone.piece - alone.weights
    ops = (network.ops[number] for number in stage.ops)
    layers = (op for op in ops if not op.folded and not isinstance(op.geometry, Pointwise | Pad))
    return max((op.activation_bytes for op in layers), default=0)


def piece_memory(network: Network, stage: Stage, piece: Piece) -> int:
    """Bytes that a robot needs to run the piece: its weights and its largest layer."""
    return piece_weights(network, stage, piece) + piece_activations(network, stage, piece)


@dataclass(frozen=True, slots=True)
class PieceLoad:
    """One piece as load."""

    bytes_in: int  # of work, from the gateway to the worker
    bytes_out: int  # of the result, back
    seconds: tuple[float, ...]  # on each robot of the fleet, in its order
    macs: int = 0
    feeds: Mapping[Maker, int] = field(default_factory=dict, hash=False)
    """Bytes that it gets straight from other pieces; stages are counted from the chain's first."""


@dataclass(frozen=True, slots=True)
class StageLoad:
    """One stage as load; a local one has one piece, which the gateway's robot runs."""

    local: bool
    pieces: tuple[PieceLoad, ...]
    needed: int  # pieces that suffice, whichever they are; uncoded: all
    replicas: int = 1  # workers that compute each piece; the first answer counts
    direct: bool = False  # joined to the stage before it by feeds
    group: bool = False  # begins a group: of robots that have none of the stages before
    side: str = ""  # "front" or "rest"


def chain_load(
    network: Network,
    chain: Sequence[Stage],
    robots: Sequence[Robot],
    wire: str = PartitionSettings.wire,
    replicas: int = 1,
) -> tuple[StageLoad, ...]:
    """A chain as load for a fleet's robots. Robots that compute alike are asked once."""
    kinds = {robot: number for number, robot in enumerate(dict.fromkeys(map(_as_computer, robots)))}
    places = [kinds[_as_computer(robot)] for robot in robots]
    alike = [next(robot for robot, place in zip(robots, places, strict=True) if place == n) for n in range(len(kinds))]
    ops = {number for stage in chain for number in stage.ops}
    later = [number for number in range(min(ops), len(network.ops)) if number not in ops]
    # what reads the chain's results, as far as it matters here
    rest = replace(chain[-1], direct=False, pieces=(), inputs=network.read_by(later))
    chain = (replace(chain[0], direct=False), *chain[1:])
    feeds = Feeds(network, (*chain, rest))
    seen = feeds.seen
    by_form: dict[tuple[str, int], tuple[float, ...]] = {}  # pieces of equal form take equal time
    loads = []
    for number, stage in enumerate(chain):
        pieces = []
        for piece, view in zip(stage.pieces, seen[number].pieces, strict=True):
            form = (piece.form, piece.macs)
            if form not in by_form:
                times = [piece_seconds(network, stage, piece, robot) for robot in alike]
                by_form[form] = tuple(times[place] for place in places)
            fed = {
                maker: sum(box_bytes(box, wire) for box in boxes)
                for maker, boxes in feeds.feeds(number, piece.index).items()
            }
            pieces.append(PieceLoad(*piece_bytes(network, view, wire), by_form[form], piece.macs, fed))
        loads.append(
            StageLoad(
                local=stage.kind == "local",
                pieces=tuple(pieces),
                needed=stage.needed,
                replicas=1 if stage.coded or stage.kind == "local" or feeds.chained(number) else replicas,
                direct=number > 0,
                group=number > 0 and stage.group,
                side=stage.kind if stage.kind in SIDES else "",
            )
        )
    return tuple(loads)


def _as_computer(robot: Robot) -> tuple[float, float, int]:
    return robot.speed, robot.overhead, id(robot.measured) if robot.measured else 0
