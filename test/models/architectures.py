# SPDX-License-Identifier: Apache-2.0
"""Keras definitions of what keras.applications lacks, and weights that keep activations of any model sane.

Shared by make_zoo.py (narrow, small inputs) and bench/make_full_models.py (as published). Every function takes the
number of channels of the first layer and scales all others with it. Needs TensorFlow 2.21.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

K = tf.keras
L = K.layers

Tensor = Any
Size = tuple[int, int]


def conv(
    x: Tensor, filters: int, kernel: int | Size = 3, act: str | None = "relu", bn: bool = True, **options: Any
) -> Tensor:
    """Convolution, batch norm, activation, as nearly all networks here write it; `leaky` is YOLO's, slope 0.1."""
    x = L.Conv2D(filters, kernel, **{"padding": "same", "use_bias": not bn} | options)(x)
    x = L.BatchNormalization()(x) if bn else x
    if act == "leaky":
        return L.LeakyReLU(negative_slope=0.1)(x)
    return L.Activation(act)(x) if act else x


def alexnet(
    size: Size = (227, 227), first: int = 96, classes: int = 1000, groups: int = 1, dense: int = 4096
) -> K.Model:
    """Krizhevsky, Sutskever, Hinton (2012): local response normalisation, pools that overlap.

    `groups`: 2 for convolutions split as on their two GPUs.
    """
    plain = partial(conv, bn=False)
    x = image = L.Input((*size, 3))
    x = _lrn(plain(x, first, 11, strides=4, padding="valid"))
    x = L.MaxPooling2D(3, 2)(x)
    x = _lrn(plain(x, first * 8 // 3, 5, groups=groups))
    x = L.MaxPooling2D(3, 2)(x)
    x = plain(x, first * 4)
    x = plain(x, first * 4, groups=groups)
    x = plain(x, first * 8 // 3, groups=groups)
    x = L.Flatten()(L.MaxPooling2D(3, 2)(x))
    x = L.Dense(dense, "relu")(L.Dropout(0.5)(L.Dense(dense, "relu")(x)))
    return K.Model(image, L.Dense(classes, "softmax")(x))


def _lrn(x: Tensor) -> Tensor:
    return L.Lambda(lambda t: tf.nn.local_response_normalization(t, 2, bias=2.0, alpha=1e-4, beta=0.75))(x)


def yolov2(
    size: Size = (608, 608), first: int = 32, outputs: int = 425, layers: int | None = None, most: int = 1024
) -> K.Model:
    """Redmon and Farhadi (2016), as in darknet's yolov2.cfg; `most` channels in any layer.

    Its first 16 `layers` (12 convolutions, 4 max pools, to 1/16 of the input) are what DeepThings fuses.
    """
    w = first // 2  # of the table below, in halves of the first layer's channels
    leaky = partial(conv, act="leaky")
    # channels in w, kernel; 0: a max pool
    table = [(2, 3), 0, (4, 3), 0, (8, 3), (4, 1), (8, 3), 0, (16, 3), (8, 1), (16, 3), 0,
             (32, 3), (16, 1), (32, 3), (16, 1), (32, 3), 0,
             (64, 3), (32, 1), (64, 3), (32, 1), (64, 3), (64, 3), (64, 3)]  # fmt: skip
    x = image = L.Input((*size, 3))
    fine = None
    for number, layer in enumerate(table[:layers]):
        x = L.MaxPooling2D(2)(x) if isinstance(layer, int) else leaky(x, min(most, layer[0] * w), layer[1])
        fine = x if number == 16 else fine
    if layers is None:
        passed = leaky(fine, min(most, 4 * w), 1)
        passed = L.Lambda(lambda t: tf.nn.space_to_depth(t, 2))(passed)
        x = leaky(L.Concatenate()([passed, x]), min(most, 64 * w))
        x = conv(x, outputs, 1, act=None, bn=False)
    return K.Model(image, x)


def settle(model: K.Model, seed: int, images: int = 2, top: float = 1.0) -> K.Model:
    """Random weights under which activations neither vanish nor explode; the model itself, for chaining.

    Kernels as He et al. (2015), batch norms with the statistics of their own input for random pictures of values
    0..top.
    """
    rng = np.random.default_rng(seed)
    for weights in model.trainable_weights:
        weights.assign(_drawn(weights.path.rsplit("/", 1)[-1], tuple(weights.shape), rng))
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, L.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0  # statistics of the one run below, nothing of before
    pictures = [rng.random((images, *entry.shape[1:]), np.float32) * np.float32(top) for entry in model.inputs]
    model(pictures if len(pictures) > 1 else pictures[0], training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return model


def for_one_image(model: K.Model) -> K.Model:
    """The model for a batch of one, as it is converted for robots."""
    images = [L.Input(entry.shape[1:], batch_size=1) for entry in model.inputs]
    images = images if len(images) > 1 else images[0]
    return K.Model(images, model(images))


def _drawn(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if name == "gamma":
        return rng.uniform(0.7, 1.3, shape)
    if len(shape) < 2:  # bias, beta
        return rng.normal(0, 0.1, shape)
    fan_in = shape[0] * shape[1] if "depthwise" in name else int(np.prod(shape[:-1]))
    values = rng.standard_normal(shape, np.float32)
    values *= np.sqrt(2 / fan_in)
    return values
