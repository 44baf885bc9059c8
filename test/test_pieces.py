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

from dnn_dist.cut.build import piece_size
from dnn_dist.cut.digest import pieces_digest
from dnn_dist.cut.merge import scatter
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.plan import Plan
from dnn_dist.run.pieces import Ports
from dnn_dist.run.values import PlanText
from dnn_dist.run.wire import WireError, WireTensor
from dnn_dist.run.workshop import Workshop
from dnn_dist.settings import WorkerSettings


class Pieces:
    """A workshop with some plans of one network; sizes in bytes."""

    def __init__(self, name: str, *cuts: str, **limits: float) -> None:
        self.network = read_network(FIXTURES / f"{name}.tflite")
        self.workshop = Workshop(self.network, WorkerSettings(**limits))
        self.plans = [Plan(self.network.sha256, cut) for cut in cuts]
        self.stages = [plan.stages(self.network) for plan in self.plans]
        self.on_demand = [self.workshop.build(text_of(self.network, plan)) for plan in self.plans]

    def ready(self, plan: int = 0) -> list[bool]:
        pieces = range(len(self.stages[plan][0].pieces))
        return [self.workshop.ready(self.plans[plan].hash, 0, piece) for piece in pieces]

    def size(self, plan: int = 0) -> int:
        """Of all pieces of the first stage, made ready."""
        return sum(piece_size(self.network, self.stages[plan][0], piece) for piece in self.stages[plan][0].pieces)

    def prepare(self, piece: int, plan: int = 0) -> None:
        self.workshop.prepare(self.plans[plan].hash, 0, piece)

    def run(self, piece: int, tensors: dict[int, np.ndarray]) -> list[WireTensor]:
        """A piece's outputs as they travel."""
        ports = Ports(self.network, self.plans[0], self.stages[0])
        here = ports.piece(0, piece)
        inputs = ports.label(here.inputs, scatter(self.stages[0][0], here, tensors))
        return self.workshop.run(self.plans[0].hash, 0, piece, inputs)[1]


def text_of(network: Network, plan: Plan) -> PlanText:
    return PlanText("cam", 1, plan.hash, plan.to_yaml(), pieces_digest(network, plan.stages(network)))


def test_small_plans_are_ready_at_once_and_large_ones_piece_by_piece():
    at_once = Pieces("chain_float32", "tiles:2x2")
    assert at_once.on_demand == [False] and at_once.ready() == [True] * 4
    one_by_one = Pieces("chain_float32", "tiles:2x2", prepared=0)
    assert one_by_one.on_demand == [True] and one_by_one.workshop.health()["pieces ready (MB)"] == 0
    one_by_one.prepare(2)
    assert one_by_one.ready() == [False, False, True, False]
    for piece in range(4):
        one_by_one.prepare(piece)
    assert one_by_one.ready() == [True] * 4


def test_what_was_used_longest_ago_makes_room():
    size = Pieces("chain_float32", "tiles:2x2").size()
    pieces = Pieces("chain_float32", "tiles:2x2", prepared=0, memory=0.6 * size / 1e6)
    for piece in (0, 1, 0, 2):
        pieces.prepare(piece)
        assert pieces.ready()[piece] and sum(pieces.ready()) <= 2
    assert pieces.ready() == [True, False, True, False]
    tiny = Pieces("chain_float32", "tiles:2x2", prepared=0, memory=1e-6)
    tiny.prepare(1)
    assert tiny.ready()[1], "one piece may always be ready, however large"


def test_what_is_ready_at_once_is_so_for_all_plans_together():
    """`prepared` is for the worker, not for each plan."""
    cuts = "tiles:2x2", "tiles:4x1"
    first, second = (Pieces("chain_float32", cut).size() for cut in cuts)
    both = Pieces("chain_float32", *cuts, prepared=(first + second) / 1e6)
    assert both.on_demand == [False, False]
    one = Pieces("chain_float32", *cuts, prepared=(first + second - 1) / 1e6)
    assert one.on_demand == [False, True]
    one.workshop.drop(one.plans[0].hash)
    assert not one.workshop.build(text_of(one.network, one.plans[1])), "there is room for it now"


def test_pieces_on_demand_compute_the_same():
    at_once, one_by_one = (Pieces("residual_int8", "tiles:2x2", **limits) for limits in ({}, {"prepared": 0}))
    inputs = random_inputs(at_once.network)
    for piece in range(4):
        both = zip(at_once.run(piece, inputs), one_by_one.run(piece, inputs), strict=True)
        assert all(np.array_equal(a.array, b.array) for a, b in both)


