# SPDX-License-Identifier: Apache-2.0
"""Makes test/models/zoo: the networks that people cut, narrow and small, as TensorFlow's converter writes them.

    NAME_float32.tflite
    NAME_float16.tflite    weights in half precision, computed in float32
    NAME_dynamic.tflite    dynamic range: weights int8, activations quantised while it runs
    NAME_int8.tflite       integer throughout, weights per channel
    NAME_anybatch.tflite   float32 from a model whose batch is not fixed: shapes are computed while it runs

Needs TensorFlow 2.21; the files are in the repository, so that tests do without.
Run: python test/models/make_zoo.py [NAME ...]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import numpy as np
import tensorflow as tf
from architectures import K, L, Tensor, alexnet, conv, for_one_image, settle, yolov2

ZOO = Path(__file__).parent / "zoo"
CLASSES = 10
apps = K.applications

# ---------------------------------------------------------------- classifiers


def _head(image: Tensor, x: Tensor) -> K.Model:
    return K.Model(image, L.Dense(CLASSES, "softmax")(L.GlobalAveragePooling2D()(x)))


def _front(model: K.Model, layer: str) -> K.Model:
    """A network of keras.applications up to a layer, with a small classifier behind."""
    return _head(model.input, model.get_layer(layer).output)


def mobilenet_v2() -> K.Model:
    """Inverted residuals with ReLU6; Keras's own code, narrow, up to its seventh block."""
    return _front(
        apps.MobileNetV2(input_shape=(96, 64, 3), alpha=0.35, include_top=False, weights=None), "block_7_add"
    )


def mobilenet_v3() -> K.Model:
    """Hard-swish, squeeze-and-excite with hard-sigmoid; Keras's own code, narrow, up to its fifth block."""
    return _front(
        apps.MobileNetV3Small(input_shape=(96, 64, 3), alpha=0.5, include_top=False, weights=None),
        "expanded_conv_4_add",
    )


def efficientnet_b0() -> K.Model:
    """Swish (LOGISTIC, MUL), squeeze-and-excite in every block; Keras's own code, up to its fourth block."""
    return _front(
        apps.EfficientNetB0(input_shape=(64, 80, 3), include_top=False, weights=None), "block3a_project_bn"
    )


def resnet50() -> K.Model:
    """Bottleneck blocks with projections as in Keras's ResNet50, an eighth as wide, two blocks in each of 3 stages."""

    def block(x: Tensor, filters: int, stride: int = 1, project: bool = False) -> Tensor:
        short = conv(x, 4 * filters, 1, None, strides=stride) if project else x
        x = conv(x, filters, 1, strides=stride)
        x = conv(x, filters, 3)
        return L.ReLU()(L.Add()([short, conv(x, 4 * filters, 1, None)]))

    x = image = L.Input((80, 96, 3))
    x = conv(L.ZeroPadding2D(3)(x), 8, 7, strides=2, padding="valid")
    x = L.MaxPooling2D(3, 2)(L.ZeroPadding2D(1)(x))
    for stage, filters in enumerate((8, 12, 16)):
        x = block(x, filters, 1 if stage == 0 else 2, project=True)
        x = block(x, filters)
    return _head(image, x)


def vgg16() -> K.Model:
    """All 13 convolutions and 5 pools, 1/16 as wide; flattened into three dense layers, the first the largest."""
    x = image = L.Input((64, 64, 3))
    for filters, depth in ((4, 2), (8, 2), (12, 3), (16, 3), (16, 3)):
        for _ in range(depth):
            x = conv(x, filters, bn=False)
        x = L.MaxPooling2D(2)(x)
    x = L.Dense(96, "relu")(L.Flatten()(x))
    x = L.Dense(48, "relu")(x)
    return K.Model(image, L.Dense(CLASSES, "softmax")(x))


