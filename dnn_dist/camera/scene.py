# SPDX-License-Identifier: Apache-2.0
"""Synthetic warehouse scenes, as a robot's camera sees them.

They serve twice: `draw_scene` gives independent pictures with boxes to train and measure the shipped
detector, `SceneFilm` gives the moving picture of the synthetic camera. Both come out of one renderer, so what
was learnt on the first works on the second.

The world is metric: x to the right, y up, z ahead, the floor is y = 0. The camera is a pinhole that turns
about the vertical only; tilt is a shifted image plane, so that upright edges stay upright. Everything is a
list of flat quads with outward winding: quads that face away are left out, the rest is painted back to front.
Objects are painted larger than they end up and averaged down, which smooths their edges and gives their
coverage per pixel; from the coverage follow occlusion and the boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

CLASSES = ("cone", "crate", "barrel", "robot")
CONE, CRATE, BARREL, ROBOT = range(4)

MIN_SIDE_PX = 14.0  # an object stands no farther away than where its longer side fills this (at 256 rows)
MIN_VISIBLE = 0.35  # an object of which less than this share can be seen is not labelled
_NEAR_M = 0.3  # quads that reach nearer to the camera than this are dropped
_FAR_M = 10.0  # no object stands farther away

Colour = tuple[float, float, float]  # RGB, 0..255
Corners = list[Any]  # nested sequences or arrays that make an array of quads


@dataclass(frozen=True)
class Box:
    """What can be seen of one object: class and the half-open region [y0, y1) x [x0, x1) in pixels."""

    class_id: int
    y0: float
    x0: float
    y1: float
    x1: float


@dataclass(frozen=True)
class _Camera:
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


# -------------------------------------------------------- solids: quads (n, 4, 3) in metres, colours (n, 3)


@dataclass(frozen=True)
class _Solid:
    quads: np.ndarray
    colours: np.ndarray

    def __add__(self, other: _Solid) -> _Solid:
        return _Solid(
            np.concatenate([self.quads, other.quads]), np.concatenate([self.colours, other.colours])
        )

    def shift(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> _Solid:
        return _Solid(self.quads + np.array([x, y, z]), self.colours)


def _solid(quads: Corners, colour: Colour | np.ndarray) -> _Solid:
    array = np.asarray(quads, dtype=np.float64).reshape(-1, 4, 3)
    return _Solid(array, np.broadcast_to(np.asarray(colour, dtype=np.float64), (len(array), 3)))


def _block(width: float, height: float, depth: float, colour: Colour | np.ndarray) -> _Solid:
    """Upright block that stands on the floor, without its underside."""
    w, d, h = width / 2, depth / 2, height
    corners = [(-w, -d), (w, -d), (w, d), (-w, d)]
    sides = [
        [(ax, 0, az), (ax, h, az), (bx, h, bz), (bx, 0, bz)]
        for (ax, az), (bx, bz) in zip(corners, corners[1:] + corners[:1], strict=True)
    ]
    return _solid([*sides, [(-w, h, -d), (-w, h, d), (w, h, d), (w, h, -d)]], colour)


def _turned(
    radius: float, top_radius: float, height: float, colour: Colour | np.ndarray, sides: int = 16
) -> _Solid:
    """Cylinder or blunt cone that stands on the floor: its mantle and its lid."""
    angle = np.arange(sides) * (2 * math.pi / sides)
    ring = np.stack([np.cos(angle), np.zeros(sides), np.sin(angle)], axis=1)
    low, high = ring * radius, ring * top_radius + np.array([0.0, height, 0.0])
    mantle = np.stack([low, high, np.roll(high, -1, axis=0), np.roll(low, -1, axis=0)], axis=1)
    half = sides // 2
    lid = [[high[i], high[-1 - i], high[-2 - i], high[i + 1]] for i in range(half - 1)]
    return _solid([*mantle, *lid], colour)


def _panel(
    block_width: float, depth: float, u0: float, u1: float, y0: float, y1: float, colour: np.ndarray
) -> _Solid:
    """The same rectangle painted on all four sides of a block; u runs from 0 to 1 along each side."""
    quads = []
    for turn in range(4):
        w, d = (block_width, depth) if turn % 2 == 0 else (depth, block_width)
        a, b, z = (u0 - 0.5) * w, (u1 - 0.5) * w, -d / 2 - 0.004
        c, s = (1, 0, -1, 0)[turn], (0, 1, 0, -1)[turn]
        quads.append([(c * x - s * z, y, s * x + c * z) for x, y in ((a, y0), (a, y1), (b, y1), (b, y0))])
    return _solid(quads, colour)


def _pick(rng: np.random.Generator, palette: Sequence[Colour], spread: float = 14.0) -> np.ndarray:
    colour = np.array(palette[int(rng.integers(len(palette)))]) + rng.normal(0, spread, 3)
    return np.clip(colour, 12, 250)


def _cone(rng: np.random.Generator) -> _Solid:
    height, radius = rng.uniform(0.45, 0.8), rng.uniform(0.13, 0.19)
    colour = _pick(rng, [(240, 95, 25), (245, 80, 30), (225, 60, 35), (250, 150, 20), (200, 215, 40)])
    band = _pick(rng, [(238, 238, 235), (225, 225, 230), (210, 210, 190)], 6.0)
    base = colour if rng.random() < 0.5 else _pick(rng, [(35, 35, 38)], 6.0)
    solid = _block(2.5 * radius, 0.04, 2.5 * radius, base)
    cuts = [0.0, 0.28, 0.48, 0.64, 0.8, 1.0] if rng.random() < 0.6 else [0.0, 0.42, 0.68, 1.0]
    for i, (a, b) in enumerate(pairwise(cuts)):
        low, high = radius * (1 - 0.85 * a), radius * (1 - 0.85 * b)
        part = _turned(low, high, (height - 0.04) * (b - a), band if i % 2 else colour)
        solid = solid + part.shift(y=0.04 + (height - 0.04) * a)
    return solid


def _crate(rng: np.random.Generator) -> _Solid:
    width, depth, height = rng.uniform(0.45, 0.85), rng.uniform(0.45, 0.75), rng.uniform(0.35, 0.8)
    wooden = rng.random() < 0.7
    if wooden:
        colour = _pick(rng, [(178, 134, 84), (150, 106, 62), (198, 160, 108), (128, 92, 58)])
    else:
        colour = _pick(rng, [(45, 92, 160), (60, 120, 80), (120, 124, 130), (170, 50, 45)])
    frame = np.clip(colour * rng.uniform(1.08, 1.25), 0, 250)
    gap = colour * rng.uniform(0.35, 0.55)
    solid = _block(width, height, depth, gap if wooden else colour)
    planks = int(rng.integers(3, 6))
    for i in range(planks):
        y0, y1 = height * (i + 0.06) / planks, height * (i + 0.94) / planks
        tone = colour * rng.uniform(0.88, 1.08) if wooden else colour * (0.72 if i % 2 else 1.0)
        solid = solid + _panel(width, depth, 0.02, 0.98, y0, y1, tone)
    for u0, u1 in ((0.0, 0.13), (0.87, 1.0)):
        solid = solid + _panel(width, depth, u0, u1, 0.0, height, frame)
    for y0 in (0.0, 0.89 * height):
        solid = solid + _panel(width, depth, 0.0, 1.0, y0, y0 + 0.11 * height, frame)
    w, d, h = width / 2, depth / 2, height + 0.004
    for i in range(planks if wooden else 1):
        z0, z1 = -d + depth * (i + 0.05) / planks, -d + depth * (i + 0.95) / planks
        if not wooden:
            z0, z1 = -0.85 * d, 0.85 * d
        lid = colour * (rng.uniform(0.95, 1.12) if wooden else 0.55)
        solid = solid + _solid(
            [[(-w * 0.94, h, z0), (-w * 0.94, h, z1), (w * 0.94, h, z1), (w * 0.94, h, z0)]], lid
        )
    return solid


def _barrel(rng: np.random.Generator) -> _Solid:
    height, radius = rng.uniform(0.65, 0.95), rng.uniform(0.22, 0.31)
    palette = [(35, 85, 165), (180, 45, 40), (45, 120, 70), (125, 130, 135), (215, 170, 40), (48, 50, 55)]
    colour = _pick(rng, palette)
    rib = np.clip(colour * rng.choice([0.72, 1.25]), 0, 255)
    label = _pick(rng, [(225, 225, 215), (235, 200, 60)], 6.0) if rng.random() < 0.35 else colour
    cuts = [0.0, 0.04, 0.32, 0.36, 0.64, 0.68, 0.95, 1.0]
    parts = [rib, colour, rib, label, rib, colour, rib]
    solid = _turned(radius, radius, 0.001, colour)
    for a, b, tone in zip(cuts, cuts[1:], parts, strict=False):
        r = radius * (1.04 if tone is rib else 1.0)
        solid = solid + _turned(r, r, height * (b - a), tone).shift(y=height * a)
    lid = _turned(radius * 0.9, radius * 0.9, 0.002, colour * 0.85)
    bung = _turned(radius * 0.16, radius * 0.16, 0.012, rib, 8)
    return solid + lid.shift(y=height) + bung.shift(x=radius * 0.5, y=height)


def _robot(rng: np.random.Generator) -> _Solid:
    width, depth = rng.uniform(0.48, 0.68), rng.uniform(0.55, 0.8)
    height, lift = rng.uniform(0.2, 0.32), rng.uniform(0.06, 0.1)
    palette = [(228, 230, 232), (200, 204, 208), (40, 110, 190), (240, 140, 30), (52, 56, 62), (60, 170, 160)]
    colour = _pick(rng, palette, 8.0)
    dark = np.array([28.0, 28.0, 32.0])
    solid = _block(width * 0.9, lift, depth * 0.9, dark * 0.6) + _block(width, height, depth, colour).shift(
        y=lift
    )
    stripe = _pick(rng, [(60, 210, 240), (90, 240, 120), (245, 70, 60)], 8.0)
    solid = solid + _panel(width, depth, 0.0, 1.0, lift, lift + 0.2 * height, dark)
    solid = solid + _panel(width, depth, 0.08, 0.92, lift + 0.42 * height, lift + 0.56 * height, stripe)
    solid = solid + _wheels(width, depth, rng.uniform(0.09, 0.13))
    top = lift + height
    deck = _block(width * 0.72, 0.05, depth * 0.72, colour * 0.8).shift(y=top)
    lidar = _turned(0.1, 0.1, 0.05, dark) + _turned(0.085, 0.085, 0.07, dark + 35).shift(y=0.05)
    if rng.random() < 0.5:  # a mast with a screen and the lidar on it
        mast = rng.uniform(0.15, 0.3)
        post = _block(0.07, mast, 0.07, dark + 40) + _block(0.26, 0.15, 0.06, dark).shift(y=mast)
        post = post + _panel(0.26, 0.06, 0.1, 0.9, mast + 0.03, mast + 0.12, stripe)
        return solid + deck + post.shift(y=top + 0.05)
    return solid + deck + lidar.shift(y=top + 0.05, z=rng.uniform(-0.1, 0.1))


def _wheels(width: float, depth: float, radius: float) -> _Solid:
    """Four wheels: flat twelve-sided discs with a hub, a little outside the chassis so that they cover it."""
    quads: Corners = []
    colours: Corners = []
    angle = np.arange(12) * (2 * math.pi / 12)
    for side in (-1, 1):
        for z in (-0.3 * depth, 0.3 * depth):
            for r, tone, lift in ((radius, 30.0, 0.02), (radius * 0.5, 130.0, 0.024)):
                x = side * (width / 2 + lift)
                rim = np.stack(
                    [np.full(12, x), radius + r * np.sin(angle), z + side * r * np.cos(angle)], axis=1
                )
                quads += [[rim[i], rim[-1 - i], rim[-2 - i], rim[i + 1]] for i in range(5)]
                colours += [[tone, tone, tone + 3]] * 5
    return _Solid(np.asarray(quads), np.asarray(colours))


_MAKE = {CONE: _cone, CRATE: _crate, BARREL: _barrel, ROBOT: _robot}


@dataclass(frozen=True)
class _Object:
    """A solid on the floor: place (metres), turn (radians), how much it has faded in (0..1)."""

    class_id: int
    solid: _Solid
    x: float
    z: float
    yaw: float
    fade: float = 1.0

    def quads(self) -> np.ndarray:
        """World quads (n, 4, 3)."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        q = self.solid.quads
        x, z = c * q[..., 0] - s * q[..., 2] + self.x, s * q[..., 0] + c * q[..., 2] + self.z
        return np.stack([x, q[..., 1], z], axis=-1)

    @property
    def radius_m(self) -> float:
        return float(np.hypot(self.solid.quads[..., 0], self.solid.quads[..., 2]).max())


