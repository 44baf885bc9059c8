# SPDX-License-Identifier: Apache-2.0
"""The algebra of regions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dnn_dist.graph.region import Region

spans = st.tuples(st.integers(0, 12), st.integers(0, 12))
regions = st.builds(lambda y, x: Region(min(y), max(y), min(x), max(x)), spans, spans)


def pixels(region: Region) -> set[tuple[int, int]]:
    return {(y, x) for y in range(region.y0, region.y1) for x in range(region.x0, region.x1)}


@given(regions, regions)
def test_and_is_the_common_part(a, b):
    assert pixels(a & b) == pixels(a) & pixels(b)
    assert (a & b).empty == (not pixels(a) & pixels(b))


@given(regions, regions)
def test_or_is_the_smallest_box_around_both(a, b):
    box = a | b
    assert box.contains(a) and box.contains(b)
    assert box.y0 in (a.y0, b.y0) and box.y1 in (a.y1, b.y1)
    assert box.x0 in (a.x0, b.x0) and box.x1 in (a.x1, b.x1)


@given(regions)
def test_size_and_slices_agree(region):
    assert region.size == len(pixels(region)) == region.height * region.width
    assert np.zeros((12, 12))[region.slices].size == region.size


@given(regions, st.integers(-5, 5), st.integers(-5, 5))
def test_shift_there_and_back(region, dy, dx):
    assert region.shift(dy, dx).shift(-dy, -dx) == region
    assert region.shift(dy, dx).size == region.size


def test_whole_and_text():
    assert Region.whole(3, 5).size == 15
    assert str(Region(1, 2, 3, 4)) == "[1:2, 3:4]"
