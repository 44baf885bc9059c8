# SPDX-License-Identifier: Apache-2.0
"""Laws of drawing: the image stays, a tile's marks stay in it, states and colours differ for everyone."""

from itertools import combinations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnn_dist.detect import draw
from dnn_dist.detect.boxes import Detection
from dnn_dist.detect.draw import CAPTION_H, FILLED, FRESH, RECOMPUTED, TileMark, draw_overlay
from dnn_dist.detect.text import fit_text, text_width

H, W = 96, 160


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(60, 190, (H, W, 3), np.uint8)


def changed(before, picture, scale=1):
    """Which pixels of the picture, less its caption bar, are not those of the plain one: (H, W) booleans."""
    plain = draw_overlay(before, [], scale=scale)
    return (plain != picture).any(axis=2)[: scale * H]


def test_without_marks_the_picture_is_the_image(image):
    picture = draw_overlay(image, [])
    assert picture.shape == (H + CAPTION_H, W, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture[:H], image)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_image_stays_and_the_picture_repeats(image, scale):
    before = image.copy()
    image.flags.writeable = False
    detections = [Detection(1, "crate", 0.9, 10, 20, 60, 90), Detection(0, "cone", 0.5, 12, 30, 40, 80)]
    tiles = [TileMark(0, 0, 48, 80, FRESH, "w1"), TileMark(48, 80, 96, 160, FILLED, "w2")]
    first = draw_overlay(image, detections, tiles, "complete", scale)
    assert np.array_equal(image, before)
    assert first.shape == (scale * (H + CAPTION_H), scale * W, 3)
    assert np.array_equal(first, draw_overlay(image, detections, tiles, "complete", scale))


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("state", [FRESH, RECOMPUTED, FILLED])
def test_a_tile_is_marked_within_itself(image, state, scale):
    marks = changed(
        image, draw_overlay(image, [], [TileMark(32, 40, 80, 120, state, "worker_1")], scale=scale), scale
    )
    inside = np.zeros_like(marks)
    inside[32 * scale : 80 * scale, 40 * scale : 120 * scale] = True
    assert marks.any() and not (marks & ~inside).any()


def test_lost_work_stands_out(image):
    """A fresh tile keeps nearly all of its pixels; one that is not, hardly any."""
    share = {
        state: changed(image, draw_overlay(image, [], [TileMark(0, 0, H, W, state, "w")])).mean()
        for state in (FRESH, RECOMPUTED, FILLED)
    }
    assert share[FRESH] < 0.1 and min(share[RECOMPUTED], share[FILLED]) > 0.9


def test_the_better_detection_lies_on_top(image):
    weak, strong = Detection(0, "a", 0.4, 20, 20, 60, 60), Detection(1, "b", 0.9, 20, 20, 60, 60)
    corner = draw_overlay(image, [strong, weak])[59, 59]
    assert tuple(corner) == draw.class_colour(strong.class_id)


def test_labels_give_way_to_each_other():
    """Three objects side by side, closer than their labels are wide: every label is still whole."""
    row = [Detection(k, "barrel", 0.9 - k / 10, 40, 40 + 20 * k, 60, 55 + 20 * k) for k in range(3)]
    chips = draw._place_labels(row, 1, H, W)
    assert all(a.overlap(b) == 0 for a, b in combinations(chips, 2))


CORNER = st.integers(-30, 200)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 2),
    st.lists(st.tuples(st.integers(0, 20), st.text(max_size=30), st.floats(0, 1), *[CORNER] * 4), max_size=5),
    st.lists(
        st.tuples(*[st.integers(0, 60)] * 4, st.sampled_from([FRESH, RECOMPUTED, FILLED]), st.text()),
        max_size=5,
    ),
    st.text(),
)
def test_no_mark_is_too_strange_to_draw(height, width, scale, detections, tiles, caption):
    image = np.zeros((height, width, 3), np.uint8)
    found = [Detection(*item) for item in detections]
    picture = draw_overlay(image, found, [TileMark(*item) for item in tiles], caption, scale)
    assert picture.shape == (scale * (height + CAPTION_H), scale * width, 3)


def test_numbered_workers_differ_and_keep_their_colours():
    names = [f"worker_{k}" for k in range(1, 9)]
    assert len({draw.worker_colour(name) for name in names}) == 8
    assert draw.worker_colour("robot") == draw.worker_colour("robot")


# Machado, Oliveira and Fernandes (2009): how colours look with one kind of cone missing, in linear RGB.
MISSING_CONE = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("kind", MISSING_CONE)
@pytest.mark.parametrize("palette", [draw.CLASS_COLOURS, (draw.AMBER, draw.RED, draw.GREEN)])
def test_colours_can_be_told_apart_by_everyone(kind, palette):
    """Distances in CIE L*a*b*; 2 is just noticeable side by side."""
    linear = (np.array(palette) / 255) ** 2.2
    seen = np.clip(linear @ np.transpose(MISSING_CONE[kind]), 0, 1) ** (1 / 2.2)
    lab = cv2.cvtColor(seen[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    assert min(np.linalg.norm(a - b) for a, b in combinations(lab, 2)) > 20


@pytest.mark.parametrize("text", ["", "a", "worker_1", "a long caption of many words that can't fit"])
@pytest.mark.parametrize("width", [0, 5, 40, 1000])
def test_fitted_text_fits(text, width):
    short = fit_text(text, 10, width)
    assert text_width(short, 10) <= width or not short
    assert short == text or len(short) < len(text) + 2
