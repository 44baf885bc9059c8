# SPDX-License-Identifier: Apache-2.0
"""Makes the small converter-made models of the tests: NAME_float32.tflite, NAME_int8.tflite (integer inside).

Needs TensorFlow 2.21; the files are in the repository, so that tests do without.
Run: python test/models/make_fixtures.py [NAME...]
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

K = tf.keras
L = K.layers
HERE = Path(__file__).parent


def conv(x, filters, kernel=3, stride=1, dilation=1, padding="same", act=None, bn=False):
    x = L.Conv2D(filters, kernel, stride, padding, dilation_rate=dilation, use_bias=not bn)(x)
    x = L.BatchNormalization()(x) if bn else x
    return L.Activation(act)(x) if act else x


def image(*shape):
    # A batch of one, as dilated convolutions and resizing become ops of their own kind only when it is known
    return L.Input(shape, batch_size=1)


def upsample(x, factor):
    size = (x.shape[1] * factor, x.shape[2] * factor)
    return L.Lambda(lambda t: tf.image.resize(t, size, "nearest"), output_shape=(*size, x.shape[3]))(x)


def chain():
    """Convolutions with folded batch norms, max-pools of both paddings, a leaky ReLU."""
    x = i = image(41, 37, 3)
    x = L.LeakyReLU(negative_slope=0.1)(conv(x, 6, bn=True))
    x = L.MaxPooling2D(2)(x)
    x = conv(x, 8, (5, 2), act="relu", bn=True)
    x = L.MaxPooling2D(3, 2, "same")(x)
    x = conv(x, 8, 3, stride=1, act="relu6")
    return K.Model(i, conv(x, 5, 1))


def residual():
    """Residual blocks, a projection with stride, a concatenation of two depths, a dense tail."""
    x = i = image(32, 40, 3)
    x = conv(x, 8, act="relu")
    x = L.Add()([x, conv(conv(x, 8, act="relu"), 8)])
    y = L.Add()([conv(x, 8, 1, 2), conv(conv(x, 8, 3, 2, act="relu"), 8)])
    y = L.ReLU()(y)
    x = L.Concatenate()([L.MaxPooling2D(2)(x), y, L.AveragePooling2D(3, 2, "same")(x)])
    x = conv(x, 6, 1, act="relu")
    x = L.GlobalAveragePooling2D()(x)
    return K.Model(i, L.Dense(4, activation="softmax")(x))


def mobile():
    """Depthwise convolutions with ReLU6, hard-swish, ZeroPadding2D before stride two, inverted residuals."""
    x = i = image(35, 45, 3)
    x = L.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = conv(x, 8, 3, 2, padding="valid", act="relu6", bn=True)
    y = conv(x, 16, 1, act="relu6", bn=True)
    y = L.DepthwiseConv2D(3, padding="same")(y)
    y = L.Activation("hard_silu")(y)
    x = L.Add()([x, conv(y, 8, 1)])
    x = L.ZeroPadding2D(((1, 1), (2, 1)))(x)
    x = L.DepthwiseConv2D(5, 2, padding="valid", depth_multiplier=2, activation="relu6")(x)
    return K.Model(i, conv(x, 6, 1))


def dilated():
    """Dilated convolutions of both paddings, even kernels, SiLU (LOGISTIC and MUL), tanh."""
    x = i = image(29, 31, 4)
    x = conv(x, 6, 3, dilation=2, act="silu")
    x = conv(x, 6, 2, dilation=3)
    x = L.Activation("tanh")(x)
    x = conv(x, 6, 4, padding="valid", act="sigmoid")
    return K.Model(i, conv(x, 4, 3, dilation=2, padding="valid"))


def pyramid():
    """Two scales joined by nearest-neighbour upsampling; two outputs, as in feature pyramids."""
    i = image(32, 48, 3)
    x = conv(i, 6, 3, 2, act="relu")
    x = a = conv(x, 8, 3, 2, act="relu")
    x = conv(x, 10, 3, 2, act="relu")
    fine = L.Concatenate()([upsample(conv(x, 6, 1, act="relu"), 2), a])
    return K.Model(i, [conv(x, 5, 1), conv(fine, 5, 3)])


def averages():
    """Average pools of both paddings and several strides."""
    x = i = image(33, 26, 3)
    x = conv(x, 6, 3, act="relu")
    x = L.AveragePooling2D(3, 1, "same")(x)
    x = conv(x, 6, 1)
    x = L.AveragePooling2D((4, 2), (3, 2), "same")(x)
    return K.Model(i, L.AveragePooling2D(2, 1, "valid")(conv(x, 5, 3, act="relu")))


def squeeze():
    """Squeeze and excitation: a mean over everything ends what can be tiled, in the middle of the network."""
    x = i = image(24, 24, 3)
    x = conv(x, 8, 3, act="relu")
    s = L.GlobalAveragePooling2D(keepdims=True)(x)
    s = conv(conv(s, 4, 1, act="relu"), 8, 1, act="sigmoid")
    x = L.Multiply()([x, s])
    return K.Model(i, conv(x, 4, 3))


def siamese():
    """Two inputs through shared weights, subtracted and scaled by a constant."""
    a, b = image(20, 22, 2), image(20, 22, 2)
    shared = L.Conv2D(6, 3, padding="same", activation="relu")
    x = L.Subtract()([shared(a), shared(b)])
    x = L.Rescaling(0.5, 0.25)(x)
    return K.Model([a, b], conv(x, 3, 3, 2))


def upsampled(batch: int | None = 1):
    """UpSampling2D, which the converter makes of RESHAPE and TILE, between two scales and at the end."""
    i = L.Input((13, 17, 3), batch_size=batch)
    a = conv(i, 6, 3, 2, act="relu")
    x = conv(conv(a, 8, 3, 2, act="relu"), 6, 1, act="relu")
    x = L.Cropping2D(((0, 1), (0, 1)))(L.UpSampling2D(2)(x))
    x = conv(L.Concatenate()([x, a]), 5, 3, act="relu")
    return K.Model(i, conv(L.UpSampling2D((3, 2))(x), 4, 1))


def upsampled_anybatch():
    """The same of an unknown batch: shapes are worked out while it runs, and 1 stands for them in the file."""
    return upsampled(None)


def pixels():
    """Takes the image's bytes: CAST and a scaling at the front, then QUANTIZE in the integer model."""
    i = L.Input((18, 23, 3), batch_size=1, dtype="uint8")
    x = conv(L.Rescaling(1 / 127.5, -1)(i), 6, 3, 2, act="relu")
    return K.Model(i, conv(x, 4, 3))


