# SPDX-License-Identifier: Apache-2.0
"""How long a source is without results when its gateway dies (SIGKILL) and is started again, and what takes that time.

    make build
    .venv/bin/dnn_dist-env python bench/restart.py --out restart.json

The cluster of `config/cluster.yaml`: the shipped detector, four workers, on one machine. Only its camera is faster,
`--rate` images a second. Each kill falls at a random moment between two images. Every part is the time from the
death to its end, as whoever listens to the source's reports sees it, who has to find the new gateway too:

    process     the next process is started: the respawn delay
    imports     interpreter and modules
    ROS         participant and node
    loading     model and plan, and the gateway's own pieces
    topics      all that is known by name: from here on the node hears messages
    image       the first image is taken: its camera was found
    work        the first worker says that it got work
    report      the first frame is reported
    complete    the first frame in which nothing is missing is reported
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from fleet import TICKS, Fleet, Load, flying, ticks
from rich.console import Console
from rich.table import Table

from dnn_dist.cli.supervisor import share
from dnn_dist.errors import DnnDistError
from dnn_dist.run.report import Status
from dnn_dist.yamlfile import read_yaml

GATEWAY = "gateway_r1"
PARTS = ("process", "imports", "ROS", "loading", "topics", "image", "work", "report", "complete")
BAR = 1.0  # s
STARTED = re.compile(r"\[([\d.]+)\] .*started: ROS ([\d.]+) s, loading ([\d.]+) s, topics ([\d.]+) s")
PATIENCE = 30.0  # s


def restart(fleet: Fleet) -> dict[str, float]:
    """Kill the gateway, start it again; seconds from its death to the end of each part, by name.

    `processor`: seconds of processor time that the new process has used by then.
    """
    watch, supervisor = fleet.watch, fleet.supervisor
    former, told = watch.reports[-1].session, len(supervisor.log(GATEWAY))
    ends: dict[str, float] = {}

    def reached(part: str, when: float) -> None:
        ends.setdefault(part, when - died)

    def hear(report: Any) -> None:
        if report.session != former:
            now = time.monotonic()
            reached("image", now - report.latency)
            reached("report", now)
            if report.status == Status.COMPLETE:
                reached("complete", now)

    victim = supervisor.running[GATEWAY]
    watch.on_report = hear
    supervisor.kill(GATEWAY)
    died, died_wall = time.monotonic(), time.time()
    while "complete" not in ends or "work" not in ends:
        supervisor.look()
        if supervisor.running.get(GATEWAY, victim) is not victim:
            reached("process", time.monotonic())
        watch.spin(0.005)
        sessions = {session for state in watch.workers.values() for _, session in state.seen}
        if sessions - {former}:
            reached("work", time.monotonic())
        if time.monotonic() > died + PATIENCE:
            raise RuntimeError(f"no complete frame within {PATIENCE:g} s; reached: {', '.join(ends)}")
    watch.on_report = None
    used = ticks(supervisor.running[GATEWAY].pid) / TICKS
    said = STARTED.search(supervisor.log(GATEWAY)[told:])
    if said is None:
        raise RuntimeError(f"{GATEWAY} has not said how it started")
    end, *took = (float(word) for word in said.groups())
    for part, seconds in zip(("topics", "loading", "ROS"), reversed(took), strict=True):
        ends[part] = end - died_wall
        end -= seconds
    ends["imports"] = end - died_wall
    return {**{part: ends[part] for part in PARTS}, "processor": used}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rate", type=float, default=10.0, help="images a second")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--pause", type=float, default=10.0, help="seconds between two kills")
    parser.add_argument("--folder", type=Path, default=Path("out/restart"), help="logs")
    parser.add_argument("--out", type=Path, help="write all figures to this JSON file")
    args = parser.parse_args()
    cluster = read_yaml(share() / "config" / "cluster.yaml", "parameter file")
    cluster["parameters"]["camera"]["rate"] = args.rate
    moments, found = random.Random(args.seed), []
    try:
        with flying(cluster["robots"], cluster["parameters"], args.folder) as fleet:
            load = Load(fleet)
            for _ in range(args.kills):
                fleet.watch.spin(args.pause + moments.random() / args.rate)
                found.append(restart(fleet))
                print("  ".join(f"{part} {end:.2f}" for part, end in found[-1].items()), file=sys.stderr)
            busy = load.told()["machine_load"]
    except (DnnDistError, RuntimeError) as error:
        print(f"restart: {error}", file=sys.stderr)
        return 1
    table = Table("part", "ends after s", "median of its own s", title=f"{args.kills} kills, medians")
    before = dict(zip(PARTS, (None, *PARTS), strict=False))
    for part in PARTS:
        own = [one[part] - (one[before[part]] if before[part] else 0.0) for one in found]
        table.add_row(part, f"{median(one[part] for one in found):.2f}", f"{median(own):.2f}")
    Console().print(table)
    took = median(one["complete"] for one in found)
    worst = max(one["complete"] for one in found)
    used = median(one["processor"] for one in found)
    print(f"longest {worst:.2f} s; processor time of the new gateway until then {used:.2f} s (median)")
    print(f"machine's load {100 * busy:.0f} %, load average {os.getloadavg()[0]:.1f}")
    print(f"from death to the first complete frame {took:.2f} s, bar <= {BAR:g}: {'met' if took <= BAR else 'missed'}")
    if args.out:
        args.out.write_text(json.dumps({"load": busy, "kills": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