# -------------------------------------------------------- the hall: floor, racks, walls, light


@dataclass(frozen=True)
class _Style:
    """What one hall looks like and how one camera sees it; lengths in metres, colours RGB."""

    floor: np.ndarray
    texture: int
    texture_contrast: float
    joints: bool
    line: np.ndarray
    line_x: tuple[float, ...]  # floor lines along the aisle
    line_gap: bool  # dashed
    wall: np.ndarray
    wall_m: float  # distance of the end wall
    rack_x: tuple[float, float]  # left and right rack
    racks: bool
    steel: np.ndarray
    beam: np.ndarray
    light: np.ndarray  # unit vector to the light
    ambient: float
    gain: np.ndarray  # colour of the light
    shadow: float
    noise: float
    blur: float
    vignette: float
    seed: int

    @staticmethod
    def draw(rng: np.random.Generator) -> _Style:
        light = np.array([rng.uniform(-0.8, 0.8), rng.uniform(0.7, 1.4), rng.uniform(-0.9, 0.1)])
        warmth = rng.normal(0, 0.05)
        grey = rng.uniform(95, 190)
        tint = rng.normal(0, 18, 3) if rng.random() < 0.33 else rng.normal(0, 7, 3)
        return _Style(
            floor=np.clip(grey + tint, 60, 215),
            texture=int(rng.integers(6)),
            texture_contrast=rng.uniform(0.08, 0.3),
            joints=bool(rng.random() < 0.5),
            line=_pick(rng, [(235, 195, 40), (235, 235, 230), (70, 130, 200), (205, 60, 50)], 10.0),
            line_x=tuple(rng.uniform(0.5, 2.6, int(rng.integers(1, 3))) * rng.choice([-1.0, 1.0])),
            line_gap=bool(rng.random() < 0.35),
            wall=np.clip(rng.uniform(90, 205) + rng.normal(0, 12, 3), 50, 230),
            wall_m=rng.uniform(9.5, 15.0),
            rack_x=(-rng.uniform(2.6, 4.5), rng.uniform(2.6, 4.5)),
            racks=bool(rng.random() < 0.8),
            steel=_pick(rng, [(40, 75, 140), (70, 80, 90), (30, 100, 80)], 10.0),
            beam=_pick(rng, [(220, 105, 30), (205, 160, 40), (120, 125, 130)], 10.0),
            light=light / np.linalg.norm(light),
            ambient=rng.uniform(0.45, 0.7),
            gain=rng.uniform(0.72, 1.22) * np.array([1 + warmth, 1.0, 1 - warmth]),
            shadow=rng.uniform(0.25, 0.6),
            noise=rng.uniform(1.0, 7.0),
            blur=max(0.0, rng.uniform(-0.5, 1.0)),
            vignette=rng.uniform(0.0, 0.35),
            seed=int(rng.integers(2**31)),
        )


