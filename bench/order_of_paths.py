# SPDX-License-Identifier: Apache-2.0
"""How good Extended Johnson's order of paths is: random instances against the exact order and the lower bound.

    dnn_dist-env python bench/order_of_paths.py [--instances 10000] [--paths 9] [--seed 0]

Stages of a path take times that are uniform between 0 and 1. For each number of paths: the mean and the largest gap of
Extended Johnson to the best order, how often it is the best, the gap of the best order to the bound, and which rule the
planner took (plan/paths.py). Half a minute.
"""

from __future__ import annotations

import argparse
from collections import Counter
from random import Random
from statistics import fmean

from dnn_dist.plan.paths import MOST_EXACT, Paths, best_order, exact, ordered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--paths", type=int, default=MOST_EXACT, help="from two up to so many")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random = Random(given.seed)
    gaps: dict[int, list[float]] = {count: [] for count in range(2, given.paths + 1)}
    to_bound: dict[int, list[float]] = {count: [] for count in gaps}
    took: Counter[str] = Counter()
    for number in range(given.instances):
        count = 2 + number % (given.paths - 1)
        paths = Paths.of([(random.random(), random.random(), random.random()) for _ in range(count)])
        published, best = ordered(paths, "Extended Johnson"), best_order(paths)
        least = paths.makespan(exact(paths))
        assert least <= published.makespan * (1 + 1e-9), f"exact is above Extended Johnson: {paths}"
        assert abs(best.makespan - least) <= 1e-9 * least, f"the planner's order is not the best: {paths}"
        gaps[count].append(published.makespan / least - 1)
        to_bound[count].append(best.gap)
        took[best.rule] += 1
    print("paths  Extended Johnson above the best: mean, largest; is the best   best above the bound: mean")
    for count, found in gaps.items():
        best_share = sum(gap < 1e-9 for gap in found) / len(found)
        print(f"{count:5}  {fmean(found):38.2%}  {max(found):7.2%}  {best_share:11.1%}  {fmean(to_bound[count]):27.2%}")
    everything = [gap for found in gaps.values() for gap in found]
    print(f"  all  {fmean(everything):38.2%}  {max(everything):7.2%}")
    print("the planner took:", ", ".join(f"{rule} {share / given.instances:.1%}" for rule, share in took.most_common()))


if __name__ == "__main__":
    main()
