# SPDX-License-Identifier: Apache-2.0
"""Which plan to choose: families of plans, the best of each, and of these the one that plan/rules.py picks.

A plan is a way through the places of a network: from one place to a later one by a stage, or a few. While one frame is
in work at a time the latencies of stages add up, so the fastest way is found by dynamic programming, exactly. For
throughput and memory, and where a robot's memory is short, several figures add up side by side: ways that are worse
in all of them are dropped, and of the rest the most promising few are kept (labels, bounded). The best ways are then
predicted as a whole, by the evaluator that the caller gives: the cost model, or a simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain as flat
from itertools import combinations, pairwise
from statistics import fmean

from dnn_dist.cut.feeds import chains
from dnn_dist.cut.layers import layer_starts
from dnn_dist.cut.local import whole_stage
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.spec import cut_network, cut_text, filled
from dnn_dist.graph.network import Network
from dnn_dist.plan.between import servers
from dnn_dist.plan.chains import Terms
from dnn_dist.plan.cost import op_macs, piece_memory
from dnn_dist.plan.finer import ends, finer
from dnn_dist.plan.fleet import Fleet
from dnn_dist.plan.groups import piped
from dnn_dist.plan.options import Crew, Space
from dnn_dist.plan.policy import in_work
from dnn_dist.plan.predict import ChainCost, Circumstances, Prediction, Predictor
from dnn_dist.plan.rules import (
    GROUPS,
    ONE_ROBOT,
    ROBOT_A_FRAME,
    Candidate,
    Goal,
    choose,
    direct_boundaries,
    on_reuse,
    pipelining,
    redundancy,
    redundant,
    remarks,
)

LABELS = 12
"""Ways kept at each place when several figures count."""
FINALISTS = 4
"""Most promising ways of each family that are predicted as a whole."""
WORTH = 0.99
"""Finer tiles are taken where the goal is at most so many times what it was: each piece has its price."""
SLOWER = 0.8
"""A robot of a large fleet that is slower than so many times the one before may not pay: a crew ends before it."""
TOO_LARGE = 1e15
"""Added to the promise of what does not fit."""

Evaluator = Callable[[Sequence[Stage], tuple[str, ...], int], Prediction]
"""(stages, robots with workers, replicas) -> what the plan would do."""

PIPELINE, SIDED = "pipeline", "robot and server"
FAMILIES: dict[str, tuple[str, ...]] = {
    "front and rest": ("local", "remote"),
    "tiles": ("local", "tiles"),
    "reuse": ("local", "reuse"),
    "bands": ("local", "bands"),
    "slices": ("local", "slices"),
    "direct": ("local", "chain"),
    "mixture": ("local", "remote", "tiles", "reuse", "bands", "slices", "chain"),
}
"""Family -> kinds of stages that its plans consist of. The best way of each is shown; the last holds them all."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The plan chosen, the best of each family, and why."""

    best: Candidate
    alternatives: tuple[Candidate, ...]  # best first; the chosen one among them
    why: tuple[str, ...]  # a line for each rule that decided


def search(
    network: Network,
    given: Circumstances,
    goal: Goal,
    evaluate: Evaluator | None = None,
    predictor: Predictor | None = None,
) -> Choice:
    """The plan that serves the goal best. `evaluate` has the last word on the best few; default: the cost model."""
    predictor = predictor or Predictor(network, given)
    space = Space(network, op_macs(network, given.fleet.robots))
    finalists = _finalists(proposals(space, given, goal, predictor))
    candidates = [_candidate(space, proposal, predictor) for proposal in finalists]
    different = {(c.cut, c.workers if c.cut != "local" else ()): c for c in reversed(candidates)}.values()
    coarse = [choose(group, goal)[0] for group in _by_family(reversed(different)).values()]
    best = [_finer(candidate, goal, predictor) for candidate in coarse]
    if evaluate is not None:
        best = [replace(c, prediction=evaluate(c.stages, c.workers, c.replicas)) for c in best]
    chosen, why = choose(best, goal)
    ordered = sorted(best, key=lambda c: (c is not chosen, bool(c.prediction.too_small), goal.value(c.prediction)))
    told = [*remarks(chosen, best, goal), *pipelining(chosen, best, goal), *_on_boundaries(chosen, predictor)]
    told += [*on_reuse(network, chosen, best), *redundancy(chosen, goal)]
    if chosen.family == SIDED:
        told.append(str(space.between(given, chosen.workers[0])))
    return Choice(chosen, tuple(ordered), (*why, *told))


