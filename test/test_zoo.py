# SPDX-License-Identifier: Apache-2.0
"""The fixtures themselves: small, written down, and alive, so that a cut that goes wrong shows in their outputs."""

import numpy as np
import pytest
from cutting import FIXTURES, random_inputs

from dnn_dist.graph.tflite import read_network
from dnn_dist.run.engine import Engine

ZOO = sorted((FIXTURES / "zoo").glob("*.tflite"))


def test_the_zoo_is_small_and_listed():
    assert sum(path.stat().st_size for path in ZOO) < 4e6
    listed = (FIXTURES / "README.md").read_text(encoding="utf-8")
    for path in ZOO:
        name, _, variant = path.stem.rpartition("_")
        (line,) = (line for line in listed.splitlines() if line.startswith(f"| `{name}` |"))
        assert variant in line


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_outputs_are_sane_and_depend_on_the_input(path):
    network = read_network(path)
    engine = Engine(path)
    first, second = (
        engine.run([inputs[t] for t in network.inputs]) for inputs in (random_inputs(network, seed) for seed in (0, 1))
    )
    for outputs in (first, second):
        assert all(np.isfinite(array).all() and np.abs(array.astype(float)).max() < 1e3 for array in outputs)
    assert any((a != b).any() for a, b in zip(first, second, strict=True))
    several = [array for array in first if array.size > 1]
    assert not several or any(len(np.unique(array)) > 3 for array in several)
