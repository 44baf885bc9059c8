# SPDX-License-Identifier: Apache-2.0
"""Reuse of overlapped tiles: the published figures, and tiles that equal the whole with strips and without.

Random networks, orders of completion and losses are in test_feeds.py, for such stages are stages as others.
"""

import pytest
from cutting import FIXTURES, Engines, assert_equal, random_inputs, run_whole
from hypothesis import given
from hypothesis import strategies as st
from netbuilder import NetBuilder
from test_dags import dags
from test_feeds import many

from dnn_dist.cli.cost import cost
from dnn_dist.cut.build import build_piece
from dnn_dist.cut.feeds import Feeds, lenders
from dnn_dist.cut.merge import merge
from dnn_dist.cut.spec import cut_network
from dnn_dist.cut.tiles import cut_tiles, fits, is_closed, largest_grid
from dnn_dist.cut.walk import without
from dnn_dist.errors import PlanError
from dnn_dist.graph.network import Network
from dnn_dist.graph.region import Region
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.plan.plan import check_wire
from dnn_dist.plan.predict import Circumstances
from dnn_dist.plan.rules import Goal
from dnn_dist.plan.search import search

MODELS = sorted((*FIXTURES.glob("*.tflite"), *FIXTURES.glob("zoo/*.tflite")))
RESIDUAL = read_network(FIXTURES / "residual_float32.tflite")


@pytest.mark.parametrize(
    ("grid", "work_ratio", "strips_mib"), [(2, 1.017, None), (3, 1.069, 1.71), (4, 1.155, 2.30), (5, 1.276, 2.70)]
)
def test_published_figures_of_yolov2(yolov2, grid, work_ratio, strips_mib):
    """DeepThings' algorithm on its network: work against the whole's, and bytes of strips, float32.

    At 5x5 its inner tiles ask for a few pixels that they do not need, 0.015 MiB: where neighbours have all of a tensor
    it goes on with an empty box.
    """
    facts = cost(yolov2, cut_network(yolov2, f"tiles:{grid}x{grid}r@0..{len(yolov2.ops) - 1}"))
    assert facts["work_ratio"] == pytest.approx(work_ratio, abs=0.001)
    if strips_mib:
        assert facts["strips_mib"] == pytest.approx(strips_mib, abs=0.025)  # 0.02, and the rounding of the published
        assert 0.8 * facts["strips_mib"] < facts["bytes_strips"] / 2**20 < facts["strips_mib"], "corners go once"


def test_no_grid_degenerates(yolov2):
    """DeepThings' regions turn negative at 6x6. Here a tile makes nothing of what neighbours have; work still falls."""
    full, reused = (cut_tiles(yolov2, (6, 6), reuse=reuse) for reuse in (False, True))
    work = [sum(piece.macs for piece in stage.pieces) / yolov2.macs for stage in (full, reused)]
    assert work[1] < 1.5 < 2.5 < work[0]
    assert sum(piece.alone is not None for piece in reused.pieces) == 18


def test_who_gives_stands_first_and_takes_nothing():
    stage = cut_tiles(RESIDUAL, (3, 4), last=11, reuse=True)
    takes = [piece.alone is not None for piece in stage.pieces]
    assert takes == [False] * 6 + [True] * 6
    feeds = Feeds(RESIDUAL, (stage,))
    for piece in stage.pieces:
        assert (not feeds.feeds(0, piece.index)) == (piece.alone is None)
        assert lenders((0, piece.index), feeds.feeds(0, piece.index)) == set(feeds.feeds(0, piece.index))
        assert len(feeds.feeds(0, piece.index)) <= 4
        if piece.alone is not None:
            assert piece.alone.macs > piece.macs
            assert piece.alone.inputs == tuple(port for port in piece.inputs if not port.strip)
            assert piece.alone.outputs == piece.outputs


