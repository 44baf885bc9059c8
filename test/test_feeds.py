# SPDX-License-Identifier: Apache-2.0
"""Direct boundaries: boxes from piece to piece cover every input once, and give what the whole model gives.

Also after losses: what died with its worker is computed anew from what others keep.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from cutting import EXAMPLES, FIXTURES, Engines, assert_equal, random_inputs, run_whole
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netbuilder import VALID, NetBuilder
from test_dags import dags

from dnn_dist.cut.feeds import FEEDING, Feeds, Maker, chains, lenders
from dnn_dist.cut.layers import cut_layers, layer_starts
from dnn_dist.cut.local import cut_local
from dnn_dist.cut.merge import merge
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.spec import cut_network
from dnn_dist.cut.tiles import cut_tiles, fits, is_closed, largest_grid
from dnn_dist.cut.traffic import direct_bytes, gathered_bytes
from dnn_dist.errors import CutError
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.plan import Plan
from dnn_dist.plan.policy import columns
from dnn_dist.run.lineage import needed
from dnn_dist.run.pieces import Ports
from dnn_dist.run.shape import PlanShape

MODELS = sorted((*FIXTURES.glob("*.tflite"), *FIXTURES.glob("zoo/*.tflite")))
RESIDUAL = read_network(FIXTURES / "residual_float32.tflite")
many = settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def assert_covered_once(feeds: Feeds) -> None:
    """Each input that comes from the chain is covered once by boxes that their makers have; takers are feeds turned."""
    turned = set()
    for number, stage in enumerate(feeds.stages):
        for piece in stage.pieces:
            counts = {n: np.zeros(port.shape[:2], int) for n, port in enumerate(piece.inputs)}
            for n in feeds.given(number, piece.index):
                counts[n] += 1
            for (before, index), boxes in feeds.feeds(number, piece.index).items():
                lent = before == number and feeds.stages[number].pieces[index].alone is None and piece.alone is not None
                assert feeds.chain(number).start <= before < number or (lent and index < piece.index)
                maker = feeds.stages[before].pieces[index]
                turned.add(((before, index), (number, piece.index), boxes))
                for box in boxes:
                    port, made = piece.inputs[box.port], maker.outputs[box.output]
                    assert port.tensor == made.tensor and box.dtype == port.dtype == made.dtype
                    if box.region is None:
                        assert box.shape == port.shape == made.shape
                        counts[box.port] += 1
                    else:
                        assert made.region is None or made.region.contains(box.region)
                        origin = (port.region.y0, port.region.x0) if port.region else (0, 0)
                        counts[box.port][box.region.shift(-origin[0], -origin[1]).slices] += 1
            assert all((count == 1).all() for count in counts.values())
    assert turned == {
        ((number, piece.index), taker, boxes)
        for number, stage in enumerate(feeds.stages)
        for piece in stage.pieces
        for taker, boxes in feeds.takers(number, piece.index).items()
    }


def stage_from(draw, network: Network, first: int) -> tuple[Stage, ...]:
    """Stages of some kind that begin at an op."""
    kind, last = draw(st.sampled_from(("tiles", "tiles", "bands", "layers"))), len(network.ops) - 1
    while last > first and draw(st.integers(0, 3)):
        last = draw(st.integers(first, last))
    try:
        if kind == "tiles":
            grid = draw(st.integers(1, 3)), draw(st.integers(1, 3))
            ends = [end for end in range(first, last + 1) if _tileable(network, first, end, grid)]
            flags = draw(st.booleans()), draw(st.booleans())
            return (cut_tiles(network, grid, first, max(ends, default=first), *flags),)
        if kind == "bands":
            robots = draw(st.sampled_from(("1", "2", "5", "2,1", "1,3,1", "2,1g")))
            ends = [end for end in range(first, last + 1) if _tileable(network, first, end, (1, 1))]
            found = cut_network(network, f"bands:{robots}@{first}..{max(ends, default=first)}")
            return tuple(stage for stage in found if stage.kind == "bands")
        starts = (*layer_starts(network, first, len(network.ops) - 1), len(network.ops))
        end = draw(st.sampled_from([start - 1 for start in starts[1:] if start - 1 >= first][:4]))
        return cut_layers(network, (1.0,) * draw(st.integers(1, 2)), "x", first, end)
    except CutError:
        end = first
        while not is_closed(network, first, end) or not network.live_after(first, end):
            end += 1
        return (cut_local(network, first, end),)


def _tileable(network: Network, first: int, last: int, grid: tuple[int, int]) -> bool:
    ops = network.ops[first : last + 1]
    if not all(op.tileable for op in ops) or not is_closed(network, first, last):
        return False
    return fits(grid, largest_grid(network, network.live_after(first, last)))


def any_stages(draw, network: Network) -> tuple[Stage, ...]:
    """Stages of all kinds that cover the network, some of them joined directly."""
    found: list[Stage] = []
    while not found or found[-1].last < len(network.ops) - 1:
        found += stage_from(draw, network, found[-1].last + 1 if found else 0)
    for number, (before, stage) in enumerate(pairwise(found), 1):
        direct = {before.kind, stage.kind} <= set(FEEDING) and draw(st.integers(0, 3)) > 0
        found[number] = replace(stage, direct=direct)
    return tuple(found)


def _needs(feeds: Feeds, maker: Maker) -> set[Maker]:
    """Who has to give a piece something: a tile can do without strips."""
    return set(feeds.feeds(*maker)) - lenders(maker, feeds.feeds(*maker))


def run_with_losses(draw, network: Network, feeds: Feeds, inputs: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """The network's outputs where workers die: with one go all outputs that it kept, not what it reported. Pieces are
    computed in any order; tiles whose strips are not there are computed in full.
    """
    arrays, engines = dict(inputs), Engines(network)
    losses = draw(st.integers(0, 8))
    for chain in feeds.chains:
        kept: dict[tuple[int, int], list[np.ndarray]] = {}
        at: dict[tuple[int, int], int] = {}
        ever: dict[tuple[int, int], list[np.ndarray]] = {}
        received: dict[int, dict[int, list[np.ndarray]]] = {number: {} for number in chain}
        makers = [(number, piece.index) for number in chain for piece in feeds.stages[number].pieces]
        while wanted := {m for m in makers if feeds.result(*m) and m[1] not in received[m[0]]}:
            for number, piece in wanted & set(kept):
                if draw(st.integers(0, 3)):  # else its result is on the way still
                    received[number][piece] = [kept[number, piece][n] for n in feeds.result(number, piece)]
            todo = needed(lambda maker: _needs(feeds, maker), kept, wanted)
            assert list(todo) == sorted(set(todo) - set(kept))
            if todo:
                assert _needs(feeds, todo[0]) <= set(kept), "what it takes is kept, or comes before it"
                able = [maker for maker in todo if _needs(feeds, maker) <= set(kept)]
                maker = draw(st.sampled_from(able)) if not draw(st.integers(0, 2)) else todo[0]
                alone = not set(feeds.feeds(*maker)) <= set(kept)
                kept[maker] = engines.run(feeds, *maker, arrays, kept, alone)
                at[maker] = draw(st.integers(0, 3))
                before = ever.setdefault(maker, kept[maker])
                assert all(a.tobytes() == b.tobytes() for a, b in zip(before, kept[maker], strict=True))
            if losses and draw(st.integers(0, 4)) == 0:
                losses -= 1
                dead = draw(st.integers(0, 3))
                kept = {m: outputs for m, outputs in kept.items() if at[m] != dead}
        for number in chain:
            for piece in feeds.stages[number].pieces:
                received[number].setdefault(piece.index, [])  # of two tensors a band may have only the one that stays
            arrays |= merge(network, feeds.seen[number], received[number])
    return arrays


@settings(many, max_examples=EXAMPLES * 2)
@given(st.data(), dags())
def test_any_boundaries_of_any_dag(folder, data, dag):
    """Feeds cover once; results equal the whole's bit for bit, whoever died meanwhile."""
    net, outputs = dag
    (folder / "model.tflite").write_bytes(net.build(outputs))
    network = read_network(folder / "model.tflite")
    feeds = Feeds(network, any_stages(data.draw, network))
    assert_covered_once(feeds)
    inputs = random_inputs(network, data.draw(st.integers(0, 3), "seed"))
    got = run_with_losses(data.draw, network, feeds, inputs)
    for tensor, array in run_whole(network, inputs).items():
        assert array.tobytes() == got[tensor].tobytes(), network.tensors[tensor].name


