# SPDX-License-Identifier: Apache-2.0
"""Stages meet at tensors of any shape: also where the first axis is no batch, and where the file leaves it open."""

import numpy as np
import pytest
from cutting import FIXTURES, assert_equal, random_inputs
from netbuilder import RELU, NetBuilder

from dnn_dist.cli.check import check
from dnn_dist.cut.build import build_piece
from dnn_dist.cut.layers import cut_layers, layer_starts
from dnn_dist.cut.merge import merge, scatter
from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import CutError
from dnn_dist.graph.tflite import read_network
from dnn_dist.run.engine import Engine


class Mover(NetBuilder):
    """A network of ops that move axes about. With `open` its file says 1 for what it leaves to the run."""

    def __init__(self, dtype: str, open_: bool) -> None:
        super().__init__(dtype)
        self.open = open_
        self.true: dict[int, tuple[int, ...]] = {}

    def shape(self, tensor: int) -> tuple[int, ...]:
        return self.true.get(tensor) or super().shape(tensor)

    def list(self, *values: int) -> int:
        return self.constant(np.array(values, np.int32))

    def tensor(self, shape, like=None, *quantisation) -> int:
        number = super().tensor(shape, like, *quantisation)
        self.true[number] = tuple(shape)
        if self.open and self.inputs:
            known = 1 + (len(shape) == 4)  # converters leave columns and channels of pictures known
            self.tensors[number]["shape"] = np.array([*[1] * (len(shape) - known), *shape[-known:]], np.int32)
            signature = [*[-1] * (len(shape) - known), *shape[-known:]]
            self.tensors[number]["shape_signature"] = np.array(signature, np.int32)
        return number

    def move(self, kind: str, x: int, shape, *lists: int, options: str | None = None, **fields) -> int:
        version = 1 if kind in ("RESHAPE", "EXPAND_DIMS", "SQUEEZE") else 2
        return self.op(kind, [x, *lists], self.tensor(shape, like=x), options, **{"version": version, **fields})


def strided(net, x, shape, begin, end, step, **masks):
    lists = (net.list(*begin), net.list(*end), net.list(*step))
    return net.move("STRIDED_SLICE", x, shape, *lists, options="StridedSliceOptions", **masks)


