# SPDX-License-Identifier: Apache-2.0
"""The head for classifiers: one vector of class scores for the whole image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dnn_dist.detect.boxes import Detection
from dnn_dist.detect.card import Shape
from dnn_dist.detect.head import Head, softmax
from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.errors import ConfigError


class ClassificationHead(Head):
    """Up to five classes at or above the score threshold, each with the whole image as its box.

    Most classifiers end in a softmax; raw logits are recognised by not being shares of 1. One class, as of a network
    that compares two images, has a score of its own.
    """

    TOP = 5

    def check(self, output_shapes: Sequence[Shape]) -> None:
        if len(output_shapes) != 1 or math.prod(output_shapes[0]) != len(self.card.classes):
            raise ConfigError(
                f"model card: {len(self.card.classes)} classes, the model's outputs are "
                f"{[tuple(shape) for shape in output_shapes]}; classification needs one number per class"
            )

    def __call__(self, outputs: Sequence[np.ndarray], letterbox: Letterbox) -> list[Detection]:
        values = outputs[0].reshape(-1).astype(np.float64)
        if not np.isfinite(values).all():
            return []
        # An int8 softmax sums to 1 only up to its rounding, half a step of 1/256 for each class.
        shares = values.min() >= 0 and abs(values.sum() - 1) <= 0.01 + len(values) / 512
        if len(values) == 1:  # yes or no: a share of all would always be 1
            scores = values if 0 <= values[0] <= 1 else 1 / (1 + np.exp(-values))
        else:
            scores = values if shares else softmax(values)
        order = np.argsort(-scores, kind="stable")[: min(self.TOP, self.max_detections)]
        box = (0.0, 0.0, float(letterbox.image_h), float(letterbox.image_w))
        return [
            Detection(k, self.card.classes[k], score, *box)
            for k, score in zip(order.tolist(), scores[order].tolist(), strict=True)
            if score >= self.score_threshold
        ]