MODELS: tuple[Callable[[], K.Model], ...] = (
    chain, residual, mobile, dilated, pyramid, averages, squeeze, siamese,
    upsampled, upsampled_anybatch, pixels)  # fmt: skip


def convert(model: K.Model, quantise: bool, rng: np.random.Generator, edges: tf.DType = tf.int8) -> bytes:
    """float32 throughout, or int8 with inputs and outputs of type `edges`; what takes bytes keeps its edges."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if quantise:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        bytes_ = model.inputs[0].dtype == "uint8"
        converter.representative_dataset = lambda: (
            [
                rng.integers(0, 256, (1, *i.shape[1:]), np.uint8)
                if bytes_
                else rng.random((1, *i.shape[1:]), np.float32)
                for i in model.inputs
            ]
            for _ in range(32)
        )
        if bytes_:
            return converter.convert()
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = edges
    return converter.convert()


def main() -> None:
    for number, make in enumerate(MODELS):
        if sys.argv[1:] and make.__name__ not in sys.argv[1:]:
            continue
        K.backend.clear_session()
        K.utils.set_random_seed(number)
        model = make()
        for weights in model.weights:  # untrained batch norms would fold to nothing
            if weights.name in ("moving_mean", "beta", "bias"):
                weights.assign(np.random.default_rng(number).normal(0, 0.2, weights.shape))
            if weights.name in ("moving_variance", "gamma"):
                weights.assign(np.random.default_rng(number).uniform(0.5, 1.5, weights.shape))
        for dtype in ("float32", "int8"):
            content = convert(model, dtype == "int8", np.random.default_rng(number))
            (HERE / f"{make.__name__}_{dtype}.tflite").write_bytes(content)
            print(make.__name__, dtype, len(content))
        if make is residual:
            for edges in (tf.float32, tf.uint8):
                content = convert(model, True, np.random.default_rng(number), edges)
                (HERE / f"{make.__name__}_int8_{edges.name}_edges.tflite").write_bytes(content)


if __name__ == "__main__":
    main()
