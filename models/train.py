# SPDX-License-Identifier: Apache-2.0
"""Train the shipped detector on synthetic scenes, convert it, measure what was converted, write its card.

    pip install -e .[train]
    python models/train.py [--steps N] [--images N] [--seed S] [--out FOLDER]

Needs TensorFlow, which the package itself does not. Writes warehouse_float32.tflite, warehouse_int8.tflite
and their card, warehouse.yaml. The network is a small one-scale YOLO: plain 3x3 convolutions between max
pools, one residual add and one concatenation. Few 3x3 layers see large images, so a tile that is cut out of
it needs a small halo.

Head: (rows, columns, anchors * (5 + classes)) logits tx, ty, tw, th, objectness, classes, per anchor, decoded
as in YOLOv5: `dnn_dist/detect/yolo.py` has the formulas, `make_loss` their likeness to train with. They are
bounded, which survives 8 bit.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import yaml
from dataset import (
    ANCHORS,
    COLUMNS,
    FIELDS,
    HEIGHT,
    HELD_OUT_SEED,
    ROWS,
    STRIDE,
    WIDTH,
    Scene,
    batches,
    choose_anchors,
    make_scenes,
)
from measure import measure

from dnn_dist.camera.scene import CLASSES
from dnn_dist.detect.card import parse_card

# -------------------------------------------------------- network and loss


def build(batch: int | None):
    """The network; `batch` 1 for conversion, None for training. Batch norms fold into the convolutions."""
    from keras import Model, layers

    def conv(x, channels: int, size: int = 3):
        x = layers.Conv2D(channels, size, padding="same", use_bias=False)(x)
        return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.97)(x))

    def pool(x):
        return layers.MaxPool2D(2)(x)

    picture = layers.Input(batch_shape=(batch, HEIGHT, WIDTH, 3))
    x = pool(conv(picture, 12))  # 1/2
    x = pool(conv(x, 24))  # 1/4
    x = conv(x, 32)
    x = pool(layers.Add()([x, conv(x, 32)]))  # 1/8
    x = conv(conv(x, 64), 64)
    passed = x = pool(x)  # 1/16
    x = conv(x, 96)
    x = conv(x, 128)
    x = conv(x, 64, 1)
    x = conv(x, 128)
    x = layers.Concatenate()([passed, x])
    x = conv(x, 96, 1)
    # Nearly all places are empty: start from "nothing here", or the first steps only unlearn the opposite.
    bias = np.tile(np.array([0, 0, 0, 0, -4.5] + [-1.0] * len(CLASSES), np.float32), ANCHORS)
    head = layers.Conv2D(ANCHORS * FIELDS, 1, bias_initializer=lambda shape, dtype=None: bias)(x)
    return Model(picture, head)


def make_loss(anchors: np.ndarray):
    """Loss of a batch of heads against `encode`d targets: CIoU for boxes, cross-entropy for the rest."""
    import tensorflow as tf

    column, row = np.meshgrid(np.arange(COLUMNS), np.arange(ROWS))
    cell = tf.constant(np.stack([column, row], axis=-1)[None, :, :, None], tf.float32)
    sizes = tf.constant(anchors[None, None, None], tf.float32)

    def ciou(xy, wh, xy_true, wh_true):
        """Complete IoU (Zheng et al. 2020, eq. 10) and plain IoU of boxes given as middle and size."""
        low = tf.maximum(xy - wh / 2, xy_true - wh_true / 2)
        high = tf.minimum(xy + wh / 2, xy_true + wh_true / 2)
        both = tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)
        union = tf.reduce_prod(wh, axis=-1) + tf.reduce_prod(wh_true, axis=-1) - both
        iou = both / (union + 1e-6)
        hull = tf.maximum(xy + wh / 2, xy_true + wh_true / 2)
        hull -= tf.minimum(xy - wh / 2, xy_true - wh_true / 2)
        apart = tf.reduce_sum((xy - xy_true) ** 2, axis=-1) / (tf.reduce_sum(hull**2, axis=-1) + 1e-6)
        turn = tf.atan(wh_true[..., 0] / (wh_true[..., 1] + 1e-6)) - tf.atan(wh[..., 0] / (wh[..., 1] + 1e-6))
        v = 4 / np.pi**2 * turn**2
        alpha = tf.stop_gradient(v / (1 - iou + v + 1e-6))
        return iou - apart - alpha * v, iou

    def loss(head, target):
        head = tf.reshape(head, (-1, ROWS, COLUMNS, ANCHORS, FIELDS))
        xy = (tf.sigmoid(head[..., 0:2]) * 2 - 0.5 + cell) * STRIDE
        wh = sizes * (tf.sigmoid(head[..., 2:4]) * 2) ** 2
        weight = target[..., 4]
        count = tf.reduce_sum(weight) + 1.0
        complete, iou = ciou(xy, wh, target[..., 0:2], target[..., 2:4])
        box = tf.reduce_sum(weight * (1 - complete)) / count
        sure = weight * tf.stop_gradient(
            tf.clip_by_value(iou, 0.0, 1.0)
        )  # objectness learns the IoU it can expect
        cross = tf.nn.sigmoid_cross_entropy_with_logits
        found = tf.reduce_sum(cross(labels=sure, logits=head[..., 4])) / count
        classes = tf.one_hot(tf.cast(target[..., 5], tf.int32), len(CLASSES))
        named = tf.reduce_sum(weight[..., None] * cross(labels=classes, logits=head[..., 5:])) / count
        return 2.0 * box + found + 0.5 * named, box, found, named

    return loss


def train(
    model, scenes: list[Scene], anchors: np.ndarray, steps: int, batch: int, rate: float, seed: int
) -> None:
    """Adam, a short warm-up, then a cosine down to nothing."""
    import tensorflow as tf

    optimizer = tf.keras.optimizers.Adam(rate, clipnorm=10.0)
    loss = make_loss(anchors)

    @tf.function
    def step(images, targets):
        pixels = tf.cast(images, tf.float32) / 255.0
        gain = tf.random.uniform((batch, 1, 1, 3), 0.85, 1.15) * tf.random.uniform(
            (batch, 1, 1, 1), 0.85, 1.15
        )
        pixels = tf.clip_by_value(pixels * gain, 0.0, 1.0)
        with tf.GradientTape() as tape:
            parts = loss(model(pixels, training=True), targets)
        gradients = tape.gradient(parts[0], model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return tf.stack(parts)

    began, mean, warm = time.monotonic(), None, min(100, steps // 10 + 1)
    for i, (images, targets) in enumerate(itertools.islice(batches(scenes, anchors, batch, seed), steps)):
        cosine = 0.5 * (1 + np.cos(np.pi * i / steps))
        optimizer.learning_rate.assign(rate * min(1.0, (i + 1) / warm) * cosine)
        parts = step(images, targets).numpy()
        mean = parts if mean is None else 0.98 * mean + 0.02 * parts
        if i % 20 == 0 or i + 1 == steps:
            speed = (i + 1) * batch / (time.monotonic() - began)
            total, box, found, named = mean
            print(
                f"\rstep {i + 1}/{steps}  {speed:.0f} images/s  loss {total:.3f} "
                f"(box {box:.3f}, found {found:.3f}, named {named:.3f}) ",
                end="\n" if i % 200 == 0 else "",
                flush=True,
            )
    print()


# -------------------------------------------------------- conversion


def convert(model, scenes: list[Scene]) -> dict[str, bytes]:
    """The trained model as {"float32": bytes, "int8": bytes}, batch fixed to 1."""
    import tensorflow as tf

    fixed = build(1)
    fixed.set_weights(model.get_weights())
    float32 = tf.lite.TFLiteConverter.from_keras_model(fixed).convert()

    def representative() -> Iterator[list[np.ndarray]]:
        for image, _ in scenes:
            pixels = image[None].astype(np.float32) / 255
            # Calibration takes the range it sees. Reaching 0 and 1 makes the input's scale 1/255 and its zero
            # point -128, so that an 8-bit pixel goes in as pixel - 128, without loss.
            pixels[0, 0, 0], pixels[0, 0, 1] = 0.0, 1.0
            yield [pixels]

    converter = tf.lite.TFLiteConverter.from_keras_model(fixed)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return {"float32": float32, "int8": converter.convert()}


# -------------------------------------------------------- the card


CARD = """\
# SPDX-License-Identifier: Apache-2.0
# Model card of warehouse_float32.tflite and warehouse_int8.tflite; written by train.py.
classes: [{names}]
input:
  shape: [1, {height}, {width}, 3]  # batch, rows, columns, RGB
  scale: 0.00392156862745098  # pixel / 255; in the int8 file that is the 8-bit value pixel - 128
  offset: 0.0
