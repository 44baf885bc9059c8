# SPDX-License-Identifier: Apache-2.0
"""Front and rest: the best cut against all closed sets and orders, the minimum cut, and what is searched."""

import os
from itertools import permutations
from random import Random

import pytest

from dnn_dist.plan.front import Layer, LayerGraph, best_cut, closed_sets, divide, members, searched, source
from dnn_dist.plan.minimum_cut import minimum_cut
from dnn_dist.plan.paths import ordered

DAGS = int(os.environ.get("DNN_DIST_DAGS", "1000"))


def random_graph(random: Random, most: int = 14) -> LayerGraph:
    """One or two inputs, and layers that read one to three of the four before them; `most` in all."""
    layers = [source(random.uniform(0, 2)) for _ in range(random.randint(1, 2))]
    for _ in range(random.randint(1, most - len(layers))):
        near = range(max(0, len(layers) - 4), len(layers))
        takes = random.sample(near, min(len(near), random.choice((1, 1, 1, 2, 3))))
        send = random.choice((0.05, 0.3, 1)) * random.uniform(0, 1)
        layers.append(Layer(random.uniform(0, 2), random.uniform(0, 0.7), send, tuple(sorted(takes))))
    return LayerGraph(tuple(layers))


def run(graph: LayerGraph, front: set[int], order: tuple[int, ...]) -> float:
    """Robot, link and server layer by layer, as the module says and not as it reckons."""
    layers, robot, link, server = graph.layers, 0.0, 0.0, 0.0
    ran: set[int] = set()

    def compute(number: int) -> None:
        nonlocal robot
        if number not in ran:
            for maker in layers[number].takes:
                compute(maker)
            ran.add(number)
            robot += layers[number].robot

    come: set[int] = set()
    for tensor in order:
        compute(tensor)
        link = max(link, robot) + layers[tensor].send
        come.add(tensor)
        server = max(server, link)
        for number, layer in enumerate(layers):
            if number not in front and number not in come and set(layer.takes) <= come:
                server += layer.server
                come.add(number)
    for number in sorted(front):
        compute(number)
    return max(robot, server)


def by_enumeration(graph: LayerGraph) -> tuple[float, float, int]:
    """Least time with overlap, least sum, and how many closed sets there are: all subsets, all orders."""
    layers, count, least, least_sum = graph.layers, 0, float("inf"), float("inf")
    inputs = {number for number, layer in enumerate(layers) if layer.server == float("inf")}
    for bits in range(1 << len(layers)):
        if any(bits >> n & 1 and not all(bits >> maker & 1 for maker in layer.takes) for n, layer in enumerate(layers)):
            continue
        front = {n for n in range(len(layers)) if bits >> n & 1}
        if not inputs <= front:
            continue
        count += 1
        sent = [t for t in front if any(t in layer.takes for n, layer in enumerate(layers) if n not in front)]
        least = min(least, *(run(graph, front, order) for order in permutations(sent)))
        added = sum(layers[n].robot for n in front) + sum(layers[n].send for n in sent)
        least_sum = min(least_sum, added + sum(layer.server for n, layer in enumerate(layers) if n not in front))
    return least, least_sum, count


def test_best_cut_equals_enumeration():
    random = Random(1)
    for number in range(DAGS):
        graph = random_graph(random, 14 if number % 10 == 0 else random.randint(4, 11))
        least, least_sum, count = by_enumeration(graph)
        fronts = closed_sets(graph)
        assert len(fronts) == len(set(fronts)) == count
        assert best_cut(graph).makespan == pytest.approx(least)
        assert min(map(graph.summed, fronts)) == pytest.approx(least_sum)


def test_minimum_cut_is_the_least_sum_and_closed():
    pytest.importorskip("networkx")
    random = Random(2)
    for _ in range(300):
        graph = random_graph(random)
        fronts = closed_sets(graph)
        found = minimum_cut(graph)
        assert found in fronts
        assert graph.summed(found) == pytest.approx(min(map(graph.summed, fronts)))


def test_a_search_finds_the_best():
    random, missed = Random(3), 0
    for _ in range(300):
        graph = random_graph(random)
        best, found = best_cut(graph), searched(graph)
        assert found.makespan >= best.makespan * (1 - 1e-9)
        missed += found.makespan > best.makespan * (1 + 1e-9)
    assert missed <= 3


def test_many_closed_sets_are_searched():
    """Twenty inputs, each through three layers: 4 ** 20 closed sets."""
    layers = []
    for branch in range(20):
        layers.append(source(0.1))
        for depth in range(3):
            layers.append(Layer(0.02 + 0.001 * branch, 0.001, 0.08 / (1 + depth) ** 2, (len(layers) - 1,)))
    layers.append(Layer(0.1, 0.01, 0.01, tuple(range(3, len(layers), 4))))
    graph = LayerGraph(tuple(layers))
    assert closed_sets(graph) is None
    found = best_cut(graph)
    assert found.makespan < 0.7 * min(graph.summed(graph.whole), graph.summed(graph.least))
    assert found.makespan >= found.paths.bound * (1 - 1e-9)


def test_best_is_no_later_than_published_order_nor_that_than_any_baseline():
    random = Random(4)
    for _ in range(200):
        graph = random_graph(random)
        best, published = best_cut(graph), best_cut(graph, lambda paths: ordered(paths, "Extended Johnson"))
        baselines = min(map(graph.summed, closed_sets(graph)))
        assert best.makespan <= published.makespan * (1 + 1e-9) and published.makespan <= baselines * (1 + 1e-9)


def test_a_tensor_is_sent_once_and_in_the_order_of_the_paths():
    """A fork whose branches meet again; the cheap branch's tensor goes first."""
    layers = (
        source(9.0),
        Layer(1, 0.1, 9.0, (0,)),
        Layer(3, 0.1, 1.0, (1,)),
        Layer(1, 0.1, 1.0, (1,)),
        Layer(9, 0.5, 0.1, (2, 3)),
        Layer(9, 0.5, 0.1, (3,)),
    )
    graph = LayerGraph(layers)
    division = best_cut(graph)
    assert list(members(division.front)) == [0, 1, 2, 3]
    assert division.crossing == (2, 3) and division.sent == (3, 2)
    assert division.makespan == pytest.approx(1 + 1 + 3 + 1 + 0.5)
    assert divide(graph, graph.whole).makespan == graph.summed(graph.whole) == 23
    assert divide(graph, graph.least).makespan == graph.summed(graph.least)
