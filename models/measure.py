# SPDX-License-Identifier: Apache-2.0
"""Average precision of a converted detector on held-out scenes, through LiteRT and the head that robots run.

A detection finds a truth of its class when their IoU is at least 0.5 and no better scored one has found it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from dataset import HEIGHT, WIDTH, Scene

from dnn_dist.detect.card import ModelCard
from dnn_dist.detect.head import make_head
from dnn_dist.detect.letterbox import Letterbox

IOU_MATCH = 0.5
SCORE_LEAST = 0.01  # low, so that the curve of precision over recall is followed to its end


def iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box (4,) with boxes (n, 4)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    both = np.maximum(high - low, 0).prod(axis=1)
    return both / ((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - both + 1e-9)


def average_precision(hits: np.ndarray, scores: np.ndarray, truths: int) -> float:
    """Area under precision over recall, all-point interpolation (Pascal VOC since 2010).

    hits (n,) bool: detection n found a truth that no better one had; truths: how many are to be found.
    """
    hits = hits[np.argsort(-scores, kind="stable")]
    recall = np.cumsum(hits) / max(truths, 1)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # precision at this recall or any higher one
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


def run(interpreter: Interpreter, image: np.ndarray) -> np.ndarray:
    """Picture (H, W, 3) uint8 to the head (rows, columns, channels) float32, quantised or not."""
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    whole = source["dtype"] == np.int8  # then the input's scale is 1/255 and its zero point -128
    pixels = (image.astype(np.int16) - 128).astype(np.int8) if whole else image.astype(np.float32) / 255
    interpreter.set_tensor(source["index"], pixels[None])
    interpreter.invoke()
    output = interpreter.get_tensor(sink["index"])[0]
    if not whole:
        return output
    scale, zero = sink["quantization"]
    return (output.astype(np.float32) - zero) * np.float32(scale)


def measure(path: Path, card: ModelCard, scenes: list[Scene]) -> dict[str, float]:
    """AP at IoU 0.5 of each class, and their "mean", of a .tflite file on scenes it was not trained on."""
    interpreter = Interpreter(str(path), num_threads=2)
    interpreter.allocate_tensors()
    return score(card, ((run(interpreter, image), truth) for image, truth in scenes))


def score(card: ModelCard, answers: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """AP at IoU 0.5 of each class, and their "mean", of what a detector gave: (the head's input, true boxes)."""
    head = make_head(card)
    head.score_threshold = SCORE_LEAST
    letterbox = Letterbox(HEIGHT, WIDTH, HEIGHT, WIDTH)
    records: list[list[tuple[bool, float]]] = [[] for _ in card.classes]
    truths = np.zeros(len(card.classes), int)
    for output, truth in answers:
        found = np.zeros(len(truth), bool)
        for detection in head([output], letterbox):
            box = np.array([detection.y0, detection.x0, detection.y1, detection.x1])
            overlap = iou(box, truth[:, 1:]) * (truth[:, 0] == detection.class_id) * ~found
            hit = len(truth) > 0 and overlap.max() >= IOU_MATCH
            if hit:
                found[overlap.argmax()] = True
            records[detection.class_id].append((hit, detection.score))
        truths += np.bincount(truth[:, 0].astype(int), minlength=len(truths))
    result = {}
    for name, record, count in zip(card.classes, records, truths, strict=True):
        hits, scores = np.array(record, float).reshape(-1, 2).T
        result[name] = average_precision(hits.astype(bool), scores, int(count))
    return result | {"mean": float(np.mean(list(result.values())))}
