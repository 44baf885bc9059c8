# SPDX-License-Identifier: Apache-2.0
"""Laws of tensors on the wire: errors stay within the table in wire.py, bytes are counted as they travel."""

import numpy as np
import pytest
import yaml
from cutting import FIXTURES, random_inputs
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dnn_dist.cut.merge import scatter
from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import PlanError
from dnn_dist.graph.region import Region
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.plan import WIRES, Plan, wire_dtype
from dnn_dist.run.pieces import PieceSet
from dnn_dist.run.shape import PlanShape
from dnn_dist.run.wire import after_wire, decode, encode

SLACK = 1 + 1e-6  # float32's own rounding

shapes = arrays.array_shapes(min_dims=1, max_dims=3, max_side=6)
finite = arrays.arrays(np.float32, shapes, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
any_floats = arrays.arrays(np.float32, shapes, elements=st.floats(width=32))


@given(finite)
def test_float32_is_exact(array):
    sent = encode("t", array, 0.0, 0, "float32")
    assert sent.array is array and sent.scale == 0
    assert decode(sent, "float32", 0.0, 0, array.shape) is array


@given(finite)
def test_float16_is_within_a_half_step(array):
    got = after_wire(array, 0.0, 0, "float16").astype(np.float64)
    expected = np.clip(array.astype(np.float64), -65504, 65504)
    assert (np.abs(got - expected) <= np.maximum(np.abs(expected) * 2.0**-11, 2.0**-25) * SLACK).all()


@given(finite)
def test_int8_is_within_a_half_step_of_the_largest(array):
    sent = encode("t", array, 0.0, 0, "int8")
    assert sent.array.dtype == np.int8 and sent.bytes == array.size and sent.scale > 0
    assert sent.scale == float(np.float32(sent.scale))  # as which the message carries it
    got = decode(sent, "float32", 0.0, 0, array.shape).astype(np.float64)
    peak = np.abs(array.astype(np.float64)).max(initial=0)
    assert np.abs(got - array).max(initial=0) <= max(peak / 254, 1e-38) * SLACK


@pytest.mark.parametrize("wire", WIRES)
@given(any_floats)
def test_nothing_wild_harms_the_rest(wire, array):
    """NaN and infinities come out defined, and finite values as if those were not there."""
    got = after_wire(array, 0.0, 0, wire)
    assert got.dtype == np.float32 and got.shape == array.shape
    tame = np.where(np.isfinite(array), array, 0)
    expected = after_wire(tame, 0.0, 0, wire)
    assert np.array_equal(got[np.isfinite(array)], expected[np.isfinite(array)])
    if wire != "float32":
        assert np.isfinite(got[~np.isnan(array)]).all()
        assert (got[array == np.inf] >= got[np.isfinite(array)].max(initial=0)).all()
    if wire == "int8":
        assert (got[np.isnan(array)] == 0).all()


@given(arrays.arrays(np.float32, shapes, elements=st.floats(-1e3, 1e3, width=32)), st.sampled_from(WIRES))
def test_sent_twice_is_sent_once(array, wire):
    """What has come over the wire goes over it again unchanged: a relay costs no precision."""
    once = after_wire(array, 0.0, 0, wire)
    assert np.allclose(after_wire(once, 0.0, 0, wire), once, rtol=1e-6, atol=0)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64", "bool", "float16"])
def test_other_types_travel_as_they_are(wire, dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    sent = encode("t", array, 0.5, 3, wire, Region(0, 0, 3, 4))
    assert sent.array is array and (sent.scale, sent.zero_point, sent.region) == (0.5, 3, Region(0, 0, 3, 4))
    assert after_wire(array, 0.5, 3, wire) is array
    assert wire_dtype(dtype, wire) == dtype


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", ["chain_float32", "residual_int8", "pyramid_float32"])
def test_the_plan_counts_the_bytes_that_travel(wire, name):
    network = read_network(FIXTURES / f"{name}.tflite")
    plan = Plan(network.sha256, "tiles:2x2", wire=wire)
    stages = cut_network(network, plan.cut)
    shape = PlanShape.of(network, stages, wire)
    pieces = PieceSet(network, plan, stages, local=False)
    inputs = random_inputs(network)
    for number, piece in enumerate(stages[0].pieces):
        arrived = scatter(stages[0], piece, inputs)
        outputs = pieces.label(piece.outputs, pieces.run(0, number, arrived))
        expected = shape.stages[0].pieces[number]
        assert sum(tensor.bytes for tensor in outputs) == expected.bytes_out
        assert sum(array.size for array in arrived) == expected.bytes_in  # pixels, one byte a value
        for port, tensor, array in zip(piece.outputs, outputs, pieces.outputs(0, number, outputs), strict=True):
            assert tensor.array.dtype == wire_dtype(port.dtype, wire)
            assert array.dtype == port.dtype and array.shape == port.shape


def test_wire_is_part_of_the_plan():
    plans = [Plan("0" * 64, "tiles:2x2", wire=wire) for wire in WIRES]
    assert [Plan.from_yaml(plan.to_yaml()) for plan in plans] == plans
    assert len({plan.hash for plan in plans}) == len(WIRES)
    with pytest.raises(PlanError, match="wire is 'float8', expected one of float32, float16, int8"):
        Plan("0" * 64, "tiles:2x2", wire="float8")


def test_robots_are_part_of_the_plan():
    plan = Plan("0" * 64, "tiles:2x2", robots=("r2", "r1"))
    assert Plan.from_yaml(plan.to_yaml()) == plan != Plan("0" * 64, "tiles:2x2")
    for wrong in ("r1", [1], [""], {"r1": None}):
        text = yaml.safe_dump({**yaml.safe_load(plan.to_yaml()), "robots": wrong})
        with pytest.raises(PlanError, match="expected a list of names"):
            Plan.from_yaml(text)