CHAINS = {
    "reshape": lambda net, x: net.move("RESHAPE", x, (6, 8, 4), net.list(6, -1, 4)),
    "transpose": lambda net, x: net.move("TRANSPOSE", x, (8, 6, 1, 4), net.list(2, 1, 0, 3)),
    "squeeze": lambda net, x: net.move("SQUEEZE", x, (6, 8, 4), options="SqueezeOptions", squeeze_dims=np.array([0])),
    "expand": lambda net, x: net.move("EXPAND_DIMS", x, (1, 6, 1, 8, 4), net.list(2)),
    "tile": lambda net, x: net.move("TILE", x, (3, 6, 16, 4), net.list(3, 1, 2, 1)),
    "broadcast": lambda net, x: net.move("BROADCAST_TO", x, (5, 6, 8, 4), net.list(5, 6, 8, 4), version=3),
    "gather rows": lambda net, x: net.move(
        "GATHER", net.move("RESHAPE", x, (6, 32), net.list(6, 32)), (3, 32), net.list(4, 0, 4), options="GatherOptions"
    ),
    "gather one row": lambda net, x: net.move(
        "GATHER", net.move("RESHAPE", x, (6, 32), net.list(6, 32)), (1, 32), net.list(2), options="GatherOptions"
    ),
    "gather columns": lambda net, x: net.move(
        "GATHER", x, (1, 6, 2, 4), net.list(7, 1), options="GatherOptions", axis=2
    ),
    "slice rows away": lambda net, x: strided(
        net, x, (3, 8, 4), (0, 0, 0), (1, 6, 8), (1, 2, 1), shrink_axis_mask=1, begin_mask=2
    ),
    "slice to one row": lambda net, x: strided(
        net, net.move("RESHAPE", x, (6, 8, 4), net.list(6, 8, 4)), (1, 8, 4), (2, 0, 0), (3, 0, 0), (1, 1, 1),
        end_mask=6,
    ),
    "unpacked": lambda net, x: net.op(
        "PACK", [y := net.move("RESHAPE", x, (6, 32), net.list(6, 32)), y], net.tensor((6, 2, 32), like=x),
        "PackOptions", axis=1, values_count=2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("open_", [False, True], ids=["fixed", "open"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())
def test_every_boundary(tmp_path, chain, dtype, open_):
    """A stage ends after every op; what follows is again a picture, and a convolution."""
    net = Mover(dtype, open_)
    x = net.conv(net.input(6, 8, 4), 4, (3, 3), activation=RELU)
    x = net.unary("RELU", chain(net, net.unary("RELU", x)))
    size = int(np.prod(net.shape(x)))
    x = net.move("RESHAPE", x, (1, size // 4, 1, 4), net.list(1, -1, 1, 4))
    (tmp_path / "model.tflite").write_bytes(net.build([net.conv(x, 3, (3, 1))]))
    network = read_network(tmp_path / "model.tflite")
    assert [network.tensors[t].shape for op in network.ops for t in op.outputs] == [
        net.shape(t) for op in network.ops for t in op.outputs
    ]
    starts = layer_starts(network, 0, len(network.ops) - 1)
    assert starts == tuple(range(len(network.ops)))
    assert_equal(network, cut_layers(network, (1.0,) * len(starts), str(len(starts))))
    for start in starts[1:]:
        assert_equal(network, cut_network(network, f"layers:1@0..{start - 1};local"))


UPSAMPLED = sorted(FIXTURES.glob("upsampled*.tflite"))


@pytest.mark.parametrize("path", UPSAMPLED, ids=lambda path: path.stem)
def test_keras_upsampling_between_any_two_layers(path):
    network = read_network(path)
    layers = len(layer_starts(network, 0, len(network.ops) - 1))
    for robots in (2, 3, 4, layers):
        assert_equal(network, cut_network(network, f"layers:{robots}"))
    facts = check(network, "layers:3")
    assert facts["holds"] and facts["max_abs_diff"] == 0


def test_a_shape_that_only_the_run_shows_ends_no_stage(tmp_path):
    """The list of RESHAPE is computed from the image: where its output lives no stage ends, and it is said why."""
    net = Mover("float32", True)
    x = net.input(6, 8, 4)
    x = net.conv(x, 4, (3, 3))
    total = net.op("SUM", [x, net.list(0, 1, 2, 3)], net.constant(np.zeros(1, np.float32)), "ReducerOptions")
    net.tensors[total] = {"shape": np.array([], np.int32), "name": "sum"}
    listed = net.op("CAST", [total], len(net.tensors), "CastOptions")
    net.tensors.append({"shape": np.array([], np.int32), "name": "cast", "type": 2})
    ones = net.op("BROADCAST_TO", [listed, net.list(4)], len(net.tensors), version=3)
    net.tensors.append({"shape": np.array([4], np.int32), "name": "list", "type": 2})
    x = net.move("RESHAPE", net.unary("RELU", x), (1, 1, 48, 4), ones)
    x = net.unary("RELU", x)
    (tmp_path / "model.tflite").write_bytes(net.build([net.unary("TANH", x)]))
    network = read_network(tmp_path / "model.tflite")
    kinds = [op.kind for op in network.ops]
    reshape = kinds.index("RESHAPE")
    assert [kinds[start] for start in layer_starts(network, 0, len(kinds) - 1)] == kinds[: reshape + 1]
    with pytest.raises(CutError, match=r"takes 't\d+' \[1, 1, 48, 4\], whose shape is known only when it runs"):
        cut_network(network, f"local@0..{reshape};layers:1")
    with pytest.raises(CutError, match=r"gives 't\d+' .* leave these ops to a local stage"):
        cut_network(network, f"layers:2@0..{len(kinds) - 1}")
    *layers, rest = cut_network(network, "layers:2")
    assert [stage.kind for stage in layers] == ["layers"] * 2
    assert (rest.kind, rest.first) == ("local", reshape)


def test_the_first_axis_of_what_is_reshaped_is_no_batch(tmp_path):
    """-1 in front of a signature is the batch's only where an op keeps it."""
    net = Mover("float32", False)
    x = net.move("RESHAPE", net.conv(net.input(6, 8, 4), 4, (3, 3)), (6, 32), net.list(-1, 32))
    net.tensors[x].update(shape=np.array([1, 32], np.int32), shape_signature=np.array([-1, 32], np.int32))
    (tmp_path / "model.tflite").write_bytes(net.build([net.unary("TANH", x)]))
    network = read_network(tmp_path / "model.tflite")
    assert network.tensors[x].shape == (6, 32) and network.tensors[x].bytes == 4 * 6 * 32
    assert_equal(network, cut_network(network, "layers:1@0..1;local"))


ZOO = sorted((*FIXTURES.glob("*.tflite"), *FIXTURES.glob("zoo/*.tflite")))


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_what_travels_has_the_shape_that_its_port_says(path):
    """A robot refuses any other. TFLite_Detection_PostProcess gives shapes that only the run shows: it runs locally."""
    network = read_network(path)
    tensors = random_inputs(network)
    for stage in cut_network(network, "layers:3"):
        (piece,) = stage.pieces
        inputs = scatter(stage, piece, tensors)
        assert [array.shape for array in inputs] == [port.shape for port in piece.inputs]
        outputs = Engine(build_piece(network, stage, piece)).run(inputs)
        if stage.distributed:
            assert [array.shape for array in outputs] == [port.shape for port in piece.outputs]
        tensors |= merge(network, stage, {0: outputs})
