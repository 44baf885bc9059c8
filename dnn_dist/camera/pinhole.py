# SPDX-License-Identifier: Apache-2.0
"""The camera of a synthetic scene: a pinhole that turns about the vertical only.

The world is metric: x to the right, y up, z ahead, the floor is y = 0. Tilt is a shifted image plane, so that upright
edges stay upright.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

NEAR_M = 0.3  # quads that reach nearer to the camera than this are dropped


@dataclass(frozen=True)
class Pinhole:
    """Pinhole camera: place and height in metres, yaw in radians, focal length and horizon row in pixels."""

    height: int
    width: int
    focal_px: float
    horizon_px: float
    height_m: float
    x: float = 0.0
    z: float = 0.0
    yaw: float = 0.0

    def to_view(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) to the camera's own axes (x right, y up from the lens, z ahead)."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        x, z = points[..., 0] - self.x, points[..., 2] - self.z
        return np.stack([c * x - s * z, points[..., 1] - self.height_m, s * x + c * z], axis=-1)

    def to_pixels(self, view: np.ndarray) -> np.ndarray:
        """Points in the camera's axes (..., 3) to pixels (..., 2) as (column, row)."""
        scale = self.focal_px / np.maximum(view[..., 2], 1e-3)
        column = 0.5 * self.width + view[..., 0] * scale
        return np.stack([column, self.horizon_px - view[..., 1] * scale], axis=-1)

    def floor_of_pixels(self) -> np.ndarray:
        """Homography (3, 3) from (column, row, 1) to the floor (x, z, 1), for rows below the horizon."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        k = self.focal_px * self.height_m
        # A pixel's ray meets the floor at depth k / (row - horizon); all is multiplied by (row - horizon).
        side = np.array([self.height_m, 0.0, -0.5 * self.width * self.height_m])
        ahead = np.array([0.0, 0.0, k])
        one = np.array([0.0, 1.0, -self.horizon_px])
        return np.stack([c * side + s * ahead + self.x * one, -s * side + c * ahead + self.z * one, one])


def fill(image: np.ndarray, camera: Pinhole, quads: np.ndarray, colours: np.ndarray) -> None:
    """Paint world quads (n, 4, 3) in the given order, both sides, with smooth edges."""
    view = camera.to_view(quads)
    seen = view[..., 2].min(axis=1) > NEAR_M
    pixels = camera.to_pixels(view[seen])
    inside = (pixels[..., 0].max(axis=1) > 0) & (pixels[..., 0].min(axis=1) < camera.width)
    corners = np.round(np.clip(pixels[inside], -4000, 4000) * 16).astype(np.int32)
    for corner, colour in zip(corners, colours[seen][inside].tolist(), strict=True):
        cv2.fillConvexPoly(image, corner, colour, cv2.LINE_AA, shift=4)
