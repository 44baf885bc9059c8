# SPDX-License-Identifier: Apache-2.0
"""Which workers compute a chain. Pure functions over a plan's shape and what a dispatcher knows of its workers.

The pieces of a chain form columns: a piece of tiles or bands belongs to the column of the piece that gives it most
bytes, one that nobody gives anything begins a column, and each stage of a pipeline is one. A column stays on one
worker, so that most of what goes from stage to stage stays there too. Columns go to workers as in longest processing
time first: the heaviest first, each to the worker that would be done with it first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dnn_dist.cut.feeds import Maker
from dnn_dist.run.fleetview import WorkerView
from dnn_dist.run.shape import PlanShape

Columns = dict[Maker, int]

STAY = 1.1
"""A column moves to a worker that would be done with it so many times sooner: measured speeds are noisy, and who gets
pieces that are new to it may have to read their weights."""


def columns(shape: PlanShape, chain: range) -> Columns:
    """Stage and piece -> column, numbered from 0."""
    found: Columns = {}
    count = 0
    for stage in chain:
        for number, piece in enumerate(shape.stages[stage].pieces):
            if piece.feeds and not shape.stages[stage].pipelined:
                most = max(piece.feeds, key=lambda maker: (piece.feeds[maker], -found[maker]))
                found[stage, number] = found[most]
            else:
                found[stage, number] = count
                count += 1
    return found


def travelling(shape: PlanShape, chain: range) -> int:
    """Bytes of a chain that its source has on the way at once: inputs, or long after them results."""
    pieces = [piece for stage in chain for piece in shape.stages[stage].pieces]
    return max(sum(piece.bytes_in for piece in pieces), sum(piece.bytes_out for piece in pieces))


def connected(able: Sequence[WorkerView], first: Sequence[str]) -> list[WorkerView]:
    """As many of these workers as can all feed each other, or nearly; those named in `first` before others."""
    order = {name: number for number, name in enumerate(first)}
    chosen: list[WorkerView] = []
    for view in sorted(able, key=lambda view: (order.get(view.name, len(order)), view.name)):
        if all(view.name in one.state.peers and one.name in view.state.peers for one in chosen):
            chosen.append(view)
    return chosen


def deal(
    shape: PlanShape, plan: str, places: Columns, crew: Sequence[WorkerView], robot: str, before: Mapping[int, str]
) -> dict[int, str]:
    """Column -> worker. `robot`: the source's own, whose worker is first among equals; `before`: where columns were."""
    if not crew:
        return {}
    costs: dict[int, list[tuple[int, int]]] = {}  # column -> (stage, MACs)
    for (stage, piece), column in places.items():
        costs.setdefault(column, []).append((stage, max(1, shape.stages[stage].pieces[piece].macs)))
    speeds = {stage: _speeds(crew, plan, stage) for stage in {stage for stage, _ in places}}
    done = dict.fromkeys((view.name for view in crew), 0.0)
    own = {view.name for view in crew if view.state.robot == robot}
    dealt: dict[int, str] = {}
    for column in sorted(costs, key=lambda column: (-sum(macs for _, macs in costs[column]), column)):

        def end(name: str, column: int = column) -> float:
            return done[name] + sum(macs / speeds[stage][name] for stage, macs in costs[column])

        def rank(name: str, column: int = column) -> tuple[float, bool, str]:
            stays = before.get(column) == name
            return end(name) / (STAY if stays else 1.0), name not in own, name

        name = min(done, key=rank)
        done[name] = end(name)
        dealt[column] = name
    return dealt


def _speeds(crew: Sequence[WorkerView], plan: str, stage: int) -> dict[str, float]:
    """Worker -> MAC/s: measured at the stage, else over all, else equal; one kind for all, for kinds do not compare."""
    at_stage = {view.name: view.state.speed_of(plan, stage) for view in crew}
    overall = {view.name: view.state.speed for view in crew}
    return next((speeds for speeds in (at_stage, overall) if all(speeds.values())), dict.fromkeys(overall, 1.0))
