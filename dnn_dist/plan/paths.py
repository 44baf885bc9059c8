# SPDX-License-Identifier: Apache-2.0
"""In which order a robot computes and sends the paths of a network that a server goes on with.

After Wang, Duan and Wu, "Accelerate Cooperative Deep Inference via Layer-wise Processing Schedule Optimization" (ICCCN
2021). A path is a job of three stages: computing on the robot (p1), sending (p2), computing on the server (p3); one
processor, one link, one server, and the same order on all three. Which order ends soonest is NP-hard in general. The
paper's Extended Johnson is here as published; beside it stand NEH, Johnson's rule on other pairs of stages, and an
exact search, which is affordable since networks have few paths.

Paths share layers where they fork and where they meet. A layer that several paths need runs once: on the robot with the
first of them, on the server when the last of them has come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

MOST_EXACT = 9
"""Paths up to which the exact order is searched: some milliseconds at nine."""

Job = tuple[float, float, float]
"""Seconds of a path that shares nothing: on the robot, on the link, on the server."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Paths numbered from 0. A set of paths is an int, with bit i for path i."""

    robot: Mapping[int, float]
    """Set of paths -> s that the robot computes for these together; the empty set: what no path needs, last."""
    sends: tuple[float, ...]
    """s on the link for each path."""
    server: Mapping[int, float]
    """Set of paths -> s that the server computes when all these have come."""

    @classmethod
    def of(cls, jobs: Iterable[Job]) -> Paths:
        """Paths that share nothing."""
        robot, sends, server = zip(*jobs, strict=True)
        sets = [1 << path for path in range(len(sends))]
        return cls(dict(zip(sets, robot, strict=True)), sends, dict(zip(sets, server, strict=True)))

    def before(self, path: int, done: int = 0) -> float:
        """Seconds of the robot for a path when the paths `done` are computed."""
        return sum(s for paths, s in self.robot.items() if paths >> path & 1 and not paths & done)

    def after(self, path: int, come: int = -1) -> float:
        """Seconds of the server that a path sets free when the paths `come` are there; by default all others."""
        return sum(s for paths, s in self.server.items() if paths >> path & 1 and not paths & ~come & ~(1 << path))

    def jobs(self) -> list[Job]:
        """Each path by itself, as the paper's rules see it: with all that it shares with some others. What all paths
        share comes before or after every order, and belongs to none.
        """
        common = (1 << len(self.sends)) - 1
        first, last = (side.get(common, 0.0) if len(self.sends) > 1 else 0.0 for side in (self.robot, self.server))
        return [(self.before(i) - first, send, self.after(i) - last) for i, send in enumerate(self.sends)]

    def makespan(self, order: Sequence[int]) -> float:
        """Seconds from the start until robot and server are done with all paths, or with those of a part order."""
        robot = link = server = 0.0
        done = 0
        for path in order:
            robot += self.before(path, done)
            link = max(link, robot) + self.sends[path]
            server = max(server, link) + self.after(path, done)
            done |= 1 << path
        return max(server, robot + self.robot.get(0, 0.0))

    def bound(self) -> float:
        """No order ends sooner: robot, link or server is busy throughout, but for the shortest start and end."""
        count = range(len(self.sends))
        on_robot = sum(self.robot.values())
        if not count:
            return on_robot
        before, after = [self.before(i) for i in count], [self.after(i) for i in count]
        return max(
            on_robot,
            on_robot - self.robot.get(0, 0.0) + min(self.sends[i] + after[i] for i in count),
            min(before) + sum(self.sends) + min(after),
            min(before[i] + self.sends[i] for i in count) + sum(self.server.values()),
        )


Order = tuple[int, ...]


def johnson(pairs: Sequence[tuple[float, float]]) -> Order:
    """Johnson's rule (1954) for two machines: those with a <= b, ascending in a; then the rest, descending in b."""
    numbers = range(len(pairs))
    first = sorted((i for i in numbers if pairs[i][0] <= pairs[i][1]), key=lambda i: pairs[i][0])
    last = sorted((i for i in numbers if pairs[i][0] > pairs[i][1]), key=lambda i: -pairs[i][1])
    return (*first, *last)


def extended_johnson(paths: Paths) -> Order:
    """The paper's Algorithm 1: Johnson's rule on (p1 + p2, p2 + p3).

    Optimal when max(min p1, min p3) >= max p2 (its theorem 3). Its theorem 4, at most 5/3 of the optimum, does not
    hold: (2, 20, 83) and four times (1, 20, 1) take 184 against 109.
    """
    return johnson([(p1 + p2, p2 + p3) for p1, p2, p3 in paths.jobs()])


