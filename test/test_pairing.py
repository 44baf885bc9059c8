# SPDX-License-Identifier: Apache-2.0
"""Images of several cameras that belong together: each set once, nearest stamps, nothing kept without bound."""

from random import Random

import pytest

from dnn_dist.run.pairing import KEPT, Pairing


def test_of_one_topic_every_image_is_a_set():
    pairing = Pairing(1)
    assert [pairing.add(0, 7.0, image) for image in "abc"] == [("a",), ("b",), ("c",)]


def test_sets_are_of_equal_stamps_in_whatever_order_images_come():
    pairing = Pairing(3)
    assert pairing.add(0, 1.0, "left 1") is None and pairing.add(2, 1.0, "right 1") is None
    assert pairing.add(0, 2.0, "left 2") is None
    assert pairing.add(1, 1.0, "middle 1") == ("left 1", "middle 1", "right 1")
    assert pairing.add(1, 2.0, "middle 2") is None
    assert pairing.add(2, 2.0, "right 2") == ("left 2", "middle 2", "right 2")


def test_an_image_without_another_is_passed_over():
    pairing = Pairing(2)
    assert pairing.add(0, 1.0, "left 1") is None
    assert pairing.add(0, 2.0, "left 2") is None
    assert pairing.add(1, 2.0, "right 2") == ("left 2", "right 2")
    assert pairing.add(1, 1.0, "right 1") is None, "its other is older than what was given"


def test_near_stamps_belong_together_and_the_nearest_is_taken():
    pairing = Pairing(2, within=0.02)
    assert pairing.add(0, 1.000, "a") is None and pairing.add(0, 1.015, "b") is None
    assert pairing.add(1, 1.018, "c") == ("b", "c")
    assert pairing.add(1, 1.050, "d") is None


@pytest.mark.parametrize("topics", [2, 3])
def test_no_image_is_in_two_sets_and_few_are_kept(topics):
    random, pairing, seen = Random(topics), Pairing(topics, within=0.5), []
    for number in range(3000):
        topic, stamp = random.randrange(topics), number / 10 + random.uniform(-2, 2)
        found = pairing.add(topic, stamp, (topic, stamp))
        assert all(len(waiting) <= KEPT for waiting in pairing._waiting)
        if found is not None:
            assert [entry[0] for entry in found] == list(range(topics))
            assert max(s for _, s in found) - min(s for _, s in found) <= 0.5
            seen += found
    assert len(seen) > 300 and len(set(seen)) == len(seen)
