# SPDX-License-Identifier: Apache-2.0
"""The annotated picture for RViz and the demo: what was found, who computed which tile, how complete it is.

Colours of classes and of states are chosen to stay apart for colour-blind people, and a test measures it;
besides, classes are written out and lost tiles hatched, so that nothing hangs on colour alone. Those of
workers are close to Tol's light palette (2021). All are RGB.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from dnn_dist.detect.boxes import Detection
from dnn_dist.detect.text import Colour, fit_text, put_text, text_width

FRESH, RECOMPUTED, FILLED = "fresh", "recomputed", "filled"

INK: Colour = (18, 20, 24)
PAPER: Colour = (236, 238, 240)
AMBER: Colour = (255, 176, 0)
RED: Colour = (225, 60, 40)
GREEN: Colour = (68, 187, 153)
CLASS_COLOURS: tuple[Colour, ...] = (
    (80, 165, 235),
    (250, 240, 50),
    (232, 122, 162),
    (80, 250, 120),
    (200, 255, 255),
    (120, 160, 80),
)
WORKER_COLOURS: tuple[Colour, ...] = (
    (119, 170, 221),
    (187, 204, 51),
    (255, 170, 187),
    (153, 221, 255),
    (68, 187, 153),
    (221, 221, 221),
    (238, 221, 136),
    (200, 170, 240),
)
CAPTION_H = 16
"""Rows of the caption bar at scale 1. Heights that are a multiple of 16 stay so, as video codecs like it."""


@dataclass(frozen=True, slots=True)
class TileMark:
    """A tile as it is drawn: half-open, in pixels of the image."""

    y0: int
    x0: int
    y1: int
    x1: int
    state: str = FRESH  # or RECOMPUTED, FILLED
    worker: str = ""  # who computed it


class Chip(NamedTuple):
    """The ground of a label: half-open, in pixels of the picture that is drawn."""

    y0: int
    x0: int
    y1: int
    x1: int

    def overlap(self, other: Chip) -> int:
        rows = min(self.y1, other.y1) - max(self.y0, other.y0)
        columns = min(self.x1, other.x1) - max(self.x0, other.x0)
        return max(0, rows) * max(0, columns)


def draw_overlay(
    image: np.ndarray,
    detections: Sequence[Detection],
    tiles: Sequence[TileMark] = (),
    caption: str = "",
    scale: int = 1,
) -> np.ndarray:
    """A new picture, RGB uint8 (scale * (H + CAPTION_H), scale * W, 3); the image (H, W, 3) stays.

    caption: one line (status, quality, latency), beside a mark in the colour of the worst tile.
    """
    height, width = image.shape[:2]
    canvas = np.empty((scale * (height + CAPTION_H), scale * width, 3), np.uint8)
    picture = canvas[: scale * height]
    if scale == 1:
        picture[:] = image
    else:
        cv2.resize(image, (scale * width, scale * height), dst=picture, interpolation=cv2.INTER_CUBIC)
    for tile in tiles:
        _draw_tile(picture, tile, scale)
    for tile in tiles:  # names on top of the neighbours' lines
        _draw_worker(picture, tile, scale)
    chips = _place_labels(detections, scale, picture.shape[0], picture.shape[1])
    for detection in reversed(detections):  # the best on top
        _draw_box(picture, detection, scale)
    for detection, chip in reversed(list(zip(detections, chips, strict=True))):
        _draw_label(picture, detection, chip, scale)
    _draw_caption(canvas[scale * height :], tiles, caption, scale)
    return canvas


def worker_colour(name: str) -> Colour:
    """The same for a name on every robot and in every run; workers that are numbered get different ones."""
    digits = re.findall(r"\d+", name)
    return WORKER_COLOURS[(int(digits[-1]) if digits else zlib.crc32(name.encode())) % len(WORKER_COLOURS)]


def class_colour(class_id: int) -> Colour:
    return CLASS_COLOURS[class_id % len(CLASS_COLOURS)]


def _draw_tile(picture: np.ndarray, tile: TileMark, scale: int) -> None:
    inside = picture[scale * tile.y0 : scale * tile.y1, scale * tile.x0 : scale * tile.x1]
    if not inside.size:
        return
    if tile.state == FILLED:
        _blend(inside, RED, 0.18)
        rows, columns = np.ogrid[: inside.shape[0], : inside.shape[1]]
        hatch = (rows + columns + scale * (tile.y0 + tile.x0)) % (8 * scale) < 2 * scale
        inside[hatch] = (inside[hatch] * 0.45 + np.array(RED) * 0.55).astype(np.uint8)
        _frame(inside, RED, 0.9, scale)
    elif tile.state == RECOMPUTED:
        _blend(inside, AMBER, 0.16)
        _frame(inside, AMBER, 0.9, scale)
    else:
        _frame(inside, worker_colour(tile.worker), 0.5, max(1, scale // 2))


def _draw_worker(picture: np.ndarray, tile: TileMark, scale: int) -> None:
    """The worker's name, or what became of the tile, in its top left corner."""
    size, pad = 6 * scale + 2, 2 * scale
    what = "filled in" if tile.state == FILLED else tile.worker
    colour = {FILLED: RED, RECOMPUTED: AMBER}.get(tile.state, worker_colour(tile.worker))
    text = fit_text(what, size, scale * (tile.x1 - tile.x0) - 2 * pad - 2 * scale)
    if not text or scale * (tile.y1 - tile.y0) < 2 * size:
        return  # in so small a tile the name would hide the picture
    y0, x0 = scale * tile.y0, scale * tile.x0
    chip = picture[y0 : y0 + size + pad, x0 : x0 + text_width(text, size) + 2 * pad]
    if tile.state == FRESH:
        _blend(chip, INK, 0.55)
        put_text(picture, text, x0 + pad, y0 + size - scale, size, colour)
    else:
        chip[:] = colour
        put_text(picture, text, x0 + pad, y0 + size - scale, size, _ink_on(colour))