def _finer(candidate: Candidate, goal: Goal, predictor: Predictor) -> Candidate:
    """The candidate with finer tiles where its chains end and begin, as far as that is better."""
    for number in ends(candidate.stages):
        for stages in finer(predictor.network, candidate.stages, number):
            prediction = predictor(stages, candidate.workers, candidate.replicas)
            fits = bool(prediction.too_small) <= bool(candidate.prediction.too_small)
            if fits and goal.value(prediction) < WORTH * goal.value(candidate.prediction):
                cut = cut_text([stage for stage in stages if stage.distributed])
                candidate = replace(candidate, cut=cut, stages=stages, prediction=prediction)
    return candidate


def _on_boundaries(chosen: Candidate, predictor: Predictor) -> Iterator[str]:
    gathered = [replace(stage, direct=False, group=False) for stage in chosen.stages]
    yield from direct_boundaries(chosen, predictor(gathered, chosen.workers, chosen.replicas))


def _candidate(space: Space, proposal: Proposal, predictor: Predictor) -> Candidate:
    distributed = [stage for stage in proposal.stages if stage.distributed]
    cut = cut_text(distributed) or "local"
    # as `cut_network` would: what is local between two others is one stage
    stages = filled(space.network, distributed, 0, len(space.network.ops) - 1)
    workers, prediction = proposal.workers, predictor(stages, proposal.workers, proposal.replicas)
    busy = tuple(name for name in workers if name in prediction.busy)
    if busy and len(busy) < len(workers) and not redundant(stages, proposal.replicas):
        # who would have nothing need not take part
        without = predictor(stages, busy, proposal.replicas)
        if (without.latency, -without.throughput) <= (prediction.latency, -prediction.throughput):
            workers, prediction = busy, without
    family = proposal.family
    if len(prediction.busy) == 1:  # whatever it was thought of as
        family = ONE_ROBOT
    elif len(stages) == 1 and stages[0].kind == "layers":
        family = ROBOT_A_FRAME
    return Candidate(family, cut, stages, workers, proposal.replicas, prediction)


def _by_family(candidates: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.family, []).append(candidate)
    return groups


# Proposals ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan that may be worth a prediction."""

    family: str
    stages: Sequence[Stage]
    workers: tuple[str, ...]
    replicas: int = 1
    promise: float = 0.0  # the goal's value, roughly; 0: predict it in any case


def proposals(space: Space, given: Circumstances, goal: Goal, predictor: Predictor) -> Iterator[Proposal]:
    """Plans of every family for every crew."""
    network = space.network
    layers = len(layer_starts(network, 0, len(network.ops) - 1))
    yield Proposal(ONE_ROBOT, cut_network(network, "local"), ())
    for server in servers(given.fleet, given.gateway, predictor.speeds) if not goal.tolerate else ():
        stages = cut_network(network, space.between(given, server).cut)
        costs = _Costs(space, predictor, _crew(given, predictor, (server, given.gateway), 0), goal)
        yield costs.proposal(SIDED, costs.total(stages), stages)
    found = crews(given, predictor, goal.tolerate)
    if goal.objective == "throughput" and not goal.tolerate:
        crew = max(found, key=lambda crew: len(crew.names))
        yield Proposal(ONE_ROBOT, cut_network(network, "layers:1"), crew.names)  # a robot a frame
        yield from _Costs(space, predictor, crew, goal).pipelines()
    for crew in found:
        costs = _Costs(space, predictor, crew, goal)
        costs.crew = replace(crew, tight=costs.tight or goal.objective == "memory")
        if len(crew.names) == 1 and crew.names != (given.gateway,):
            yield Proposal(ONE_ROBOT, cut_network(network, "layers:1"), crew.names)
        for count in range(2, min(len(crew.names), layers) + 1):
            stages = space.pipeline(count)
            if costs.may_chain(0, len(network.ops) - 1):
                stages = piped(stages)
            yield costs.proposal(PIPELINE, costs.total(stages), stages)
        for family, kinds in FAMILIES.items():
            yield from (costs.proposal(family, cost, stages) for cost, stages in costs.best_ways(kinds))


def _finalists(proposed: Iterable[Proposal]) -> Iterator[Proposal]:
    """The most promising few of each family."""
    families: dict[str, list[Proposal]] = {family: [] for family in (ONE_ROBOT, PIPELINE, GROUPS, SIDED, *FAMILIES)}
    for proposal in proposed:
        families[proposal.family].append(proposal)
    for family, group in families.items():
        group.sort(key=lambda proposal: proposal.promise)
        yield from group if family == ONE_ROBOT else group[:FINALISTS]


