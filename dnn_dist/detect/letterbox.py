# SPDX-License-Identifier: Apache-2.0
"""Fitting an image of any size into the model's input, and boxes back into the image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

GRAY = 114
"""What YOLO models are trained to see beside the picture."""


@dataclass(frozen=True)
class Letterbox:
    """The image scaled to fit, its aspect kept, centred in the model's input; the rest is gray.

    All sizes in pixels. When the sizes are equal, everything here is the identity.
    """

    image_h: int
    image_w: int
    model_h: int
    model_w: int

    def __post_init__(self) -> None:
        if min(self.image_h, self.image_w, self.model_h, self.model_w) < 1:
            raise ValueError(f"sizes must be at least 1 pixel: {self}")

    @cached_property
    def inner(self) -> tuple[int, int]:
        """Height and width of the scaled image within the model's input."""
        scale = min(self.model_h / self.image_h, self.model_w / self.image_w)
        return max(1, round(self.image_h * scale)), max(1, round(self.image_w * scale))

    @cached_property
    def margin(self) -> tuple[int, int]:
        """Gray rows above the scaled image, and gray columns to its left."""
        return (self.model_h - self.inner[0]) // 2, (self.model_w - self.inner[1]) // 2

    @cached_property
    def _scale(self) -> np.ndarray:
        # Each axis by its own rounded size, half a pixel off at most, so that edges fall on edges exactly.
        return np.array([self.inner[0] / self.image_h, self.inner[1] / self.image_w] * 2)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """RGB uint8 (image_h, image_w, 3) -> RGB uint8 (model_h, model_w, 3), C-contiguous.

        The image itself, not a copy, when the sizes are equal.
        """
        expected = (self.image_h, self.image_w, 3)
        if image.shape != expected or image.dtype != np.uint8:
            raise ValueError(f"the image is {image.dtype} {image.shape}, expected uint8 {expected}")
        if expected[:2] == (self.model_h, self.model_w):
            return np.ascontiguousarray(image)
        # Averaging when shrinking: skipping pixels would turn fine texture into noise unknown to the model.
        shrinks = self.inner < (self.image_h, self.image_w)  # aspect kept, so both sides shrink or none
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        inner = cv2.resize(image, self.inner[::-1], interpolation=method)
        top, left = self.margin
        canvas = np.full((self.model_h, self.model_w, 3), GRAY, np.uint8)
        canvas[top : top + self.inner[0], left : left + self.inner[1]] = inner
        return canvas

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) y0, x0, y1, x1 of the model's input -> the same in the image, clipped to it.

        What lies in the gray margin alone comes back without area. NaN stays NaN.
        """
        inside = (np.asarray(boxes, np.float64) - self.margin * 2) / self._scale
        clipped: np.ndarray = np.clip(inside, 0.0, (self.image_h, self.image_w) * 2)
        return clipped

    def to_model(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) of the image -> the same in the model's input: undoes `to_image` inside the image."""
        moved: np.ndarray = np.asarray(boxes, np.float64) * self._scale + self.margin * 2
        return moved

    def tile_to_image(self, y0: int, x0: int, y1: int, x1: int) -> tuple[int, int, int, int]:
        """A tile of the model's input as whole pixels of the image; touching tiles still touch."""
        edges = np.rint(self.to_image(np.array([[y0, x0, y1, x1]])))[0]
        return int(edges[0]), int(edges[1]), int(edges[2]), int(edges[3])
