# SPDX-License-Identifier: Apache-2.0
"""Front and rest: stages of any ops, closed one after the other, equal to the whole bit for bit."""

from itertools import pairwise

import pytest
from cutting import EXAMPLES, FIXTURES, assert_equal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_dags import drawn_network

from dnn_dist.cut.feeds import Feeds
from dnn_dist.cut.layers import layer_starts
from dnn_dist.cut.sides import side_text
from dnn_dist.cut.spec import cut_network, cut_text
from dnn_dist.errors import CutError
from dnn_dist.graph.tflite import read_network

many = settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def siamese():
    """Two branches: ops 0 to 8, and 9 to 17."""
    return read_network(FIXTURES / "zoo" / "siamese_int8.tflite")


def random_sides(draw, network) -> str:
    """Each layer joins a stage that has all it needs before it or within; the first few stages are fronts."""
    count, starts = draw(st.integers(1, 5)), [*layer_starts(network, 0, len(network.ops) - 1), len(network.ops)]
    fronts = draw(st.integers(0, count))
    stage_of: dict[int, int] = {}
    for first, after in pairwise(starts):
        makers = [network.producers.get(tensor) for tensor in network.live_before(first, after - 1)]
        earliest = max((stage_of[maker] for maker in makers if maker is not None), default=0)
        stage_of.update(dict.fromkeys(range(first, after), draw(st.integers(earliest, count - 1))))
    ops = [[op for op, stage in stage_of.items() if stage == number] for number in range(count)]
    named = [("front" if number < fronts else "rest", ops[number]) for number in range(count) if ops[number]]
    return ">".join(side_text(kind, numbers) for kind, numbers in named)


@many
@given(st.data())
def test_random_dags_in_random_sides_equal_the_whole(folder, data):
    network = drawn_network(data.draw, folder)
    text = random_sides(data.draw, network)
    stages = cut_network(network, text)
    assert cut_text([stage for stage in stages if stage.distributed]) == text
    assert_equal(network, stages)


@pytest.mark.parametrize(
    "text",
    [
        "front>rest@18..21",
        "front@0..8>rest",
        "front@9..12>rest@0..8+13..21",
        "front@9..12>front@0..3>rest@13..17>rest@4..8>rest",
        "rest",
        "front",
        "front@0..3+9..12>rest@4..8+13..17;local",
    ],
)
def test_branches_of_a_siamese_network(siamese, text):
    text = text.replace("front>", "front@0..17>")
    stages = cut_network(siamese, text)
    assert_equal(siamese, stages)
    assert cut_network(siamese, cut_text(stages)) == stages
    sides = [stage for stage in stages if stage.distributed]
    assert all(len(stage.pieces) == 1 and stage.direct == (number > 0) for number, stage in enumerate(sides))


def test_each_path_gives_its_tensor_as_soon_as_it_is_computed(siamese):
    stages = cut_network(siamese, "front@9..12>front@0..3>rest@13..17>rest@4..8>rest@18..21")
    feeds = Feeds(siamese, stages)
    assert {stage: sorted(feeds.feeds(stage, 0)) for stage in range(5)} == {
        0: [],
        1: [],
        2: [(0, 0)],
        3: [(1, 0)],
        4: [(2, 0), (3, 0)],
    }
    assert [len(stage.pieces[0].inputs) for stage in feeds.seen] == [1, 1, 0, 0, 0]
    assert [bool(stage.outputs) for stage in feeds.seen] == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("front@0..3>rest@5..21", "op 5 MAX_POOL_2D reads what op 4 makes"),
        ("front@0..3>rest@9..21", "op 18 SUB reads what op 8 makes"),
        ("front@0..3>rest@3..21", "names op 3 twice"),
        ("front@0..3+2>rest", "names op 2 twice"),
        ("front@0..22>rest", "there are 0..21"),
        ("front@0..999999", "there are 0..21"),
        ("front@3..0>rest", "there are 0..21"),
        ("rest@0..8>front", "write front>rest"),
        ("front>rest", "leave it out"),
        ("front@9..17>rest@0..3", "leave out ops 4..8"),
        ("tiles:2x2@0>rest", "to each other alone"),
        ("front@0..8>layers:1", "to each other alone"),
        ("front@0..", "is not understood"),
        ("front:2", "is not understood"),
    ],
)
def test_errors_are_one_line_with_the_cure(siamese, text, said):
    with pytest.raises(CutError) as error:
        cut_network(siamese, text)
    assert said in str(error.value) and "\n" not in str(error.value)
