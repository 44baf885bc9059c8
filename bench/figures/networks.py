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

    def read(self, *outputs: int) -> Network:
        """The network that ends with these tensors."""
        with TemporaryDirectory(prefix="dnn_dist-") as folder:  # the network keeps its file open, not named
            path = Path(folder, "outline.tflite")
            path.write_bytes(self.build(list(outputs)))
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


@cache
def alexnet_p() -> Network:
    """AlexNet at 224 x 224 in two towers, as its authors ran it; they meet before the third
    convolution and at the end."""
    net = Outline()
    image = net.input(224, 224, 3)
    towers = []
    for _ in range(2):
        x = net.pool("MAX", net.conv(image, 48, (11, 11), stride=(4, 4)), (3, 3), (2, 2), VALID)
        towers.append(net.pool("MAX", net.conv(x, 128, (5, 5)), (3, 3), (2, 2), VALID))
    both = net.concat(towers)
    towers = []
    for _ in range(2):
        x = net.conv(net.conv(net.conv(both, 192, (3, 3)), 192, (3, 3)), 128, (3, 3))
        towers.append(net.pool("MAX", x, (3, 3), (2, 2), VALID))
    x = net.concat(towers)
    for units in (4096, 4096, 1000):
        x = net.dense(x, units)
    return net.read(x)


def _alexnet_stream(net: Outline) -> int:
    """AlexNet from an input of its own to the second fully connected layer."""
    x = net.conv(net.input(224, 224, 3), 96, (11, 11), stride=(4, 4))
    x = net.grouped(net.pool("MAX", x, (3, 3), (2, 2), VALID), 256, (5, 5), groups=2)
    x = net.conv(net.pool("MAX", x, (3, 3), (2, 2), VALID), 384, (3, 3))
    x = net.grouped(net.grouped(x, 384, (3, 3), groups=2), 256, (3, 3), groups=2)
    return net.dense(net.dense(net.pool("MAX", x, (3, 3), (2, 2), VALID), 4096), 4096)


@cache
def siamese() -> Network:
    """Two of AlexNet's streams whose results are compared."""
    net = Outline()
    a, b = _alexnet_stream(net), _alexnet_stream(net)
    return net.read(net.dense(net.unary("ABS", net.binary("SUB", a, b)), 1))


@cache
def siamese_koch() -> Network:
    """The Siamese network of Koch, Zemel and Salakhutdinov (2015), at 224 x 224 x 3."""
    net = Outline()
    branches = []
    for _ in range(2):
        x = net.conv(net.input(224, 224, 3), 64, (10, 10), padding=VALID)
        for filters, kernel in ((128, 7), (128, 4), (256, 4)):
            x = net.conv(net.pool("MAX", x, (2, 2), (2, 2), VALID), filters, (kernel, kernel), padding=VALID)
        branches.append(net.dense(x, 4096))
    return net.read(net.dense(net.unary("ABS", net.binary("SUB", *branches)), 1))


@cache
def multi_stream() -> Network:
    """Three of AlexNet's streams that are added up before the last layer."""
    net = Outline()
    a, b, c = (_alexnet_stream(net) for _ in range(3))
    return net.read(net.dense(net.binary("ADD", net.binary("ADD", a, b), c), 1000))


@cache
def googlenet() -> Network:
    """GoogLeNet at 224 x 224 (Szegedy et al., 2014), as it runs: without the auxiliary classifiers."""
    net = Outline()

    def pool(x: int) -> int:
        return net.pool("MAX", x, (3, 3), (2, 2), SAME)

    def inception(x: int, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int) -> int:
        middle = net.conv(net.conv(x, three[0], (1, 1)), three[1], (3, 3))
        wide = net.conv(net.conv(x, five[0], (1, 1)), five[1], (5, 5))
        last = net.conv(net.pool("MAX", x, (3, 3), (1, 1), SAME), pooled, (1, 1))
        return net.concat([net.conv(x, one, (1, 1)), middle, wide, last])

    x = pool(net.conv(net.input(224, 224, 3), 64, (7, 7), stride=(2, 2)))
    x = pool(net.conv(net.conv(x, 64, (1, 1)), 192, (3, 3)))
    x = inception(inception(x, 64, (96, 128), (16, 32), 32), 128, (128, 192), (32, 96), 64)
    x = inception(pool(x), 192, (96, 208), (16, 48), 64)
    x = inception(inception(x, 160, (112, 224), (24, 64), 64), 128, (128, 256), (24, 64), 64)
    x = inception(inception(x, 112, (144, 288), (32, 64), 64), 256, (160, 320), (32, 128), 128)
    x = inception(inception(pool(x), 256, (160, 320), (32, 128), 128), 384, (192, 384), (48, 128), 128)
    return net.read(net.dense(net.pool("AVERAGE", x, (7, 7), (1, 1), VALID), 1000))


@cache
def resnet18() -> Network:
    """ResNet18 at 224 x 224 (He et al., 2015)."""
    net = Outline()
    x = net.conv(net.input(224, 224, 3), 64, (7, 7), stride=(2, 2))
    x = net.pool("MAX", x, (3, 3), (2, 2), SAME)
    for filters in (64, 128, 256, 512):
        for block in range(2):
            stride = (2, 2) if filters > 64 and not block else (1, 1)
            y = net.conv(net.conv(x, filters, (3, 3), stride=stride), filters, (3, 3), activation=NO_ACTIVATION)
            if stride == (2, 2):
                x = net.conv(x, filters, (1, 1), stride=stride, activation=NO_ACTIVATION)
            x = net.unary("RELU", net.binary("ADD", x, y))
    return net.read(net.dense(net.pool("AVERAGE", x, (7, 7), (1, 1), VALID), 1000))


@cache
def yolov3() -> Network:
    """YOLOv3 at 320 x 320 (Redmon and Farhadi, 2018): Darknet-53 and heads at three sizes, 80 classes."""
    net = Outline()

    def conv(x: int, filters: int, kernel: int, stride: int = 1) -> int:
        x = net.conv(x, filters, (kernel, kernel), stride=(stride, stride), activation=NO_ACTIVATION)
        return net.unary("LEAKY_RELU", x)

    x = conv(net.input(320, 320, 3), 32, 3)
    kept = []
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        x = conv(x, filters, 3, 2)
        for _ in range(blocks):
            x = net.binary("ADD", x, conv(conv(x, filters // 2, 1), filters, 3))
        kept.append(x)
    heads = []
    for filters, skip in ((512, None), (256, kept[3]), (128, kept[2])):
        if skip is not None:
            x = net.concat([net.upsample(conv(x, filters, 1), (2, 2)), skip])
        for _ in range(2):
            x = conv(conv(x, filters, 1), 2 * filters, 3)
        x = conv(x, filters, 1)
        heads.append(net.conv(conv(x, 2 * filters, 3), 255, (1, 1), activation=NO_ACTIVATION))
    return net.read(*heads)


NETWORKS: dict[str, Callable[[], Network]] = {"alexnet": alexnet, "vgg16": vgg16, "yolov2_first16": yolov2_first16}
