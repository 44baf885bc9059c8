# SPDX-License-Identifier: Apache-2.0
"""What stands in a synthetic scene: cones, crates, barrels and robots, as lists of flat quads.

Quads (n, 4, 3) in metres have outward winding; colours (n, 3) are RGB, 0..255.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

CLASSES = ("cone", "crate", "barrel", "robot")
CONE, CRATE, BARREL, ROBOT = range(4)

Colour = tuple[float, float, float]  # RGB, 0..255
Corners = list[Any]  # nested sequences or arrays that make an array of quads


@dataclass(frozen=True)
class Solid:
    quads: np.ndarray
    colours: np.ndarray

    def __add__(self, other: Solid) -> Solid:
        return Solid(
            np.concatenate([self.quads, other.quads]), np.concatenate([self.colours, other.colours])
        )

    def shift(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Solid:
        return Solid(self.quads + np.array([x, y, z]), self.colours)


def _solid(quads: Corners, colour: Colour | np.ndarray) -> Solid:
    array = np.asarray(quads, dtype=np.float64).reshape(-1, 4, 3)
    return Solid(array, np.broadcast_to(np.asarray(colour, dtype=np.float64), (len(array), 3)))


def _block(width: float, height: float, depth: float, colour: Colour | np.ndarray) -> Solid:
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
) -> Solid:
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
) -> Solid:
    """The same rectangle painted on all four sides of a block; u runs from 0 to 1 along each side."""
    quads = []
    for turn in range(4):
        w, d = (block_width, depth) if turn % 2 == 0 else (depth, block_width)
        a, b, z = (u0 - 0.5) * w, (u1 - 0.5) * w, -d / 2 - 0.004
        c, s = (1, 0, -1, 0)[turn], (0, 1, 0, -1)[turn]
        quads.append([(c * x - s * z, y, s * x + c * z) for x, y in ((a, y0), (a, y1), (b, y1), (b, y0))])
    return _solid(quads, colour)


def pick_colour(rng: np.random.Generator, palette: Sequence[Colour], spread: float = 14.0) -> np.ndarray:
    colour = np.array(palette[int(rng.integers(len(palette)))]) + rng.normal(0, spread, 3)
    return np.clip(colour, 12, 250)


def _cone(rng: np.random.Generator) -> Solid:
    height, radius = rng.uniform(0.45, 0.8), rng.uniform(0.13, 0.19)
    colour = pick_colour(rng, [(240, 95, 25), (245, 80, 30), (225, 60, 35), (250, 150, 20), (200, 215, 40)])
    band = pick_colour(rng, [(238, 238, 235), (225, 225, 230), (210, 210, 190)], 6.0)
    base = colour if rng.random() < 0.5 else pick_colour(rng, [(35, 35, 38)], 6.0)
    solid = _block(2.5 * radius, 0.04, 2.5 * radius, base)
    cuts = [0.0, 0.28, 0.48, 0.64, 0.8, 1.0] if rng.random() < 0.6 else [0.0, 0.42, 0.68, 1.0]
    for i, (a, b) in enumerate(pairwise(cuts)):
        low, high = radius * (1 - 0.85 * a), radius * (1 - 0.85 * b)
        part = _turned(low, high, (height - 0.04) * (b - a), band if i % 2 else colour)
        solid = solid + part.shift(y=0.04 + (height - 0.04) * a)
    return solid


def _crate(rng: np.random.Generator) -> Solid:
    width, depth, height = rng.uniform(0.45, 0.85), rng.uniform(0.45, 0.75), rng.uniform(0.35, 0.8)
    wooden = rng.random() < 0.7
    if wooden:
        colour = pick_colour(rng, [(178, 134, 84), (150, 106, 62), (198, 160, 108), (128, 92, 58)])
    else:
        colour = pick_colour(rng, [(45, 92, 160), (60, 120, 80), (120, 124, 130), (170, 50, 45)])
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


def _barrel(rng: np.random.Generator) -> Solid:
    height, radius = rng.uniform(0.65, 0.95), rng.uniform(0.22, 0.31)
    palette = [(35, 85, 165), (180, 45, 40), (45, 120, 70), (125, 130, 135), (215, 170, 40), (48, 50, 55)]
    colour = pick_colour(rng, palette)
    rib = np.clip(colour * rng.choice([0.72, 1.25]), 0, 255)
    label = pick_colour(rng, [(225, 225, 215), (235, 200, 60)], 6.0) if rng.random() < 0.35 else colour
    cuts = [0.0, 0.04, 0.32, 0.36, 0.64, 0.68, 0.95, 1.0]
    parts = [rib, colour, rib, label, rib, colour, rib]
    solid = _turned(radius, radius, 0.001, colour)
    for a, b, tone in zip(cuts, cuts[1:], parts, strict=False):
        r = radius * (1.04 if tone is rib else 1.0)
        solid = solid + _turned(r, r, height * (b - a), tone).shift(y=height * a)
    lid = _turned(radius * 0.9, radius * 0.9, 0.002, colour * 0.85)
    bung = _turned(radius * 0.16, radius * 0.16, 0.012, rib, 8)
    return solid + lid.shift(y=height) + bung.shift(x=radius * 0.5, y=height)


def _robot(rng: np.random.Generator) -> Solid:
    width, depth = rng.uniform(0.48, 0.68), rng.uniform(0.55, 0.8)
    height, lift = rng.uniform(0.2, 0.32), rng.uniform(0.06, 0.1)
    palette = [(228, 230, 232), (200, 204, 208), (40, 110, 190), (240, 140, 30), (52, 56, 62), (60, 170, 160)]
    colour = pick_colour(rng, palette, 8.0)
    dark = np.array([28.0, 28.0, 32.0])
    solid = _block(width * 0.9, lift, depth * 0.9, dark * 0.6) + _block(width, height, depth, colour).shift(
        y=lift
    )
    stripe = pick_colour(rng, [(60, 210, 240), (90, 240, 120), (245, 70, 60)], 8.0)
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


def _wheels(width: float, depth: float, radius: float) -> Solid:
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
    return Solid(np.asarray(quads), np.asarray(colours))


MAKE = {CONE: _cone, CRATE: _crate, BARREL: _barrel, ROBOT: _robot}


@dataclass(frozen=True)
class Standing:
    """A solid on the floor: place (metres), turn (radians), how much it has faded in (0..1)."""

    class_id: int
    solid: Solid
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
