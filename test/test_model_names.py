# SPDX-License-Identifier: Apache-2.0
"""Every command finds a shipped model by its bare name, and `simulate` the model that a plan was made for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cutting import FIXTURES

from dnn_dist.cli.main import main
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.plan import Plan

ROOT = Path(__file__).parents[1]
SHIPPED = "warehouse_int8.tflite"
OWN = FIXTURES / "squeeze_float32.tflite"
FLEET = str(ROOT / "config/fleets/six_pi3.yaml")


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", SHIPPED, "--json"],
        ["check", SHIPPED, "--cut", "tiles:1x2@0..1", "--json"],
        ["plan", SHIPPED, "--fleet", FLEET, "--json"],
        ["profile", SHIPPED, "--repeat", "1", "--json"],
        ["simulate", "tiles:2x2", "--model", SHIPPED, "--fleet", FLEET, "--frames", "1", "--json"],
    ],
    ids=lambda words: words[0],
)
def test_a_shipped_model_is_found_by_its_name(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)
    assert main([word.replace(SHIPPED, "warehuose.tflite") for word in words]) == 2
    said = capsys.readouterr().err
    assert SHIPPED in said and said.count("\n") == 1, "it names those there are"


def plan_for(model: Path, folder: Path, cut: str = "tiles:2x2@0..0") -> Path:
    path = folder / "plan.yaml"
    path.write_text(Plan(read_network(model).sha256, cut).to_yaml())
    return path


@pytest.mark.parametrize(
    ("model", "beside"), [(ROOT / "models" / SHIPPED, False), (OWN, True)], ids=["shipped", "beside the plan"]
)
def test_simulate_takes_the_model_that_the_plan_was_made_for(
    model: Path, beside: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plan_for(model, tmp_path)
    if beside:
        shutil.copy(model, tmp_path / "mine.tflite")
    assert main(["simulate", str(path), "--fleet", FLEET, "--frames", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["plan"], told["frames"]) == (Plan.read(path).hash, 2)


def test_simulate_says_which_model_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = plan_for(OWN, tmp_path)
    words = ["simulate", str(path), "--fleet", FLEET, "--frames", "1"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert read_network(OWN).sha256[:12] in said and "--model" in said and said.count("\n") == 1
    assert main([*words, "--model", str(OWN)]) == 0
    assert main([*words, "--model", SHIPPED]) == 2
    assert "made for model" in capsys.readouterr().err
