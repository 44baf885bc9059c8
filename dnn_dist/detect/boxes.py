# SPDX-License-Identifier: Apache-2.0
"""Detections, and suppression of boxes that say the same.

Boxes are float arrays (N, 4) of y0, x0, y1, x1 in pixels, half-open like every region here.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

MAX_CANDIDATES = 2000
"""Boxes that enter NMS at most, the best ones: NMS is quadratic, and a broken output offers every box."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One object; its box is half-open, in pixels of the source image."""

    class_id: int
    label: str
    score: float  # 0..1
    y0: float
    x0: float
    y1: float
    x1: float


def suppress(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou_threshold: float, limit: int
) -> np.ndarray:
    """Non-maximum suppression within each class: the indices of at most `limit` boxes that stay.

    The order is fixed: by score, best first, then from the top left. Boxes that are not finite or have no
    area, and scores of 0 or NaN, never stay.

    boxes (N, 4), scores (N,) in 0..1, classes (N,) integers.
    """
    sizes = boxes[:, 2:] - boxes[:, :2]
    sound = np.flatnonzero(np.isfinite(boxes).all(axis=1) & (sizes > 0).all(axis=1) & (scores > 0))
    y0, x0, y1, x1 = boxes[sound].T
    order = np.lexsort((x1, y1, classes[sound], x0, y0, -scores[sound]))  # to the size: no tie is left to the input
    kept = sound[order][:MAX_CANDIDATES]
    if not kept.size:
        return kept
    # Each class gets a stretch of the x axis for itself, so one call serves them all. cv2.dnn.NMSBoxesBatched
    # does the same inside, but OpenCV lacks it before 4.7, and classes collide there at negative coordinates.
    y0, x0, y1, x1 = boxes[kept].astype(np.float64).T
    shift = classes[kept] * (x1.max() - x0.min() + 1.0)
    x0, x1 = x0 + shift, x1 + shift
    xywh = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)
    # OpenCV's sort is stable, so ties stay in our order. Old versions give an (N, 1) array, or () for none.
    picked = cv2.dnn.NMSBoxes(xywh.tolist(), scores[kept].tolist(), 0.0, iou_threshold)
    return kept[np.asarray(picked, np.intp).reshape(-1)[:limit]]
