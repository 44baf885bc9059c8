# SPDX-License-Identifier: Apache-2.0
"""How fast the simulator is: 1 000 robots with 100 sources, in tasks a minute of real time on one core.

    python bench/simulator.py [--robots 1000] [--sources 100] [--frames 30] [--seed 0] [--chains] [--profile]

Every source has a camera and a network in 3 x 3 tiles with a local tail, or with `--chains` three such stages that feed
each other from worker to worker; it reaches the robots of its own site and of
the two sites beside it, and every robot is reached by three sources. Robots differ in speed, service times vary by
10 %, each site has a Wi-Fi of its own, one robot in fifty is killed and restarted. Sources take images as fast as they
are served, two frames at a time.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import random
import time
from itertools import chain

from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.run.shape import PieceShape, PlanShape, StageShape
from dnn_dist.sim import Fault, Load, Scenario, Source, simulate

TILES = PlanShape(
    (
        StageShape(False, (PieceShape(bytes_in=20_000, bytes_out=10_000, macs=60_000_000),) * 9),
        StageShape(True, (PieceShape(0, 0, 20_000_000),)),
    )
)
SIDE, STAGES = 3, 3


def near(piece: int) -> tuple[int, ...]:
    """A tile and its neighbours."""
    row, column = divmod(piece, SIDE)
    rows = range(max(0, row - 1), min(SIDE, row + 2))
    return tuple(r * SIDE + c for r in rows for c in range(max(0, column - 1), min(SIDE, column + 2)))


def chain_piece(stage: int, piece: int) -> PieceShape:
    """A tile of which the stage before gives the most, its neighbours a border."""
    feeds = {(stage - 1, other): 20_000 if other == piece else 1_000 for other in near(piece)} if stage else {}
    takers = tuple((stage + 1, other) for other in near(piece)) if stage < STAGES - 1 else ()
    return PieceShape(0 if stage else 20_000, 0 if takers else 10_000, 20_000_000, feeds, takers)


CHAINS = PlanShape(
    (
        *(
            StageShape(
                False,
                tuple(chain_piece(stage, piece) for piece in range(SIDE * SIDE)),
                direct=stage > 0,
                reports=stage == STAGES - 1,
                chained=True,
            )
            for stage in range(STAGES)
        ),
        StageShape(True, (PieceShape(0, 0, 20_000_000),)),
    )
)


def scenario(robots: int, sources: int, frames: int, seed: int = 0, plan: PlanShape = TILES) -> Scenario:
    """A city of sites in a ring, a source and its neighbours each."""
    rng = random.Random(f"{seed}/bench")
    names = [f"r{number}" for number in range(robots)]
    size = robots // sources
    sites = [names[number * size : (number + 1) * size] for number in range(sources)]
    fleet = Fleet(
        tuple(Robot(name, rng.choice((0.3e9, 0.6e9, 1.2e9)), overhead=0.002, spread=0.1) for name in names),
        (
            LinkRule((), Link(bandwidth=25e6, latency=0.002)),
            *(LinkRule((frozenset(site),), Link(7.5e6, 0.002, medium=site[0])) for site in sites),
        ),
    )
    reached = [
        tuple(chain.from_iterable(sites[(number + k) % sources] for k in (-1, 0, 1))) for number in range(sources)
    ]
    struck = rng.sample(names, robots // 50)
    faults = [Fault(2.0, "kill", name) for name in struck] + [Fault(4.0, "restart", name) for name in struck]
    load = Load(plan)
    cameras = tuple(
        Source(site[0], load, frames=frames, max_frames=2, start=rng.random() * 0.2, deadline=5.0, workers=around)
        for site, around in zip(sites, reached, strict=True)
    )
    return Scenario(fleet, cameras, faults=tuple(faults), seed=seed, trace=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--robots", type=int, default=1000)
    parser.add_argument("--sources", type=int, default=100)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chains", action="store_true", help="tiles that feed each other")
    parser.add_argument("--profile", action="store_true", help="where the time goes")
    args = parser.parse_args()
    city = scenario(args.robots, args.sources, args.frames, args.seed, CHAINS if args.chains else TILES)
    profile = cProfile.Profile()
    began = time.process_time()
    if args.profile:
        profile.enable()
    outcome = simulate(city)
    profile.disable()
    seconds = time.process_time() - began
    print(
        f"{args.robots} robots, {args.sources} sources: {outcome.tasks} tasks, {len(outcome.frames)} frames, "
        f"{outcome.events} events, {outcome.seconds:.1f} s of virtual time in {seconds:.1f} s of processor time"
    )
    print(f"{outcome.tasks / seconds * 60:.0f} tasks a minute; {outcome.statuses}; {dict(outcome.notes)}")
    if args.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
