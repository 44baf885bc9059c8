# SPDX-License-Identifier: Apache-2.0
"""Files of tiles that compute smaller tiles too, bit for bit; workers that keep to few of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from cutting import FIXTURES, random_inputs, run_whole
from virtual import Cluster, Faults, shape

from dnn_dist.cut import forms
from dnn_dist.cut.forms import MOST_EXTRA, serving
from dnn_dist.cut.merge import merge, scatter
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.spec import cut_network
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.plan import Plan
from dnn_dist.plan.policy import idle_uses, worth_reading
from dnn_dist.run.pieces import PieceSet
from dnn_dist.run.report import Status
from dnn_dist.run.shape import PlanShape

GRIDS = ("5x5", "4x4", "3x4", "2x5")
TORN = [name for name in sorted(path.stem for path in FIXTURES.glob("*.tflite")) if "squeeze" not in name]


def assert_equal(network: Network, cut: str) -> int:
    """By few files the pieces give what the whole gives, bit for bit; how many files there are fewer."""
    plan, inputs = Plan(network.sha256, cut), random_inputs(network)
    stages = plan.stages(network)
    arrays, fewer = dict(inputs), 0
    for local in (False, True):
        pieces = PieceSet(network, plan, stages, local, few=True)
        for number, stage in enumerate(stages):
            if (stage.kind == "local") is not local:
                continue
            used = {pieces.form(number, piece.index) for piece in stage.pieces}
            fewer += len({piece.form for piece in stage.pieces}) - len(used)
            outputs = {p.index: pieces.run(number, p.index, scatter(stage, p, arrays)) for p in stage.pieces}
            arrays |= merge(network, stage, outputs)
    for tensor, whole in run_whole(network, inputs).items():
        assert np.array_equal(whole.view(f"u{whole.itemsize}"), arrays[tensor].view(f"u{whole.itemsize}"))
    return fewer


@pytest.mark.parametrize("name", TORN)
def test_larger_tiles_compute_smaller_ones_bit_for_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much more work that is."""
    monkeypatch.setattr(forms, "MOST_EXTRA", float("inf"))
    network = read_network(FIXTURES / f"{name}.tflite")
    fewer = [assert_equal(network, f"tiles:{grid}") for grid in GRIDS]
    regular = name.startswith(("averages", "dilated", "pixels"))
    assert any(fewer) or not regular, "no tile was computed by the file of another"


def first_stage(name: str, cut: str) -> tuple[Network, Stage]:
    network = read_network(FIXTURES / f"{name}.tflite")
    return network, cut_network(network, cut)[0]


@pytest.mark.parametrize("name", TORN)
def test_few_files_are_little_more_work(name: str) -> None:
    for grid in GRIDS:
        network, stage = first_stage(name, f"tiles:{grid}")
        served = serving(network, stage)
        assert all(served[number] == number for number in served), "who serves another serves itself"
        work = sum(stage.pieces[number].macs for number in served)
        assert work <= MOST_EXTRA * sum(piece.macs for piece in stage.pieces)


def test_other_kinds_of_piece_keep_their_files() -> None:
    for cut in ("bands:3", "layers:3", "slices:3@0"):
        network, stage = first_stage("chain_float32", cut)
        assert serving(network, stage) == tuple(piece.index for piece in stage.pieces)


def test_a_form_is_read_elsewhere_only_where_that_ends_much_sooner() -> None:
    assert not worth_reading(0, [(1, 1.0)], (0, 1.0)), "the next piece of a worker that computes its last"
    assert worth_reading(0, [(2, 1.0)], (0, 1.0)), "it has another one waiting"
    assert not worth_reading(1, [(2, 1.0)], (2, 1.0)), "the other has as many"
    assert not worth_reading(0, [(1, 1.0), (2, 1.0)], (0, 1.0)), "two can take it"
    assert worth_reading(0, [(0, 0.2)], (0, 1.0)), "a slow one has it"
    assert not worth_reading(1, [(2, 1.0)], (0, 0.2)), "a slow one would read it"
    assert worth_reading(1, [(2, 0.0)], (0, 0.0)), "speeds are not known yet"


# Virtual time ---------------------------------------------------------------------------------------------------------

SERVED = (0, 1, 1, 1, 4, 5, 6, 6, 6, 9, 5, 6, 6, 6, 9, 5, 6, 6, 6, 9, 20, 21, 21, 21, 24)
"""5x5 tiles by nine files: corners, sides, and what lies within."""


def tiled() -> PlanShape:
    plan = shape(25)
    return replace(plan, stages=(replace(plan.stages[0], forms=SERVED), *plan.stages[1:]))


def kept(cluster: Cluster, first: int, last: int) -> dict[str, set[int]]:
    """Files that each worker used in frames first to last."""
    found: dict[str, set[int]] = {}
    for name, key in cluster.computed:
        if key.stage == 0 and first <= key.frame <= last:
            found.setdefault(name, set()).add(SERVED[key.piece])
    return found


@pytest.mark.parametrize("seed", range(5))
def test_workers_keep_to_few_forms_and_are_as_fast(seed: int) -> None:
    """Of nine files none of four workers uses more than six, and a frame takes no longer than by chance."""
    latency = {}
    for on_demand in (True, False):
        cluster = Cluster(4, tiled(), on_demand=on_demand, seed=seed)
        reports = cluster.run(40, period=0.3, budget=2.0)
        assert {report.status for report in reports} == {Status.COMPLETE}
        latency[on_demand] = np.median([report.latency for report in reports[10:]])
        if on_demand:
            assert max(map(len, kept(cluster, 0, 39).values())) <= 6
    assert latency[True] <= 1.05 * latency[False]


def test_stealing_still_balances() -> None:
    """One worker is four times slower: it is left few pieces, though it has forms that nobody else had at first."""
    cluster = Cluster(4, tiled(), speeds=[1000, 1000, 1000, 250], on_demand=True)
    reports = cluster.run(30, period=0.4, budget=3.0)
    done = Counter(name for name, key in cluster.computed if key.frame >= 10 and key.stage == 0)
    assert done["w4"] < min(done[name] for name in ("w1", "w2", "w3")) / 2
    assert {report.status for report in reports} == {Status.COMPLETE}


def test_a_dead_workers_forms_are_read_by_others_and_work_is_shared_when_it_is_back() -> None:
    faults = Faults(events=[(3.005, "kill", "w2"), (6.0, "restart", "w2")])
    cluster = Cluster(4, tiled(), faults=faults, on_demand=True)
    reports = cluster.run(60, period=0.3, budget=2.0)
    assert {report.quality for report in reports} == {1.0}
    assert "w2" not in kept(cluster, 12, 16)
    done = Counter(name for name, key in cluster.computed if key.frame >= 40 and key.stage == 0)
    assert set(done) == {"w1", "w2", "w3", "w4"} and max(done.values()) < 2 * min(done.values())


def test_who_keeps_more_forms_drops_them_later() -> None:
    assert idle_uses(1) == idle_uses(9) < idle_uses(1000)
