# SPDX-License-Identifier: Apache-2.0
"""Laws of the letterbox: there and back is the identity, nothing is lost, nothing is added but gray."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnn_dist.detect.letterbox import GRAY, Letterbox

SIDES = st.integers(1, 700)
LETTERBOXES = st.builds(Letterbox, SIDES, SIDES, SIDES, SIDES)


@given(LETTERBOXES, st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=5))
def test_there_and_back_is_the_identity(box, shares):
    image = np.array(shares) * [box.image_h, box.image_w, box.image_h, box.image_w]
    assert np.allclose(box.to_image(box.to_model(image)), image, atol=1e-6)


@given(LETTERBOXES)
def test_the_scaled_image_fits_and_fills_one_axis(box):
    assert box.inner[0] <= box.model_h and box.inner[1] <= box.model_w
    assert box.inner[0] == box.model_h or box.inner[1] == box.model_w


@given(LETTERBOXES, st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4))
def test_boxes_come_back_inside_the_image(box, corners):
    y0, x0, y1, x1 = box.to_image(np.array([corners]))[0]
    assert min(y0, y1) >= 0 and max(y0, y1) <= box.image_h
    assert min(x0, x1) >= 0 and max(x0, x1) <= box.image_w


@given(LETTERBOXES)
def test_the_whole_input_is_the_whole_image(box):
    assert box.tile_to_image(0, 0, box.model_h, box.model_w) == (0, 0, box.image_h, box.image_w)


@given(LETTERBOXES, st.integers(0, 700))
def test_tiles_that_touch_still_touch(box, cut):
    row = min(cut, box.model_h)
    above = box.tile_to_image(0, 0, row, box.model_w)
    below = box.tile_to_image(row, 0, box.model_h, box.model_w)
    assert above[2] == below[0]


@pytest.mark.parametrize("size", [(480, 640), (64, 80), (100, 900), (900, 100), (1, 1)])
def test_an_object_is_where_its_box_says(size):
    """Painted in the image, found in the model's input, brought back: the same box to a pixel."""
    height, width = size
    box = Letterbox(height, width, 256, 320)
    image = np.full((height, width, 3), 30, np.uint8)
    y0, x0 = height // 4, width // 3
    y1, x1 = y0 + (height + 1) // 2, x0 + (width + 1) // 2
    image[y0:y1, x0:x1] = 250
    rows, columns = np.nonzero(box.apply(image)[..., 0] > 140)
    found = box.to_image(np.array([[rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]]))
    one_pixel = max(1.0, height / box.inner[0], width / box.inner[1])
    assert np.abs(found - [y0, x0, y1, x1]).max() <= one_pixel


def test_what_is_added_is_gray():
    box = Letterbox(100, 100, 256, 320)
    shown = box.apply(np.zeros((100, 100, 3), np.uint8))
    assert shown.shape == (256, 320, 3) and shown.dtype == np.uint8
    assert set(np.unique(shown)) == {0, GRAY}
    assert (shown == 0).all(axis=2).sum() == box.inner[0] * box.inner[1]


def test_equal_sizes_cost_no_copy():
    image = np.random.default_rng(0).integers(0, 256, (256, 320, 3), np.uint8)
    assert Letterbox(256, 320, 256, 320).apply(image) is image


def test_shrinking_averages():
    """A fine checker becomes its mean, not black or white noise."""
    checker = np.indices((512, 640)).sum(axis=0)[..., None] % 2 * np.full(3, 255)
    shown = Letterbox(512, 640, 256, 320).apply(checker.astype(np.uint8))
    assert np.abs(shown.astype(int) - 127).max() <= 1


def test_wrong_images_are_refused():
    box = Letterbox(10, 10, 20, 20)
    for image in (
        np.zeros((10, 11, 3), np.uint8),
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 3), np.float32),
    ):
        with pytest.raises(ValueError, match="expected uint8"):
            box.apply(image)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        Letterbox(0, 10, 20, 20)


def test_scaled_pictures_are_opencvs():
    image = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    box = Letterbox(120, 160, 256, 320)
    (height, width), (top, left) = box.inner, box.margin
    expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(box.apply(image)[top : top + height, left : left + width], expected)
