# SPDX-License-Identifier: Apache-2.0
"""The networks of the papers as outlines: every op and shape, weights that are "kept elsewhere".

Work, traffic and memory depend on shapes alone, so that VGG16's 553 MB need not be written to be counted. An
outline cannot be run; `bench/make_full_models.py` makes networks that can.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "test"))
from netbuilder import NO_ACTIVATION, SAME, VALID, NetBuilder

from dnn_dist.graph.network import Network
from dnn_dist.graph.schema import DTYPES
from dnn_dist.graph.tflite import read_network


class Outline(NetBuilder):
    """A float32 network whose file holds no weights, but says how large they are."""

    def _weights(self, shape: tuple[int, ...], axis: int) -> tuple[int, np.ndarray]:
        return self._elsewhere(shape), np.ones(shape[axis])

    def _bias(self, x: int, scales: np.ndarray) -> int:
        return self._elsewhere((len(scales),))

    def _elsewhere(self, shape: tuple[int, ...]) -> int:
        tree: dict[str, Any] = {"shape": np.array(shape, np.int32), "type": DTYPES.index("float32")}
        self.tensors.append({**tree, "name": f"w{len(self.tensors)}", "external_buffer": 1})
        return len(self.tensors) - 1


def _read(net: NetBuilder, output: int) -> Network:
    with TemporaryDirectory(prefix="dnn_dist-") as folder:  # the network keeps its file open, not named
        path = Path(folder, "outline.tflite")
        path.write_bytes(net.build([output]))
        return read_network(path)


@cache
def yolov2_first16() -> Network:
    """YOLOv2 at 608 x 608 (Redmon and Farhadi, 2016), what DeepThings fuses: 12 convolutions, 4 max-pools."""
    net = Outline()
    x = net.input(608, 608, 3)
    table = [(32, 3), 0, (64, 3), 0, (128, 3), (64, 1), (128, 3), 0, (256, 3), (128, 1), (256, 3), 0,
             (512, 3), (256, 1), (512, 3), (256, 1)]  # fmt: skip
    for layer in table:
        if isinstance(layer, int):
            x = net.pool("MAX", x, (2, 2), (2, 2), VALID)
        else:
            filters, kernel = layer
            x = net.unary("LEAKY_RELU", net.conv(x, filters, (kernel, kernel), activation=NO_ACTIVATION))
    return _read(net, x)


@cache
def vgg16() -> Network:
    """VGG16 at 224 x 224 (Simonyan and Zisserman, 2014): 13 convolutions, 5 max-pools, 3 fully connected."""
    net = Outline()
    x = net.input(224, 224, 3)
    for filters, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            x = net.conv(x, filters, (3, 3), padding=SAME)
        x = net.pool("MAX", x, (2, 2), (2, 2), VALID)
    for units in (4096, 4096, 1000):
        x = net.dense(x, units)
    return _read(net, x)


@cache
def alexnet() -> Network:
    """AlexNet at 227 x 227 (Krizhevsky et al., 2012) in one column, without response normalisation (no MACs)."""
    net = Outline()
    x = net.conv(net.input(227, 227, 3), 96, (11, 11), stride=(4, 4), padding=VALID)
    x = net.conv(net.pool("MAX", x, (3, 3), (2, 2), VALID), 256, (5, 5))
    x = net.pool("MAX", x, (3, 3), (2, 2), VALID)
    for filters in (384, 384, 256):
        x = net.conv(x, filters, (3, 3))
    x = net.pool("MAX", x, (3, 3), (2, 2), VALID)
    for units in (4096, 4096, 1000):
        x = net.dense(x, units)
    return _read(net, x)


NETWORKS: dict[str, Callable[[], Network]] = {"alexnet": alexnet, "vgg16": vgg16, "yolov2_first16": yolov2_first16}
