# SPDX-License-Identifier: Apache-2.0
"""Pipelines of groups, simulated: frames a second on eight robots as so many times one robot, beside other divisions.

    python bench/groups.py --models build/models [--network yolov2 vgg16] [--rate 60] [--memory MB] [--deadline S]

The fleet is that of headline.py: `--pace` million MACs a second each, one air of `--rate` Mbit/s for all, with 2 ms and
50 us of each packet. Plans are what the planner finds for throughput, as many frames in work as each needs. What is
simulated are the machines of the live cluster; once with the gateway's window as it is, once without a window. Exit
code 1: the pipeline of groups is less than `--least` times one robot somewhere.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headline_cases import MODELS, Setting, fleet_of
from medium import Weather

from dnn_dist.errors import DnnDistError
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.fleet import Fleet
from dnn_dist.plan.policy import in_work
from dnn_dist.plan.predict import Circumstances
from dnn_dist.plan.rules import GROUPS, Candidate, Goal
from dnn_dist.plan.search import search
from dnn_dist.plan.units import brief
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.sim import Scenario, Source, simulate, stages_load

SHOWN = (GROUPS, "a robot a frame", "pipeline", "direct")
ROUNDS = 4  # of the frames in work at once, that are timed
UNLIMITED = 10**12  # bytes: no window


def simulated(network: Network, robots: Fleet, plan: Candidate, window: int) -> tuple[float, float, float]:
    """Frames a second while the pipeline is full; mean latency, s; bytes of the robot that needs most."""
    many = in_work(0, plan.stages, alone=len(robots.names))
    timed = max(24, ROUNDS * many)
    source = Source(
        robots.names[0],
        stages_load(network, plan.stages, robots=plan.workers),
        frames=timed + 2 * many + 4,
        max_frames=many,
        deadline=1e6,
        dispatcher=DispatcherSettings(window=window),
    )
    outcome = simulate(Scenario(robots, (source,), workers=plan.workers or None, limit=1e9))
    if {frame.report.quality for frame in outcome.frames} != {1.0}:
        raise DnnDistError(f"{plan.cut}: frames were filled or lost: {outcome.statuses}")
    ended = sorted(frame.reported for frame in outcome.frames)
    first, last = many + 3, many + 3 + timed
    latencies = [frame.report.latency for frame in outcome.frames[first:last]]
    memory = max(use.memory for use in outcome.robots.values())
    return timed / (ended[last] - ended[first]), sum(latencies) / len(latencies), memory


def compare(network: Network, robots: Fleet, alone: float, goal: Goal, window: int) -> float:
    """Print the best plan of each family; how many times one robot the groups are. `alone`: s of a frame there."""
    given = Circumstances(robots, robots.names[0], max_frames=0, alone=len(robots.names), window=window)
    began = time.process_time()
    choice = search(network, given, goal)
    told = f"window {window / 1e6:g} MB" if window < UNLIMITED else "no window"
    print(f"\n{told}: planned in {time.process_time() - began:.1f} s of processor time; chosen: {choice.best.family}")
    for line in choice.why:
        print(f"  {line[:300]}")
    found = math.nan
    for plan in (plan for family in SHOWN for plan in choice.alternatives if plan.family == family):
        if plan.prediction.too_small:
            print(f"  {plan.family:20} does not fit: a robot needs {plan.prediction.memory / 1e6:.0f} MB: {plan.cut}")
            continue
        rate, latency, memory = simulated(network, robots, plan, window)
        prediction = plan.prediction
        print(
            f"  {plan.family:20} {len(plan.robots)} robots {rate * alone:5.2f} x one robot "
            f"(predicted {prediction.throughput * alone:.2f}), a frame takes {brief(latency)} and "
            f"{prediction.traffic / 1e6:.2f} MB on the air, a robot needs {memory / 1e6:.0f} MB: {plan.cut}",
            flush=True,
        )
        if plan.family == GROUPS:
            found = rate * alone
    return found


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of what make_full_models.py wrote")
    parser.add_argument("--network", nargs="+", default=["yolov2", "vgg16"], choices=list(MODELS), metavar="N")
    parser.add_argument("--robots", type=int, default=8)
    parser.add_argument("--pace", type=float, default=1000.0, help="of a robot, million MACs a second")
    parser.add_argument("--rate", type=float, default=60.0, help="of the air, Mbit/s")
    parser.add_argument("--memory", type=float, help="of a robot, MB; left out: enough")
    parser.add_argument("--deadline", type=float, help="seconds that a frame may take")
    parser.add_argument("--least", type=float, default=6.8, help="times one robot: PICO's best, on eight")
    parser.add_argument("--window", type=int, nargs="+", default=[DispatcherSettings.window, UNLIMITED], help="bytes")
    return parser.parse_args(arguments)


def main() -> int:
    args, least = parse(), math.inf
    try:
        for name in args.network:
            network = read_network(args.models / f"{MODELS[name].file}.tflite")
            weather = Weather(rate=1e6 * args.rate, delay=0.002, overhead=50e-6, loss=0.0)
            robots = fleet_of(Setting(network, MODELS[name], args.robots, args.pace, weather))
            if args.memory:
                members = tuple(replace(robot, memory=int(1e6 * args.memory)) for robot in robots.robots)
                robots = Fleet(members, robots.links)
            alone = network.macs / (1e6 * args.pace)
            print(f"\n{name}: {alone:.1f} s a frame on one robot; {args.robots} robots, air of {args.rate:g} Mbit/s")
            for window in args.window:
                found = compare(network, robots, alone, Goal("throughput", args.deadline), window)
                least = found if not found > least else least
    except DnnDistError as error:
        print(f"groups: {error}", file=sys.stderr)
        return 1
    met = least >= args.least
    print(f"\npipelines of groups: {least:.2f} x one robot or more; {args.least:g} x: {'met' if met else 'missed'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
