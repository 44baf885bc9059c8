# SPDX-License-Identifier: Apache-2.0
"""Synthetic warehouse scenes, as a robot's camera sees them.

They serve twice: `draw_scene` gives independent pictures with boxes to train and measure the shipped
detector, `SceneFilm` gives the moving picture of the synthetic camera. Both come out of one renderer, so what
was learnt on the first works on the second.

Everything is a list of flat quads: those that face away are left out, the rest is painted back to front.
Objects are painted larger than they end up and averaged down, which smooths their edges and gives their
coverage per pixel; from the coverage follow occlusion and the boxes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache

import cv2
import numpy as np

from dnn_dist.camera.hall import Style, paint_floor, paint_hall, paint_lines, paint_shadows
from dnn_dist.camera.pinhole import NEAR_M, Pinhole
from dnn_dist.camera.solids import CLASSES, MAKE, ROBOT, Solid, Standing

MIN_SIDE_PX = 14.0  # an object stands no farther away than where its longer side fills this (at 256 rows)
MIN_VISIBLE = 0.35  # an object of which less than this share can be seen is not labelled
_FAR_M = 10.0  # no object stands farther away


@dataclass(frozen=True)
class Box:
    """What can be seen of one object: class and the half-open region [y0, y1) x [x0, x1) in pixels."""

    class_id: int
    y0: float
    x0: float
    y1: float
    x1: float


def _paint_object(
    image: np.ndarray, camera: Pinhole, style: Style, item: Standing
) -> tuple[slice, slice, np.ndarray, float] | None:
    """Paint one object; returns (rows, columns, coverage, share inside the image), or None if out of view."""
    quads = item.quads()
    normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    eye = np.array([camera.x, camera.height_m, camera.z])
    front = np.einsum("nk,nk->n", normals, eye - quads.mean(axis=1)) > 0
    view = camera.to_view(quads[front])
    if len(view) == 0 or view[..., 2].min() < NEAR_M:
        return None
    pixels = camera.to_pixels(view)
    low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
    x0, y0 = (max(0, int(v) - 1) for v in low)
    x1, y1 = min(camera.width, int(high[0]) + 2), min(camera.height, int(high[1]) + 2)
    if x1 - x0 < 3 or y1 - y0 < 3:
        return None
    normals = normals[front] / np.maximum(np.linalg.norm(normals[front], axis=1, keepdims=True), 1e-12)
    lit = style.ambient + (1.15 - style.ambient) * np.maximum(normals @ style.light, 0)
    colours = np.clip(item.solid.colours[front] * lit[:, None], 0, 255)

    scale = 2 if (x1 - x0) * (y1 - y0) > 6000 else 4
    patch = np.zeros(((y1 - y0) * scale, (x1 - x0) * scale, 4), np.uint8)
    corners = np.round((pixels - [x0, y0]) * (scale * 16) - 8).astype(np.int32)
    for corner, (r, g, b) in zip(corners, colours.tolist(), strict=True):
        cv2.fillConvexPoly(patch, corner, (r, g, b, 255), cv2.LINE_8, shift=4)
    patch = cv2.resize(patch, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA).astype(np.float32)
    cover = patch[..., 3:] * (item.fade / 255)
    region = image[y0:y1, x0:x1]
    # The patch is already weighted with its coverage: it was averaged with the empty black around it.
    region[:] = np.clip(region * (1 - cover) + patch[..., :3] * item.fade + 0.5, 0, 255)

    # The box of the whole object against its part inside the image estimates how much the border cuts off.
    whole = float(np.prod(high - low))
    inside = float(np.prod(np.minimum(high, [camera.width, camera.height]) - np.maximum(low, 0)))
    return slice(y0, y1), slice(x0, x1), cover[..., 0], inside / max(whole, 1e-6)


def _render(
    rng: np.random.Generator, camera: Pinhole, style: Style, objects: list[Standing]
) -> tuple[np.ndarray, list[Box]]:
    """One picture (H, W, 3) uint8 RGB and the boxes of what can be seen in it, far objects first."""
    image = np.empty((camera.height, camera.width, 3), np.uint8)
    image[:] = np.clip(style.wall * 0.8, 0, 255)
    paint_floor(image, camera, style)
    paint_lines(image, camera, style)
    paint_hall(image, camera, style)
    paint_shadows(image, camera, style, objects)
    depth = [float(camera.to_view(np.array([item.x, 0.0, item.z]))[2]) for item in objects]
    painted = []
    for _, item in sorted(zip(depth, objects, strict=True), key=lambda pair: -pair[0]):
        trace = _paint_object(image, camera, style, item)
        if trace is not None:
            painted.append((item, *trace))

    boxes = []
    hidden = np.zeros((camera.height, camera.width), bool)  # covered by something nearer
    for item, rows, columns, cover, inside in reversed(painted):
        mask = cover >= 0.5 * min(item.fade, 1.0)
        free = mask & ~hidden[rows, columns]
        hidden[rows, columns] |= mask
        share = inside * free.sum() / max(int(mask.sum()), 1)
        if share < MIN_VISIBLE or item.fade < 0.6 or not free.any():
            continue
        seen_rows, seen_columns = np.flatnonzero(free.any(axis=1)), np.flatnonzero(free.any(axis=0))
        y0, y1 = rows.start + seen_rows[0], rows.start + seen_rows[-1] + 1
        x0, x1 = columns.start + seen_columns[0], columns.start + seen_columns[-1] + 1
        if max(y1 - y0, x1 - x0) * 256 >= (MIN_SIDE_PX - 2) * camera.height:
            boxes.append(Box(item.class_id, float(y0), float(x0), float(y1), float(x1)))
    return _expose(rng, image, style), boxes[::-1]


@lru_cache(maxsize=4)
def _distance_from_middle(height: int, width: int) -> np.ndarray:
    y, x = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    return (y[:, None] ** 2 + x[None, :] ** 2)[..., None] / 2


def _expose(rng: np.random.Generator, image: np.ndarray, style: Style) -> np.ndarray:
    """Lens and sensor: blur, vignette, colour of the light, noise."""
    if style.blur > 0.25:
        image = cv2.GaussianBlur(image, (0, 0), style.blur)
    height, width = image.shape[:2]
    light = 1 - style.vignette * _distance_from_middle(height, width)
    exposed = image * (light * style.gain.astype(np.float32))
    exposed += style.noise * rng.standard_normal((height, width, 1), dtype=np.float32)
    chroma = rng.standard_normal((height // 2, width // 2, 3), dtype=np.float32)
    exposed += 0.5 * style.noise * cv2.resize(chroma, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.clip(exposed, 0, 255).astype(np.uint8)


def _draw_camera(rng: np.random.Generator, height: int, width: int) -> Pinhole:
    focal = width * rng.uniform(0.8, 0.95)
    return Pinhole(height, width, focal, height * rng.uniform(0.26, 0.42), rng.uniform(0.7, 1.05))


def _farthest(camera: Pinhole, solid: Solid) -> float:
    """The distance in metres at which the solid still fills `MIN_SIDE_PX` (at 256 rows)."""
    size = max(float(solid.quads[..., 1].max()), float(np.ptp(solid.quads[..., 0])))
    return min(_FAR_M, camera.focal_px * size / (1.1 * MIN_SIDE_PX * camera.height / 256))


def draw_scene(rng: np.random.Generator, height: int = 256, width: int = 320) -> tuple[np.ndarray, list[Box]]:
    """One random scene, independent of all others.

    Returns the picture (height, width, 3) uint8 RGB and the boxes of its objects in pixels. An object of
    which less than `MIN_VISIBLE` can be seen, behind others or beyond the border, has no box. A scene may be
    empty.
    """
    style = Style.draw(rng)
    camera = _draw_camera(rng, height, width)
    turn = rng.normal(0, 0.16)
    camera = replace(camera, x=rng.uniform(-0.6, 0.6), z=rng.uniform(0, 50), yaw=turn)
    objects: list[Standing] = []
    for _ in range(int(rng.integers(1, 9))):
        class_id = int(rng.integers(len(CLASSES)))
        solid = MAKE[class_id](rng)
        ahead = math.exp(rng.uniform(math.log(1.6), math.log(_farthest(camera, solid))))
        aside = rng.uniform(-0.56, 0.56) * width / camera.focal_px * ahead
        c, s = math.cos(camera.yaw), math.sin(camera.yaw)
        x, z = camera.x + c * aside + s * ahead, camera.z - s * aside + c * ahead
        item = Standing(class_id, solid, x, z, rng.uniform(-math.pi, math.pi))
        room = all(math.hypot(x - o.x, z - o.z) > 0.95 * (item.radius_m + o.radius_m) for o in objects)
        if room and style.rack_x[0] + 0.4 < x < style.rack_x[1] - 0.4:
            objects.append(item)
    return _render(rng, camera, style, objects)


@dataclass(frozen=True)
class SceneFilm:
    """A robot drives slowly down an aisle behind another robot, past objects that stand or creep about.

    `frame(k)` depends on `seed` and `k` alone, so any frame can be asked for in any order; successive frames
    are about 1/15 s apart. There is no end: what stands at each metre of the aisle is drawn from the seed
    when it comes into view.
    """

    seed: int = 0
    height: int = 256
    width: int = 320
    speed_m: float = 0.03  # metres driven per frame
    _style: Style = field(init=False, repr=False, compare=False)
    _camera: Pinhole = field(init=False, repr=False, compare=False)
    _leader: Solid = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng((self.seed, 0))
        style = Style.draw(rng)
        # A film is looked at: the noisiest and darkest of the cameras that train the detector are left out.
        style = replace(style, noise=min(style.noise, 3.0), gain=style.gain / min(1.0, style.gain[1] / 0.9))
        object.__setattr__(self, "_style", style)
        object.__setattr__(self, "_camera", _draw_camera(rng, self.height, self.width))
        object.__setattr__(self, "_leader", MAKE[ROBOT](rng))

    def frame(self, k: int) -> tuple[np.ndarray, list[Box]]:
        """Picture (height, width, 3) uint8 RGB and boxes in pixels of frame `k` >= 0."""
        x, yaw = 0.2 * math.sin(0.021 * k), 0.06 * math.sin(0.013 * k + 1.0)
        camera = replace(self._camera, x=x, z=self.speed_m * k, yaw=yaw)
        ahead = camera.z + 3.4 + 1.0 * math.sin(0.017 * k)
        weave = 0.3 * math.sin(0.024 * k + 2.0)
        objects = [Standing(ROBOT, self._leader, weave, ahead, 0.25 * math.sin(0.024 * k))]
        for slot in range(math.floor(camera.z), math.ceil(camera.z + _FAR_M)):
            item = self._at(slot, k, camera)
            if item is not None:
                objects.append(item)
        return _render(np.random.default_rng((self.seed, 2, k)), camera, self._style, objects)

    def _at(self, slot: int, k: int, camera: Pinhole) -> Standing | None:
        """What stands at metre `slot` of the aisle: sides alternate, which leaves room to pass."""
        class_id, solid, aside, yaw, phase = _slot(self.seed, slot)
        side = 1 if slot % 2 else -1
        # Not too far aside: there things soon leave the picture, and some frames would be nearly empty.
        room = min(2.2, (self._style.rack_x[1] if side > 0 else -self._style.rack_x[0]) - 0.5)
        x, z = side * (1.05 + aside * (room - 1.05)), float(slot)
        if class_id == ROBOT:  # robots creep along and turn, the rest stands
            z, yaw = z + 0.2 * math.sin(0.03 * k + phase), yaw + 0.5 * math.sin(0.02 * k + phase)
        ahead = float(camera.to_view(np.array([x, 0.0, z]))[2])
        # Not as far off as in `draw_scene`: an aisle is full of far things, the smallest are hard to find.
        fade = (_farthest(camera, solid) / 1.25 - ahead) / 0.6
        if ahead < 0.7 or fade <= 0.02:
            return None
        return Standing(class_id, solid, x, z, yaw, min(1.0, fade))


@lru_cache(maxsize=128)
def _slot(seed: int, slot: int) -> tuple[int, Solid, float, float, float]:
    """Class, solid, place across the aisle (0..1), yaw and phase (radians) of what stands at one metre."""
    rng = np.random.default_rng((seed, 1, slot))
    class_id = int(rng.integers(len(CLASSES)))
    return class_id, MAKE[class_id](rng), rng.random(), rng.uniform(-math.pi, math.pi), rng.uniform(0, 6.28)
