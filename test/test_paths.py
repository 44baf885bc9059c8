# SPDX-License-Identifier: Apache-2.0
"""Order of paths: the paper's examples, the exact order against all orders, the bound, and paths that share layers."""

from itertools import permutations
from random import Random

import pytest

from dnn_dist.plan.paths import EXACT, RULES, Paths, best_order, exact, extended_johnson, ordered

EXAMPLE = Paths.of([(3, 2, 5), (3, 2, 2), (4, 3, 3), (4, 2, 3)])  # the paper's
COUNTER = Paths.of([(2, 20, 83), *[(1, 20, 1)] * 4])


def random_paths(random: Random, most: int) -> Paths:
    return Paths.of([tuple(random.uniform(0, 1) for _ in range(3)) for _ in range(random.randint(1, most))])


def random_shared(random: Random, most: int) -> Paths:
    """Paths that share layers at forks and joins, and layers that no path needs."""
    count = random.randint(1, most)
    sets = [random.randrange(1, 1 << count) for _ in range(2 * count)]
    robot = {0: random.choice((0.0, 0.5)), **{paths: random.uniform(0, 1) for paths in sets[:count]}}
    server = {paths: random.uniform(0, 1) for paths in sets[count:]}
    return Paths(robot, tuple(random.uniform(0, 1) for _ in range(count)), server)


def all_orders(paths: Paths) -> list[float]:
    return [paths.makespan(order) for order in permutations(range(len(paths.sends)))]


def test_worked_example():
    order = extended_johnson(EXAMPLE)
    assert [path + 1 for path in order] == [1, 3, 4, 2]
    assert EXAMPLE.makespan(order) == 18 == min(all_orders(EXAMPLE)) == EXAMPLE.bound()
    assert EXAMPLE.makespan((0, 1, 2, 3)) == 19 and max(all_orders(EXAMPLE)) == 22
    best = best_order(EXAMPLE)
    assert (best.order, best.rule, best.gap) == (order, "Extended Johnson", 0)


def test_counter_example_to_the_five_thirds():
    assert COUNTER.makespan(extended_johnson(COUNTER)) == 184
    assert min(all_orders(COUNTER)) == 109 == COUNTER.makespan(exact(COUNTER)) == best_order(COUNTER).makespan
    assert 184 / 109 > 5 / 3


def test_exact_is_the_least_of_all_orders_and_never_above_any_rule():
    random = Random(1)
    for _ in range(150):
        paths = random_paths(random, 6)
        least = min(all_orders(paths))
        assert paths.makespan(exact(paths)) == pytest.approx(least) == best_order(paths).makespan
        assert paths.bound() <= least * (1 + 1e-9)
        assert all(ordered(paths, rule).makespan >= least * (1 - 1e-9) for rule in RULES)


def test_up_to_nine_paths_the_order_is_exact_and_extended_johnson_is_close():
    """As the paper's followers found on random jobs; bench/order_of_paths.py has 10 000."""
    random, gaps, took = Random(2), [], set()
    for _ in range(400):
        paths = random_paths(random, 9)
        best, published = best_order(paths), ordered(paths, "Extended Johnson")
        assert sorted(best.order) == list(range(len(paths.sends)))
        assert best.bound <= best.makespan * (1 + 1e-9) and best.makespan <= published.makespan * (1 + 1e-9)
        assert paths.makespan(exact(paths)) == pytest.approx(best.makespan)
        gaps.append(published.makespan / best.makespan - 1)
        took.add(best.rule)
    assert 0.01 < sum(gaps) / len(gaps) < 0.04
    assert EXACT in took and "Extended Johnson" in took


def test_extended_johnson_is_optimal_where_its_theorem_says():
    """Theorem 3: max(min p1, min p3) >= max p2."""
    random = Random(3)
    for _ in range(200):
        jobs = [tuple(random.uniform(0, 1) for _ in range(3)) for _ in range(random.randint(2, 6))]
        slowest = max(p2 for _, p2, _ in jobs)
        raised = random.choice((0, 2))
        paths = Paths.of([tuple(s + slowest * (k == raised) for k, s in enumerate(job)) for job in jobs])
        assert paths.makespan(extended_johnson(paths)) == pytest.approx(min(all_orders(paths)))


def test_what_paths_share_runs_once():
    paths = Paths({0b11: 2.0, 0b01: 1.0, 0b10: 1.0, 0: 5.0}, (1.0, 1.0), {0b01: 4.0, 0b10: 1.0, 0b11: 3.0})
    # robot: fork 0..2, first 2..3, second 3..4, the rest 4..9; server: first 4..8, second 8..9, join 9..12
    assert paths.makespan((0, 1)) == 12
    assert paths.makespan((1, 0)) == 12  # second 4..5, first 5..9, join 9..12
    assert paths.makespan(()) == 5
    assert paths.jobs() == [(1, 1, 4), (1, 1, 1)]  # fork and join are no path's
    assert Paths({0: 3.0}, (), {}).bound() == 3 == best_order(Paths({0: 3.0}, (), {})).makespan


def test_exact_with_shared_layers():
    random = Random(4)
    for _ in range(200):
        paths = random_shared(random, 5)
        least = min(all_orders(paths))
        assert paths.makespan(exact(paths)) == pytest.approx(least)
        assert paths.bound() <= least * (1 + 1e-9)


def test_many_paths_take_the_best_rule():
    paths = Paths.of([(1 + n % 3, 1 + n % 5, 1 + n % 4) for n in range(20)])
    best = best_order(paths)
    assert best.makespan == min(ordered(paths, rule).makespan for rule in RULES) and best.rule in RULES
    assert 0 <= best.gap < 0.1