def crews(given: Circumstances, predictor: Predictor, tolerate: int = 0) -> tuple[Crew, ...]:
    """Sets of robots to have workers: all of a small fleet, else the fastest so many, also with the gateway's robot.

    Of sets that are alike (as fast, linked alike) one stands for all.
    """
    fleet, gateway, speeds = given.fleet, given.gateway, predictor.speeds
    order = sorted(fleet.names, key=lambda name: (-speeds[name], name != gateway, fleet.names.index(name)))
    count = len(order)
    if count <= 4:
        sets = [names for size in range(1, count + 1) for names in combinations(order, size)]
    else:
        much_slower = {n for n in range(1, count) if speeds[order[n]] < SLOWER * speeds[order[n - 1]]}
        sizes = sorted({1, 2, *range(4, 9, 2), *range(12, 25, 4), *range(32, count, 8), count, *much_slower})
        sets = [tuple(order[:size]) for size in sizes if size <= count]
        sets += [(*names[:-1], gateway) for names in sets if gateway not in names]
    alike: dict[tuple[object, ...], tuple[str, ...]] = {}
    for names in sets:
        sign = tuple((speeds[n], fleet.robot(n).memory, _link_sign(fleet, gateway, n)) for n in names)
        alike.setdefault(sign, names)
    return tuple(_crew(given, predictor, names, tolerate) for names in alike.values() if len(names) > tolerate)


def _crew(given: Circumstances, predictor: Predictor, names: tuple[str, ...], tolerate: int) -> Crew:
    links = [given.fleet.link(a, b) for a, b in pairwise(names)]
    speeds = tuple(predictor.speeds[name] for name in names)
    byte = max((link.occupied(1) / (1 if link.medium else len(names)) for link in links), default=0.0)
    delay = max((link.latency + link.mean_delay for link in links), default=0.0)
    overhead = delay + fmean(given.fleet.robot(name).overhead for name in names)
    return Crew(names, speeds, tolerate, byte, overhead, given.wire)


def _link_sign(fleet: Fleet, gateway: str, name: str) -> object:
    return (fleet.link(gateway, name), name == gateway)


# Ways through the network ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Label:
    """One way from the beginning to a place."""

    cost: ChainCost
    spread: bool  # some stage is not local
    stages: tuple[tuple[Stage, ...], ...] = ()


_Way = tuple[ChainCost, tuple[Stage, ...]]


