# SPDX-License-Identifier: Apache-2.0
"""Files of models and of pieces: streamed, mapped, given back, hashed once."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from cutting import FIXTURES, random_inputs, run_whole
from netops import NetOps

from dnn_dist.cut.build import build_piece, write_piece
from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import CutError
from dnn_dist.graph import digest
from dnn_dist.graph.tflite import read_network
from dnn_dist.graph.write import GraphWriter
from dnn_dist.run.engine import Engine


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*_int8.tflite")), ids=lambda path: path.stem)
def test_a_written_piece_is_the_built_one(path, tmp_path):
    network = read_network(path)
    for stage in cut_network(network, "tiles:2x2"):
        for piece in stage.pieces:
            written = write_piece(network, stage, piece, tmp_path / "piece.tflite")
            assert written.read_bytes() == build_piece(network, stage, piece)


def test_a_plan_for_one_robot_runs_the_models_own_file(tmp_path):
    network = read_network(FIXTURES / "chain_float32.tflite")
    (stage,) = cut_network(network, "local")
    assert write_piece(network, stage, stage.pieces[0], tmp_path / "piece.tflite") == network.path
    assert not list(tmp_path.iterdir())


def test_an_engine_outlives_its_files_name(tmp_path):
    network = read_network(FIXTURES / "residual_float32.tflite")
    path = tmp_path / "model.tflite"
    path.write_bytes(network.path.read_bytes())
    engine = Engine(path)
    path.unlink()
    inputs = random_inputs(network)
    expected = run_whole(network, inputs)
    for tensor, array in zip(network.outputs, engine.run([inputs[t] for t in network.inputs]), strict=True):
        assert (array == expected[tensor]).all()


def test_no_room_for_a_piece_is_one_line(tmp_path):
    network = read_network(FIXTURES / "chain_float32.tflite")
    stage = cut_network(network, "tiles:2x2")[0]
    with pytest.raises(CutError, match="cannot be written"):
        write_piece(network, stage, stage.pieces[0], tmp_path / "none" / "piece.tflite")


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_rows_of_a_constant(tmp_path, dtype):
    net = NetOps(dtype)
    out = net.conv(net.input(4, 4, 3), 8, (3, 3))
    (tmp_path / "m.tflite").write_bytes(net.build([out]))
    network = read_network(tmp_path / "m.tflite")
    _check_rows(network, network.ops[0].inputs[1], network.constant(network.ops[0].inputs[1]), tmp_path)
    _check_rows(network, network.ops[0].inputs[2], network.constant(network.ops[0].inputs[2]), tmp_path)


def _check_rows(network, tensor, whole, tmp_path):
    writer = GraphWriter(network)
    rows = writer.copy_rows(tensor, 2, 5)
    writer.finish([], [rows]).write(tmp_path / "rows.tflite")
    part = read_network(tmp_path / "rows.tflite")
    assert (part.constant(0) == whole[2:5]).all()
    mine, theirs = part.file.tensors[0]["quantization"], network.file.tensors[tensor]["quantization"]
    if theirs is not None:
        assert (mine["scale"] == theirs["scale"][2:5]).all() and len(mine["zero_point"]) == 3


def test_rows_of_float16_weights_stay_float16(tmp_path):
    net = NetOps()
    out = net.float16_conv(net.input(4, 4, 3), 8, (3, 3))
    (tmp_path / "m.tflite").write_bytes(net.build([out]))
    network = read_network(tmp_path / "m.tflite")
    writer = GraphWriter(network)
    rows = writer.copy_rows(network.ops[2].inputs[1], 2, 5)
    writer.finish([], [rows]).write(tmp_path / "rows.tflite")
    part = read_network(tmp_path / "rows.tflite")
    stored = network.constant(network.ops[0].inputs[0])
    assert part.ops[0].kind == "DEQUANTIZE"
    assert (part.constant(part.ops[0].inputs[0]) == stored[2:5]).all()


@pytest.fixture
def large(tmp_path) -> Path:
    """A network with 64 MB of weights in one layer behind a small one."""
    net = NetOps()
    x = net.conv(net.input(16, 16, 3), 4096, (1, 1))
    path = tmp_path / "large.tflite"
    path.write_bytes(net.build([net.conv(x, 4096, (1, 1))]))
    return path


_MEASURE = """
import sys
from pathlib import Path
from dnn_dist.cut.build import write_piece
from dnn_dist.cut.tiles import cut_tiles
from dnn_dist.graph.tflite import read_network
from dnn_dist.run.engine import Engine
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) >> 10
def pss():
    return next(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Pss:")) >> 10
network = read_network(sys.argv[1])
stage = cut_tiles(network, (2, 2))
path = write_piece(network, stage, stage.pieces[0], Path(sys.argv[2]))
cutting = peak()
base = pss()
engine = Engine(path)
print(cutting, pss() - base)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="PSS is Linux's")
def test_cutting_does_not_read_the_weights_and_running_holds_them_once(large, tmp_path):
    """64 MB of weights: cutting stays far below them, an engine holds one copy, its own."""
    words = [sys.executable, "-c", _MEASURE, str(large), str(tmp_path / "piece.tflite")]
    run = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": _path()})
    cutting, engine = map(int, run.stdout.split())
    assert cutting < 60
    assert 60 < engine < 64 + 40


