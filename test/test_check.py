# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist inspect` and `check` as a user meets them: what is printed, exit codes, errors of one line."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cutting import FIXTURES
from netbuilder import NetBuilder

from dnn_dist.cli import check as check_command
from dnn_dist.cli import trial
from dnn_dist.cli.apart import apart, shared_copy
from dnn_dist.cli.check import _difference, check
from dnn_dist.cli.main import main
from dnn_dist.cut.feeds import fed
from dnn_dist.cut.merge import merge
from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import ModelError
from dnn_dist.graph.tflite import read_network

MODELS = Path(__file__).parent.parent / "models"
RESIDUAL = str(FIXTURES / "residual_float32.tflite")
KEYS = {
    "max_abs_diff",
    "distributed_macs",
    "work_ratio",
    "bytes_in",
    "bytes_out",
    "bytes_direct",
    "boundaries",
    "pieces",
    "peak_rss_mb",
}
COMMAND = [sys.executable, "-m", "dnn_dist.cli.main"]


def run(capsys, *words: str) -> tuple[int, str, str]:
    code = main(words)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.tflite")), ids=lambda path: path.stem)
def test_check_of_every_fixture(capsys, path):
    code, out, err = run(capsys, "check", str(path), "--cut", "tiles:2x3", "--json")
    facts = json.loads(out)
    assert code == 0 and not err
    assert set(facts) >= KEYS
    assert facts["max_abs_diff"] == 0 and facts["pieces"] == 6 and facts["work_ratio"] > 0


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("grid", ["1x1", "3x3", "5x5", "1x5", "4x1"])
def test_the_shipped_detector(dtype, grid):
    network = read_network(MODELS / f"warehouse_{dtype}.tflite")
    facts = check(network, f"tiles:{grid}")
    assert facts["max_abs_diff"] == 0 and facts["holds"]
    assert facts["distributed_macs"] >= 0.8


def test_pictures_travel_as_bytes():
    """A float32 picture is counted with one byte a value, what pieces give with four."""
    facts = check(read_network(RESIDUAL), "tiles:1x1@0..11")
    assert facts["bytes_in"] == 32 * 40 * 3
    assert facts["bytes_out"] == 4 * 16 * 20 * 6
    assert facts["work_ratio"] == 1


def test_several_stages():
    facts = check(read_network(RESIDUAL), "tiles:2x2@0..3;local@4..4;tiles:3x2@5..8")
    assert facts["holds"] and facts["pieces"] == 10
    assert facts["cut"] == "tiles:2x2@0..3;local@4..4;tiles:3x2@5..8;local@9..14"


DIRECT = ("tiles:2x2@0..1>tiles:1x3@2..3>layers:2@4..5", "bands:2@0..1>tiles:2x2b@2..3;tiles:2x1@4..4", "layers:3")


@pytest.mark.parametrize("cut", DIRECT)
@pytest.mark.parametrize("model", ["residual_float32", "residual_int8", "mobile_float32", "mobile_int8"])
def test_direct_boundaries(capsys, model, cut):
    code, out, err = run(capsys, "check", str(FIXTURES / f"{model}.tflite"), "--cut", cut, "--json")
    assert not err and code == 0
    facts = json.loads(out)
    assert facts["max_abs_diff"] == 0 and facts["bytes_direct"] > 0
    pairs = facts["boundaries"]
    assert any(pair["direct"] for pair in pairs) and (";" in cut) is any(not pair["direct"] for pair in pairs)
    assert sum(pair["direct_bytes"] for pair in pairs if pair["direct"]) == facts["bytes_direct"]
    assert all(0 <= pair["direct_bytes"] <= pair["gathered_bytes"] for pair in pairs)
    _, out, _ = run(capsys, "check", str(FIXTURES / f"{model}.tflite"), "--cut", cut)
    lines = [line for line in out.splitlines() if line.startswith("boundaries")]
    assert len(lines) == len(pairs) and all("MB direct" in line and "MB gathered" in line for line in lines)


def test_a_wrong_feed_is_found(capsys, monkeypatch):
    """The proof is of the direct way: when boxes come from the wrong place, outputs differ."""

    def shifted(feeds, stage, piece, outputs):
        return {port: np.roll(array, 1, axis=0) for port, array in fed(feeds, stage, piece, outputs).items()}

    monkeypatch.setattr(trial, "fed", shifted)
    for cut, equal in {"tiles:2x2@0..3>tiles:2x2@4..8": False, "tiles:2x2@0..3;tiles:2x2@4..8": True}.items():
        code, out, _ = run(capsys, "check", RESIDUAL, "--cut", cut, "--json")
        assert (code == 0) is equal and (json.loads(out)["max_abs_diff"] == 0) is equal


