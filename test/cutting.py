# SPDX-License-Identifier: Apache-2.0
"""Running cut models in tests: whole, and as the pieces of a cut."""

import os
from pathlib import Path

import numpy as np

from dnn_dist.cut.build import build_piece
from dnn_dist.cut.feeds import Feeds, Maker, fed
from dnn_dist.cut.merge import merge, scatter
from dnn_dist.cut.piece import Stage
from dnn_dist.graph.network import Network
from dnn_dist.run.engine import Engine

FIXTURES = Path(__file__).parent / "models"
EXAMPLES = int(os.environ.get("DNN_DIST_EXAMPLES", "25"))
"""How many examples hypothesis tries per test."""


def random_inputs(network: Network, seed: int = 0) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {}
    for number in network.inputs:
        tensor = network.tensors[number]
        if tensor.dtype == "float32":
            arrays[number] = rng.normal(0, 1, tensor.array_shape).astype(np.float32)
        else:
            arrays[number] = rng.integers(-128, 128, tensor.array_shape).astype(tensor.dtype)
    return arrays


def run_whole(network: Network, inputs: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    engine = Engine(network.file.read())
    return dict(zip(network.outputs, engine.run([inputs[t] for t in network.inputs]), strict=True))


def run_stages(
    network: Network, stages: tuple[Stage, ...], inputs: dict[int, np.ndarray]
) -> dict[int, np.ndarray]:
    """Tensors that the aggregator gets; within chains pieces are fed by pieces and nothing else."""
    arrays = dict(inputs)
    feeds = Feeds(network, stages)
    engines = Engines(network)
    kept: dict[Maker, list[np.ndarray]] = {}
    for number, stage in enumerate(stages):
        received = {}
        for piece in stage.pieces:
            outputs = kept[number, piece.index] = engines.run(feeds, number, piece.index, arrays, kept)
            received[piece.index] = [outputs[n] for n in feeds.result(number, piece.index)]
        arrays |= merge(network, feeds.seen[number], received)
    return arrays


class Engines:
    """Runs pieces; those of one form by one file."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._found: dict[tuple[str, str], Engine] = {}

    def run(
        self,
        feeds: Feeds,
        stage: int,
        piece: int,
        arrays: dict[int, np.ndarray],
        kept: dict[Maker, list[np.ndarray]],
        alone: bool = False,
    ) -> list[np.ndarray]:
        """What a piece gives: from whole tensors made before its chain, and what pieces of the chain gave. `alone`:
        without strips, whoever has them.
        """
        here = feeds.stages[stage]
        whole = here.pieces[piece]
        chosen = (alone and whole.alone) or whole
        given = fed(feeds, stage, piece, kept, alone)
        assert sorted((*given, *feeds.given(stage, piece))) == list(range(len(chosen.inputs)))
        key = here.spec, chosen.form
        if key not in self._found:
            self._found[key] = Engine(build_piece(self.network, here, chosen))
        return self._found[key].run(scatter(here, chosen, arrays, given))


def assert_equal(network: Network, stages: tuple[Stage, ...], seed: int = 0) -> None:
    """The merged pieces give what the whole gives, bit for bit."""
    inputs = random_inputs(network, seed)
    whole, merged = run_whole(network, inputs), run_stages(network, stages, inputs)
    for tensor, array in whole.items():
        got = merged[tensor]
        differing = np.argwhere(array.view(f"u{array.itemsize}") != got.view(f"u{got.itemsize}"))
        assert not len(differing), (
            f"{network.tensors[tensor].name}: {len(differing)} of {array.size} differ, first {differing[0]}, "
            f"by up to {np.abs(array.astype(np.float64) - got).max()}"
        )
