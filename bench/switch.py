# SPDX-License-Identifier: Apache-2.0
"""Plans change while a cluster is at full load: what that costs in frames and in time between two detections.

    make build
    .venv/bin/dnn_dist-env python bench/switch.py --out switch.json

The shipped detector, four paced workers, a camera faster than they are, two frames in work. `--switches` times (50) the
service is asked for the next of five plans: tiles, two groups of tiles, slices with parity, a pipeline of layers, and
the gateway alone. The usual gap is that of the slower of the two plans, without a switch: the 95th percentile of its
own gaps. Exit code 1 when a frame was lost, a process was respawned, or a gap was over twice the usual one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

from fleet import Fleet, Load, flying, robots

from dnn_dist import srv
from dnn_dist.errors import DnnDistError
from dnn_dist.run.report import Status

PLANS = {
    "tiles": "tiles:2x2@0..10",
    "two groups": "tiles:2x2@0..3;tiles:2x2@4..10",
    "slices + parity": "slices:3+1@0..2;tiles:2x2@3..10",
    "layers": "layers:3",
    "local": "local",
}
FRAMES = 15  # between two switches
BAR = 2.0
PACE = 1000.0  # million MACs a second


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--switches", type=int, default=50)
    parser.add_argument("--out", type=Path, help="JSON file of all figures")
    args = parser.parse_args()
    parameters = {
        "all": {"pace": PACE},
        "camera": {"rate": 30.0},
        "gateway": {"cut": PLANS["local"], "deadline": 10.0, "max_frames": 2},
    }
    try:
        with flying(robots(4), parameters, Path("out/switch/log")) as fleet:
            told = measure(fleet, args.switches)
    except (DnnDistError, RuntimeError) as error:
        print(f"switch: error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({key: value for key, value in told.items() if key != "gaps"}, indent=1))
    if args.out:
        args.out.write_text(json.dumps(told, indent=1))
    good = not told["refused"] and not told["lost"] and not told["respawned"] and told["without a result"] == 0
    return 0 if good and told["worst gap to usual"] <= BAR else 1


def measure(fleet: Fleet, switches: int) -> dict[str, Any]:
    """Switch, and listen."""
    client = fleet.watch.create_client(srv.SetPlan, "front/set_plan")
    fleet.until(client.service_is_ready, "the service is there")
    came: list[tuple[float, Any]] = []
    fleet.watch.on_report = lambda report: came.append((time.monotonic(), report))
    pids = {name: child.pid for name, child in fleet.supervisor.running.items()}
    load, refused = Load(fleet), list[str]()
    for plan in islice(cycle(PLANS), switches):
        call = client.call_async(srv.SetPlan.Request(plan=PLANS[plan]))
        fleet.until(call.done, f"an answer to {plan}")
        if not call.result().success:
            refused.append(f"{plan}: {call.result().message}")
        fleet.frames(FRAMES)
    reports = [report for _, report in came]
    numbers = sorted(report.frame for report in reports)
    within: dict[str, list[float]] = {}
    across: list[tuple[str, str, float]] = []
    for (t0, before), (t1, after) in pairwise(came):
        if before.plan == after.plan:
            within.setdefault(after.plan, []).append(t1 - t0)
        else:
            across.append((before.plan, after.plan, t1 - t0))
    usual = {plan: sorted(gaps)[int(0.95 * (len(gaps) - 1))] for plan, gaps in within.items()}
    ratios = [gap / max(usual[a], usual[b]) for a, b, gap in across]
    return {
        "switches": switches,
        "seen": len(across),
        "frames": len(reports),
        "lost": numbers[-1] - numbers[0] + 1 - len(numbers),
        "without a result": sum(report.status in (Status.FILLED, Status.NO_RESULT) for report in reports),
        "recomputed": sum(report.status == Status.RECOMPUTED for report in reports),
        "refused": refused,
        "respawned": {n: c.pid for n, c in fleet.supervisor.running.items()} != pids,
        "usual gap s": {plan: round(gap, 3) for plan, gap in usual.items()},
        "worst gap to usual": round(max(ratios), 2),
        "median gap to usual": round(sorted(ratios)[len(ratios) // 2], 2),
        **{key: round(value, 2) for key, value in load.told().items()},
        "gaps": across,
    }


if __name__ == "__main__":
    sys.exit(main())
