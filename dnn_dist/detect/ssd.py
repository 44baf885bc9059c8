# SPDX-License-Identifier: Apache-2.0
"""The heads for SSD: regressions against priors, and what TensorFlow Lite's post-processing op makes of those.

    output:
      head: ssd
      order: [boxes, scores]       # optional: which of the model's outputs is which
      maps: [[19, 19], [10, 10]]   # rows, columns of each feature map, in the order of the priors
      priors:                      # of each map, those of a cell: [scale, aspect ratio]
        - [[0.2, 1.0], [0.2, 2.0]]
        - [[0.5, 1.0], [0.7, 1.0]]
      box_scales: [10, 10, 5, 5]   # optional: the regressions of y, x, height, width are as many times too large
      scores: probabilities        # optional; or logits, which get a sigmoid, or softmax
      background: true             # optional: the first score is that of nothing

Boxes are (N, 4), scores (N, classes) or (N, 1 + classes), N running over maps, rows, columns, priors of a cell. In
parts of the input, the prior of scale s and aspect ratio a in row r and column c of R x C is

    y = (r + 1/2) / R    x = (c + 1/2) / C    h = s / sqrt(a)    w = s sqrt(a)

and the regression (ty, tx, th, tw) moves it to centre y + h ty / 10, x + w tx / 10 and sides h exp(th / 5),
w exp(tw / 5). Liu et al., SSD: Single Shot MultiBox Detector (2016), section 2.2, in the order of the TensorFlow
Object Detection API.

    output:
      head: ssd_postprocessed
      order: [boxes, classes, scores, count]   # optional: which of the model's outputs is which

is for a model that ends in TFLite_Detection_PostProcess: boxes (n, 4) of y0, x0, y1, x1 in parts of the input,
numbers of classes without background (n), scores (n), and how many of the n hold something. The op's own thresholds
hold first, those of the card after them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from dnn_dist.detect.boxes import Detection
from dnn_dist.detect.card import ModelCard, Shape
from dnn_dist.detect.head import Head, sigmoid, softmax
from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.errors import ConfigError
from dnn_dist.yamlfile import Keys

SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "probabilities": lambda scores: scores,
    "logits": sigmoid,
    "softmax": softmax,
}


class SsdHead(Head):
    """Two outputs: a regression and class scores for each prior."""

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card)
        keys = card.output
        self._boxes, self._scores = _order(keys, ("boxes", "scores"))
        self._priors = _priors(keys)
        self._box_scales = np.array(_numbers(keys, "box_scales", keys.get("box_scales", [10, 10, 5, 5]), 4))
        self._activation = SCORES[keys.choice("scores", SCORES, "probabilities")]
        self._first = int(keys.truth("background", True))

    def check(self, output_shapes: Sequence[Shape]) -> None:
        found = [tuple(shape) for shape in output_shapes]
        priors = len(self._priors)
        expected = [(priors, 4), (priors, self._first + len(self.card.classes))]
        if len(found) != 2 or [found[self._boxes], found[self._scores]] != expected:
            raise ConfigError(
                f"model card: maps, priors and classes make boxes {expected[0]} and scores {expected[1]}, "
                f"the model has {found}; correct the card (order says which output is which)"
            )

    def __call__(self, outputs: Sequence[np.ndarray], letterbox: Letterbox) -> list[Detection]:
        regressions, raw = outputs[self._boxes], outputs[self._scores]
        finite = np.flatnonzero(np.isfinite(regressions).all(axis=1) & np.isfinite(raw).all(axis=1))
        by_class = self._activation(raw[finite])[:, self._first :]
        best = by_class.max(axis=1)
        kept = best >= self.score_threshold
        rows = finite[kept]
        boxes = self._decode(regressions[rows].astype(np.float64), self._priors[rows])
        boxes *= [self.card.height, self.card.width] * 2
        sound = np.isfinite(boxes).all(axis=1)
        classes = by_class[kept].argmax(axis=1)
        return self.collect(boxes[sound], best[kept][sound], classes[sound], letterbox)

    def _decode(self, regressions: np.ndarray, priors: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) in parts of the input; a side that is too large to write down is infinite."""
        moved = regressions / self._box_scales
        middle = priors[:, :2] + moved[:, :2] * priors[:, 2:]
        with np.errstate(over="ignore", invalid="ignore"):
            half = np.exp(moved[:, 2:]) * priors[:, 2:] / 2
            return np.concatenate([middle - half, middle + half], axis=1)


