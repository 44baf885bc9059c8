# SPDX-License-Identifier: Apache-2.0
"""Who gets a task: pure functions over what a dispatcher knows of its workers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from dnn_dist.plan.policy import rank
from dnn_dist.run.fleetview import WorkerView
from dnn_dist.run.wire import TaskKey


def choose(
    key: TaskKey,
    plan: str,
    able: Sequence[WorkerView],
    offering: Collection[str],
    has: Collection[str] = (),
    failed: Collection[str] = (),
    owner: str = "",
) -> WorkerView | None:
    """The worker that gets a task now; None: it waits.

    `able` serve the plan. `has` are working on the task already: a second copy with one of them would be none.
    `failed` lost it before, and get it again only if nobody else is there. `owner` (sharing) gets it whatever room it
    offers, but once: it may have refused it, and would again. The others must be `offering` room to the task's source;
    of these the first by `rank`.
    """
    others = [view for view in able if view.name not in has] if has else able
    fresh = ([view for view in others if view.name not in failed] or others) if failed else others
    if owner and owner not in failed:
        for view in fresh:
            if view.name == owner:
                return view
    return min(
        [view for view in fresh if view.name in offering],
        key=lambda view: rank(_of_stage(view, key), view.load, view.state.speed_of(plan, key.stage), view.name),
        default=None,
    )


def _of_stage(view: WorkerView, key: TaskKey) -> int:
    return sum([held.frame == key.frame and held.stage == key.stage for held in view.leases]) if view.leases else 0


def owners(
    pieces: int, able: Mapping[str, WorkerView], weights: Mapping[str, float], plan: str, stage: int
) -> list[str]:
    """Sharing: the owner of each piece; runs of pieces in proportion to `weights`, else to the speeds measured at the
    stage, else to those over all stages, else equal. Empty when there is nobody to own anything.
    """
    given = {name: weights[name] for name in able if weights.get(name, 0.0) > 0}
    at_stage = {name: view.state.speed_of(plan, stage) for name, view in able.items()}
    overall = {name: view.state.speed for name, view in able.items()}
    # One kind of speed for all: one worker's at the stage and another's over all stages do not compare.
    shares = given or next((s for s in (at_stage, overall) if all(s.values())), dict.fromkeys(able, 1.0))
    total, reached, owned = sum(shares.values()), 0.0, list[str]()
    for name in sorted(shares):
        reached += shares[name]
        owned += [name] * (round(pieces * reached / total) - len(owned))
    return owned
