# SPDX-License-Identifier: Apache-2.0
"""The hall of a synthetic scene: floor, racks, walls, light, and the shadows on the floor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from dnn_dist.camera.pinhole import NEAR_M, Pinhole, fill
from dnn_dist.camera.solids import Corners, Standing, pick_colour


@dataclass(frozen=True)
class Style:
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
    def draw(rng: np.random.Generator) -> Style:
        light = np.array([rng.uniform(-0.8, 0.8), rng.uniform(0.7, 1.4), rng.uniform(-0.9, 0.1)])
        warmth = rng.normal(0, 0.05)
        grey = rng.uniform(95, 190)
        tint = rng.normal(0, 18, 3) if rng.random() < 0.33 else rng.normal(0, 7, 3)
        return Style(
            floor=np.clip(grey + tint, 60, 215),
            texture=int(rng.integers(6)),
            texture_contrast=rng.uniform(0.08, 0.3),
            joints=bool(rng.random() < 0.5),
            line=pick_colour(rng, [(235, 195, 40), (235, 235, 230), (70, 130, 200), (205, 60, 50)], 10.0),
            line_x=tuple(rng.uniform(0.5, 2.6, int(rng.integers(1, 3))) * rng.choice([-1.0, 1.0])),
            line_gap=bool(rng.random() < 0.35),
            wall=np.clip(rng.uniform(90, 205) + rng.normal(0, 12, 3), 50, 230),
            wall_m=rng.uniform(9.5, 15.0),
            rack_x=(-rng.uniform(2.6, 4.5), rng.uniform(2.6, 4.5)),
            racks=bool(rng.random() < 0.8),
            steel=pick_colour(rng, [(40, 75, 140), (70, 80, 90), (30, 100, 80)], 10.0),
            beam=pick_colour(rng, [(220, 105, 30), (205, 160, 40), (120, 125, 130)], 10.0),
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


def paint_floor(image: np.ndarray, camera: Pinhole, style: Style) -> None:
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


def paint_lines(image: np.ndarray, camera: Pinhole, style: Style) -> None:
    z0, z1 = int(camera.z), int(camera.z + style.wall_m) + 1
    for x in style.line_x:
        quads = _strips_along(x, 0.1, z0, z1, 0.6 if style.line_gap else 1.0)
        fill(image, camera, quads, np.broadcast_to(style.line, (len(quads), 3)))
    if style.joints:
        dark = style.floor * 0.72
        for x in (-3.75, -2.25, -0.75, 0.75, 2.25, 3.75):
            quads = _strips_along(x, 0.018, z0, z1, 1.0)
            fill(image, camera, quads, np.broadcast_to(dark, (len(quads), 3)))
        z = (np.arange(math.floor(z0 / 1.5), math.ceil(z1 / 1.5)) * 1.5)[:, None, None]
        across = np.array([[-6, 0, 0], [-6, 0, 0.018], [6, 0, 0.018], [6, 0, 0.0]])[None] + z * np.array(
            [0, 0, 1.0]
        )
        fill(image, camera, across, np.broadcast_to(dark, (len(across), 3)))


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
                    pick_colour(rng, [(150, 120, 85), (120, 95, 70), (170, 170, 165), (80, 95, 120)]) * 0.7
                )
            z += w + rng.uniform(0.02, 0.15)
    return np.asarray(quads, dtype=float).reshape(-1, 4, 2), np.asarray(colours, dtype=float).reshape(-1, 3)


def paint_hall(image: np.ndarray, camera: Pinhole, style: Style) -> None:
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
    last, first = math.ceil(end / length) - 1, math.floor((camera.z + NEAR_M) / length)
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
    fill(image, camera, np.asarray(quads, dtype=float), np.asarray(colours, dtype=float))


def paint_shadows(image: np.ndarray, camera: Pinhole, style: Style, objects: list[Standing]) -> None:
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
        if view[:, 2].min() < NEAR_M:
            continue
        pixels = np.clip(camera.to_pixels(view) * 8, -30000, 30000).astype(np.int32)
        layer = int(255 * style.shadow * item.fade)
        for points, strength in ((pixels, 0.65), (pixels[:14], 1.0)):
            cv2.fillConvexPoly(shade, cv2.convexHull(points), int(layer * strength), cv2.LINE_AA, shift=4)
    shade = cv2.resize(cv2.GaussianBlur(shade, (0, 0), 1.6), (camera.width, camera.height))
    rows = slice(max(0, int(camera.horizon_px)), None)
    keep = 255 - shade[rows]
    image[rows] = cv2.multiply(image[rows], cv2.merge([keep, keep, keep]), scale=1 / 255)
