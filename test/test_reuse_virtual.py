# SPDX-License-Identifier: Apache-2.0
"""Tiles that lend each other strips, in virtual time: who computes them, and what happens when strips do not come."""

from __future__ import annotations

import pytest
from chained import Tiles, chain
from test_chains import WELL, Watched
from virtual import Faults

from dnn_dist.run.report import Status
from dnn_dist.run.shape import PlanShape

NINE = chain(Tiles(9, 20, reuse=True))  # five give strips, 20 ms each; four take them, 6 ms, or 20 ms without


@pytest.mark.parametrize("workers", [1, 2, 4, 9])
def test_undisturbed_all_strips_come_in_time(workers: int) -> None:
    cluster = Watched(workers, NINE)
    reports = cluster.run(6, period=0.4)
    assert {report.status for report in reports} == {Status.COMPLETE}
    assert len(cluster.computed) == 6 * 9 and not cluster.computed_again()
    assert not [work for _, _, work in cluster.sent if work.alone or work.again]


def test_the_worker_that_has_most_strips_computes_the_tile() -> None:
    cluster = Watched(5, NINE)
    cluster.run(3, period=0.4)
    for frame in range(3):
        crew = cluster.crew(frame)
        assert all(crew[0, 5 + tile] == crew[0, tile] for tile in range(4)), "it sits where most of its strips are"


def test_strips_that_are_lost_on_the_way_are_done_without() -> None:
    """In full at the same worker: nobody is blamed, and nobody is computed anew."""
    cluster = Watched(3, NINE, faults=Faults(parted=[(0.0, 100.0, "w1", "w2")]))
    reports = cluster.run(3, period=5.0, budget=20.0)
    in_full = [work for _, _, work in cluster.sent if work.alone]
    assert in_full and all(work.again and work.attempt == 0 for work in in_full)
    assert {report.status for report in reports} == {Status.COMPLETE} and not cluster.computed_again()
    assert len(cluster.computed) == 3 * 9


@pytest.mark.parametrize("at", [0.305, 0.32, 0.335, 0.35, 0.365, 0.38])
@pytest.mark.parametrize("plan", [NINE, chain(Tiles(9, 20, reuse=True), Tiles(4, 5))], ids=["alone", "in a chain"])
def test_a_neighbour_that_dies_costs_no_more_than_the_full_tiles(at: float, plan: PlanShape) -> None:
    cluster = Watched(3, plan, faults=Faults(events=[(at, "kill", "w2")]))
    reports = cluster.run(5, period=0.6, budget=0.6)
    assert {report.status for report in reports} <= WELL
    had = {key for robot, key in cluster.computed if robot == "w2"}
    assert set(cluster.computed_again()) <= had, "what others computed is computed once"


def test_a_result_that_is_there_is_not_computed_anew_for_its_strips() -> None:
    """All who give strips have reported, and one dies before those who take them got them."""
    cluster = Watched(5, NINE, faults=Faults(parted=[(0.0, 1.0, "w3", f"w{n}") for n in (1, 2, 4, 5)]))
    cluster.calls = [(0.5, lambda: cluster.workers["w3"].kill())]
    reports = cluster.run(1, budget=5.0)
    assert {report.status for report in reports} <= WELL
    lent = {piece for (_, piece), worker in cluster.crew(0).items() if worker == "w3" and piece < 5}
    assert lent and not [key for key in cluster.computed_again() if key.piece in lent], "the aggregator has its tile"
    assert [work for _, _, work in cluster.sent if work.alone]