def test_int8_wire_is_refused_where_float32_tensors_go_straight(capsys):
    for wire, cut, code in (("int8", "bands:2@0..3", 2), ("float16", "bands:2@0..3", 0), ("int8", "bands:2g@0..3", 0)):
        assert run(capsys, "check", RESIDUAL, "--cut", cut, "--wire", wire)[0] == code
    assert run(capsys, "check", str(FIXTURES / "residual_int8.tflite"), "--cut", "bands:2", "--wire", "int8")[0] == 0
    _, _, err = run(capsys, "check", RESIDUAL, "--cut", "layers:2", "--wire", "int8")
    assert err.count("\n") == 1 and "take wire float16, or ';' there" in err


CUTS = ("bands:3,1,2@0..8", "slices:3", "slices:4+1", "slices:2,1+2@0..7", "layers:3", "tiles:2x2@0..3;slices:3+1@4..8")


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("model", ["residual_float32", "residual_int8", "siamese_float32", "zoo/siamese_int8"])
def test_every_kind_of_cut(capsys, model, cut):
    code, out, err = run(
        capsys, "check", str(FIXTURES / f"{model}.tflite"), "--cut", cut.replace("@0..8", "@0..4"), "--json"
    )
    if code == 2:  # an op of this model cannot be cut so
        assert err.count("\n") == 1
        return
    facts = json.loads(out)
    assert code == 0 and facts["max_abs_diff"] == 0 and set(facts) >= KEYS
    if "+" in cut:
        assert facts["loss_sets"] > 0 and facts["worst_recovery_error"] <= (0 if "int8" in model else 1e-4)


def test_wire_types_and_the_error_they_bring():
    facts = check(read_network(RESIDUAL), "tiles:2x2@0..4;slices:3+1@5..7", wires=("float16", "int8"))
    assert facts["holds"] and facts["max_abs_diff"] == 0
    assert 0 < facts["float16_wire_error"] < facts["int8_wire_error"] < 0.1


def test_memory_of_each_piece_is_its_own():
    """The command holds 150 MB meanwhile; pieces are counted without them, as they are on a robot."""
    ballast = shared_copy(np.ones(150 << 20, np.uint8))
    facts = check(read_network(RESIDUAL), "slices:2+1@13")
    alone = json.loads(
        subprocess.run(
            [*COMMAND, "check", RESIDUAL, "--cut", "slices:2+1@13", "--json"], capture_output=True, check=True
        ).stdout
    )
    assert ballast.all()
    assert 0 < alone["cut_peak_rss_mb"] < alone["run_peak_rss_mb"] < 150
    assert facts["cut_peak_rss_mb"] < resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - 140


def test_a_process_that_dies_is_one_line():
    with pytest.raises(ModelError, match="the process died"):
        apart(lambda: os.kill(os.getpid(), signal.SIGKILL), "piece 3")
    with pytest.raises(ZeroDivisionError):
        apart(lambda: 1 / 0, "piece 3")
    assert apart(lambda: "well", "piece 3")[0] == "well"


def test_every_set_of_losses_with_data_in_it_is_tried():
    network = read_network(RESIDUAL)
    for cut, sets in {"slices:4+1@0": 4, "slices:4+2@0": 4 + 14, "slices:8+3@0": 8 + 52 + 164}.items():
        (stage,) = (stage for stage in cut_network(network, cut) if stage.coded)
        found = trial.loss_sets(stage, 0)
        assert len(found) == sets and len(set(found)) == sets


def test_a_difference_is_explained(monkeypatch):
    def nearly(network, stage, received):
        whole = merge(network, stage, received)
        return {t: array * np.float32(1.5) for t, array in whole.items()} if stage.kind == "layers" else whole

    monkeypatch.setattr(trial, "merge", nearly)
    facts = check(read_network(RESIDUAL), "tiles:2x2@0..2;layers:1@3..8")
    assert not facts["holds"]
    (note,) = facts["notes"]
    assert note.startswith("layers:1@3..8: differs by up to") and "CONV_2D" in note


def test_nothing_cut_does_not_hold(capsys):
    code, out, _ = run(capsys, "check", RESIDUAL, "--cut", "local", "--json")
    assert code == 1 and json.loads(out)["pieces"] == 0