@dataclass  # no slots: cached properties need a __dict__
class _Costs:
    """The ways of one crew. Costs are asked for once, whatever the family."""

    space: Space
    predictor: Predictor
    crew: Crew
    goal: Goal
    _by_range: dict[tuple[str, int, int], list[_Way]] = field(default_factory=dict)

    @property
    def replicas(self) -> int:
        return self.goal.tolerate + 1

    @cached_property
    def _smallest(self) -> float:
        """Bytes of the robot that has the least."""
        given = self.predictor.given
        limits = (given.fleet.robot(name).memory for name in {*self.crew.names, given.gateway})
        return min((limit for limit in limits if limit is not None), default=float("inf"))

    @cached_property
    def tight(self) -> bool:
        """Whether a robot may be too small for what it is given: then memory counts, whatever the goal."""
        return self.predictor.whole_memory > self._smallest

    def proposal(self, family: str, cost: ChainCost, stages: Sequence[Stage]) -> Proposal:
        return Proposal(family, stages, self.crew.names, self.replicas, self.promise(cost))

    def pipelines(self) -> Iterator[Proposal]:
        """Pipelines of groups that meet the deadline, if any does: with as many frames in work as they need, a frame
        takes so many times the slowest group's time.
        """
        crew, given = self.crew, self.predictor.given
        terms = Terms((), crew.speeds, crew.overhead, crew.byte, crew.wire)
        for pipeline in self.space.pipelines.best(terms, self._smallest if self.tight else float("inf")):
            frames = in_work(given.max_frames, pipeline.stages)
            if self.goal.deadline is None or frames * pipeline.seconds <= self.goal.deadline:
                yield Proposal(GROUPS, pipeline.stages, crew.names, promise=pipeline.seconds)

    def best_ways(self, kinds: tuple[str, ...]) -> list[_Way]:
        """The most promising ways of these kinds from end to end that give some worker something to do."""
        places = self.space.places
        latest = (self.goal.objective != "latency" and self.goal.deadline) or float("inf")
        labels: dict[int, list[_Label]] = {place: [] for place in places}
        labels[0] = [_Label(ChainCost(), False)]
        for start, first in enumerate(places[:-1]):
            kept = self._keep(labels.pop(first))
            for after in places[start + 1 :]:
                for cost, stages in self._ways(kinds, first, after - 1):
                    spread = any(stage.distributed for stage in stages)
                    for label in kept:
                        whole = label.cost + cost
                        if whole.latency <= latest:
                            labels[after].append(_Label(whole, label.spread or spread, (*label.stages, stages)))
        final = sorted(
            (label for label in labels[places[-1]] if label.spread), key=lambda label: self.promise(label.cost)
        )
        return [(label.cost, tuple(flat.from_iterable(label.stages))) for label in final[:FINALISTS]]

    def _ways(self, kinds: tuple[str, ...], first: int, last: int) -> Iterator[_Way]:
        if not self.space.has_work(first, last):
            yield ChainCost(), ()
            return
        for kind in kinds:
            if kind == "chain" and not self.may_chain(first, last):
                continue
            if (kind, first, last) not in self._by_range:
                found = [(self.total(stages), stages) for stages in self.space.ways((kind,), first, last, self.crew)]
                self._by_range[kind, first, last] = self._worth_keeping(found)
            yield from self._by_range[kind, first, last]

    def total(self, stages: Sequence[Stage]) -> ChainCost:
        total = ChainCost()
        for chain in chains(stages):
            part = stages[chain.start : chain.stop]
            total += self.predictor.cost(part, self.crew.names, self.replicas, self._counts_memory)
        return total

    def may_chain(self, first: int, last: int) -> bool:
        """Whether a chain of these ops can be repaired: what lost robots had is computed by those that are left, at
        worst by one, with all of the chain's weights. And what may not be lost at all is not repaired later.
        """
        if not self.tight:
            return not self.goal.tolerate
        network = self.space.network
        whole = whole_stage(network, "layers", "", first, last)
        return not self.goal.tolerate and piece_memory(network, whole, whole.pieces[0]) <= self._smallest

    @property
    def _counts_memory(self) -> bool:
        return self.tight or self.goal.objective == "memory"

    def _worth_keeping(self, found: list[_Way]) -> list[_Way]:
        """Ways of one kind for one range that no other is at least as good as in every figure and on the air: of whole
        plans that are as fast the one that sends least is chosen.
        """
        kept: dict[tuple[float, ...], _Way] = {}
        for cost, stages in sorted(found, key=lambda way: self._figures(way[0])):
            figures = (*self._figures(cost), cost.air)
            if not any(_dominates(other, figures) for other in kept):
                kept[figures] = cost, stages
        return list(kept.values())

    def _keep(self, labels: list[_Label]) -> list[_Label]:
        """Labels that no other is at least as good as; so many of those that spread work, and so many others."""
        kept: dict[bool, list[_Label]] = {False: [], True: []}
        for label in sorted(labels, key=lambda label: (self.promise(label.cost), self._figures(label.cost))):
            same, figures = kept[label.spread], self._figures(label.cost)
            if len(same) < LABELS and not any(_dominates(self._figures(other.cost), figures) for other in same):
                same.append(label)
        return [*kept[False], *kept[True]]

    def _figures(self, cost: ChainCost) -> tuple[float, ...]:
        """What counts, all to be small."""
        memory = (cost.worker_weights, cost.gateway_weights, cost.activations) if self._counts_memory else ()
        flow = (cost.work, cost.local, cost.air) if self.goal.objective == "throughput" else ()
        return (cost.latency, *flow, *memory)

    def promise(self, cost: ChainCost) -> float:
        """What the goal's value would be if this were all."""
        given = self.predictor.given
        memory = max(
            cost.gateway_weights + (cost.worker_weights if given.gateway in self.crew.names else 0), cost.worker_weights
        )
        memory += cost.activations
        if self.tight and memory > self._smallest:
            return TOO_LARGE + memory
        if self.goal.objective == "latency":
            return cost.latency
        if self.goal.objective == "throughput":
            robots = len({*self.crew.names, given.gateway})
            return max(cost.latency / (given.max_frames or given.alone), cost.work / robots, cost.local, cost.air)
        return memory


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True))
