# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist plan`: what it writes is what a gateway takes; exit codes; one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cutting import FIXTURES

from dnn_dist.cli.main import main
from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import PlanError
from dnn_dist.graph.tflite import read_network
from dnn_dist.nodes.planning import plan_in_force
from dnn_dist.plan.plan import Plan
from dnn_dist.settings import PartitionSettings

ROOT = Path(__file__).parents[1]
MODEL = FIXTURES / "squeeze_float32.tflite"
FLEET = """
dnn_dist_fleet: 1
robots: {pi: {count: 3, speed: 5 MMAC/s, memory: 700 MB, power: {idle: 1 W, busy: 5 W}}}
links: [{robots: all, bandwidth: 100 Mbit/s, latency: 0.2 ms}]
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET)
    return path


def planned(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> dict:
    assert main(["plan", str(MODEL), *map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_gateway_takes_what_is_written(fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.yaml"
    told = planned(capsys, "--fleet", fleet, "--wire", "int8", "--tolerate", 1, "-o", out)
    network = read_network(MODEL)
    plan = plan_in_force(network, PartitionSettings(plan=str(out), cut="local"))  # has no card
    assert (plan.hash, plan.cut, plan.wire) == (told["plan"], told["chosen"]["cut"], "int8")
    assert plan.stages(network)
    assert plan.replicas == told["chosen"]["replicas"]


def test_robots_that_are_to_have_no_worker_are_not_named(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slow robot that joins in would only be in the way: the prediction holds without it."""
    fleet.write_text(FLEET.replace("}}}", "}}, snail: {speed: 1 kMAC/s}}", 1))
    out = tmp_path / "plan.yaml"
    told = planned(capsys, "--fleet", fleet, "-o", out)
    assert "snail" not in told["workers"] and told["workers"]
    assert Plan.read(out).robots == tuple(told["workers"])


def test_without_a_plan_file_the_other_parameters_hold() -> None:
    network = read_network(ROOT / "models/warehouse_float32.tflite")
    plan = plan_in_force(network, PartitionSettings(cut="tiles:2x2@0..0", replicas=2))
    assert (plan.cut, plan.replicas) == ("tiles:2x2@0..0", 2)


def test_it_tells_all_figures_of_all_alternatives(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = planned(capsys, "--fleet", fleet)
    assert {"one robot", "tiles"} <= {entry["family"] for entry in told["alternatives"]}
    for entry in told["alternatives"]:
        assert min(entry[key] for key in ("latency", "throughput", "memory", "energy")) > 0
        assert entry["traffic"] >= 0
    assert told["why"] and told["alternatives"][0] == told["chosen"]
    assert main(["plan", str(MODEL), "--fleet", str(fleet)]) == 0
    assert told["why"][0][:20] in capsys.readouterr().out


def test_it_says_which_boundaries_are_direct_and_what_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(FLEET.replace("5 MMAC/s", "0.2 MMAC/s"))  # so that it pays
    told = planned(capsys, "--fleet", fleet)
    line = next(line for line in told["why"] if line.startswith("direct boundaries before op"))
    network = read_network(MODEL)
    firsts = [str(stage.first) for stage in cut_network(network, told["cut"]) if stage.direct]
    assert firsts and ", ".join(firsts) in line and "gathered" in line


def test_a_missed_deadline_and_too_little_memory_are_exit_code_1(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert any("deadline" in line for line in planned(capsys, "--fleet", fleet, "--deadline", 1e-6, code=1)["why"])
    fleet.write_text(FLEET.replace("700 MB", "100 B"))
    assert any("memory" in line for line in planned(capsys, "--fleet", fleet, code=1)["why"])


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["--gateway", "pi4"], "did you mean"),
        (["--deadline", "-1"], "above 0"),
        (["--tolerate", "7"], "expected 0 to 3"),
        (["--frames", "99"], "expected 1 to 16"),
        (["-o", "/nonexistent/plan.yaml"], "can't write the plan"),
        (["--fleet", "/nonexistent.yaml"], "can't read the fleet file"),
    ],
)
def test_wrong_use_is_one_line(fleet: Path, capsys: pytest.CaptureFixture[str], words: list[str], cure: str) -> None:
    assert main(["plan", str(MODEL), "--fleet", str(fleet), *words]) == 2
    error = capsys.readouterr().err
    assert cure in error and error.count("\n") == 1


def test_a_plan_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    for text in ("", "cut: tiles", "a: b: c"):
        path = tmp_path / "plan.yaml"
        path.write_text(text)
        with pytest.raises(PlanError, match=r"plan\.yaml: plan: "):
            Plan.read(path)
    with pytest.raises(PlanError, match="can't read the plan"):
        Plan.read(tmp_path / "missing.yaml")


@pytest.mark.parametrize("name", ["resnet50", "inception_v3"])
def test_a_known_network_gains_on_nine_robots(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = FIXTURES / "zoo" / f"{name}_float32.tflite"
    assert main(["plan", str(model), "--fleet", str(ROOT / "config/fleets/nine_pi3.yaml"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    alone = next(entry for entry in told["alternatives"] if entry["family"] == "one robot")
    assert told["chosen"]["latency"] <= alone["latency"]