def test_a_full_tile_is_what_it_is_without_reuse():
    """The same forms: one that runs in full needs no weights that a plan without reuse would not."""
    plain = cut_tiles(RESIDUAL, (3, 3), last=11)
    reusing = cut_tiles(RESIDUAL, (3, 3), last=11, reuse=True)
    forms = {piece.outputs[0].region: piece.form for piece in plain.pieces}
    for piece in reusing.pieces:
        if piece.alone is not None:
            assert piece.alone.form == forms[piece.outputs[0].region]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
@pytest.mark.parametrize("grid", ["3x3", "5x4"])
def test_converter_made(path, grid):
    network = read_network(path)
    stages = cut_network(network, f"tiles:{grid}r@auto")
    assert_equal(network, stages)
    plain = cut_network(network, f"tiles:{grid}@auto")
    assert sum(p.macs for s in stages for p in s.pieces) <= sum(p.macs for s in plain for p in s.pieces)


def test_most_fixtures_have_strips():
    """Else the test before would prove little."""
    found = [any(s.reuses for s in cut_network(read_network(path), "tiles:3x3r@auto")) for path in MODELS]
    assert sum(found) > 0.7 * len(MODELS)
    for name in ("residual_int8", "pyramid_float32", "averages_int8", "dilated_float32", "zoo/unet_int8"):
        stages = cut_network(read_network(FIXTURES / f"{name}.tflite"), "tiles:3x3r@auto")
        assert any(stage.reuses for stage in stages), name


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*_int8.tflite")), ids=lambda path: path.stem)
def test_equal_forms_share_one_file(path):
    network = read_network(path)
    for stage in (stage for stage in cut_network(network, "tiles:4x4r@auto") if stage.distributed):
        by_form = {}
        for piece in stage.pieces:
            built = build_piece(network, stage, piece)
            assert by_form.setdefault(piece.form, built) == built
        assert len(set(by_form.values())) == len(by_form)


def test_tiles_whose_neighbours_have_all_of_a_tensor_differ_by_what_they_take_of_it(tmp_path):
    """No op of theirs makes that tensor, so that only strips tell their files apart."""
    net = NetBuilder()
    halved = net.conv(net.input(11, 26, 1), 1, (1, 1), stride=(2, 1))
    narrow = net.unary("RELU6", net.conv(net.unary("RELU6", halved), 1, (1, 2), stride=(1, 2)))
    wide = net.unary("RELU6", net.pad(halved, 0, 0, 0, 1))
    path = tmp_path / "model.tflite"
    path.write_bytes(net.build([net.conv(narrow, 1, (1, 3), dilation=(1, 2)), wide]))
    network = read_network(path)
    for grid in ("2x4", "3x4", "2x5"):
        stages = cut_network(network, f"tiles:{grid}r@0..{len(network.ops) - 1}")
        assert_forms(stages)
        assert_equal(network, stages)


@many
@given(st.data(), dags())
def test_any_dag_in_any_order(tmp_path_factory, data, dag):
    """Tiles end in any order, and strips are lost: who lacks one when it is its turn runs in full."""
    net, outputs = dag
    path = tmp_path_factory.mktemp("dag") / "model.tflite"
    path.write_bytes(net.build(outputs))
    network = read_network(path)
    first, last = data.draw(st.sampled_from(_ranges(network)))
    largest = largest_grid(network, network.live_after(first, last))
    rows, columns = (data.draw(st.integers(min(2, most), min(5, most))) for most in largest)
    text = f"tiles:{rows}x{columns}{data.draw(st.sampled_from(('r', 'br')))}@{first}..{last}"
    stages = cut_network(network, text)
    assert_forms(stages)
    feeds, engines = Feeds(network, stages), Engines(network)
    inputs = random_inputs(network, data.draw(st.integers(0, 3)))
    arrays = dict(inputs)
    for number, stage in enumerate(stages):
        kept, received = {}, {}
        order = data.draw(st.permutations(range(len(stage.pieces))))
        if data.draw(st.integers(0, 3)):
            order = sorted(order, key=lambda piece: stage.pieces[piece].alone is not None)
        for piece in order:
            alone = not set(feeds.feeds(number, piece)) <= set(kept)
            made = engines.run(feeds, number, piece, arrays, kept, alone)
            received[piece] = [made[n] for n in feeds.result(number, piece)]
            if data.draw(st.integers(0, 9)):
                kept[number, piece] = made
        arrays |= merge(network, feeds.seen[number], received)
    for tensor, array in run_whole(network, inputs).items():
        assert array.tobytes() == arrays[tensor].tobytes(), text


