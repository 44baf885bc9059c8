# SPDX-License-Identifier: Apache-2.0
"""A plan's text may come from anybody: whatever it holds, the answer is a Plan or an error of one short line."""

import json

import pytest
import yaml
from cutting import EXAMPLES, FIXTURES
from hypothesis import given, settings
from hypothesis import strategies as st

from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import ConfigError, CutError, DnnDistError, PlanError
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.plan import MOST_TEXT, Pixels, Plan
from dnn_dist.yamlfile import read_yaml

GOOD = Plan("0" * 64, "tiles:2x2")
_LEVELS = zip("abcdefgh", "bcdefghi", strict=True)
BOMB = "\n".join(
    ["a: &a [x,x,x,x,x,x,x,x,x]", *(f"{b}: &{b} [{','.join(['*' + a] * 9)}]" for a, b in _LEVELS)]
)


def changed(**keys: str) -> str:
    """The text of a good plan with other values for some keys, written as they stand."""
    lines = {key: f"{key}: {json.dumps(value)}" for key, value in yaml.safe_load(GOOD.to_yaml()).items()}
    return "\n".join({**lines, **{key: f"{key}: {value}" for key, value in keys.items()}}.values())


ODD = {
    "1500 brackets": "[" * 1500,
    "1500 brackets in a key": changed(robots="[" * 1500 + "]" * 1500),
    "1500 braces": "{" * 1500,
    "nested blocks": "\n".join(" " * depth + "a:" for depth in range(300)),
    "nested sequences": "- " * 1500,
    "no date": changed(fill="2020-99-99"),
    "no date by tag": changed(fill="!!timestamp 2020-99-99"),
    "no timestamp": changed(fill="!!timestamp x"),
    "no truth": changed(fill="!!bool x"),
    "no number": changed(replicas="!!int ''"),
    "no digits": changed(replicas="0b_"),
    "an endless number": changed(replicas="9" * 5000),
    "an endless number in hexadecimal": changed(replicas="0x" + "f" * 50000),
    "true is no number": changed(replicas="true"),
    "an object": changed(fill="!!python/object/apply:os.getcwd []"),
    "a tag of 50 000 letters": changed(fill=f"!<{'t' * 50000}> x"),
    "an alias bomb": f"{BOMB}\n{changed(robots='*i')}",
    "an alias bomb as the wire": f"{BOMB}\n{changed(wire='*i')}",
    "an alias": changed(fill="&a last", wire="*a"),
    "an anchor that holds itself": changed(robots="&a [*a]"),
    "scale beyond float64": changed(pixels="{scale: 1" + "0" * 50 + ", offset: 0}"),
    "scale of 400 digits": changed(pixels="{scale: '1" + "0" * 400 + "', offset: 0}"),
    "scale of 400 digits as an integer": changed(pixels="{scale: 1" + "0" * 400 + ", offset: 0}"),
    "scale infinite": changed(pixels="{scale: .inf, offset: 0}"),
    "scale no number": changed(pixels="{scale: .nan, offset: 0}"),
    "offset infinite": changed(pixels="{scale: 1.0, offset: -.inf}"),
    "offset no number": changed(pixels="{scale: 1.0, offset: .nan}"),
    "a fill of 60 000 letters": changed(fill="f" * 60000),
    "robots of 60 000 letters": changed(robots="{r: " + "f" * 60000 + "}"),
    "half a character": changed(cut='"\\ud800"'),
    "megabytes": changed(cut="c" * (MOST_TEXT + 1)),
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
def test_whatever_is_no_plan_is_told_in_one_short_line(text):
    with pytest.raises(PlanError) as caught:
        Plan.from_yaml(text)
    said = str(caught.value)
    assert said.startswith("plan: ") and "\n" not in said and len(said) < 600
    said.encode()


def test_only_what_was_changed_is_wrong():
    assert Plan.from_yaml(changed()) == GOOD


def test_a_bomb_in_286_bytes_is_refused_by_name():
    text = "a: &a [x,x,x,x,x,x,x,x,x]\nrobots: [*a,*a,*a]"
    with pytest.raises(PlanError, match=r"alias \*a: write it out instead"):
        Plan.from_yaml(text)


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
def test_a_message_that_is_no_plan_is_an_error_that_nodes_catch(text):
    msg = pytest.importorskip("dnn_dist.msg", reason="messages are not built")
    from dnn_dist.nodes.convert import read_plan

    with pytest.raises(DnnDistError) as caught:
        read_plan(msg.Plan(plan=GOOD.hash, text=text.encode("utf-8", "replace").decode()))
    assert len(str(caught.value)) < 600


@settings(max_examples=10 * EXAMPLES, deadline=None, derandomize=True)
@given(
    st.text(alphabet=st.sampled_from("ab:-[]{}&*!?|>'\"%@#,0179.x~<= \n\\u_"), max_size=60)
    | st.text(max_size=30)
    | st.tuples(st.sampled_from(("fill", "robots", "pixels", "replicas")), st.text(max_size=20)).map(
        lambda pair: changed(**dict([pair]))
    )
)
def test_any_text_is_a_plan_or_a_line(text):
    try:
        plan = Plan.from_yaml(text)
    except PlanError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
    else:
        assert Plan.from_yaml(plan.to_yaml()) == plan


def test_what_a_plan_writes_it_reads():
    long = ";".join(f"tiles:2x2@{2 * op}..{2 * op + 1}" for op in range(1000))
    plan = Plan("0" * 64, long, pixels=Pixels(1e-20, -3.5), robots=tuple(f"r{n}" for n in range(256)))
    assert Plan.from_yaml(plan.to_yaml()) == plan


@pytest.mark.parametrize("text", [ODD["1500 brackets"], ODD["an alias bomb"], ODD["no date by tag"]])
def test_files_are_read_with_the_same_care(tmp_path, text):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="the fleet file is not YAML") as caught:
        read_yaml(path, "fleet file")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "cut", ["x" * 60000, "tiles:2x2@0..1;" * 4000 + "local", "layers:0," + "1," * 254 + "1", "tiles:0x1@" + "0" * 6]
)
def test_what_is_said_of_a_cut_is_short(cut):
    with pytest.raises(CutError) as caught:
        cut_network(read_network(FIXTURES / "chain_float32.tflite"), cut)
    assert len(str(caught.value)) < 600


def test_int8_wire_is_refused_where_float32_tensors_go_straight():
    """Each message has its own scale: values would depend on which robot made them."""
    network = read_network(FIXTURES / "residual_float32.tflite")
    for cut in ("bands:2@0..3", "layers:2", "tiles:2x2@0..3;layers:2", "tiles:2x2@0..3>tiles:2x2@4..8"):
        with pytest.raises(PlanError, match=r"wire int8.*take wire float16, or ';' there") as caught:
            Plan(network.sha256, cut, wire="int8").stages(network)
        assert len(str(caught.value).splitlines()) == 1
        Plan(network.sha256, cut, wire="float16").stages(network)
    Plan(network.sha256, "bands:2g@0..3;layers:2g", wire="int8").stages(network)
    whole_numbers = read_network(FIXTURES / "residual_int8.tflite")
    Plan(whole_numbers.sha256, "bands:2@0..3;layers:2", wire="int8").stages(whole_numbers)