def test_a_tile_in_full_is_read_when_strips_do_not_come_and_gives_the_same():
    pieces = Pieces("residual_float32", "tiles:3x3r@0..11")
    plan, workshop, stage = pieces.plans[0].hash, pieces.workshop, pieces.stages[0][0]
    tile = next(piece for piece in stage.pieces if piece.alone is not None)
    assert workshop.ready(plan, 0, tile.index) and not workshop.ready(plan, 0, tile.index, alone=True)
    assert workshop.macs(plan, 0, tile.index, alone=True) == tile.alone.macs > workshop.macs(plan, 0, tile.index)
    workshop.prepare(plan, 0, tile.index, alone=True)
    assert workshop.ready(plan, 0, tile.index, alone=True)
    arrays, ports = random_inputs(pieces.network), Ports(pieces.network, pieces.plans[0], pieces.stages[0])
    made = {}
    for piece in stage.pieces:
        work = ports.label(ports.seen[0].pieces[piece.index].inputs, scatter(stage, piece.alone or piece, arrays))
        if piece.alone is None:
            made[0, piece.index] = workshop.run(plan, 0, piece.index, work).outputs
            continue
        taker = 0, piece.index
        fed = {maker: workshop.boxes(plan, taker, maker, made[maker]) for maker in ports.fed(*taker)}
        fed = {maker: workshop.accept(plan, taker, maker, boxes) for maker, boxes in fed.items()}
        both = (workshop.run(plan, *taker, work, fed), workshop.run(plan, *taker, work, alone=True))
        assert all(a.array.tobytes() == b.array.tobytes() for a, b in zip(*(one.result for one in both), strict=True))


def test_a_stage_of_the_gateway_is_not_the_workers():
    pieces = Pieces("chain_float32", "tiles:2x2@0..1")
    plan, stages = pieces.plans[0].hash, len(pieces.stages[0])
    for ask in (pieces.workshop.prepare, pieces.workshop.macs, pieces.workshop.ready):
        with pytest.raises(WireError, match="not for this robot"):
            ask(plan, stages - 1, 0)
        for stage, piece in ((0, 4), (stages, 0), (65535, 65535)):
            with pytest.raises(WireError, match="there is no piece"):
                ask(plan, stage, piece)
        with pytest.raises(WireError, match="not ready here"):
            ask("another", 0, 0)


MEASURE = """
import re, sys
from pathlib import Path
import numpy as np
from dnn_dist.cut.digest import pieces_digest
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.plan import Plan
from dnn_dist.run.engine import Engine
from dnn_dist.run.pieces import Ports
from dnn_dist.run.values import PlanText
from dnn_dist.run.workshop import Workshop
from dnn_dist.settings import WorkerSettings

def pss():
    # kB -> bytes; a page shared by n processes counts a n-th
    return 1024 * int(re.search(r"^Pss: +([0-9]+)", Path("/proc/self/smaps_rollup").read_text(), re.M)[1])

model, small, prepared, *own = sys.argv[1:]
Engine(Path(small))  # the runtime's own memory is there before
network = read_network(model)
plan = Plan(network.sha256, "slices:4+1@0")
stages = plan.stages(network)
ports, workshop = Ports(network, plan, stages), Workshop(network, WorkerSettings(prepared=float(prepared)))
offered = PlanText("cam", 1, plan.hash, plan.to_yaml(), pieces_digest(network, stages))
before = pss()
workshop.build(offered)
for piece in map(int, own):
    inputs = ports.piece(0, piece).inputs
    ones = [np.ones(port.shape, np.float32) for port in inputs]
    workshop.run(plan.hash, 0, piece, ports.label(inputs, ones))
print(pss() - before, workshop.health()["pieces ready (MB)"])
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="this system does not tell PSS")
def test_a_robot_maps_the_weights_of_its_own_pieces_alone(tmp_path: Path):
    """A layer of 128 MB in four slices and a parity, 32 MB each; proportional set size of a process."""
    net = NetBuilder()
    x = net.input(1, 1, 4096)
    model = tmp_path / "layer.tflite"
    model.write_bytes(net.build([net.dense(x, 8192)]))

    def grown(prepared: str, *own: str) -> tuple[int, float]:
        arguments = [str(model), str(FIXTURES / "chain_float32.tflite"), prepared, *own]
        told = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True)
        growth, weights = told.stdout.split()
        return int(growth), float(weights) * 1e6

    slice_bytes = 4096 * 8192 * 4 / 4
    for own in (["1"], ["4"], ["0", "3"]):
        growth, weights = grown("0", *own)
        assert weights == pytest.approx(len(own) * slice_bytes, rel=0.01)
        assert growth < weights + 0.25 * slice_bytes, "more is mapped than the own pieces' weights"
    growth, weights = grown("inf", "1")
    assert growth > 4 * slice_bytes, "the measure does not see weights"