def _on_stages(a: int, b: int) -> Callable[[Paths], Order]:
    return lambda paths: johnson([(job[a], job[b]) for job in paths.jobs()])


def neh(paths: Paths) -> Order:
    """Nawaz, Enscore and Ham (1983): longest first, each inserted where the order so far ends soonest."""
    jobs = paths.jobs()
    order: Order = ()
    for path in sorted(range(len(jobs)), key=lambda i: -sum(jobs[i])):
        ways = [(*order[:at], path, *order[at:]) for at in range(len(order) + 1)]
        order = min(ways, key=paths.makespan)
    return order


RULES: dict[str, Callable[[Paths], Order]] = {
    "Extended Johnson": extended_johnson,
    "Johnson on robot and link": _on_stages(0, 1),
    "Johnson on link and server": _on_stages(1, 2),
    "Johnson on robot and server": _on_stages(0, 2),
    "NEH": neh,
}
EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Ordered:
    """Paths in an order."""

    order: Order
    makespan: float  # s
    rule: str  # of RULES, or EXACT
    bound: float  # s; no order ends sooner

    @property
    def gap(self) -> float:
        """How much longer than the bound it takes, as a share of that: 0 is proof of the best order."""
        return max(0.0, self.makespan / self.bound - 1) if self.bound else 0.0


def ordered(paths: Paths, rule: str) -> Ordered:
    """The paths in the order that this rule gives."""
    order = RULES[rule](paths)
    return Ordered(order, paths.makespan(order), rule, paths.bound())


def best_order(paths: Paths) -> Ordered:
    """The best of all rules, and where paths are few and no rule meets the bound the best there is."""
    tried = []
    for rule in RULES:
        tried.append(ordered(paths, rule))
        if _reaches(tried[-1].makespan, tried[-1].bound):
            return tried[-1]
    best = min(tried, key=lambda found: found.makespan)
    if len(paths.sends) > MOST_EXACT:
        return best
    order = exact(paths, best.order)
    makespan = paths.makespan(order)
    return best if _reaches(best.makespan, makespan) else Ordered(order, makespan, EXACT, best.bound)


def _reaches(makespan: float, bound: float) -> bool:
    return makespan <= bound * (1 + 1e-9)


def exact(paths: Paths, start: Order | None = None) -> Order:
    """An order of the least makespan, by branch and bound over what comes first; `start`: a good one.

    Which paths are done decides when the robot is free and what the server is free to compute, whatever their order. So
    of two beginnings with the same paths one that is no better on the link and on the server is dropped.
    """
    return _Search(paths).best(extended_johnson(paths) if start is None else start)


class _Search:
    def __init__(self, paths: Paths) -> None:
        self.paths, count = paths, len(paths.sends)
        self.all = (1 << count) - 1
        self.computed = [sum(s for g, s in paths.robot.items() if g & done) for done in range(self.all + 1)]
        self.freed = [sum(s for g, s in paths.server.items() if not g & ~done) for done in range(self.all + 1)]
        self.last = [paths.after(i) for i in range(count)]  # of the server, when the path comes last
        self.seen: dict[int, list[tuple[float, float]]] = {}  # done -> (link, server) of beginnings that none beats

    def best(self, start: Order) -> Order:
        self.order, self.least = start, self.paths.makespan(start)
        self._extend((), 0, 0.0, 0.0)
        return self.order

    def _extend(self, begun: Order, done: int, link: float, server: float) -> None:
        if done == self.all:
            end = max(server, self.computed[done] + self.paths.robot.get(0, 0.0))
            if end < self.least:
                self.order, self.least = begun, end
            return
        if any(a <= link and b <= server for a, b in self.seen.setdefault(done, [])):
            return
        self.seen[done].append((link, server))
        ways = []
        for path in (i for i in range(len(self.last)) if not done >> i & 1):
            now = done | 1 << path
            sent = max(link, self.computed[now]) + self.paths.sends[path]
            ready = max(server, sent) + self.freed[now] - self.freed[done]
            ways.append((self._bound(now, sent, ready), path, now, sent, ready))
        for bound, path, now, sent, ready in sorted(ways):
            if not _reaches(self.least, bound):
                self._extend((*begun, path), now, sent, ready)

    def _bound(self, done: int, link: float, server: float) -> float:
        """No order that begins so ends sooner."""
        left = [i for i in range(len(self.last)) if not done >> i & 1]
        sends = self.paths.sends
        if not left:
            return server
        ends = [
            self.computed[self.all] + min(sends[i] + self.last[i] for i in left),
            link + sum(sends[i] for i in left) + min(self.last[i] for i in left),
            server + self.freed[self.all] - self.freed[done],
        ]
        return max(ends)
