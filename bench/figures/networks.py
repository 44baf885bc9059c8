# SPDX-License-Identifier: Apache-2.0
"""The networks of the papers as outlines: every op and shape, and zeros for weights.

Work, traffic and memory depend on shapes alone, so that VGG16's 553 MB need not be written to be counted.
`bench/make_full_models.py` makes networks with weights.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "test"))
from netbuilder import NO_ACTIVATION, RELU, SAME, VALID, NetBuilder

from dnn_dist.graph.network import Network
from dnn_dist.graph.schema import DTYPES
from dnn_dist.graph.tflite import read_network


class Outline(NetBuilder):
    """A float32 network whose weights are zeros that take no room: a hole behind the end of the file's tables."""

    TABLES_END = 1 << 20  # where the hole begins; far behind any network's tables

    def __init__(self) -> None:
        super().__init__()
        self.hole = 0  # bytes of the largest constant; all of them lie at the same place

    def _weights(self, shape: tuple[int, ...], axis: int) -> tuple[int, np.ndarray]:
        return self._zeros(shape), np.ones(shape[axis])

    def _bias(self, x: int, scales: np.ndarray) -> int:
        return self._zeros((len(scales),))

    def _zeros(self, shape: tuple[int, ...]) -> int:
        size = 4 * prod(shape)
        self.hole = max(self.hole, size)
        self.buffers.append({"offset": self.TABLES_END, "size": size})
        tree = {"shape": np.array(shape, np.int32), "type": DTYPES.index("float32"), "buffer": len(self.buffers) - 1}
        self.tensors.append({**tree, "name": f"w{len(self.tensors)}"})
        return len(self.tensors) - 1

    def grouped(self, x: int, filters: int, kernel: tuple[int, int], groups: int) -> int:
        """A convolution of which each group of filters reads its own part of the channels."""
        _, height, width, channels = self.shape(x)
        weights = self._zeros((filters, *kernel, channels // groups))
        out = self.tensor((1, height, width, filters))
        inputs = [x, weights, self._zeros((filters,))]
        return self.op(
            "CONV_2D", inputs, out, "Conv2DOptions", padding=SAME, stride_h=1, stride_w=1,
            dilation_hfactor=1, dilation_wfactor=1, fused_activation_function=RELU,
        )  # fmt: skip

    def read(self, output: int) -> Network:
        """The network that ends with this tensor."""
        with TemporaryDirectory(prefix="dnn_dist-") as folder:  # the network keeps its file open, not named
            path = Path(folder, "outline.tflite")
            path.write_bytes(self.build([output]))
            assert path.stat().st_size <= self.TABLES_END
            os.truncate(path, self.TABLES_END + self.hole)
            return read_network(path)


@cache
def yolov2_first16() -> Network:
    """What DeepThings fuses of YOLOv2, at 608 x 608."""
    net = Outline()
    return net.read(net.yolov2_first16())


@cache
def yolov2() -> Network:
    """All of YOLOv2 at 608 x 608 (Redmon and Farhadi, 2016; yolov2.cfg of Darknet), 80 classes."""
    net = Outline()

    def leaky(x: int, filters: int, kernel: int) -> int:
        return net.unary("LEAKY_RELU", net.conv(x, filters, (kernel, kernel), activation=NO_ACTIVATION))

    x = fine = leaky(net.yolov2_first16(), 512, 3)
    x = net.pool("MAX", x, (2, 2), (2, 2), VALID)
    for filters, kernel in ((1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3), (1024, 3), (1024, 3)):
        x = leaky(x, filters, kernel)
    passed = leaky(fine, 64, 1)
    _, height, width, channels = net.shape(passed)
    passed = net.op(
        "SPACE_TO_DEPTH", [passed], net.tensor((1, height // 2, width // 2, 4 * channels)), "SpaceToDepthOptions",
        block_size=2,
    )  # fmt: skip
    x = leaky(net.concat([passed, x]), 1024, 3)
    return net.read(net.conv(x, 425, (1, 1), activation=NO_ACTIVATION))


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
    return net.read(x)


@cache
def alexnet() -> Network:
    """AlexNet at 227 x 227 (Krizhevsky et al., 2012), in groups as there; without response normalisation (no MACs)."""
    net = Outline()
    x = net.conv(net.input(227, 227, 3), 96, (11, 11), stride=(4, 4), padding=VALID)
    x = net.grouped(net.pool("MAX", x, (3, 3), (2, 2), VALID), 256, (5, 5), groups=2)
    x = net.conv(net.pool("MAX", x, (3, 3), (2, 2), VALID), 384, (3, 3))
    x = net.grouped(net.grouped(x, 384, (3, 3), groups=2), 256, (3, 3), groups=2)
    x = net.pool("MAX", x, (3, 3), (2, 2), VALID)
    for units in (4096, 4096, 1000):
        x = net.dense(x, units)
    return net.read(x)


NETWORKS: dict[str, Callable[[], Network]] = {"alexnet": alexnet, "vgg16": vgg16, "yolov2_first16": yolov2_first16}