@lru_cache(maxsize=8)
def _texture(kind: int) -> np.ndarray:
    """Wrapping floor texture (256, 256) uint8 about 128: noise of several grains, with stains."""
    rng = np.random.default_rng(1000 + kind)
    texture = np.zeros((256, 256), np.float32)
    for cells in (4, 16, 64, 128):
        grain = np.pad(rng.standard_normal((cells, cells)).astype(np.float32), 2, mode="wrap")
        step = 256 // cells
        large = cv2.resize(grain, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        texture += large[2 * step : -2 * step, 2 * step : -2 * step] * rng.uniform(0.4, 1.0)
    wrapped: np.ndarray = np.clip(128 + 40 * texture / texture.std(), 0, 255).astype(np.uint8)
    return wrapped


def _fill(image: np.ndarray, camera: _Camera, quads: np.ndarray, colours: np.ndarray) -> None:
    """Paint world quads (n, 4, 3) in the given order, both sides, with smooth edges."""
    view = camera.to_view(quads)
    seen = view[..., 2].min(axis=1) > _NEAR_M
    pixels = camera.to_pixels(view[seen])
    inside = (pixels[..., 0].max(axis=1) > 0) & (pixels[..., 0].min(axis=1) < camera.width)
    corners = np.round(np.clip(pixels[inside], -4000, 4000) * 16).astype(np.int32)
    for corner, colour in zip(corners, colours[seen][inside].tolist(), strict=True):
        cv2.fillConvexPoly(image, corner, colour, cv2.LINE_AA, shift=4)


def _paint_floor(image: np.ndarray, camera: _Camera, style: _Style) -> None:
    top = max(0, int(camera.horizon_px) + 1)
    texels_per_m = 256 / 3.0
    to_texture = np.diag([texels_per_m, texels_per_m, 1.0]) @ camera.floor_of_pixels()
    to_texture = to_texture @ np.array([[1, 0, 0.5], [0, 1, top + 0.5], [0, 0, 1.0]])
    size = (camera.width, camera.height - top)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    texture = cv2.warpPerspective(
        _texture(style.texture), to_texture, size, flags=flags, borderMode=cv2.BORDER_WRAP
    )
    # Far away one pixel covers many texels, so contrast fades out there instead of flickering.
    near = np.linspace(0, 1, size[1], dtype=np.float32)[:, None] ** 0.7
    tone = 1 + (texture.astype(np.float32) - 128) / 128 * style.texture_contrast * near
    image[top:] = np.clip(
        tone[..., None] * style.floor.astype(np.float32) * (0.86 + 0.14 * near[..., None]), 0, 255
    )


def _strips_along(x: float, width: float, z0: int, z1: int, length: float, y: float = 0.0) -> np.ndarray:
    z = np.arange(z0, z1)[:, None]
    left, right = np.full_like(z, x - width / 2, dtype=float), np.full_like(z, x + width / 2, dtype=float)
    corners = [(left, z), (left, z + length), (right, z + length), (right, z)]
    return np.stack([np.concatenate([a, np.full_like(a, y), b], axis=1) for a, b in corners], axis=1)


def _paint_lines(image: np.ndarray, camera: _Camera, style: _Style) -> None:
    z0, z1 = int(camera.z), int(camera.z + style.wall_m) + 1
    for x in style.line_x:
        quads = _strips_along(x, 0.1, z0, z1, 0.6 if style.line_gap else 1.0)
        _fill(image, camera, quads, np.broadcast_to(style.line, (len(quads), 3)))
    if style.joints:
        dark = style.floor * 0.72
        for x in (-3.75, -2.25, -0.75, 0.75, 2.25, 3.75):
            quads = _strips_along(x, 0.018, z0, z1, 1.0)
            _fill(image, camera, quads, np.broadcast_to(dark, (len(quads), 3)))
        z = (np.arange(math.floor(z0 / 1.5), math.ceil(z1 / 1.5)) * 1.5)[:, None, None]
        across = np.array([[-6, 0, 0], [-6, 0, 0.018], [6, 0, 0.018], [6, 0, 0.0]])[None] + z * np.array(
            [0, 0, 1.0]
        )
        _fill(image, camera, across, np.broadcast_to(dark, (len(across), 3)))


@lru_cache(maxsize=256)
def _bay(seed: int, side: int, bay: int, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Goods on one bay of a rack: rectangles (n, 4, 2) as (z from the bay's start, y) and colours (n, 3)."""
    rng = np.random.default_rng((seed, side, bay + 10_000))
    quads, colours = [], []
    for level in (0.12, 1.05, 1.95):
        z = 0.12
        while z < length - 0.4:
            w, h = rng.uniform(0.35, 0.9), rng.uniform(0.3, 0.75)
            if rng.random() < 0.75:
                end = min(z + w, length - 0.1)
                quads.append([(z, level), (z, level + h), (end, level + h), (end, level)])
                colours.append(
                    _pick(rng, [(150, 120, 85), (120, 95, 70), (170, 170, 165), (80, 95, 120)]) * 0.7
                )
            z += w + rng.uniform(0.02, 0.15)
    return np.asarray(quads, dtype=float).reshape(-1, 4, 2), np.asarray(colours, dtype=float).reshape(-1, 3)


def _paint_hall(image: np.ndarray, camera: _Camera, style: _Style) -> None:
    """End wall, then the two sides from far to near: racks with goods, or plain walls with pillars."""
    end = camera.z + style.wall_m

    def upright(x0: float, z0: float, x1: float, z1: float, y0: float, y1: float) -> Corners:
        return [(x0, y0, z0), (x0, y1, z0), (x1, y1, z1), (x1, y0, z1)]

    quads: Corners = [upright(-30, end, 30, end, 0, 9), upright(-30, end, 30, end, 0, 0.25)]
    colours: Corners = [style.wall, style.wall * 0.6]
    rng = np.random.default_rng((style.seed, 7))
    for _ in range(5):  # doors, signs and windows
        x, w, y, h = rng.uniform(-7, 7), rng.uniform(0.4, 2.2), rng.uniform(0, 2.0), rng.uniform(0.5, 1.8)
        quads.append(upright(x, end - 0.02, x + w, end - 0.02, y, y + h))
        colours.append(np.clip(style.wall * rng.uniform(0.55, 1.3) + rng.normal(0, 14, 3), 20, 245))
    length = 2.4
    last, first = math.ceil(end / length) - 1, math.floor((camera.z + _NEAR_M) / length)
    for bay in range(last, first - 1, -1):
        z = bay * length
        for side, x in enumerate(style.rack_x):
            dim = 0.85 if side else 0.72
            if not style.racks:
                quads += [upright(x, z, x, z + length, 0, 9), upright(x, z, x, z + length, 0, 0.2)]
                colours += [style.wall * dim, style.wall * dim * 0.6]
                quads.append(upright(x, z, x, z + 0.25, 0, 9))
                colours.append(style.wall * dim * 0.85)
                continue
            quads.append(upright(x, z, x, z + length, 0, 3.0))
            colours.append(style.wall * 0.36)
            goods, tones = _bay(style.seed, side, bay, length)
            quads += [[(x, y, z + dz) for dz, y in corners] for corners in goods.tolist()]
            colours += list(tones * (0.8 + dim * 0.4))
            for y in (0.06, 0.97, 1.87, 2.8):
                quads.append(upright(x, z, x, z + length, y, y + 0.09))
                colours.append(style.beam * dim)
            quads.append(upright(x, z, x, z + 0.1, 0, 3.0))
            colours.append(style.steel * dim)
    _fill(image, camera, np.asarray(quads, dtype=float), np.asarray(colours, dtype=float))


def _paint_shadows(image: np.ndarray, camera: _Camera, style: _Style, objects: list[_Object]) -> None:
    """Soft shadows on the floor: the footprint, and the footprint drawn out away from the light."""
    shade = np.zeros((camera.height // 2, camera.width // 2), np.uint8)
    angle = np.arange(14) * (2 * math.pi / 14)
    for item in objects:
        top = float(item.solid.quads[..., 1].max())
        r = item.radius_m * 0.9
        ring = np.stack([item.x + r * np.cos(angle), np.zeros(14), item.z + r * np.sin(angle)], axis=1)
        away = np.array([style.light[0], 0.0, style.light[2]]) * (-0.55 * top / style.light[1])
        far = away + (ring - [item.x, 0, item.z]) * 0.8 + [item.x, 0, item.z]
        view = camera.to_view(np.concatenate([ring, far]))
        if view[:, 2].min() < _NEAR_M:
            continue
        pixels = np.clip(camera.to_pixels(view) * 8, -30000, 30000).astype(np.int32)
        layer = int(255 * style.shadow * item.fade)
        for points, strength in ((pixels, 0.65), (pixels[:14], 1.0)):
            cv2.fillConvexPoly(shade, cv2.convexHull(points), int(layer * strength), cv2.LINE_AA, shift=4)
    shade = cv2.resize(cv2.GaussianBlur(shade, (0, 0), 1.6), (camera.width, camera.height))
    rows = slice(max(0, int(camera.horizon_px)), None)
    keep = 255 - shade[rows]
    image[rows] = cv2.multiply(image[rows], cv2.merge([keep, keep, keep]), scale=1 / 255)


# -------------------------------------------------------- objects: coverage, occlusion, boxes


def _paint_object(
    image: np.ndarray, camera: _Camera, style: _Style, item: _Object
) -> tuple[slice, slice, np.ndarray, float] | None:
    """Paint one object; returns (rows, columns, coverage, share inside the image), or None if out of view."""
    quads = item.quads()
    normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    eye = np.array([camera.x, camera.height_m, camera.z])
    front = np.einsum("nk,nk->n", normals, eye - quads.mean(axis=1)) > 0
    view = camera.to_view(quads[front])
    if len(view) == 0 or view[..., 2].min() < _NEAR_M:
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
    rng: np.random.Generator, camera: _Camera, style: _Style, objects: list[_Object]
) -> tuple[np.ndarray, list[Box]]:
    """One picture (H, W, 3) uint8 RGB and the boxes of what can be seen in it, far objects first."""
    image = np.empty((camera.height, camera.width, 3), np.uint8)
    image[:] = np.clip(style.wall * 0.8, 0, 255)
    _paint_floor(image, camera, style)
    _paint_lines(image, camera, style)
    _paint_hall(image, camera, style)
    _paint_shadows(image, camera, style, objects)
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


def _expose(rng: np.random.Generator, image: np.ndarray, style: _Style) -> np.ndarray:
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


# -------------------------------------------------------- what others call


def _draw_camera(rng: np.random.Generator, height: int, width: int) -> _Camera:
    focal = width * rng.uniform(0.8, 0.95)
    return _Camera(height, width, focal, height * rng.uniform(0.26, 0.42), rng.uniform(0.7, 1.05))


def _farthest(camera: _Camera, solid: _Solid) -> float:
    """The distance in metres at which the solid still fills `MIN_SIDE_PX` (at 256 rows)."""
    size = max(float(solid.quads[..., 1].max()), float(np.ptp(solid.quads[..., 0])))
    return min(_FAR_M, camera.focal_px * size / (1.1 * MIN_SIDE_PX * camera.height / 256))


def draw_scene(rng: np.random.Generator, height: int = 256, width: int = 320) -> tuple[np.ndarray, list[Box]]:
    """One random scene, independent of all others.

    Returns the picture (height, width, 3) uint8 RGB and the boxes of its objects in pixels. An object of
    which less than `MIN_VISIBLE` can be seen, behind others or beyond the border, has no box. A scene may be
    empty.
    """
    style = _Style.draw(rng)
    camera = _draw_camera(rng, height, width)
    turn = rng.normal(0, 0.16)
    camera = replace(camera, x=rng.uniform(-0.6, 0.6), z=rng.uniform(0, 50), yaw=turn)
    objects: list[_Object] = []
    for _ in range(int(rng.integers(1, 9))):
        class_id = int(rng.integers(len(CLASSES)))
        solid = _MAKE[class_id](rng)
        ahead = math.exp(rng.uniform(math.log(1.6), math.log(_farthest(camera, solid))))
        aside = rng.uniform(-0.56, 0.56) * width / camera.focal_px * ahead
        c, s = math.cos(camera.yaw), math.sin(camera.yaw)
        x, z = camera.x + c * aside + s * ahead, camera.z - s * aside + c * ahead
        item = _Object(class_id, solid, x, z, rng.uniform(-math.pi, math.pi))
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
    _style: _Style = field(init=False, repr=False, compare=False)
    _camera: _Camera = field(init=False, repr=False, compare=False)
    _leader: _Solid = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng((self.seed, 0))
        style = _Style.draw(rng)
        # A film is looked at: the noisiest and darkest of the cameras that train the detector are left out.
        style = replace(style, noise=min(style.noise, 3.0), gain=style.gain / min(1.0, style.gain[1] / 0.9))
        object.__setattr__(self, "_style", style)
        object.__setattr__(self, "_camera", _draw_camera(rng, self.height, self.width))
        object.__setattr__(self, "_leader", _robot(rng))

    def frame(self, k: int) -> tuple[np.ndarray, list[Box]]:
        """Picture (height, width, 3) uint8 RGB and boxes in pixels of frame `k` >= 0."""
        x, yaw = 0.2 * math.sin(0.021 * k), 0.06 * math.sin(0.013 * k + 1.0)
        camera = replace(self._camera, x=x, z=self.speed_m * k, yaw=yaw)
        ahead = camera.z + 3.4 + 1.0 * math.sin(0.017 * k)
        weave = 0.3 * math.sin(0.024 * k + 2.0)
        objects = [_Object(ROBOT, self._leader, weave, ahead, 0.25 * math.sin(0.024 * k))]
        for slot in range(math.floor(camera.z), math.ceil(camera.z + _FAR_M)):
            item = self._at(slot, k, camera)
            if item is not None:
                objects.append(item)
        return _render(np.random.default_rng((self.seed, 2, k)), camera, self._style, objects)

    def _at(self, slot: int, k: int, camera: _Camera) -> _Object | None:
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
        return _Object(class_id, solid, x, z, yaw, min(1.0, fade))


@lru_cache(maxsize=128)
def _slot(seed: int, slot: int) -> tuple[int, _Solid, float, float, float]:
    """Class, solid, place across the aisle (0..1), yaw and phase (radians) of what stands at one metre."""
    rng = np.random.default_rng((seed, 1, slot))
    class_id = int(rng.integers(len(CLASSES)))
    return class_id, _MAKE[class_id](rng), rng.random(), rng.uniform(-math.pi, math.pi), rng.uniform(0, 6.28)
