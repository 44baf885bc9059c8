# SPDX-License-Identifier: Apache-2.0
"""The text of a cut: what it means, and that whatever is written gives stages or one line with the cure."""

import re
from dataclasses import replace

import pytest
from cutting import EXAMPLES, FIXTURES, assert_equal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_tiles import dags

from dnn_dist.cut.spec import cut_network, cut_text, parse_cut
from dnn_dist.errors import CutError
from dnn_dist.graph.tflite import read_network

RESIDUAL = read_network(FIXTURES / "residual_float32.tflite")
KINDS = ("tiles", "bands", "slices", "layers", "local")


def covered(stages) -> list[int]:
    return [op for stage in stages for op in range(stage.first, stage.last + 1)]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("tiles:3x3", "tiles local"),
        ("tiles:3x3b@0..11", "tiles local"),
        ("tiles:auto", "tiles local"),
        ("tiles:2x2@auto", "tiles local"),
        ("tiles:2x2@0..3+3x2@4..8", "tiles tiles local"),
        ("bands:3@2..3", "local bands local"),
        ("bands:2,1.5,1@5", "local bands local"),
        ("slices:4@13", "local slices local"),
        ("slices:3+1@11..13", "local slices local slices local"),
        ("slices:2,1,1+2@13", "local slices local"),
        ("layers:3", "layers layers layers"),
        ("layers:4,1@0..8", "layers layers local"),
        ("tiles:2x2@0..4;slices:4+1@5..6;local", "tiles slices slices local"),
        (" tiles:2x2@0..3 ; layers:2 ", "tiles layers layers"),
        ("local@0..4;bands:2@5..6", "local bands bands local"),
        ("tiles:2x2@0..3>tiles:3x1@4..8", "tiles tiles local"),
        ("tiles:2x2@0..4>bands:3@5..6>layers:2@7..9 > tiles:2x1b@10", "tiles bands bands layers layers tiles local"),
        ("bands:2g@0..3>layers:2g", "bands bands bands layers layers"),
    ],
)
def test_every_kind_and_mixtures(text, kinds):
    stages = cut_network(RESIDUAL, text)
    assert " ".join(stage.kind for stage in stages) == kinds
    assert covered(stages) == list(range(len(RESIDUAL.ops)))
    assert_equal(RESIDUAL, stages)


@pytest.mark.parametrize("text", ["tiles:2x3@0..8", "bands:3,1@0..6", "slices:4+2@0..7", "layers:2,1@0..9", "local"])
def test_a_stage_is_cut_again_by_its_own_text(text):
    """Alone, so without the stage that it may meet directly; `cut_text` keeps how they meet."""
    stages = cut_network(RESIDUAL, text)
    for stage in stages:
        assert replace(stage, direct=False, group=False) in cut_network(RESIDUAL, stage.spec)
    assert cut_network(RESIDUAL, cut_text(stages)) == stages


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("tiles:2x2@0..3>>tiles:3x1@4..8;local", ".!."),
        ("tiles:2x2@0..3>tiles:2x1@4..6>>bands:2@7..8>>layers:1@9", ".>!!."),
        ("tiles:2x2@0..3;tiles:3x1@4..8;local", "..."),
        ("tiles:2x2@0..3>tiles:3x1@4..8;local", ".>."),
        ("tiles:2x2@0..3+3x1@4..8>bands:2@9", "..>."),
        ("bands:2@0..3", ".>>."),
        ("bands:2g@0..3", "...."),
        ("bands:2,1g@0..1>layers:2@2..5;layers:2g", "..>!.."),
        ("layers:4", ".!!!"),
        ("layers:2,1g@0..9", "..."),
        ("layers:2@0..4>layers:2@5..9;layers:1", ".!>!."),
    ],
)
def test_which_boundaries_are_direct_and_where_groups_begin(text, marks):
    stages = cut_network(RESIDUAL, text)
    assert all(stage.direct for stage in stages if stage.group)
    assert "".join("!" if stage.group else ">" if stage.direct else "." for stage in stages) == marks
    assert cut_network(RESIDUAL, cut_text(stages)) == stages


def test_where_stages_begin_and_end():
    first, second = parse_cut("slices:4+1@16..20;local")
    assert (first.first, first.last, first.parity, first.speeds) == (16, 20, 1, (1.0,) * 4)
    assert (second.first, second.last) == (None, None)
    assert [(s.first, s.last) for s in parse_cut("bands:2@7;bands:2@8..")] == [(7, 7), (8, None)]
    groups = parse_cut("tiles:3x3@0..8+5x5b@9..20")
    assert [(g.grid, g.balanced, g.first, g.last) for g in groups] == [((3, 3), False, 0, 8), ((5, 5), True, 9, 20)]