def test_a_difference_does_not_hold(capsys, monkeypatch):
    def off_by_one(network, stage, received):
        whole = merge(network, stage, received)
        return {t: array + np.ones((), array.dtype) for t, array in whole.items()}

    monkeypatch.setattr(trial, "merge", off_by_one)
    code, out, _ = run(capsys, "check", RESIDUAL, "--cut", "tiles:2x2", "--json")
    facts = json.loads(out)
    assert code == 1 and not facts["holds"] and facts["max_abs_diff"] >= 1


def test_a_model_that_cannot_be_cut_does_not_hold(capsys, tmp_path):
    net = NetBuilder()
    x = net.input(6, 7, 2)
    out = net.tensor((1, 6, 7, 2))
    net.op("CUMSUM", [x, net.constant(np.int32(1))], out, "CumsumOptions")
    (tmp_path / "m.tflite").write_bytes(net.build([out]))
    code, out, err = run(capsys, "check", str(tmp_path / "m.tflite"), "--cut", "tiles:2x2")
    assert code == 1 and not out and err.count("\n") == 1 and "CUMSUM" in err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["chekc"],
        ["check"],
        ["check", RESIDUAL],
        ["check", "none.tflite", "--cut", "tiles:3x3"],
        ["check", RESIDUAL, "--cut", "tiles:0x3"],
        ["check", RESIDUAL, "--cut", "tiles:90x90"],
        ["check", RESIDUAL, "--cut", "tiles:3x3@0..14"],
        ["check", RESIDUAL, "--cut", "three by three"],
        ["check", RESIDUAL, "--cut", "tiles:3x3", "--jsn"],
        ["check", RESIDUAL, "--cut", "tiles:3x3", "--seed", "x"],
        ["check", RESIDUAL, "--cut", "tiles:3x3", "--seed", "-4"],
        ["check", __file__, "--cut", "tiles:3x3"],
        ["inspect"],
        ["inspect", "none.tflite"],
        ["inspect", "/"],
        ["inspect", __file__],
    ],
    ids=" ".join,
)
def test_wrong_use_is_one_line_and_code_two(capsys, words):
    code, out, err = run(capsys, *words)
    assert code == 2 and not out
    assert err.startswith("dnn_dist: error: ") and err.count("\n") == 1


def test_help_and_version(capsys):
    for words in (["--help"], ["check", "--help"], ["inspect", "-h"], ["--version"]):
        code, out, err = run(capsys, *words)
        assert code == 0 and "dnn_dist" in out and not err


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.tflite")), ids=lambda path: path.stem)
def test_inspect(capsys, path):
    code, out, _ = run(capsys, "inspect", str(path), "--json")
    facts = json.loads(out)
    assert code == 0
    assert len(facts["ops"]) == len(read_network(path).ops)
    assert all(op["tileable"] or op["reason"] for op in facts["ops"])
    code, out, _ = run(capsys, "inspect", str(path))
    assert code == 0 and all(op["kind"] in out for op in facts["ops"])


def test_the_same_seed_gives_the_same_inputs():
    network = read_network(RESIDUAL)
    for draw in (check_command._pixels, check_command._gaussian):
        first, again, other = (draw(network, np.random.default_rng(seed)) for seed in (5, 5, 6))
        for tensor in network.inputs:
            assert (first[tensor] == again[tensor]).all() and (first[tensor] != other[tensor]).any()


def test_difference_counts_what_is_no_number():
    nan = np.float32([1, np.nan])
    assert _difference(nan, nan.copy()) == 0
    assert _difference(nan, np.float32([1, 2])) > 1e300
    assert _difference(np.float32([np.inf]), np.float32([-np.inf])) > 1e300
    assert _difference(np.float32([0.0]), np.float32([-0.0])) == 0
    assert _difference(np.int8([-128]), np.int8([127])) == 255
    assert _difference(np.zeros(3, np.int8), np.zeros(4, np.int8)) > 1e300


def test_a_closed_pipe_is_quiet():
    process = subprocess.Popen(
        [*COMMAND, "inspect", RESIDUAL, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(20) != 0
    process.stderr.close()


def test_ctrl_c_is_quiet():
    model = str(MODELS / "warehouse_float32.tflite")
    with subprocess.Popen(
        [*COMMAND, "check", model, "--cut", "tiles:16x20"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"") or (process.returncode == 0 and out)
