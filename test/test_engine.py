# SPDX-License-Identifier: Apache-2.0
"""The engine: order of ports, ownership of arrays, refusals of one line."""

import sys

import numpy as np
import pytest
from cutting import FIXTURES, random_inputs
from netbuilder import NetBuilder

from dnn_dist.errors import DnnDistError, ModelError
from dnn_dist.graph.tflite import read_network
from dnn_dist.run.engine import Engine


def test_ports_keep_the_order_of_the_graph():
    net = NetBuilder()
    a, b = net.input(4, 5, 1), net.input(4, 5, 1)
    net.inputs.reverse()
    first, second = net.binary("SUB", a, b), net.unary("NEG", a)
    engine = Engine(net.build([second, first]))
    x, y = np.full((4, 5, 1), 3, np.float32), np.full((4, 5, 1), 10, np.float32)
    negated, difference = engine.run([x, y])  # b, a
    assert (negated == -10).all() and (difference == 7).all()
    assert negated.shape == (4, 5, 1)


def test_outputs_belong_to_the_caller():
    network = read_network(FIXTURES / "chain_float32.tflite")
    engine = Engine(network.file.read())
    inputs = list(random_inputs(network).values())
    (first,) = engine.run(inputs)
    kept = first.copy()
    first[:] = 0
    (second,) = engine.run(inputs)
    engine.run([np.zeros_like(array) for array in inputs])
    assert (second == kept).all()


def test_inputs_may_be_views_with_strides_and_read_only():
    network = read_network(FIXTURES / "chain_float32.tflite")
    engine = Engine(network.file.read())
    (image,) = random_inputs(network).values()
    wide = np.repeat(image, 2, axis=1)[:, ::2]
    wide.flags.writeable = False
    assert not wide.flags.c_contiguous
    assert (engine.run([wide])[0] == engine.run([image])[0]).all()


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [np.zeros((41, 37, 3), np.float64)],
        [np.zeros((41, 37, 2), np.float32)],
        [np.zeros((37, 41, 3), np.float32)],
        [np.zeros((41, 37, 3), np.float32)] * 2,
    ],
)
def test_arrays_that_do_not_fit(arrays):
    engine = Engine((FIXTURES / "chain_float32.tflite").read_bytes())
    with pytest.raises(ValueError):
        engine.run(arrays)


def test_refused_models_are_one_line():
    net = NetBuilder()
    out = net.tensor((1, 4, 4, 1))
    net.op("CUSTOM", [net.input(4, 4, 1)], out)
    net.codes[-1]["custom_code"] = "NobodyHasThis"
    for content in (b"", b"nonsense" * 4, net.build([out])):
        with pytest.raises(ModelError) as caught:
            Engine(content)
        assert "\n" not in str(caught.value)


def test_no_runtime_names_the_cure(monkeypatch):
    for name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DnnDistError, match="pip install ai-edge-litert"):
        Engine(b"")
