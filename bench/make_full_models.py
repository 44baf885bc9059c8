# SPDX-License-Identifier: Apache-2.0
"""Writes the networks of the papers at full size, with random weights, as .tflite files: 1.3 GB in all.

    python bench/make_full_models.py FOLDER [NAME ...]

Files that are there already are left alone. Needs TensorFlow 2.21 (pip install -e .[train]) and 4 GB of memory.
Kernels are drawn as in He et al. (2015) and batch norms fit their inputs, so that numbers in the network are as
large as in a trained one; they recognise nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test" / "models"))
from architectures import K, alexnet, for_one_image, settle, yolov2

apps = K.applications
MODELS: dict[str, Callable[[], K.Model]] = {
    "vgg16": lambda: apps.VGG16(weights=None),
    "resnet50": lambda: apps.ResNet50(weights=None),
    "mobilenet_v2": lambda: apps.MobileNetV2(weights=None),
    "yolov2_608": yolov2,
    "yolov2_608_first16": lambda: yolov2(layers=16),
    "efficientnet_b0": lambda: apps.EfficientNetB0(weights=None),
    "inception_v3": lambda: apps.InceptionV3(weights=None),
    "densenet121": lambda: apps.DenseNet121(weights=None),
    "alexnet": alexnet,
}
TOPS = {"efficientnet_b0": 255.0}  # values of its pictures are 0..255, those of the others 0..1


def convert(model: K.Model) -> bytes:
    """float32, for one image at a time."""
    return tf.lite.TFLiteConverter.from_keras_model(for_one_image(model)).convert()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODELS)}; all by default")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(MODELS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; take of {', '.join(MODELS)}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(MODELS):
        path = arguments.folder / f"{name}.tflite"
        if path.exists() or (arguments.names and name not in arguments.names):
            continue
        start = time.monotonic()
        K.backend.clear_session()
        partial = path.with_suffix(".part")  # so that a file that has its name is whole
        model = settle(MODELS[name](), seed, top=TOPS.get(name, 1.0))
        partial.write_bytes(convert(model))
        partial.rename(path)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB in {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
