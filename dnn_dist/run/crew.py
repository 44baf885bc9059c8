# SPDX-License-Identifier: Apache-2.0
"""Which workers compute a chain: what a dispatcher knows of its workers, for the rules of plan/policy.py."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dnn_dist.cut.feeds import Maker
from dnn_dist.plan.policy import deal, keep_sides
from dnn_dist.run.fleetview import WorkerView
from dnn_dist.run.shape import PlanShape

Columns = dict[Maker, int]
"""Stage and piece -> column, see plan/policy.py."""


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


def crew_of(
    shape: PlanShape, plan: str, places: Columns, able: Sequence[WorkerView], robot: str, before: Sequence[str]
) -> tuple[str, ...]:
    """The worker of each column. `robot`: the source's own; `before`: the crew until now. Empty: there is nobody.

    Of workers that nothing is known of a plan's first robot is thought the fastest, for so plans are written; where a
    plan names none, the source's own goes first.
    """
    order = {name: number for number, name in enumerate(shape.robots or (robot,))}
    crew = sorted(connected(able, before), key=lambda view: (order.get(view.state.robot, len(order)), view.name))
    if not crew:
        return ()
    names = [view.name for view in crew]
    stages = {stage for stage, _ in places}
    speeds = estimated({stage: [view.state.speed_of(plan, stage) for view in crew] for stage in stages})
    seconds = [[0.0] * len(crew) for _ in range(1 + max(places.values()))]
    for (stage, piece), column in places.items():
        macs = max(1, shape.stages[stage].pieces[piece].macs)
        for worker, speed in enumerate(speeds[stage]):
            seconds[column][worker] += macs / speed
    own = [number for number, view in enumerate(crew) if view.state.robot == robot]
    keep_sides(seconds, {c: shape.stages[n].side for (n, _), c in places.items() if shape.stages[n].side}, own)
    were = [names.index(name) if name in names else None for name in before] or [None] * len(seconds)
    return tuple(names[worker] for worker in deal(seconds, before=were))


def estimated(measured: Mapping[int, Sequence[float]]) -> dict[int, list[float]]:
    """MAC/s of each worker at each stage, where not all were measured (0).

    Speeds at one stage tell how workers compare, those at several do not: the layers of one may take many times as long
    for the same MACs. So a worker that was not measured at a stage is to the others there as where both were; where
    no two were measured at one stage, as in a pipeline, all are alike.
    """
    usual = {stage: _mean([speed for speed in speeds if speed]) for stage, speeds in measured.items()}
    anywhere = _mean([speed for speed in usual.values() if speed]) or 1.0
    workers = range(max((len(speeds) for speeds in measured.values()), default=0))
    shared = [stage for stage, speeds in measured.items() if sum(map(bool, speeds)) > 1]
    alike = [
        _mean([measured[stage][n] / usual[stage] for stage in shared if measured[stage][n]]) or 1.0 for n in workers
    ]
    found = {}
    for stage, speeds in measured.items():
        theirs = _mean([alike[n] for n in workers if speeds[n]]) or 1.0
        typical = (usual[stage] or anywhere) / theirs
        found[stage] = [speeds[n] or typical * alike[n] for n in workers]
    return found


def _mean(values: Sequence[float]) -> float:
    """The geometric one; 0 of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else 0.0
