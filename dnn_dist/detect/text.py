# SPDX-License-Identifier: Apache-2.0
"""Small legible text on images: OpenCV's TrueType font where it has one (5.0), its line font before."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np

Colour = tuple[int, int, int]
SEMIBOLD = 550
LINE_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX)  # strokes of one line, of two
PLAIN = str.maketrans({"·": "|", "…": "."})
"""What line fonts can't write; the rest of what they can't becomes a question mark."""


@cache
def _font() -> Any:
    return cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None


@cache
def text_width(text: str, size: int) -> int:
    """Pixels from the first letter to the last; `size` is about the height of a capital with its space."""
    if _font() is not None:
        left, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), _font(), size, SEMIBOLD)
        return int(left + width)
    return int(cv2.getTextSize(_ascii(text), _line_font(size), size / 28, 1)[0][0])


def put_text(image: np.ndarray, text: str, x: int, baseline: int, size: int, colour: Colour) -> None:
    """Writes on the image from (x, baseline) to the right; what leaves the image is cut off."""
    if _font() is not None:
        no_wrap = (0, 1 << 20)  # else OpenCV goes on in the next line
        cv2.putText(
            image, text, (x, baseline), colour, _font(), size, SEMIBOLD, cv2.PUT_TEXT_ALIGN_LEFT, no_wrap
        )
    else:
        cv2.putText(image, _ascii(text), (x, baseline), _line_font(size), size / 28, colour, 1, cv2.LINE_AA)


def fit_text(text: str, size: int, width: int) -> str:
    """The text, shortened at its end to at most `width` pixels; empty if not even a letter fits."""
    if text_width(text, size) <= width:
        return text
    for end in range(len(text) - 1, 0, -1):
        short = text[:end].rstrip() + ".."
        if text_width(short, size) <= width:
            return short
    return ""


def _ascii(text: str) -> str:
    return text.translate(PLAIN).encode("ascii", "replace").decode()


def _line_font(size: int) -> int:
    return LINE_FONTS[size > 12]  # two strokes run together in small letters
