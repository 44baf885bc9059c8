# SPDX-License-Identifier: Apache-2.0
"""Profiling: ops and overhead add up to the whole model; what is measured gets into a fleet file and into plans."""

from __future__ import annotations

import json
from itertools import count

import pytest
import yaml
from cutting import FIXTURES
from hypothesis import given
from hypothesis import strategies as st

from dnn_dist.cli.main import main
from dnn_dist.cli.measure import measure, normalised, ranges
from dnn_dist.cli.profile import merged
from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import ConfigError
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.cost import piece_seconds
from dnn_dist.plan.fleet import read_fleet

MODELS = ["chain_float32", "residual_int8", "dilated_float32", "siamese_float32", "zoo/mobilenet_v3_int8"]
SECONDS = st.floats(1e-6, 10)


@given(SECONDS, st.lists(SECONDS, min_size=1, max_size=20))
def test_overhead_and_ranges_add_up_to_the_whole(whole, times) -> None:
    overhead, scaled = normalised(whole, times)
    assert overhead + sum(scaled) == pytest.approx(whole)
    assert 0 <= overhead <= whole and min(scaled) >= 0


@given(st.lists(st.floats(1e-3, 1), min_size=2, max_size=20), st.floats(0, 1e-3))
def test_a_true_overhead_is_found(ops, overhead) -> None:
    found, scaled = normalised(overhead + sum(ops), [op + overhead for op in ops])
    assert found == pytest.approx(overhead, abs=1e-9)
    assert scaled == pytest.approx(ops, rel=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_every_op_is_measured_once(name) -> None:
    network = read_network(FIXTURES / f"{name}.tflite")
    covered = [op for first, last in ranges(network) for op in range(first, last + 1)]
    assert sorted(set(covered)) == sorted(covered)
    assert {op.index for op in network.ops if not op.folded} <= set(covered)
    ticks = count()
    told = []
    found = measure(network, lambda: next(ticks) / 8, repeat=1, done=told.append)  # every run takes an eighth
    assert found.whole == 0.125
    assert found.overhead + sum(found.ops) == pytest.approx(found.whole)
    assert len(told) == 1 + len(ranges(network))


def test_a_profile_gets_into_the_fleet_file_and_predicts_the_whole_model(tmp_path, capsys) -> None:
    fleet, model = tmp_path / "fleet.yaml", FIXTURES / "chain_float32.tflite"
    network = read_network(model)
    fleet.write_text("# Ours.\ndnn_dist_fleet: 1\nrobots:\n  pi: {count: 2, profile: raspberry_pi_4}\n"
                     "links: [{robots: all, bandwidth: 60 Mbit/s}]\n")  # fmt: skip
    words = ["profile", str(model), "--fleet", str(fleet), "--robot", "pi", "--repeat", "3", "--busy", "6 W", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert fleet.read_text().startswith("# Ours.\n")
    robots = read_fleet(fleet).robots
    assert [robot.name for robot in robots] == ["pi1", "pi2"] and robots[0].busy == 6
    (whole,) = cut_network(network, "local")
    assert piece_seconds(network, whole, whole.pieces[0], robots[0]) == pytest.approx(told["whole_s"], rel=0.01)
    assert main(["profile", str(FIXTURES / "siamese_float32.tflite"), *words[2:-1]]) == 0
    assert len(read_fleet(fleet).robots[0].measured) == 2
    new = tmp_path / "new.yaml"
    assert main(["profile", str(model), "--fleet", str(new), "--repeat", "1"]) == 0
    assert read_fleet(new).names == ("this",)


def test_what_would_be_no_fleet_is_not_written(tmp_path, capsys) -> None:
    fleet = tmp_path / "fleet.yaml"
    for text, words, cure in (
        ("dnn_dist_fleet: 1\nrobots: {a: {speed: 600}}\n", [], "did you forget the unit"),
        ("", ["--memory", "700"], "expected a size with its unit"),
        ("", ["--idle", "-1 W"], "of 0 or more"),
        ("", ["--repeat", "0"], "expected 1 or more"),
    ):
        fleet.write_text(text) if text else fleet.unlink(missing_ok=True)
        model = str(FIXTURES / "siamese_float32.tflite")
        assert main(["profile", model, "--fleet", str(fleet), "--repeat", "1", *words]) == 2
        assert cure in capsys.readouterr().err
        assert not fleet.exists() or fleet.read_text() == text
    alone = yaml.safe_load("{dnn_dist_fleet: 1, robots: {a: {speed: 1 GMAC/s}}}")
    with pytest.raises(ConfigError, match="none between a and b; add one"):
        merged(alone, "b", {"speed": "1 GMAC/s", "measured": {}})
