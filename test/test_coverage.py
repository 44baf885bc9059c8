# SPDX-License-Identifier: Apache-2.0
"""Coverage of failures: the published table, and that extras cover what they claim when devices really fail."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnn_dist.errors import PlanError
from dnn_dist.plan.coverage import STUDIED, Division, coverage, covered, curve, extras_needed

# Hadidi et al. 2019, figure 3, in per cent; VGG16 only by what full coverage takes.
PUBLISHED = {
    "AlexNet": ([33, 57, 75, 89, 100], [50, 71, 87.5, 100], (4, 5)),
    "action recognition": ([22, 40, 55, 67, 77, 86, 93, 100], [33, 60, 73, 83, 92, 100], (6, 8)),
    "C3D on 7": ([25, 44, 60, 73, 83, 92, 100], [37.5, 67, 80, 91, 100], (5, 7)),
    "C3D on 9": ([20, 36, 50, 62, 71, 80, 87.5, 94, 100], [40, 73, 83, 92, 100], (5, 9)),
    "VGG16": (None, None, (5, 9)),
}


@pytest.mark.parametrize("name", STUDIED)
def test_the_published_table_comes_out(name) -> None:
    copied, coded, full = PUBLISHED[name]
    division = STUDIED[name]
    for published, with_parity in ((copied, False), (coded, True)):
        if published is not None:
            ours = [100 * value for value in curve(division, with_parity)]
            assert len(ours) == len(published)
            # printed as whole per cent, or as halves of one
            assert all(abs(a - b) <= 0.5 for a, b in zip(ours, published, strict=True)), ours
    assert (extras_needed(division), extras_needed(division, coded=False)) == full


DIVISIONS = st.lists(st.integers(2, 4), max_size=3).flatmap(
    lambda groups: st.integers(max(1, sum(groups)), sum(groups) + 3).map(lambda n: Division(n, tuple(groups)))
)


@given(DIVISIONS, st.booleans())
def test_coverage_grows_to_all_and_parity_never_costs_more(division, coded) -> None:
    values = (0.0, *curve(division, coded))
    assert all(a < b for a, b in pairwise(values))
    assert values[-1] == 1
    assert coverage(division, 0, coded) == 0
    assert extras_needed(division) <= extras_needed(division, coded=False)
    assert all(with_ >= without for with_, without in zip(curve(division), curve(division, False), strict=False))


@given(DIVISIONS)
def test_what_counts_as_covered_survives_when_it_fails(division) -> None:
    # Places: a group with its parity needs all but one of its devices, a single one with its duplicate one of two.
    for extras, count in enumerate(covered(division), 1):
        spare = extras
        places = []
        for size in (*sorted(division.groups, reverse=True), *[1] * division.single):
            places.append((size, size + (1 if spare > 0 else 0)))  # (needed, present)
            spare -= 1
        survived = sum(present for needed, present in places if present - 1 >= needed)
        assert survived == count
        assert sum(present for _, present in places) == division.devices + extras


@given(st.lists(st.integers(2, 3), max_size=2), st.integers(1, 2), st.integers(1, 2))
def test_the_extras_needed_survive_every_set_of_failures(groups, single, failures) -> None:
    division = Division(sum(groups) + single, tuple(groups))
    places = [(size, size + failures) for size in (*groups, *[1] * single)]
    assert sum(present for _, present in places) - division.devices == extras_needed(division, failures)
    devices = [place for place, (_, present) in enumerate(places) for _ in range(present)]
    for lost in combinations(range(len(devices)), failures):
        gone = [devices[device] for device in lost]
        assert all(present - gone.count(place) >= needed for place, (needed, present) in enumerate(places))
    # with one extra less some place would lack one
    assert any(present - 1 - failures < needed for needed, present in places)


def test_overlapping_groups_are_one_line() -> None:
    for devices, groups in ((4, (3, 2)), (3, (1,)), (0, ())):
        with pytest.raises(PlanError, match="groups of two devices or more"):
            Division(devices, groups)
