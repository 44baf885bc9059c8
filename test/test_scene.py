# SPDX-License-Identifier: Apache-2.0
"""Laws of the synthetic scenes: what the detector is trained on and what the synthetic camera shows."""

import numpy as np
import pytest

from dnn_dist.camera.scene import CLASSES, MIN_SIDE_PX, SceneFilm, draw_scene


def scene(seed: int, height: int = 256, width: int = 320):
    return draw_scene(np.random.default_rng(seed), height, width)


def assert_sound(image: np.ndarray, boxes: list, height: int, width: int) -> None:
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    for box in boxes:
        assert 0 <= box.y0 < box.y1 <= height
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.class_id < len(CLASSES)


def test_same_seed_gives_the_same_scene_and_another_seed_another():
    (first, boxes), (again, same_boxes), (other, _) = scene(5), scene(5), scene(6)
    np.testing.assert_array_equal(first, again)
    assert boxes == same_boxes
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize(("height", "width"), [(256, 320), (240, 320), (480, 640), (97, 131)])
def test_boxes_lie_inside_the_image_and_are_not_empty(height, width):
    for seed in range(12):
        assert_sound(*scene(seed, height, width), height, width)


def test_every_class_occurs_and_about_as_often_as_any_other():
    counts = np.bincount(
        [box.class_id for seed in range(100) for box in scene(seed)[1]], minlength=len(CLASSES)
    )
    assert counts.min() > 0.4 * counts.max()


def test_labelled_objects_are_large_enough_to_be_found():
    sides = [max(b.y1 - b.y0, b.x1 - b.x0) for seed in range(60) for b in scene(seed)[1]]
    assert min(sides) >= MIN_SIDE_PX - 2


def test_no_box_hides_wholly_within_the_picture_of_a_nearer_one():
    """Boxes are of what can be seen, far objects first: no two of them are the same region."""
    for seed in range(60):
        corners = [(b.y0, b.x0, b.y1, b.x1) for b in scene(seed)[1]]
        assert len(set(corners)) == len(corners)


def test_a_frame_of_a_film_depends_on_seed_and_number_alone():
    film = SceneFilm(seed=4)
    image, boxes = film.frame(33)
    film.frame(7)  # frames asked for in between leave no trace
    again, same_boxes = SceneFilm(seed=4).frame(33)
    np.testing.assert_array_equal(image, again)
    assert boxes == same_boxes
    assert (SceneFilm(seed=5).frame(33)[0] != image).mean() > 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_film_moves_smoothly(seed):
    film = SceneFilm(seed)
    for k in (0, 100, 1000):
        (now, boxes), (after, next_boxes) = film.frame(k), film.frame(k + 1)
        change = np.abs(now.astype(int) - after).mean()
        assert 0 < change < 12  # grey levels; noise alone makes about 3
        assert abs(len(boxes) - len(next_boxes)) <= 2
        for box in boxes:  # what is in view stays near where it was, unless it just went out of view
            near = [b for b in next_boxes if b.class_id == box.class_id]
            moved = min((abs(b.y0 - box.y0) + abs(b.x0 - box.x0) for b in near), default=0.0)
            assert moved < 20 or len(next_boxes) < len(boxes)


def test_a_film_goes_on_moving():
    film = SceneFilm(seed=2)
    assert np.abs(film.frame(0)[0].astype(int) - film.frame(60)[0]).mean() > 5


@pytest.mark.parametrize("seed", range(6))
def test_a_film_always_shows_a_couple_of_objects(seed):
    film = SceneFilm(seed)
    for k in range(0, 3000, 150):
        image, boxes = film.frame(k)
        assert_sound(image, boxes, film.height, film.width)
        assert len(boxes) >= 2