def assert_forms(stages):
    """Pieces of one form take and give arrays of the same shapes: one file computes them all."""
    for stage in stages:
        shapes = {}
        for piece in filter(None, (*stage.pieces, *(piece.alone for piece in stage.pieces))):
            ports = tuple((port.tensor, port.shape, port.strip) for port in (*piece.inputs, *piece.outputs))
            assert shapes.setdefault(piece.form, ports) == ports


def _ranges(network: Network) -> list[tuple[int, int]]:
    """The longest ranges of ops that can be tiled."""
    count = len(network.ops)
    found = [
        (first, last)
        for first in range(count)
        for last in range(first, count)
        if all(op.tileable for op in network.ops[first : last + 1])
        and is_closed(network, first, last)
        and fits((1, 1), largest_grid(network, network.live_after(first, last)))
    ]
    return sorted(found, key=lambda ops: ops[0] - ops[1])[:3]


@pytest.mark.parametrize(("robots", "memory", "taken"), [(1, 30e6, True), (2, 30e6, True), (6, None, False)])
def test_the_planner_takes_reuse_where_memory_lacks_and_says_why(yolov2, robots, memory, taken):
    """Few robots with little memory need many tiles, and these reuse; where there is room direct boundaries do less."""
    pis = tuple(Robot(f"pi{n}", 0.5e9, overhead=0.002, memory=memory) for n in range(1, robots + 1))
    fleet = Fleet(pis, (LinkRule((), Link(60e6 / 8, 0.002, medium="wifi")),))
    choice = search(yolov2, Circumstances(fleet, "pi1"), Goal())
    assert any(stage.reuses for stage in choice.best.stages) is taken
    assert not choice.best.prediction.too_small
    if not taken:
        assert sum(stage.direct for stage in choice.best.stages) >= 3
        (other,) = (c for c in choice.alternatives if c.family == "reuse")
        assert other.prediction.latency > choice.best.prediction.latency
    if robots > 1:
        (why,) = (line for line in choice.why if "reuse of overlapped tiles" in line)
        assert f"is {'taken' if taken else 'not taken'}: " in why and "x the work" in why


def test_strips_leave_a_box():
    box = Region(2, 10, 3, 9)
    left, right, top = Region(2, 10, 3, 4), Region(2, 10, 8, 9), Region(2, 5, 4, 8)
    assert without(box, (left, right, top)) == Region(5, 10, 4, 8)
    assert without(box, (box,)).empty


def test_strips_of_float32_cannot_travel_as_int8():
    with pytest.raises(PlanError, match="leave out the r"):
        check_wire(RESIDUAL, cut_network(RESIDUAL, "tiles:2x2r@0..11"), "int8")
    for wire in ("float32", "float16"):
        check_wire(RESIDUAL, cut_network(RESIDUAL, "tiles:2x2r@0..11"), wire)


def test_an_output_that_is_read_within(tmp_path):
    """A tile makes its own share of what lives on, whatever its neighbours have of it."""
    net = NetBuilder()
    middle = net.conv(net.conv(net.input(24, 24, 2), 3, (3, 3)), 3, (5, 5))
    end = net.conv(middle, 2, (3, 3))
    (tmp_path / "model.tflite").write_bytes(net.build([middle, end]))
    network = read_network(tmp_path / "model.tflite")
    (stage,) = cut_network(network, "tiles:3x3r")
    assert len(stage.outputs) == 2 and stage.reuses
    assert_equal(network, (stage,))
