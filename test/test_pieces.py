# SPDX-License-Identifier: Apache-2.0
"""Pieces made ready on one robot: all at once where they are small, else those that it is given and no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cutting import FIXTURES, random_inputs
from netbuilder import NetBuilder

from dnn_dist.cut.merge import scatter
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.plan import Plan
from dnn_dist.run.pieces import PieceSet
from dnn_dist.run.wire import WireError


def piece_set(name: str, cut: str, **limits: float) -> PieceSet:
    network = read_network(FIXTURES / f"{name}.tflite")
    plan = Plan(network.sha256, cut)
    return PieceSet(network, plan, plan.stages(network), local=False, **limits)


def test_small_plans_are_ready_at_once_and_large_ones_piece_by_piece():
    at_once = piece_set("chain_float32", "tiles:2x2")
    assert not at_once.on_demand and all(at_once.ready(0, piece) for piece in range(4))
    one_by_one = piece_set("chain_float32", "tiles:2x2", prepared=0)
    assert one_by_one.on_demand and one_by_one.ready_bytes == 0
    one_by_one.prepare(0, 2)
    assert [one_by_one.ready(0, piece) for piece in range(4)] == [False, False, True, False]
    for piece in range(4):
        one_by_one.prepare(0, piece)
    assert one_by_one.ready_bytes == at_once.ready_bytes > 0


def test_what_was_used_longest_ago_makes_room():
    every = piece_set("chain_float32", "tiles:2x2")
    pieces = piece_set("chain_float32", "tiles:2x2", prepared=0, memory=0.6 * every.ready_bytes)
    for piece in (0, 1, 0, 2):
        pieces.prepare(0, piece)
        assert pieces.ready(0, piece) and pieces.ready_bytes <= 0.6 * every.ready_bytes
    assert [pieces.ready(0, piece) for piece in range(4)] == [True, False, True, False]
    tiny = piece_set("chain_float32", "tiles:2x2", prepared=0, memory=1)
    tiny.prepare(0, 1)
    assert tiny.ready(0, 1), "one piece may always be ready, however large"


def test_pieces_on_demand_compute_the_same():
    at_once, one_by_one = (piece_set("residual_int8", "tiles:2x2", **limits) for limits in ({}, {"prepared": 0}))
    stage, inputs = at_once.stages[0], random_inputs(at_once.network)
    for piece in stage.pieces:
        arrays = scatter(stage, piece, inputs)
        both = zip(at_once.run(0, piece.index, arrays), one_by_one.run(0, piece.index, arrays), strict=True)
        assert all(np.array_equal(a, b) for a, b in both)


def test_a_stage_of_the_gateway_is_not_the_workers():
    pieces = piece_set("chain_float32", "tiles:2x2@0..1")
    with pytest.raises(WireError, match="not for this robot"):
        pieces.prepare(len(pieces.stages) - 1, 0)


MEASURE = """
import re, sys
from pathlib import Path
import numpy as np
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.plan import Plan
from dnn_dist.run.engine import Engine
from dnn_dist.run.pieces import PieceSet

def pss():
    # kB -> bytes; a page shared by n processes counts a n-th
    return 1024 * int(re.search(r"^Pss: +([0-9]+)", Path("/proc/self/smaps_rollup").read_text(), re.M)[1])

model, small, prepared, *own = sys.argv[1:]
Engine(Path(small))  # the runtime's own memory is there before
network = read_network(model)
plan = Plan(network.sha256, "slices:4+1@0")
before = pss()
pieces = PieceSet(network, plan, plan.stages(network), local=False, prepared=float(prepared))
for piece in map(int, own):
    pieces.run(0, piece, [np.ones(port.shape, np.float32) for port in pieces.piece(0, piece).inputs])
print(pss() - before, pieces.ready_bytes)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="this system does not tell PSS")
def test_a_robot_maps_the_weights_of_its_own_pieces_alone(tmp_path: Path):
    """A layer of 128 MB in four slices and a parity, 32 MB each; proportional set size of a process."""
    net = NetBuilder()
    x = net.input(1, 1, 4096)
    model = tmp_path / "layer.tflite"
    model.write_bytes(net.build([net.dense(x, 8192)]))

    def grown(prepared: str, *own: str) -> tuple[int, int]:
        arguments = [str(model), str(FIXTURES / "chain_float32.tflite"), prepared, *own]
        told = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True)
        growth, weights = map(int, told.stdout.split())
        return growth, weights

    slice_bytes = 4096 * 8192 * 4 / 4
    for own in (["1"], ["4"], ["0", "3"]):
        growth, weights = grown("0", *own)
        assert weights == pytest.approx(len(own) * slice_bytes, rel=0.01)
        assert growth < weights + 0.25 * slice_bytes, "more is mapped than the own pieces' weights"
    growth, weights = grown("inf", "1")
    assert growth > 4 * slice_bytes, "the measure does not see weights"
