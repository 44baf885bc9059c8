# SPDX-License-Identifier: Apache-2.0
"""The model card: what is to be known of a model beyond its graph. A YAML file beside the model; modelcard.py says
what stands in for it where there is none.

    classes: [cone, crate, barrel]
    input:
      shape: [1, 256, 320, 3]       # batch, rows, columns, RGB
      scale: 0.00392156862745098    # the model sees scale * pixel + offset, with pixels in 0..255
      offset: 0.0
    output:
      head: yolo                    # or another of head.py, or your own as package.module:Class
      strides: [16]                 # pixels of the input per cell, of each output of the model
      anchors:                      # of each output, [width, height] in pixels of the input
        - [[24, 32], [60, 80]]
      decode: yolov5                # optional; or yolov2: the formulas in yolo.py
      score_threshold: 0.3          # optional, like the next; both can be changed live
      nms_threshold: 0.5

Strides, anchors and decode are the yolo head's; ssd.py and anchor_free.py say what theirs take in their place.
Other keys (a name, a licence, measured figures) are for people and are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dnn_dist.yamlfile import Keys, read_yaml

Shape = Sequence[int]


@dataclass(frozen=True, slots=True)
class Grid:
    """One output of a yolo model: a grid of cells with anchors."""

    stride: int  # pixels of the input per cell
    anchors: tuple[tuple[float, float], ...]  # width, height in pixels of the input


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known about a model beyond its graph. Made by `load_card` or `parse_card`."""

    head: str
    classes: tuple[str, ...]
    height: int  # of the model's input, pixels
    width: int
    scale: float = 1 / 255  # the model sees scale * pixel + offset, pixel in 0..255
    offset: float = 0.0
    grids: tuple[Grid, ...] = ()  # one per output; of the yolo head
    decode: str = "yolov5"
    score_threshold: float = 0.3
    nms_threshold: float = 0.5
    output: Keys = field(default_factory=lambda: Keys({}, "model card: output"), hash=False)
    """All of `output`, for the keys that a head has to itself."""


def card_path(model: Path) -> Path | None:
    """The card beside a model, or None: `<stem>.yaml`, also with the stem less its `_float32` or `_int8`."""
    stems = (model.stem, re.sub("_(float32|float16|int8)$", "", model.stem))
    return next((path for stem in stems if (path := model.with_name(stem + ".yaml")).is_file()), None)


def load_card(path: Path) -> ModelCard:
    """The card in a file. ConfigError in one line when it can't be read or is wrong."""
    return parse_card(read_yaml(path, "model card"), str(path))


def parse_card(content: object, where: str) -> ModelCard:
    """The card in a parsed YAML document; `where` opens the error messages."""
    card = Keys.of(content, where)
    image = Keys.of(card.get("input"), f"{where}: input")
    output = Keys.of(card.get("output"), f"{where}: output")
    classes = card.items("classes", "a list of names, e.g. [cone, crate]")
    if not all(isinstance(name, (str, int)) for name in classes):
        raise card.wrong("classes", classes, "a list of names, e.g. [cone, crate]")
    shape = image.items("shape", "[1, height, width, 3]")
    if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or not all(_is_size(side) for side in shape):
        raise image.wrong("shape", shape, "[1, height, width, 3]: the heads here take one RGB image")
    head = output.text("head")
    return ModelCard(
        head=head,
        classes=tuple(map(str, classes)),
        height=shape[1],
        width=shape[2],
        scale=image.number("scale", 1 / 255),
        offset=image.number("offset", 0.0),
        grids=_grids(output) if head == "yolo" or "anchors" in output.content else (),
        decode=output.text("decode", "yolov5"),
        score_threshold=output.number("score_threshold", 0.3, low=0, high=1),
        nms_threshold=output.number("nms_threshold", 0.5, low=0, high=1),
        output=output,
    )


def _grids(output: Keys) -> tuple[Grid, ...]:
    strides = output.items("strides", "a list of pixels per cell, one per output, e.g. [16]")
    if not all(_is_size(stride) for stride in strides):
        raise output.wrong("strides", strides, "whole pixels, e.g. [16]")
    anchors = output.items("anchors", "for each stride a list of [width, height]")
    if len(anchors) != len(strides) or not all(isinstance(group, list) and group for group in anchors):
        raise output.wrong(
            "anchors", anchors, f"a list of [width, height] for each of {len(strides)} strides"
        )
    return tuple(
        Grid(stride, tuple(_anchor(output, anchor) for anchor in group))
        for stride, group in zip(strides, anchors, strict=True)
    )


def _anchor(output: Keys, anchor: object) -> tuple[float, float]:
    match anchor:
        case [int() | float() as width, int() | float() as height] if 0 < width < 1e9 and 0 < height < 1e9:
            return float(width), float(height)
    raise output.wrong("anchors", anchor, "[width, height], both above 0, in pixels of the input")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