class SsdPostprocessedHead(Head):
    """Four outputs of TFLite_Detection_PostProcess."""

    NAMES = ("boxes", "classes", "scores", "count")

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card)
        self._order = _order(card.output, self.NAMES)

    def check(self, output_shapes: Sequence[Shape]) -> None:
        # The op says its shapes only when it runs, so most files have none, (), for any of them.
        found = [tuple(shape) for shape in output_shapes]
        if len(found) == 4:
            boxes, classes, scores, count = (found[k] for k in self._order)
            known = {shape[0] for shape in (boxes, classes, scores) if shape}
            ranks = len(boxes) in (0, 2) and len(classes) < 2 and len(scores) < 2 and math.prod(count) == 1
            if ranks and len(known) < 2 and boxes[1:] in ((), (4,)):
                return
        raise ConfigError(
            f"model card: the post-processing op gives boxes (n, 4), classes (n), scores (n) and a count, "
            f"the model has {found}; correct order in the card, or take another head"
        )

    def __call__(self, outputs: Sequence[np.ndarray], letterbox: Letterbox) -> list[Detection]:
        boxes, classes, scores, count = (outputs[k] for k in self._order)
        boxes, classes, scores = boxes.reshape(-1, 4), classes.reshape(-1), scores.reshape(-1)
        number = float(count.reshape(-1)[0])
        filled = np.arange(len(boxes)) < number  # nothing when the count is NaN
        known = (classes >= 0) & (classes < len(self.card.classes))
        good = filled & known & (scores >= self.score_threshold) & np.isfinite(boxes).all(axis=1)
        in_pixels = boxes[good].astype(np.float64) * ([self.card.height, self.card.width] * 2)
        return self.collect(in_pixels, scores[good], classes[good].astype(int), letterbox)


def _order(keys: Keys, names: Sequence[str]) -> list[int]:
    """Of each name, the number of the output that holds it."""
    order = keys.get("order", list(names))
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(names):
        raise keys.wrong("order", order, f"{', '.join(names)} in the order of the model's outputs")
    return [order.index(name) for name in names]


def _priors(keys: Keys) -> np.ndarray:
    """(N, 4) y, x, height, width of every prior in parts of the input, as the formulas above have it."""
    maps = keys.items("maps", "a list of [rows, columns]")
    cells = keys.items("priors", "for each map a list of [scale, aspect ratio]")
    if len(cells) != len(maps) or not all(isinstance(cell, list) and cell for cell in cells):
        raise keys.wrong("priors", cells, f"a list of [scale, aspect ratio] for each of {len(maps)} maps")
    found = []
    for extents, cell in zip(maps, cells, strict=True):
        rows, columns = _numbers(keys, "maps", extents, 2)
        if not (rows.is_integer() and columns.is_integer() and rows * columns < 1e6):
            raise keys.wrong("maps", extents, "[rows, columns] of a feature map")
        scales, ratios = np.array([_numbers(keys, "priors", prior, 2) for prior in cell]).T
        sides = np.stack([scales / np.sqrt(ratios), scales * np.sqrt(ratios)], axis=1)
        row, column, prior = np.indices((int(rows), int(columns), len(sides))).reshape(3, -1)
        found.append(np.column_stack([(row + 0.5) / rows, (column + 0.5) / columns, sides[prior]]))
    return np.concatenate(found)


def _numbers(keys: Keys, key: str, value: object, count: int) -> list[float]:
    if isinstance(value, list) and len(value) == count:
        numbers = [float(entry) for entry in value if isinstance(entry, (int, float)) and 0 < entry < 1e9]
        if len(numbers) == count:
            return numbers
    raise keys.wrong(key, value, f"{count} numbers above 0")
