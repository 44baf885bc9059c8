# SPDX-License-Identifier: Apache-2.0
"""Predicted against measured: plans on a real cluster of paced workers, beside what the cost model said before.

    make build
    .venv/bin/dnn_dist-env python bench/prediction.py latency --out prediction.json
    .venv/bin/dnn_dist-env python bench/prediction.py alone

Workers and gateway are paced (`--pace`, million MACs a second), so that they take the time of robots of that speed
while the machine's cores wait. The fleet that is given to the cost model says just that: the paces, and for the way
between two processes of this machine 1 ms and 300 MB/s. What is fitted is that a piece costs a robot 2 ms and a message
the gateway 1 ms and 200 MB/s (`plan/predict.py`); that was done once, to the six plans that were here before `bands,
gathered`, the two with `direct` in their names and `planned`. Not modelled: the letterbox before a frame's announcement
is not part of its latency, the detection head after is.

latency: ten plans on two fleets, four robots alike and four unlike. Bars: median error at most 5 %, worst 15 %.
         They are one of each kind of stage, gathered and, where there is such a thing, direct; a mixture gathered and
         one with a chain; and what the planner chooses for the fleet. The four that were added were written down
         before they were run; none was left out for what it measured.
alone:   a fleet in which the first robot is much the fastest. The planner has to say that one robot will do, and the
         divisions that serve robots alike have to be slower on the cluster as well.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from fleet import Load, flying, robots
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import DnnDistError
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.plan.plan import Plan
from dnn_dist.plan.predict import Circumstances, Predictor
from dnn_dist.plan.rules import ONE_ROBOT, Goal
from dnn_dist.plan.search import search

MODEL = Path(__file__).parents[1] / "models/warehouse_float32.tflite"
PLANS = {
    "one robot": "local",
    "tiles": "tiles:3x3@0..10",
    "slices with parity": "slices:3+1@8..12",
    "mixture": "tiles:2x2@0..7;slices:4@8..12",
    "bands, gathered": "bands:4g@0..9",
    "bands": "bands:4@0..9",
    "pipeline": "layers:3",
    "tiles, direct": "tiles:2x2@0..3>tiles:2x2@4..7>tiles:2x2@8..10",
    "mixture, direct": "tiles:1x4@0..7>tiles:1x4@8..10;slices:4@11..12",
    "planned": "",
}
"""Name -> cut; none: what the planner chooses for the fleet."""
BARS = 0.05, 0.15  # of the median and of the worst error
WAY = Link(bandwidth=300e6, latency=0.001)
OVERHEAD = 0.002
FELT = 0.005  # s; what a piece of a short stage really costs here, by the bands of `latency`
CAMERA = 10.0  # frames a second


def fleet_of(speeds: Sequence[float], overhead: float = OVERHEAD) -> Fleet:
    """Robots r1, r2, ... of these speeds in million MACs a second, as the cost model sees them."""
    members = tuple(Robot(f"r{n}", 1e6 * speed, overhead) for n, speed in enumerate(speeds, 1))
    return Fleet(members, (LinkRule((), WAY),))


def measured(cut: str, speeds: Sequence[float], frames: int, logs: Path, plan: Plan | None = None) -> dict[str, Any]:
    """Latencies of a cut on a cluster of workers of these speeds, the gateway as fast as the first; seconds.

    `plan`: names the robots of the cut, which not all need to be.
    """
    paced = {f"r{n}": {"pace": float(speed)} for n, speed in enumerate(speeds, 1)}
    gateway = {"cut": cut, "deadline": 30.0, "pace": float(speeds[0])}
    if plan:
        logs.mkdir(parents=True, exist_ok=True)
        (logs / "plan.yaml").write_text(plan.to_yaml())
        gateway["plan"] = str((logs / "plan.yaml").resolve())
    parameters = {"gateway": {"max_frames": 1, **gateway}, "camera": {"rate": CAMERA}}
    with flying(robots(len(speeds), **paced), parameters, logs) as fleet:
        load = Load(fleet)
        latencies = [float(report.latency) for report in fleet.frames(frames)]
        return {"latencies_s": latencies, "measured_s": median(latencies), **load.told()}


def run_latency(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Every plan on both fleets."""
    network, pace = read_network(MODEL), args.pace
    fleets = {"alike": [pace] * 4, "unlike": [pace, pace, pace / 2, pace / 4]}
    rows = []
    for name, speeds in fleets.items():
        for plan, cut in PLANS.items():
            task = progress.add_task(f"{plan}, {name}", total=None)
            logs, chosen = args.folder / f"{plan} {name}".replace(",", "").replace(" ", "_"), None
            if not cut:
                best = search(network, Circumstances(fleet_of(speeds), "r1", max_frames=1), Goal()).best
                cut, chosen = best.cut, Plan(network.sha256, best.cut, robots=best.workers)
            predicted = predict(network, cut, speeds, chosen.robots if chosen else ())
            found = measured(cut, speeds, args.frames, logs, chosen)
            error = predicted / found["measured_s"] - 1
            rows.append({"plan": plan, "fleet": name, "cut": cut, "predicted_s": predicted, "error": error, **found})
            progress.remove_task(task)
    show("latency, median of frames", rows)
    errors = [abs(row["error"]) for row in rows]
    told = {"median": median(errors), "worst": max(errors)}
    for (name, error), bar in zip(told.items(), BARS, strict=True):
        print(f"{name} error of latency {100 * error:.1f} %, bar <= {100 * bar:g} %: {_met(error <= bar)}")
    return {"pace": pace, "rows": rows, "errors": told, "loadavg": os.getloadavg()}


