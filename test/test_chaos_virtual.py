# SPDX-License-Identifier: Apache-2.0
"""Sources and workers in virtual time while everything goes wrong by seed: no law is broken, and all comes back."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import Any

import pytest
from arrays import ArrayCluster
from chained import random_plan
from virtual import Cluster, Faults, shape

from dnn_dist.run.shape import PlanShape
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.tasks import DispatcherSettings

SEEDS = int(os.environ.get("DNN_DIST_CHAOS", "20"))
"""Seeds of chaos. With ten thousand it runs for an hour."""


def trouble(rng: random.Random, workers: int) -> Faults:
    """Kills, stops, restarts, loss, doubling, delay, errors, and perhaps values of random content."""
    kinds = ["kill", "stop", "go", "restart"]
    return Faults(
        loss=rng.choice([0, 0.02, 0.2]),
        doubling=rng.choice([0, 0.1]),
        delay=(0.0005, rng.choice([0.002, 0.02, 0.1])),
        failing=rng.choice([0, 0.05]),
        events=sorted(
            (rng.uniform(0, 3), rng.choice(kinds), f"w{rng.randint(1, workers)}") for _ in range(rng.randint(0, 8))
        ),
        forged=rng.choice([0, 0, 20, 100]),
        told=0.5,
        parted=[_parting(rng, workers) for _ in range(rng.choice([0, 0, 1, 3]))],
    )


def _parting(rng: random.Random, workers: int) -> tuple[float, float, str, str]:
    """Two workers that do not reach each other for a while."""
    begin = rng.uniform(0, 3)
    return begin, begin + rng.choice([0.2, 1.0, 5.0]), f"w{rng.randint(1, workers)}", f"w{rng.randint(1, workers)}"


def circumstances(rng: random.Random) -> dict[str, Any]:
    """Sources, plans that are switched, pieces made ready on demand, and executors that lag."""
    return {
        "sources": rng.choice([1, 1, 1, 2, 3]),
        "switches": sorted(rng.uniform(0.2, 3) for _ in range(rng.choice([0, 0, 1, 5]))),
        "on_demand": rng.random() < 0.3,
        "build": rng.choice([0.0, 0.05, 0.7]),
        "prepare": rng.choice([0.001, 0.05, 0.3]),
        "lag": rng.choice([0.0, 0.0, 0.01, 0.1]),
        "restarts": [rng.uniform(0.4, 2.5)] if rng.random() < 0.1 else [],
        "max_frames": rng.choice([0, 1, 2, 4]),
        "apart": rng.random() < 0.3,
    }


@pytest.mark.parametrize("seed", range(SEEDS))
def test_chaos_breaks_no_law(seed: int) -> None:
    """Everything goes wrong by seed; the laws are asserted after every event."""
    rng = random.Random(seed)
    workers = rng.randint(1, 6)
    settings = DispatcherSettings(
        mode="stealing" if rng.random() < 0.7 else "sharing",
        window=rng.choice([200, 1000, 10**6]),
        redundancy=rng.choice(["demand", "demand", "always"]),
        switch_within=rng.choice([0.3, 1.0]),
    )

    def plan() -> PlanShape:
        if rng.random() < 0.7:
            return random_plan(rng)
        redundancy = rng.choice([{}, {"parity": rng.randint(1, 3)}, {"replicas": 2}])
        return shape(rng.randint(1, 12), stages=rng.randint(1, 3), **redundancy)

    cluster = Cluster(
        workers,
        plan(),
        seed,
        trouble(rng, workers),
        settings,
        [rng.choice([200.0, 1000.0, 5000.0]) for _ in range(workers)],
        others=[plan() for _ in range(2)],
        worker=WorkerSettings(prefetch=rng.choice([0, 1, 1, 2]), max_held=rng.choice([2, 64]), remember=1.0),
        **circumstances(rng),
    )
    cluster.run(rng.choice([8, 20]), period=rng.choice([0.05, 0.2]), budget=rng.choice([0.2, 0.5]))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_all_is_well_again_when_the_trouble_is_over(seed: int) -> None:
    """Soon after it every frame is whole again."""
    rng = random.Random(f"{seed}/recovery")
    workers = rng.randint(1, 6)
    faults = replace(trouble(rng, workers), calm=3.2)
    faults.events += [(3.1, kind, f"w{number + 1}") for number in range(workers) for kind in ("go", "restart")]
    faults.parted = [(begin, min(end, 3.2), a, b) for begin, end, a, b in faults.parted]
    cluster = Cluster(
        workers,
        random_plan(rng),
        seed,
        faults,
        DispatcherSettings(window=rng.choice([500, 10**6]), backoff_max=1.0),
        [rng.choice([5000.0, 20000.0]) for _ in range(workers)],
        others=[random_plan(rng)],
        worker=WorkerSettings(remember=1.0),
        **{**circumstances(rng), "lag": rng.choice([0.0, 0.003]), "prepare": 0.01},
    )
    cluster.storm = 3.0
    reports = cluster.run(24, period=0.4, budget=3.0)
    late = [report for report in reports if cluster.ledgers["cam"].begun[report.frame] > 6.5]
    assert late, "images are still taken"
    assert all(report.quality == 1 for report in late), f"{[(report.frame, str(report.status)) for report in reports]}"


CUTS = ["tiles:2x2@0..4;slices:2+1@5", "tiles:3x3@0..3;layers:2@4..11", "slices:2+1@0..1;tiles:1x2@2..4", "local"]
CUTS += ["tiles:2x2@0..3>tiles:2x2@4..6>tiles:1x2@7..8", "tiles:2x2@0..4>layers:2@5..11", "bands:3@0..8;layers:2@9..11"]
CUTS += ["layers:4", "slices:2+1@0;tiles:1x3@1..3>bands:2@4..8"]
CUTS += ["tiles:3x3r@0..8", "slices:2+1@0;tiles:3x2r@1..4>tiles:2x2r@5..8", "layers:1@0..1>tiles:4x2r@2..8"]


@pytest.mark.parametrize("seed", range(SEEDS // 5))
def test_chaos_with_real_arrays_is_exact(seed: int) -> None:
    """What is reported as exact equals the whole model, bit for bit; asserted with each report."""
    rng = random.Random(seed)
    workers, cuts = rng.randint(1, 5), rng.sample(CUTS, 3)
    settings = DispatcherSettings(redundancy=rng.choice(["demand", "always"]), switch_within=rng.choice([0.3, 1.0]))
    faults = replace(trouble(rng, workers), forged=0)
    cluster = ArrayCluster(workers, cuts, seed, faults, settings, **circumstances(rng))
    cluster.run(8, period=0.2, budget=rng.choice([0.3, 0.6]))


def test_real_arrays_come_through() -> None:
    """Else the test before would prove nothing."""
    cluster = ArrayCluster(3, CUTS[4:7], switches=[0.5, 1.0, 1.5, 2.0], faults=Faults(failing=0.05))
    cluster.run(12, period=0.2, budget=0.6)
    assert cluster.exact_frames >= 10 and len({report.plan for report in cluster.reports}) > 1