def inception_v3() -> K.Model:
    """Four kinds of its blocks: 5 x 5, reduction, factorised 1 x 7 and 7 x 1, split 1 x 3 and 3 x 1; average pools."""
    x = image = L.Input((95, 79, 3))
    valid = partial(conv, padding="valid")
    x = conv(valid(valid(x, 6, strides=2), 6), 8)
    x = L.MaxPooling2D(3, 2)(x)
    x = L.MaxPooling2D(3, 2)(valid(conv(x, 8, 1), 12))

    def pooled(x: Tensor, filters: int) -> Tensor:
        return conv(L.AveragePooling2D(3, 1, "same")(x), filters, 1)

    def join(*branches: Tensor) -> Tensor:
        return L.Concatenate()(list(branches))

    x = join(conv(x, 8, 1), conv(conv(x, 6, 1), 8, 5), conv(conv(conv(x, 8, 1), 8), 8), pooled(x, 6))
    x = join(
        valid(x, 10, strides=2),
        valid(conv(conv(x, 6, 1), 8), 8, strides=2),
        L.MaxPooling2D(3, 2)(x),
    )
    wide, high = (1, 7), (7, 1)
    seven = conv(conv(conv(x, 6, 1), 6, wide), 8, high)
    double = conv(conv(conv(conv(conv(x, 6, 1), 6, high), 6, wide), 6, high), 8, wide)
    x = join(conv(x, 8, 1), seven, double, pooled(x, 8))
    a = conv(x, 8, 1)
    b = conv(conv(x, 8, 1), 8)
    x = join(
        conv(x, 8, 1),
        join(conv(a, 6, (1, 3)), conv(a, 6, (3, 1))),
        join(conv(b, 6, (1, 3)), conv(b, 6, (3, 1))),
        pooled(x, 6),
    )
    return _head(image, x)


