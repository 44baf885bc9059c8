# SPDX-License-Identifier: Apache-2.0
"""The fleet of a cluster that runs, from what its nodes measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from statistics import median

from dnn_dist.errors import PlanError
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot


def observed_fleet(
    speeds: Mapping[str, float], links: Mapping[tuple[str, str], Link], others: Collection[str] = ()
) -> tuple[Fleet, list[str]]:
    """A fleet, and a line for each thing in it that nobody measured.

    `speeds`: MAC/s of the robots that compute; 0: it has not computed yet. `links`: between two robots; where several
    sources measured one, the last. `others`: robots that are there and compute nothing. The robots of sources come
    first. PlanError while nothing was computed, or sent.
    """
    known = [speed for speed in speeds.values() if speed > 0]
    sources = dict.fromkeys(a for a, _ in links)
    names = list(dict.fromkeys([*sources, *sorted(others), *sorted(speeds)]))
    if not known:
        raise PlanError("no worker has computed anything yet; start a camera, and ask again when frames have come")
    if not links and len(names) > 1:
        raise PlanError("no link is measured yet: works went to other robots too rarely; ask again after a few frames")
    said = [
        f"robot {name}: its speed is not known, that of the slowest is taken" for name in names if not speeds.get(name)
    ]
    robots = tuple(Robot(name, speed=round(speeds.get(name) or min(known))) for name in names)
    rules = [LinkRule((frozenset((a,)), frozenset((b,))), link) for (a, b), link in links.items()]
    if links:  # between workers feeds alone travel, whose times nobody acknowledges
        usual = sorted(links.values(), key=lambda link: link.bandwidth)[len(links) // 2]
        latency = median(link.latency for link in links.values())
        rules.insert(0, LinkRule((), replace(usual, latency=latency, delays=())))
        pairs = len(names) * (len(names) - 1) // 2
        if len({frozenset(pair) for pair in links}) < pairs:
            said.append("links between robots of which none is a source are not measured: the usual one is taken")
    return Fleet(robots, tuple(rules)), said