WRONG = """
|;|tiles|bands|slices|layers|layer:3|band:2|Tiles:2x2|tiles:autob|tiles:auto@0..3|bands:auto|local:3
bands:|bands:0|bands:1.5|bands:2,0|bands:-1|bands:2,|bands:2;;|bands:1e3|bands:999|bands:4@13|bands:4@0..14
slices:|slices:0|slices:4+|slices:+1|slices:4+4|slices:9+2@0|slices:9@0|slices:4@3|slices:4@14..|slices:2+1+1|slices:4@12
layers:0|layers:16|layers:3@0..1|layers:2@20..|layers:2@3..1|layers:3@|tiles:2x2@0..3+|tiles:2x2@0..3+3x3@2..8
tiles:2x2@0..3;layers:2@3..5|bands:2@0..99|slices:4@99|slices:1,1,|slices:nan|layers:inf,1|bands:٣|tiles:2x2@0..3;tiles
>|>tiles:2x2@0..3|tiles:2x2@0..3>|tiles:2x2@0..3>>>layers:2|tiles:2x2@0..3;>layers:2|tiles:2x2g|slices:4g@0|localg|bands:g|layers:2gg
tiles:2x2@0..3>local|local@0..3>tiles:2x2@4..8|tiles:2x2@0..3>tiles:2x2@5..8|tiles:2x2@0..8>slices:4+1@13|slices:2@0>tiles:2x2@1..3
tiles:2x2@0..3> >layers:2|tiles:2x2@0..3>>|>>tiles:2x2@0..3|tiles:2x2@0..3>>slices:2@4|tiles:2x2@0..3>>local
layers:1@0..12>slices:4@13>layers:1|tiles:2x2@2..3>layers:2@1..|tiles:auto>layers:1@14
"""


@pytest.mark.parametrize("text", re.split(r"[|\n]", WRONG.strip()))
def test_wrong_cuts_are_one_line(text):
    with pytest.raises(CutError) as caught:
        cut_network(RESIDUAL, text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_reasons_name_the_cure():
    for text, words in {
        "slices:4+1@13..": None,
        "bands:4@0..14": "end the range before it",
        "slices:9+2@0": "take slices:8\\+2",
        "layers:16": "take layers:15 or fewer",
        "slices:2@12": "cannot be cut in slices",
        "bands": "write bands:COUNT",
        "tiles:2x2@0..3>local": "got local@4..\\d+ at the '>' before local@4..\\d+; write ';' there",
        "tiles:2x2@0..3>tiles:2x2@5..8": "got local@4..4 at the '>' before tiles:2x2@5..8; write ';' there",
        "slices:2@0>tiles:2x2@1..3": "joins stages of tiles, bands, layers",
    }.items():
        if words is None:
            cut_network(RESIDUAL, text)
        else:
            with pytest.raises(CutError, match=words):
                cut_network(RESIDUAL, text)


def test_tiles_auto_may_be_met_directly_where_no_local_stage_lies():
    network = read_network(FIXTURES / "upsampled_float32.tflite")  # ops 3..7 cannot be tiled
    _, second, *_ = cut_network(network, "layers:1@0..0>tiles:auto")
    assert (second.kind, second.direct) == ("tiles", True)
    for text in ("layers:1@0..2>tiles:auto", "tiles:auto>layers:1", "slices:2@0>tiles:auto"):
        with pytest.raises(CutError) as caught:
            cut_network(network, text)
        assert "\n" not in str(caught.value)


tokens = st.sampled_from([*KINDS, *"0123456789:;>@+,xbg. ", "..", "auto", "10", "@0..3", ":2x2", ":4", "+1", "\n", "é"])


@settings(max_examples=EXAMPLES * 10, derandomize=True, deadline=None)
@given(st.one_of(st.lists(tokens, max_size=14).map("".join), st.text(max_size=30)))
def test_any_text_is_a_cut_or_one_line(text):
    try:
        stages = cut_network(RESIDUAL, text)
    except CutError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert covered(stages) == list(range(len(RESIDUAL.ops)))
        assert all(stage.pieces for stage in stages)


@st.composite
def mixtures(draw, ops: int):
    """Stages of any kind, one after another, over ops 0..ops-1; some ops are left to local stages."""
    first, stages = 0, []
    while first < ops:
        last = draw(st.integers(first, ops - 1))
        robots = draw(st.sampled_from(("1", "2", "3", "2,1", "1,1,3")))
        sliced = [f"slices:{robots}{parities}" for parities in ("", "+1", "+3")]
        kinds = ("tiles:2x2", "tiles:1x3b", f"bands:{robots}", *sliced, f"layers:{robots}", "local", "")
        kind = draw(st.sampled_from(kinds))
        if kind:
            stages.append(f"{kind}@{first}..{last}")
        first = last + 1
    return ";".join(stages) or "local"


@settings(max_examples=EXAMPLES * 2, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), dags())
def test_any_mixture_equals_the_whole(tmp_path_factory, data, dag):
    net, outputs = dag
    path = tmp_path_factory.getbasetemp() / "mixture.tflite"
    path.write_bytes(net.build(outputs))
    network = read_network(path)
    text = data.draw(mixtures(len(network.ops)), "cut")
    try:
        stages = cut_network(network, text)
    except CutError as error:  # a grid too fine, nothing to slice, fewer layers than robots
        assert len(str(error).splitlines()) == 1
        return
    assert covered(stages) == list(range(len(network.ops)))
    assert_equal(network, stages, seed=data.draw(st.integers(0, 3), "seed"))