output:  # raw logits, 1 x {rows} x {columns} x {channels}: per anchor tx, ty, tw, th, objectness, classes
  head: yolo
  decode: yolov5
  strides: [{stride}]  # pixels of the input per cell
  anchors:  # [width, height] in pixels of the input
    - {anchors}
  score_threshold: 0.3
  nms_threshold: 0.5

# From here on for people.
name: warehouse
task: detection of {names} on a warehouse floor
licence: Apache-2.0
decoding:  # s is the sigmoid; x, y is the middle of the box in pixels of the input
  x: (2 s(tx) - 0.5 + column) * stride
  y: (2 s(ty) - 0.5 + row) * stride
  width: anchor_width * (2 s(tw))^2
  height: anchor_height * (2 s(th))^2
  score: s(objectness) * s(class)
network: {{parameters: {parameters}, macs: {macs}}}
{measured}training:
  scenes: drawn by dnn_dist/camera/scene.py, mirrored at random, brightness and colour varied
  images: {images}
  steps: {steps}
  batch: {batch}
  optimizer: Adam, highest learning rate {rate}, warm-up and cosine
  seed: {seed}
  tensorflow: "{tensorflow}"
limits: >-
  Trained on drawn scenes only. It shows what a fleet does with a detector; it has never seen a photograph.