def _path() -> str:
    import dnn_dist

    return os.pathsep.join([str(Path(dnn_dist.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digest, "_LEAST_BYTES", 1)
    return tmp_path / "cache" / "dnn_dist"


def hash_of(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return digest.cached_sha256(path, descriptor)
    finally:
        os.close(descriptor)


def aged(path: Path, content: bytes, seconds: float = 100) -> Path:
    path.write_bytes(content)
    stamp = path.stat().st_mtime - seconds
    os.utime(path, (stamp, stamp))
    return path


def test_a_hash_is_worked_out_once(cache, tmp_path, monkeypatch):
    path = aged(tmp_path / "model", b"weights")
    assert hash_of(path) == sha256(b"weights").hexdigest()
    monkeypatch.setattr(digest, "_sha256", lambda descriptor: pytest.fail("hashed again"))
    assert hash_of(path) == sha256(b"weights").hexdigest()


def test_a_changed_file_is_hashed_again(cache, tmp_path):
    path = aged(tmp_path / "model", b"weights")
    hash_of(path)
    aged(path, b"WEIGHTS", seconds=50)
    assert hash_of(path) == sha256(b"WEIGHTS").hexdigest()


def test_a_file_that_may_still_change_is_not_kept(cache, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"weights")
    hash_of(path)
    assert not cache.exists()


def test_a_broken_cache_is_not_believed(cache, tmp_path):
    path = aged(tmp_path / "model", b"weights")
    hash_of(path)
    (entry,) = cache.iterdir()
    for content in (b"", b"half", b"\xff\xfe", b"g" * 64):
        entry.write_bytes(content)
        assert hash_of(path) == sha256(b"weights").hexdigest()


def test_no_cache_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(digest, "_LEAST_BYTES", 1)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert hash_of(aged(tmp_path / "model", b"weights")) == sha256(b"weights").hexdigest()


def test_many_at_once_leave_one_whole_entry(cache, tmp_path):
    path = aged(tmp_path / "model", np.random.default_rng(0).bytes(1 << 20))
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(hash_of, [path] * 64))) == 1
    (entry,) = cache.iterdir()
    assert entry.read_text() == sha256(path.read_bytes()).hexdigest()


def test_reading_does_not_hash(monkeypatch):
    monkeypatch.setattr(digest, "_sha256", lambda descriptor: pytest.fail("hashed"))
    network = read_network(FIXTURES / "chain_float32.tflite")
    assert network.ops