def run_alone(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Where one robot is faster: what the planner chose, against divisions that serve robots alike."""
    network = read_network(MODEL)
    speeds = [args.pace, args.pace / 40, args.pace / 40]
    fleet = fleet_of(speeds, FELT)
    choice = search(network, Circumstances(fleet, "r1", max_frames=1), Goal())
    for line in choice.why:
        print(line)
    rows = []
    for plan, cut in (("one robot", choice.best.cut), ("tiles", PLANS["tiles"]), ("bands", PLANS["bands"])):
        task = progress.add_task(plan, total=None)
        predicted = predict(network, cut, speeds)
        found = measured(cut, speeds, args.frames, args.folder / f"alone_{plan}".replace(" ", "_"))
        error = predicted / found["measured_s"] - 1
        rows.append({"plan": plan, "fleet": "one fast", "cut": cut, "predicted_s": predicted, "error": error, **found})
        progress.remove_task(task)
    show("one robot is faster", rows)
    best, *others = (row["measured_s"] for row in rows)
    right = choice.best.family == ONE_ROBOT and best < min(others)
    print(f"the planner says one robot, and is right: {_met(right)}")
    return {"rows": rows, "why": choice.why, "right": right}


def predict(network: Network, cut: str, speeds: Sequence[float], workers: tuple[str, ...] = ()) -> float:
    """Seconds of a frame by the cost model; `workers`: robots that take part, none named: all."""
    fleet = fleet_of(speeds)
    predictor = Predictor(network, Circumstances(fleet, "r1", max_frames=1))
    return predictor(cut_network(network, cut), workers or fleet.names).latency


def _met(fine: bool) -> str:
    return "met" if fine else "missed"


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table("plan", "fleet", "predicted ms", "measured ms", "error", "machine's load", title=title)
    for row in rows:
        figures = (f"{1000 * row[key]:.0f}" for key in ("predicted_s", "measured_s"))
        table.add_row(
            row["plan"], row["fleet"], *figures, f"{100 * row['error']:+.1f} %", f"{100 * row['machine_load']:.0f} %"
        )
    Console(width=None if sys.stdout.isatty() else 110).print(table)


COMMANDS = {"latency": run_latency, "alone": run_alone}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="+", choices=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--pace", type=float, default=500.0, help="million MACs a second of the fastest robot")
    parser.add_argument("--frames", type=int, default=12, help="measured per run")
    parser.add_argument("--folder", type=Path, default=Path("out/prediction"), help="logs of each run")
    parser.add_argument("--out", type=Path, help="write all figures to this JSON file")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            found = {name: COMMANDS[name](args, progress) for name in args.commands}
    except (DnnDistError, RuntimeError) as error:
        print(f"prediction: {error}", file=sys.stderr)
        return 1
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