def densenet() -> K.Model:
    """Batch norm and ReLU in front of convolutions, every layer concatenated to all before; two dense blocks."""
    x = image = L.Input((72, 88, 3))
    x = conv(L.ZeroPadding2D(3)(x), 12, 7, strides=2, padding="valid")
    x = L.MaxPooling2D(3, 2)(L.ZeroPadding2D(1)(x))

    def before(x: Tensor, filters: int, kernel: int) -> Tensor:
        x = L.ReLU()(L.BatchNormalization()(x))
        return conv(x, filters, kernel, None, bn=False, use_bias=False)

    for number in range(2):
        if number:
            x = L.AveragePooling2D(2)(before(x, x.shape[-1] // 2, 1))
        for _ in range(3):
            x = L.Concatenate()([x, before(before(x, 24, 1), 6, 3)])
    return _head(image, L.ReLU()(L.BatchNormalization()(x)))


def alexnet_small() -> K.Model:
    """Local response normalisation, 11 x 11 with stride 4, pools that overlap, convolutions in two groups."""
    return alexnet((99, 115), first=12, classes=CLASSES, groups=2, dense=48)


def lenet() -> K.Model:
    """LeCun et al. (1998): gray image, tanh, average pools, three dense layers; half as wide."""
    x = image = L.Input((28, 28, 1))
    plain = partial(conv, bn=False, act="tanh")
    x = L.AveragePooling2D(2)(plain(x, 4, 5))
    x = L.AveragePooling2D(2)(plain(x, 8, 5, padding="valid"))
    x = L.Dense(42, "tanh")(L.Dense(60, "tanh")(L.Flatten()(x)))
    return K.Model(image, L.Dense(CLASSES, "softmax")(x))


def siamese() -> K.Model:
    """Two images through one network; the distance of what it says of each."""
    picture = L.Input((48, 40, 3))
    x = picture
    for filters in (8, 12, 16):
        x = L.MaxPooling2D(2)(conv(x, filters))
    tower = K.Model(picture, L.Dense(24)(L.Flatten()(conv(x, 16))))
    images = [L.Input((48, 40, 3)), L.Input((48, 40, 3))]
    x = L.Subtract()([tower(image) for image in images])
    x = L.Lambda(tf.abs)(x)
    return K.Model(images, L.Dense(1, "sigmoid")(x))


def unet() -> K.Model:
    """Down and up with skips: dilated convolutions at the bottom, transposed ones with kernels 2 and 3."""

    def twice(x: Tensor, filters: int, **options: int) -> Tensor:
        return conv(conv(x, filters, **options), filters, **options)

    x = image = L.Input((64, 48, 3))
    skips = []
    for filters in (6, 10):
        x = twice(x, filters)
        skips.append(x)
        x = L.MaxPooling2D(2)(x)
    x = conv(conv(x, 16, dilation_rate=2), 16, dilation_rate=4)
    for filters, kernel, skip in zip((10, 6), (2, 3), reversed(skips), strict=True):
        x = L.Conv2DTranspose(filters, kernel, 2, "same")(x)
        x = twice(L.Concatenate()([x, skip]), filters)
    return K.Model(image, conv(x, 1, 1, "sigmoid", bn=False))


# ---------------------------------------------------------------- detectors


def yolov2_small() -> K.Model:
    """All 23 convolutions and 5 pools of YOLOv2, SPACE_TO_DEPTH and the concatenation; at most 24 channels."""
    return yolov2((96, 128), first=8, outputs=2 * (5 + 3), most=24)


def _pyramid(image: Tensor) -> list[Tensor]:
    """Feature maps at 1/8, 1/16 and 1/32 of the image."""
    x = conv(conv(image, 8, strides=2), 12, strides=2)
    maps = []
    for filters in (16, 24, 32):
        x = L.DepthwiseConv2D(3, 2, "same")(x)
        x = conv(x, filters, 1, "relu6")
        maps.append(x)
    return maps


SSD_SIZE = (96, 128)
SSD_MAPS = ((12, 16), (6, 8), (3, 4))
SSD_SHAPES = ((1.0, 1.0), (1.4142135, 0.7071068))  # sides of a prior against its scale: width, height
SSD_SCALES = (0.2, 0.4, 0.7)


def _ssd_outputs(image: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Box regressions (1, N, 4) and class scores (1, N, classes + 1), the background first."""
    boxes, scores = [], []
    for x in _pyramid(image):
        priors = len(SSD_SHAPES)
        boxes.append(L.Reshape((-1, 4))(conv(x, priors * 4, 3, None, bn=False)))
        scores.append(L.Reshape((-1, classes + 1))(conv(x, priors * (classes + 1), 3, None, bn=False)))
    boxes, scores = L.Concatenate(axis=1)(boxes), L.Concatenate(axis=1)(scores)
    return boxes, L.Activation("sigmoid")(scores)


def ssd() -> K.Model:
    """SSD over three feature maps without post-processing: regressions and scores of 504 priors."""
    image = L.Input((*SSD_SIZE, 3))
    return K.Model(image, list(_ssd_outputs(image, 3)))


def ssd_priors() -> np.ndarray:
    """(N, 4) y, x, height, width of every prior in parts of the image, in the order of the outputs."""
    found = []
    for (rows, columns), scale in zip(SSD_MAPS, SSD_SCALES, strict=True):
        for row in range(rows):
            for column in range(columns):
                for width, height in SSD_SHAPES:
                    found.append(((row + 0.5) / rows, (column + 0.5) / columns, scale * height, scale * width))
    return np.array(found, np.float32)


def ssd_postprocessed() -> K.Model:
    """The same SSD with TFLite_Detection_PostProcess behind: boxes, classes, scores and count of what it found."""
    most, classes = 10, 3
    whole = {"max_detections": most, "max_classes_per_detection": 1, "num_classes": classes}
    real = {
        "nms_score_threshold": 0.2,
        "nms_iou_threshold": 0.5,
        "y_scale": 10.0,
        "x_scale": 10.0,
        "h_scale": 5.0,
        "w_scale": 5.0,
    }
    attributes = ['name: "TFLite_Detection_PostProcess"']
    attributes += [f'attr {{ key: "{key}" value {{ i: {value} }} }}' for key, value in whole.items()]
    attributes += [f'attr {{ key: "{key}" value {{ f: {value} }} }}' for key, value in real.items()]
    attributes += ['attr { key: "use_regular_nms" value { b: false } }']

    # The converter puts its op where this name stands; so does the export of TensorFlow's Object Detection API
    @tf.function(experimental_implements=" ".join(attributes))
    def postprocess(boxes: Tensor, scores: Tensor, priors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tf.constant(0.0, name=name) for name in ("boxes", "classes", "scores", "count"))

    image = L.Input((*SSD_SIZE, 3))
    shapes = [(most, 4), (most,), (most,), ()]
    found = L.Lambda(lambda pair: list(postprocess(*pair, ssd_priors())), output_shape=shapes)
    return K.Model(image, found(list(_ssd_outputs(image, classes))))


def _anchor_free(layout: str) -> K.Model:
    """Two strides; sides as distributions over 8 bins (DFL), decoded within the model as Ultralytics exports it."""
    size, bins, classes = (64, 96), 8, 3
    image = L.Input((*size, 3))
    silu = partial(conv, act="silu")
    x = silu(silu(image, 8, strides=2), 12, strides=2)
    x = silu(x, 16, strides=2)
    halves = L.Lambda(lambda t: tf.split(t, 2, axis=-1))(silu(x, 16, 1))
    y = L.Add()([halves[1], silu(silu(halves[1], 8), 8)])
    fine = silu(L.Concatenate()([*halves, y]), 16, 1)
    coarse = silu(fine, 24, strides=2)
    pooled = [coarse]
    for _ in range(2):
        pooled.append(L.MaxPooling2D(5, 1, "same")(pooled[-1]))
    coarse = silu(L.Concatenate()(pooled), 24, 1)
    resized = (fine.shape[1], fine.shape[2])
    up = L.Lambda(lambda t: tf.image.resize(t, resized, "nearest"), output_shape=(*resized, 24))(coarse)
    fine = silu(L.Concatenate()([up, fine]), 16, 3)

    boxes, scores, centres, strides = [], [], [], []
    for stride, x in ((8, fine), (16, coarse)):
        rows, columns = x.shape[1], x.shape[2]
        boxes.append(L.Reshape((-1, 4 * bins))(conv(silu(x, 16), 4 * bins, 1, None, bn=False)))
        scores.append(L.Reshape((-1, classes))(conv(silu(x, 12), classes, 1, None, bn=False)))
        grid = np.stack(np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5), axis=-1)
        centres.append(grid.reshape(-1, 2))
        strides.append(np.full((rows * columns, 1), stride))
    middle, stride = np.concatenate(centres).astype("f"), np.concatenate(strides).astype("f")
    unit = np.array([1, 1], "f") if layout == "rows" else np.array([size[1], size[0]], "f")

    def decode(boxes: Tensor) -> Tensor:
        shares = tf.nn.softmax(tf.reshape(boxes, (-1, len(middle), 4, bins)))
        sides = tf.reduce_sum(shares * tf.range(bins, dtype=tf.float32), axis=-1)
        low, high = middle - sides[..., :2], middle + sides[..., 2:]
        return tf.concat([(low + high) / 2 * stride / unit, (high - low) * stride / unit], axis=-1)

    sides = L.Lambda(decode, output_shape=(len(middle), 4))(L.Concatenate(axis=1)(boxes))
    found = L.Concatenate()([sides, L.Activation("sigmoid")(L.Concatenate(axis=1)(scores))])
    return K.Model(image, found if layout == "rows" else L.Permute((2, 1))(found))


def yolov8() -> K.Model:
    """Anchor-free: 1 x (4 + 3) x 120, centre and sides in parts of the image; CSP block, pyramid, DFL decoded."""
    return _anchor_free("columns")


def yolov8_rows() -> K.Model:
    """The same turned: 1 x 120 x (4 + 3), in pixels."""
    return _anchor_free("rows")


# ---------------------------------------------------------------- converting


@dataclass(frozen=True)
class Entry:
    """One network of the zoo and the variants that are made of it."""

    make: Callable[[], K.Model]
    variants: str = "float32 int8"
    top: float = 1.0  # values of the picture are 0..top


MODELS = {
    "mobilenet_v2": Entry(mobilenet_v2, "float32 float16 dynamic int8"),
    "mobilenet_v3": Entry(mobilenet_v3, top=255.0),
    "efficientnet_b0": Entry(efficientnet_b0, top=255.0),
    "resnet50": Entry(resnet50, "float32 float16 dynamic int8"),
    "vgg16": Entry(vgg16, "float32 float16 dynamic int8 anybatch"),
    "inception_v3": Entry(inception_v3),
    "densenet": Entry(densenet),
    "alexnet": Entry(alexnet_small),
    "lenet": Entry(lenet),
    "siamese": Entry(siamese),
    "unet": Entry(unet, "float32 float16 int8 anybatch"),
    "yolov2": Entry(yolov2_small),
    "ssd": Entry(ssd, "float32 float16 int8"),
    "ssd_postprocessed": Entry(ssd_postprocessed),
    "yolov8": Entry(yolov8),
    "yolov8_rows": Entry(yolov8_rows),
}
SEEDS = {name: number for number, name in enumerate(MODELS)}
SEEDS["ssd_postprocessed"] = SEEDS["ssd"]  # the same weights, so that what its op finds can be compared


def convert(name: str, model: K.Model, variant: str) -> bytes:
    """The model's file in a variant of the list above."""
    model = model if variant == "anybatch" else for_one_image(model)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.allow_custom_ops = True
    if variant not in ("float32", "anybatch"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if variant == "int8":
        rng = np.random.default_rng(SEEDS[name])
        top = np.float32(MODELS[name].top)
        converter.representative_dataset = lambda: (
            [rng.random((1, *entry.shape[1:]), np.float32) * top for entry in model.inputs] for _ in range(32)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if name == "ssd_postprocessed":  # the built-in op takes float32 alone, so the edges stay float32
            converter.target_spec.supported_ops.append(tf.lite.OpsSet.TFLITE_BUILTINS)
        else:
            converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def main() -> None:
    ZOO.mkdir(exist_ok=True)
    for name in sys.argv[1:] or MODELS:
        K.backend.clear_session()
        entry = MODELS[name]
        model = settle(entry.make(), SEEDS[name], images=8, top=entry.top)
        for variant in entry.variants.split():
            content = convert(name, model, variant)
            (ZOO / f"{name}_{variant}.tflite").write_bytes(content)
            print(name, variant, len(content), flush=True)


if __name__ == "__main__":
    main()