def _draw_box(picture: np.ndarray, detection: Detection, scale: int) -> None:
    y0, x0, y1, x1 = _pixels(detection, scale)
    # A dark rim keeps the line visible on any background.
    cv2.rectangle(picture, (x0 - 1, y0 - 1), (x1, y1), INK, 1)
    for k in range(scale + 1):
        cv2.rectangle(
            picture, (x0 + k, y0 + k), (x1 - 1 - k, y1 - 1 - k), class_colour(detection.class_id), 1
        )


def _place_labels(detections: Sequence[Detection], scale: int, rows: int, columns: int) -> list[Chip]:
    """A place for each label: above its box, below it or inside, where it hides least of those before."""
    size, chips = _label_size(scale), list[Chip]()
    for detection in detections:
        y0, x0, y1, _ = _pixels(detection, scale)
        height, width = size + 2 * scale, text_width(_label(detection), size) + 4 * scale
        left = max(0, min(x0 - 1, columns - width))
        tops = [top for top in (y0 - height, y1, y0) if 0 <= top <= rows - height] or [max(0, rows - height)]
        places = [Chip(top, left, top + height, left + width) for top in tops]
        chips.append(min(places, key=lambda place: sum(place.overlap(other) for other in chips)))
    return chips


def _draw_label(picture: np.ndarray, detection: Detection, chip: Chip, scale: int) -> None:
    size, colour = _label_size(scale), class_colour(detection.class_id)
    picture[chip.y0 : chip.y1, chip.x0 : chip.x1] = colour
    put_text(picture, _label(detection), chip.x0 + 2 * scale, chip.y1 - 3 * scale, size, _ink_on(colour))


def _label(detection: Detection) -> str:
    return f"{detection.label} {100 * detection.score:.0f}%"


def _label_size(scale: int) -> int:
    return 7 * scale + 2


def _draw_caption(bar: np.ndarray, tiles: Sequence[TileMark], caption: str, scale: int) -> None:
    states = {tile.state for tile in tiles}
    mark = RED if FILLED in states else AMBER if RECOMPUTED in states else GREEN
    bar[:] = INK
    bar[:, : 3 * scale] = mark
    size = 8 * scale + 1
    text = fit_text(caption, size, bar.shape[1] - 12 * scale)
    put_text(bar, text, 8 * scale, 11 * scale, size, PAPER)


def _pixels(detection: Detection, scale: int) -> tuple[int, int, int, int]:
    y0, x0, y1, x1 = detection.y0, detection.x0, detection.y1, detection.x1
    return round(scale * y0), round(scale * x0), round(scale * y1), round(scale * x1)


def _frame(inside: np.ndarray, colour: Colour, alpha: float, line: int) -> None:
    """A frame along the inner edge, so that neighbours' frames lie side by side."""
    for edge in (inside[:line], inside[-line:], inside[line:-line, :line], inside[line:-line, -line:]):
        _blend(edge, colour, alpha)


def _blend(area: np.ndarray, colour: Colour, alpha: float) -> None:
    if area.size:
        area[:] = cv2.addWeighted(area, 1 - alpha, np.full_like(area, colour), alpha, 0)


def _ink_on(colour: Colour) -> Colour:
    """Dark text on light chips, light text on dark ones (luma of ITU-R BT.601)."""
    return INK if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 128 else PAPER
