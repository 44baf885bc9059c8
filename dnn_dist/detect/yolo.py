# SPDX-License-Identifier: Apache-2.0
"""The head for grids of anchors: per cell and anchor the raw tx, ty, tw, th, objectness, one score a class.

In pixels of the model's input, for the cell in row r and column c, with s the sigmoid:

    decode    centre x              width                   score of the best class
    yolov5    (2 s(tx) - 0.5 + c) stride   anchor_w (2 s(tw))^2    s(obj) max s(class)
    yolov2    (s(tx) + c) stride           anchor_w exp(tw)        s(obj) max softmax(class)

and y, height likewise. yolov2: Redmon and Farhadi, YOLO9000, section 2. yolov5: Jocher et al.,
ultralytics/yolov5, whose bounded forms can't run away in training: a centre stays within half a cell of its
own, a side within 4 anchors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dnn_dist.detect.boxes import Detection
from dnn_dist.detect.card import Grid, ModelCard, Shape
from dnn_dist.detect.head import Head, sigmoid, softmax
from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.errors import ConfigError

Formula = Callable[[np.ndarray], np.ndarray]
# Name -> centre within its cell, side in anchors, class scores.
DECODES: dict[str, tuple[Formula, Formula, Formula]] = {
    "yolov5": (lambda t: 2 * sigmoid(t) - 0.5, lambda t: np.square(2 * sigmoid(t)), sigmoid),
    "yolov2": (sigmoid, np.exp, softmax),
}


class YoloHead(Head):
    """One output per stride, each (rows, columns, anchors * (5 + classes))."""

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card)
        if card.decode not in DECODES:
            raise ConfigError(f"model card: decode is '{card.decode}', expected one of {', '.join(DECODES)}")
        self._decode = DECODES[card.decode]

    def check(self, output_shapes: Sequence[Shape]) -> None:
        card, numbers = self.card, 5 + len(self.card.classes)
        # Rounded up, as layers with "same" padding do it.
        expected = [
            (-(-card.height // grid.stride), -(-card.width // grid.stride), len(grid.anchors) * numbers)
            for grid in card.grids
        ]
        found = [tuple(shape) for shape in output_shapes]
        if found != expected:
            raise ConfigError(
                f"model card: strides, anchors and classes make outputs {expected}, the model has {found}; "
                "correct the card (rows are height / stride, channels are anchors x (5 + classes))"
            )

    def __call__(self, outputs: Sequence[np.ndarray], letterbox: Letterbox) -> list[Detection]:
        found = [self._candidates(*pair) for pair in zip(outputs, self.card.grids, strict=True)]
        boxes, scores, classes = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return self.collect(boxes, scores, classes, letterbox)

    def _candidates(self, output: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (N, 4) of the model's input, scores (N,) and classes (N,) of what passes the threshold."""
        centre, side, class_score = self._decode
        rows, columns, _ = output.shape
        raw = output.reshape(rows, columns, len(grid.anchors), -1)
        # No score exceeds its objectness, so most cells end here, before anything else is computed for them.
        objectness = sigmoid(raw[..., 4])
        row, column, anchor = np.nonzero((objectness >= self.score_threshold) & np.isfinite(raw).all(axis=-1))
        cell = raw[row, column, anchor].astype(np.float64)
        by_class = class_score(cell[:, 5:])
        classes = by_class.argmax(axis=1)
        scores = objectness[row, column, anchor] * by_class.max(axis=1)
        middle = (centre(cell[:, :2]) + np.stack([column, row], axis=1)) * grid.stride
        with np.errstate(over="ignore"):  # an infinite side is no box, and NMS drops it
            half = side(cell[:, 2:4]) * np.array(grid.anchors)[anchor] / 2
        x0, y0 = (middle - half).T
        x1, y1 = (middle + half).T
        boxes = np.stack([y0, x0, y1, x1], axis=1)
        good = (scores >= self.score_threshold) & np.isfinite(boxes).all(axis=1)
        return boxes[good], scores[good], classes[good]
