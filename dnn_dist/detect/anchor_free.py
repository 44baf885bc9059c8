# SPDX-License-Identifier: Apache-2.0
"""The head for lists of boxes that the model has decoded itself: YOLOv8 and its kin, as Ultralytics exports them.

    output:
      head: yolo_anchor_free
      boxes: normalised       # or pixels: what centre and sides are given in, of the model's input
      scores: probabilities   # optional; or logits, which get a sigmoid

The model's one output is (4 + classes, N) or (N, 4 + classes), which its shape tells: centre x, centre y, width,
height, then a score for each class. Files of the TFLite export have normalised boxes, those that came by way of ONNX
mostly pixels: with the wrong one nothing is found, or everything in the top left corner.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dnn_dist.detect.boxes import Detection
from dnn_dist.detect.card import ModelCard, Shape
from dnn_dist.detect.head import Head, sigmoid
from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.errors import ConfigError


class AnchorFreeHead(Head):
    """One output of N boxes, all strides in one list."""

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card)
        normalised = card.output.choice("boxes", ("normalised", "pixels")) == "normalised"
        self._unit = np.array([card.width, card.height] * 2 if normalised else [1.0] * 4)
        self._logits = card.output.choice("scores", ("probabilities", "logits"), "probabilities") == "logits"
        self._numbers = 4 + len(card.classes)

    def check(self, output_shapes: Sequence[Shape]) -> None:
        found = [tuple(shape) for shape in output_shapes]
        if len(found) != 1 or len(found[0]) != 2 or self._numbers not in found[0]:
            raise ConfigError(
                f"model card: {len(self.card.classes)} classes make one output of ({self._numbers}, N) or "
                f"(N, {self._numbers}), the model has {found}; correct the classes, or take another head"
            )

    def __call__(self, outputs: Sequence[np.ndarray], letterbox: Letterbox) -> list[Detection]:
        # Should both extents fit, it is the layout that Ultralytics exports.
        table = outputs[0].T if outputs[0].shape[0] == self._numbers else outputs[0]
        classes = table[:, 4:].argmax(axis=1)
        scores = np.take_along_axis(table, 4 + classes[:, None], axis=1)[:, 0].astype(np.float64)
        scores = sigmoid(scores) if self._logits else scores
        good = (scores >= self.score_threshold) & np.isfinite(table).all(axis=1)
        x, y, width, height = (table[good, :4] * self._unit).T
        boxes = np.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], axis=1)
        return self.collect(boxes, scores[good], classes[good], letterbox)