"""
MEASURED = """\
measured:
  what: average precision at IoU 0.5, all-point interpolation, NMS at 0.5, scores from 0.01
  scenes: {held_out}  # held out: drawn from another seed than those trained on
"""


def count(model) -> tuple[int, int]:
    """Parameters once batch norms are folded, and multiply-accumulates of one picture."""
    convs = [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]
    weights = [int(np.prod(conv.kernel.shape)) for conv in convs]
    places = [int(np.prod(conv.output.shape[1:3])) for conv in convs]
    macs = sum(w * p for w, p in zip(weights, places, strict=True))
    return sum(weights) + sum(conv.filters for conv in convs), macs


def card_text(facts: dict, measured: dict[str, dict[str, float]] | None = None) -> str:
    """The card as YAML; without `measured` it has what the head needs, which must be known to measure."""
    lines = MEASURED.format(**facts) if measured else ""
    for kind, values in (measured or {}).items():
        scores = ", ".join(f"{name}: {value:.4f}" for name, value in values.items())
        lines += f"  warehouse_{kind}.tflite: {{{scores}}}\n"
    sizes = {"height": HEIGHT, "width": WIDTH, "rows": ROWS, "columns": COLUMNS, "stride": STRIDE}
    names, channels = ", ".join(CLASSES), ANCHORS * FIELDS
    return CARD.format(names=names, channels=channels, measured=lines, **sizes, **facts)


def main() -> int:
    parser = argparse.ArgumentParser(description="Train, convert and measure the warehouse detector.")
    parser.add_argument("--steps", type=int, default=1500, help="training steps (%(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="pictures per step (%(default)s)")
    parser.add_argument("--images", type=int, default=8000, help="scenes to train on (%(default)s)")
    parser.add_argument("--held-out", type=int, default=600, help="scenes to measure on (%(default)s)")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of scenes, weights and order (%(default)s)")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="that draw scenes (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder to write to (%(default)s)"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        help="FILE.weights.h5: read if it is there, which skips training; else written after it",
    )
    args = parser.parse_args()
    if args.steps < 1 or args.held_out < 1 or args.images < max(args.batch, 100):
        parser.error("needs --steps and --held-out of at least 1, and --images of at least 100 and one batch")

    if find_spec("tensorflow") is None:
        print("train.py: TensorFlow is missing; pip install -e .[train]", file=sys.stderr)
        return 2

    # Scenes come first: processes must not be forked once TensorFlow has started its threads.
    scenes = make_scenes(args.seed, args.images, args.processes)
    held_out = make_scenes(HELD_OUT_SEED, args.held_out, args.processes)
    anchors = choose_anchors(scenes)
    print("anchors (width, height):", anchors.astype(int).tolist())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    tf.keras.utils.set_random_seed(args.seed)
    model = build(None)
    parameters, macs = count(model)
    print(f"{parameters} parameters, {macs / 1e6:.0f} MMACs")
    if args.weights and args.weights.exists():
        model.load_weights(args.weights)
    else:
        train(model, scenes, anchors, args.steps, args.batch, args.rate, args.seed)
        if args.weights:
            model.save_weights(args.weights)

    facts = vars(args) | {
        "anchors": anchors.astype(int).tolist(),
        "parameters": parameters,
        "macs": macs,
        "tensorflow": tf.__version__,
    }
    card = parse_card(yaml.safe_load(card_text(facts)), "the card")
    args.out.mkdir(parents=True, exist_ok=True)
    measured = {}
    for kind, file in convert(model, scenes[:200]).items():
        path = args.out / f"warehouse_{kind}.tflite"
        path.write_bytes(file)
        measured[kind] = measure(path, card, held_out)
        print(path.name, len(file), "bytes", {name: round(ap, 4) for name, ap in measured[kind].items()})
    (args.out / "warehouse.yaml").write_text(card_text(facts, measured), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