def direct_cuts(network: Network) -> list[str]:
    """A pipeline; tiles, and all kinds, in four stages of what can be tiled from the first op on that can."""
    first = next(op.index for op in network.ops if op.tileable and not op.folded)
    ends = [op.index for op in network.ops[first:] if not op.folded and _tileable(network, first, op.index, (2, 2))]
    places = sorted({ends[len(ends) * part // 4 - 1] for part in range(1, 5)}) if len(ends) >= 4 else ends
    spans = [f"@{a + 1}..{b}" for a, b in pairwise((first - 1, *places))]
    mixtures = ["tiles:2x2 tiles:1x2 tiles:2x2b tiles:2x1", "bands:2,1 tiles:2x2r layers:1 bands:2"]
    mixtures.append("tiles:3x2r tiles:2x2r")
    joined = [">".join(map("".join, zip(kinds.split(), spans, strict=False))) for kinds in mixtures]
    return ["layers:4", *filter(None, joined)]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_converter_made(path):
    network = read_network(path)
    direct = 0
    for cut in direct_cuts(network):
        stages = cut_network(network, cut)
        assert_covered_once(Feeds(network, stages))
        direct += sum(stage.direct for stage in stages)
        assert_equal(network, stages)
    assert direct >= 3


def test_a_chain_takes_what_is_older_and_reports_what_lives_on():
    """The residual's sum reads over a boundary and over a chain's begin."""
    stages = cut_network(RESIDUAL, "layers:1@0..1;layers:1@2..3>layers:1@4..6>tiles:2x2@7..8;local")
    assert chains(stages) == (range(1), range(1, 4), range(4, 5))
    feeds = Feeds(RESIDUAL, stages)
    assert feeds.chains == chains(stages) and feeds.chain(2) == range(1, 4)
    made = {t: number for number, stage in enumerate(stages) for t in stage.outputs}
    for number, stage in enumerate(stages):
        for piece in stage.pieces:
            for n, port in enumerate(piece.inputs):
                inside = made.get(port.tensor, -1) in feeds.chain(number)
                assert (n in feeds.given(number, piece.index)) is not inside
        outside = {t for later in stages[feeds.chain(number).stop :] for t in later.inputs} | set(RESIDUAL.outputs)
        assert feeds.reported(number) == tuple(t for t in stage.outputs if t in outside)
        assert {stage.pieces[0].outputs[n].tensor for n in feeds.result(number, 0)} == set(feeds.reported(number))


def test_gathered_stages_give_each_other_nothing():
    feeds = Feeds(RESIDUAL, cut_network(RESIDUAL, "tiles:2x2@0..3;bands:2g@4..8"))
    for number, stage in enumerate(feeds.stages):
        assert feeds.reported(number) == stage.outputs
        for piece in stage.pieces:
            assert not feeds.feeds(number, piece.index) and not feeds.takers(number, piece.index)
            assert feeds.given(number, piece.index) == tuple(range(len(piece.inputs)))


def test_a_piece_may_have_nothing_to_report_where_its_stage_does(folder):
    """Of two tensors the one with few rows lives on; the last band has only the other. Results are counted."""
    net = NetBuilder()
    x = net.input(12, 8, 2)
    small = net.pool("MAX", x, (4, 4), (4, 4), VALID)
    large, few = net.conv(x, 3, (3, 3)), net.unary("RELU6", small)
    (folder / "two.tflite").write_bytes(net.build([few, net.conv(large, 2, (3, 3))]))
    network = read_network(folder / "two.tflite")
    stages = cut_network(network, "bands:5")
    feeds = Feeds(network, stages)
    assert [bool(feeds.result(1, piece.index)) for piece in stages[1].pieces] == [True, True, True, False]
    ports = Ports(network, Plan(network.sha256, "bands:5"), stages)
    assert {ports.role(1, piece.index, ()).reports for piece in stages[1].pieces} == {True}
    assert_covered_once(feeds)
    assert_equal(network, stages)


def test_bytes_over_a_boundary():
    """Two bands of a convolution give each other rows; gathered, both go back whole and out with their rows."""
    network = read_network(FIXTURES / "chain_float32.tflite")
    stages = cut_network(network, "bands:2@0..4;local")
    feeds = Feeds(network, stages)
    (tensor,) = stages[2].inputs
    assert network.ops[stages[2].first].kind == "CONV_2D"
    value = network.tensors[tensor]
    taken = sum(piece.inputs[0].bytes for piece in stages[2].pieces)
    rows = taken - value.bytes
    assert rows > 0
    at = columns(PlanShape.of(network, stages, "float32").stages, feeds.chain(0))
    assert len(set(at.values())) == 2
    assert all(at[0, piece.index] == at[2, piece.index] for piece in stages[2].pieces)
    assert direct_bytes(feeds, 2, at) == rows
    assert direct_bytes(feeds, 2, {maker: number for number, maker in enumerate(at)}) == taken
    assert direct_bytes(feeds, 2, dict.fromkeys(at, 0)) == 0
    assert gathered_bytes(feeds, 2) == value.bytes + taken


def needs(cut: str, have: Sequence, wanted: Sequence) -> tuple:
    feeds = Feeds(RESIDUAL, cut_network(RESIDUAL, cut))
    return needed(lambda maker: feeds.feeds(*maker), have, wanted)


def test_lineage_goes_back_to_what_is_kept():
    pipeline = "layers:4"
    assert needs(pipeline, [], [(3, 0)]) == ((0, 0), (1, 0), (2, 0), (3, 0))
    assert needs(pipeline, [(2, 0)], [(3, 0)]) == ((3, 0),)
    assert needs(pipeline, [(3, 0)], [(3, 0)]) == ()  # has only to be sent again
    assert needs(pipeline, [(0, 0)], []) == ()  # all is there: nobody needs what was lost
    tiles = "tiles:3x1@0..1>tiles:3x1@2..3;local"
    assert needs(tiles, [(0, 1), (0, 2)], [(1, 2)]) == ((1, 2),)
    assert needs(tiles, [(0, 1), (0, 2)], [(1, 0), (1, 2)]) == ((0, 0), (1, 0), (1, 2))


@many
@given(st.data())
def test_lineage_is_enough_and_nothing_more(data):
    """Every piece on the list is wanted or taken by one on the list, and all that it takes is kept or on the list."""
    feeds = Feeds(RESIDUAL, cut_network(RESIDUAL, "tiles:2x2@0..1>bands:3@2..5>layers:2@6..8>tiles:2x3@9..10"))
    makers = [(number, piece.index) for number, stage in enumerate(feeds.stages) for piece in stage.pieces]
    have = set(data.draw(st.lists(st.sampled_from(makers)), "have"))
    wanted = set(data.draw(st.lists(st.sampled_from(makers)), "wanted"))
    found = needed(lambda maker: feeds.feeds(*maker), have, wanted)
    assert found == tuple(sorted(set(found))) and not set(found) & have
    assert wanted <= have | set(found)
    for maker in found:
        assert set(feeds.feeds(*maker)) <= have | set(found)
        assert maker in wanted or set(feeds.takers(*maker)) & set(found)
