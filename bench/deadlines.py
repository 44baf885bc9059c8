# SPDX-License-Identifier: Apache-2.0
"""A deadline shared by quality or evenly, on real nodes with injected delays: what comes in time.

    .venv/bin/dnn_dist-env python bench/deadlines.py --out deadlines.json
    .venv/bin/dnn_dist-env python bench/deadlines.py --solve

The shipped detector, two coded stages of unlike length (4 + 1 slices of ops 9 and 16) on five paced workers, every
message delayed by up to `--delay` seconds at its receiver. Five deadlines around the latency that a frame has when it
may take its time; for each the parameter `deadlines` is uniform and quality in turn, `--rounds` times. Quality is that
of the reports, mean. Exit code 1 when shares by quality are worse at a deadline by more than chance (95 %), or are not
better by more than chance at two or more of them.

`--solve` takes no cluster: processor time of one solution for ten stages, bar 100 ms.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from fleet import Fleet, Load, flying, robots

from dnn_dist.errors import DnnDistError

CUT = "slices:4+1@9;slices:4+1@16"
WAYS = ("uniform", "quality")
FACTORS = (1.0, 1.1, 1.2, 1.35, 1.5)  # of the usual latency
LEARN, FRAMES = 14, 26  # after a change; counted
BAR_MS = 100.0
RATE = 2.0  # images a second: workers have ended what is late when the next frame comes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pace", type=float, default=100.0, help="million MACs a second of a worker (100)")
    parser.add_argument("--delay", type=float, default=0.03, help="s, longest delay of a message (0.03)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file of all figures")
    parser.add_argument("--solve", action="store_true")
    args = parser.parse_args()
    if args.solve:
        return solve()
    patient = {"transit": 2.0, "lease_min": 3.0, "lifespan": 3.0}  # what is late is late, and not computed twice
    parameters = {
        "worker": {"pace": args.pace},
        "camera": {"rate": RATE},
        "gateway": {"cut": CUT, "deadline": 5.0, "fill": "zeros", **patient},
    }
    disturbed = {"DNN_DIST_DISTURB": f"seed=1,delay={args.delay}"}
    try:
        with flying(robots(5), parameters, Path("out/deadlines/log"), more=disturbed) as fleet:
            told = measure(fleet, args.rounds)
    except (DnnDistError, RuntimeError) as error:
        print(f"deadlines: error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(told, indent=1))
    if args.out:
        args.out.write_text(json.dumps(told, indent=1))
    rows = told["deadlines"]
    worse = [row for row in rows if row["gain"] < -row["margin"]]
    better = [row for row in rows if row["gain"] > row["margin"]]
    return 0 if not worse and len(better) >= 2 else 1


def measure(fleet: Fleet, rounds: int) -> dict[str, Any]:
    """Quality at each deadline, both ways in turn."""
    usual = median(report.latency for report in fleet.frames(LEARN + FRAMES)[LEARN:])
    load = Load(fleet)
    found: dict[tuple[float, str], list[float]] = {}
    shares: dict[tuple[float, str], list[float]] = {}
    for _ in range(rounds):
        for factor in FACTORS:
            for way in WAYS:
                set_parameters(fleet, deadline=factor * usual, deadlines=way)
                reports = fleet.frames(LEARN + FRAMES)[LEARN:]
                found.setdefault((factor, way), []).extend(report.quality for report in reports)
                shares.setdefault((factor, way), []).extend(report.macs_share for report in reports)
    rows = []
    for factor in FACTORS:
        even, optimised = (np.array(found[factor, way]) for way in WAYS)
        margin = 1.96 * float(np.sqrt(even.var(ddof=1) / len(even) + optimised.var(ddof=1) / len(optimised)))
        row: dict[str, Any] = {"deadline_s": factor * usual}
        row |= {way: fmean(found[factor, way]) for way in WAYS}
        row |= {f"{way}_macs_share": fmean(shares[factor, way]) for way in WAYS}
        rows.append(row | {"gain": row["quality"] - row["uniform"], "margin": margin, "frames": len(even)})
    return {"usual_s": usual, "deadlines": rows, **load.told()}


def set_parameters(fleet: Fleet, **values: Any) -> None:
    """At the gateway, while it runs."""
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    client = fleet.watch.create_client(SetParameters, "gateway_r1/set_parameters")
    fleet.until(client.service_is_ready, "the gateway's parameters can be set")
    wanted = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
    answered = client.call_async(SetParameters.Request(parameters=wanted))
    fleet.until(answered.done, "the gateway answers")
    for result in answered.result().results:
        if not result.successful:
            raise RuntimeError(result.reason)
    fleet.watch.destroy_client(client)


def solve() -> int:
    """Processor time of one solution, of the median of nine."""
    from dnn_dist.plan.deadlines import best, latency
    from dnn_dist.plan.delay import Measured
    from dnn_dist.plan.quality import Channel, Coded, Dataflow

    worst = 0.0
    for needed, slices in ((1, 1), (4, 5)):
        took = []
        for seed in range(9):
            rng = np.random.default_rng(seed)
            channels, coded = [], []
            for stage in range(10):
                delay = Measured(tuple(rng.gamma(3, rng.uniform(0.5e-3, 3e-3), 128)))
                coded.append(Coded(tuple((len(channels) + n,) for n in range(slices)), needed))
                channels += [Channel(stage, stage + 1, delay)] * slices
            flow = Dataflow((0.001,) * 11, tuple(channels), tuple(coded) if slices > 1 else ())
            deadline = latency(flow, 0.7)
            began = time.process_time()
            best(flow, deadline)
            took.append(1e3 * (time.process_time() - began))
        print(f"ten stages of {needed} + {slices - needed}: {median(took):.0f} ms, at most {max(took):.0f}")
        worst = max(worst, median(took))
    return 0 if worst <= BAR_MS else 1


if __name__ == "__main__":
    sys.exit(main())
