# SPDX-License-Identifier: Apache-2.0
"""What every detection head is, and building the one that a card names.

A head of your own is a subclass of `Head` on the Python path, named `package.module:Class` in the card.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module

import numpy as np

from dnn_dist.detect.boxes import Detection, suppress
from dnn_dist.detect.card import ModelCard, Shape
from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.errors import ConfigError

HEADS = {
    "yolo": "dnn_dist.detect.yolo:YoloHead",
    "yolo_anchor_free": "dnn_dist.detect.anchor_free:AnchorFreeHead",
    "ssd": "dnn_dist.detect.ssd:SsdHead",
    "ssd_postprocessed": "dnn_dist.detect.ssd:SsdPostprocessedHead",
    "classification": "dnn_dist.detect.classify:ClassificationHead",
}
MAX_DETECTIONS = 100


class Head(ABC):
    """From the model's outputs to detections. Its only state is its thresholds, to be set at any time."""

    def __init__(self, card: ModelCard) -> None:
        self.card = card
        self.score_threshold = card.score_threshold
        self.nms_threshold = card.nms_threshold
        self.max_detections = MAX_DETECTIONS

    def check(self, output_shapes: Sequence[Shape]) -> None:  # noqa: B027  (a head may have nothing to check)
        """ConfigError if the card does not fit outputs of these shapes (NHWC without batch)."""

    @abstractmethod
    def __call__(self, outputs: Sequence[np.ndarray], letterbox: Letterbox) -> list[Detection]:
        """Outputs in the model's order, float32 NHWC without batch -> detections in image pixels, best first.

        Whatever the numbers are, NaN and infinity included, this returns: such cells hold no detection.
        """

    def collect(
        self, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, letterbox: Letterbox
    ) -> list[Detection]:
        """The end of most heads: boxes (N, 4) of the model's input -> image pixels -> NMS -> detections."""
        in_image = letterbox.to_image(boxes)
        kept = suppress(in_image, scores, classes, self.nms_threshold, self.max_detections)
        rows = zip(classes[kept].tolist(), scores[kept].tolist(), in_image[kept].tolist(), strict=True)
        return [Detection(k, self.card.classes[k], score, *box) for k, score, box in rows]


def make_head(card: ModelCard, output_shapes: Sequence[Shape] | None = None) -> Head:
    """The head that a card names, checked against the model's outputs if their shapes are given."""
    where = HEADS.get(card.head, card.head)
    module, _, name = where.partition(":")
    if not module or not name:
        raise ConfigError(
            f"model card: there is no head '{card.head}'; "
            f"take one of {', '.join(HEADS)}, or package.module:Class"
        )
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"model card: head '{card.head}' can't be imported: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Head)):
        raise ConfigError(f"model card: head '{card.head}' is no subclass of dnn_dist.detect.head.Head")
    head: Head = kind(card)
    if output_shapes is not None:
        head.check(output_shapes)
    return head


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow for any x; NaN stays NaN."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis; without overflow for finite x."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return shares
