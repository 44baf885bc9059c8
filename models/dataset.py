# SPDX-License-Identifier: Apache-2.0
"""Scenes as training material: drawing many, choosing anchors, what the head should say, batches."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator

import numpy as np

from dnn_dist.camera.scene import CLASSES, Box, draw_scene

HEIGHT, WIDTH, STRIDE = 256, 320, 16
ROWS, COLUMNS = HEIGHT // STRIDE, WIDTH // STRIDE
ANCHORS = 3
FIELDS = 5 + len(CLASSES)
HELD_OUT_SEED = 1_000_000_007  # training seeds are small numbers, so no held-out scene was trained on
_FIT = 3.5  # an anchor learns a box if neither side differs by more than this factor; the head can reach 4

Scene = tuple[np.ndarray, np.ndarray]  # picture (H, W, 3) uint8, boxes (n, 5) float32: class, y0, x0, y1, x1


def make_scene(key: tuple[int, int]) -> Scene:
    """The scene of a seed and a number."""
    image, boxes = draw_scene(np.random.default_rng(key), HEIGHT, WIDTH)
    return image, np.array([_row(b) for b in boxes], np.float32).reshape(-1, 5)


def _row(box: Box) -> tuple[float, ...]:
    return box.class_id, box.y0, box.x0, box.y1, box.x1


def make_scenes(seed: int, count: int, processes: int) -> list[Scene]:
    """Scenes (seed, 0) .. (seed, count - 1), drawn by several processes, in order."""
    scenes = []
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        for scene in pool.imap(make_scene, zip(itertools.repeat(seed), range(count)), chunksize=32):
            scenes.append(scene)
            if len(scenes) % 500 == 0 or len(scenes) == count:
                print(f"\rscenes {len(scenes)}/{count}", end="", flush=True)
    print()
    return scenes


def choose_anchors(scenes: list[Scene]) -> np.ndarray:
    """Anchors (A, 2) as whole pixels (width, height), small to large: k-means of log sizes of the boxes."""
    boxes = np.concatenate([b for _, b in scenes])
    sizes = np.log(np.stack([boxes[:, 4] - boxes[:, 2], boxes[:, 3] - boxes[:, 1]], axis=1))
    order = np.argsort(sizes.sum(axis=1))
    centres = np.array([sizes[part].mean(axis=0) for part in np.array_split(order, ANCHORS)])
    for _ in range(50):
        nearest = ((sizes[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        centres = np.array([sizes[nearest == a].mean(axis=0) for a in range(ANCHORS)])
    return np.round(np.exp(centres))


def encode(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """What the head should say: (rows, columns, anchors, 6) of x, y, w, h in pixels, weight 0 or 1, class.

    A box is learnt by the cell that holds its middle and by the nearest cell beside it and above or below it
    (YOLOv5), and there by every anchor that fits; where two boxes want the same place the smaller one has it.
    """
    target = np.zeros((ROWS, COLUMNS, ANCHORS, 6), np.float32)
    sizes = np.stack([boxes[:, 4] - boxes[:, 2], boxes[:, 3] - boxes[:, 1]], axis=1)
    for i in np.argsort(-sizes.prod(axis=1)):
        class_id, y0, x0, y1, x1 = boxes[i]
        x, y, size = (x0 + x1) / 2, (y0 + y1) / 2, sizes[i]
        ratio = size / anchors
        fits = np.maximum(ratio, 1 / ratio).max(axis=1)
        chosen = (fits < _FIT) | (fits == fits.min())
        column, row = int(x / STRIDE), int(y / STRIDE)
        beside = column + (1 if x / STRIDE - column > 0.5 else -1)
        above = row + (1 if y / STRIDE - row > 0.5 else -1)
        for r, c in ((row, column), (row, beside), (above, column)):
            if 0 <= r < ROWS and 0 <= c < COLUMNS:
                target[r, c, chosen] = (x, y, *size, 1.0, class_id)
    return target


def batches(
    scenes: list[Scene], anchors: np.ndarray, size: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless shuffled batches: pictures (B, H, W, 3) uint8 and targets; every other picture is mirrored."""
    rng = np.random.default_rng((seed, 3))
    while True:
        for part in np.array_split(rng.permutation(len(scenes)), len(scenes) // size):
            images, targets = [], []
            for i in part[:size]:
                image, boxes = scenes[i]
                if rng.random() < 0.5:
                    image, boxes = image[:, ::-1], boxes.copy()
                    boxes[:, [2, 4]] = WIDTH - boxes[:, [4, 2]]
                images.append(image)
                targets.append(encode(boxes, anchors))
            yield np.stack(images), np.stack(targets)
