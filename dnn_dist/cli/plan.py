# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist plan MODEL --fleet F -o plan.yaml`: chooses a plan, shows the alternatives, says why.

With `--server R` plans for a link of any rate between the gateway's robot and R, which a gateway switches between.
Exit code 1: no plan meets the deadline or fits the robots' memory; the nearest is shown and written all the same.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import ConfigError, PlanError
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.modelcard import pixels_of
from dnn_dist.plan.bylink import ALONE, MEGABIT, Step, best_by_link, by_link_text, seconds_at
from dnn_dist.plan.fleet import read_fleet
from dnn_dist.plan.plan import WIRES, Pixels, Plan
from dnn_dist.plan.policy import in_work
from dnn_dist.plan.predict import Circumstances
from dnn_dist.plan.rules import OBJECTIVES, Candidate, Goal
from dnn_dist.plan.search import Choice, search
from dnn_dist.plan.units import brief
from dnn_dist.settings import PartitionSettings

_DEFAULT = PartitionSettings  # as the gateway has them
_MOST_FRAMES = 16  # in work at once; the gateway's own limit
FRAMES = "in work at once; default: 1; for throughput as many as robots, in a pipeline one more than it has groups"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a .tflite file, or the name of a shipped one")
    parser.add_argument("--fleet", required=True, metavar="F", help="a fleet file, e.g. config/fleets/six_pi3.yaml")
    parser.add_argument("--objective", choices=OBJECTIVES, default="latency", help="default: latency")
    parser.add_argument("--deadline", type=float, metavar="S", help="seconds that a frame may take")
    parser.add_argument("--tolerate", type=int, default=0, metavar="K", help="workers that may fail without loss")
    parser.add_argument("--gateway", metavar="ROBOT", help="robot of camera and gateway; default: the fleet's first")
    parser.add_argument("--server", metavar="ROBOT", help="plans for a link of any rate to this robot, and no other")
    parser.add_argument("--frames", type=int, metavar="N", help=FRAMES)
    parser.add_argument(
        "--wire", choices=WIRES, default=_DEFAULT.wire, help="how float tensors travel; default: %(default)s"
    )
    parser.add_argument(
        "--window", type=int, default=_DEFAULT.window, metavar="B", help="the gateway's parameter, bytes"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("-o", "--output", type=Path, metavar="PLAN", help="write the plan, for the gateway's `plan`")


def run(args: argparse.Namespace) -> int:
    network, fleet = read_network(args.model), read_fleet(args.fleet)
    goal = Goal(args.objective, args.deadline, args.tolerate)
    gateway = fleet.robot(args.gateway).name if args.gateway else fleet.names[0]
    if args.server:
        return _by_link(args, network, Circumstances(fleet, gateway, args.wire, 1, window=args.window))
    if args.frames is not None and not 1 <= args.frames <= _MOST_FRAMES:
        raise ConfigError(f"--frames is {args.frames}, expected 1 to {_MOST_FRAMES} frames in work at once")
    many = args.objective == "throughput"
    most, alone = args.frames or (0 if many else 1), min(_MOST_FRAMES, len(fleet.robots)) if many else 1
    given = Circumstances(fleet, gateway, args.wire, most, alone, window=args.window)
    choice = search(network, given, goal)
    best = choice.best
    frames = in_work(most, best.stages, alone)
    # Of a pipeline the heaviest column goes to the robot named first, until speeds are measured.
    piped = any(stage.group or stage.kind == "layers" for stage in best.stages)
    robots = best.workers if piped or len(best.workers) < len(fleet.robots) else ()
    plan = Plan(network.sha256, best.cut, _DEFAULT.fill, args.wire, best.replicas, robots, Pixels(*pixels_of(network)))
    if args.output:
        _write(args.output, plan)
    late = goal.deadline is not None and best.prediction.latency > goal.deadline
    if args.json:
        print(json.dumps(_told(choice, plan, gateway, frames), indent=1))
    else:
        _print(choice, args, gateway, frames)
    return 1 if late or best.prediction.too_small else 0


def _by_link(args: argparse.Namespace, network: Network, given: Circumstances) -> int:
    """Plans for the gateway's robot and a server: which is the best from which rate of their link on."""
    server, own = given.fleet.robot(args.server).name, given.gateway
    if server == own:
        raise ConfigError(f"--server is {server}, which has the gateway; name another robot of the fleet")
    steps = best_by_link(network, given, server)
    plan = Plan(network.sha256, ALONE, _DEFAULT.fill, args.wire, 1, (own, server), Pixels(*pixels_of(network)))
    text = by_link_text(steps)
    if args.output:
        _write(args.output, plan, f"by_link: {json.dumps(text)}\n")
    rows: list[dict[str, Any]] = []
    for rate, cut in (Step(0.0, ALONE), *steps):
        seconds = seconds_at(network, given, server, cut_network(network, cut), rate or MEGABIT)
        rows.append({"mbit_s": rate / MEGABIT, "latency": seconds, "cut": cut})
    if args.json:
        print(json.dumps({"gateway": own, "server": server, "by_link": text, "steps": rows}, indent=1))
        return 0
    table = Table("from Mbit/s", "latency there", "cut", title="predicted")
    for row in rows:
        table.add_row(f"{row['mbit_s']:.3g}" if row["mbit_s"] else "-", brief(row["latency"]), row["cut"])
    console = Console()
    console.print(table)
    written = f"gateway: {{plan: {args.output}}}" if args.output else f"gateway: {{cut: {ALONE}, by_link: '{text}'}}"
    console.print(f"in the cluster's parameters:  {written}", highlight=False, soft_wrap=True)
    return 0


def _write(path: Path, plan: Plan, more: str = "") -> None:
    try:
        path.write_text(plan.to_yaml() + more, encoding="utf-8")
    except OSError as error:
        raise PlanError(f"{path}: can't write the plan: {error.strerror or error}") from None


def _told(choice: Choice, plan: Plan, gateway: str, frames: int) -> dict[str, Any]:
    return {
        "plan": plan.hash,
        "cut": plan.cut,
        "gateway": gateway,
        "workers": choice.best.workers,
        "max_frames": frames,
        "why": choice.why,
        "chosen": _figures(choice.best),
        "alternatives": [_figures(candidate) for candidate in choice.alternatives],
    }


def _figures(candidate: Candidate) -> dict[str, Any]:
    """A candidate as JSON has it: seconds, bytes, frames/s, joules."""
    return {
        "family": candidate.family,
        "cut": candidate.cut,
        "workers": candidate.workers,
        "replicas": candidate.replicas,
        **asdict(candidate.prediction),
    }


def _print(choice: Choice, args: argparse.Namespace, gateway: str, frames: int) -> None:
    table = Table("", "plan", "robots", "latency", "frames/s", "memory", "traffic", "energy", title="predicted")
    for candidate in choice.alternatives:
        p = candidate.prediction
        table.add_row(
            ">" if candidate is choice.best else "",
            candidate.family,
            str(len(candidate.robots)),
            brief(p.latency),
            f"{p.throughput:.3g}",
            f"{p.memory / 1e6:.3g} MB" + (" (too much)" if p.too_small else ""),
            f"{p.traffic / 1e6:.3g} MB",
            "-" if p.energy is None else f"{p.energy:.3g} J",
        )
    console = Console()
    console.print(table)
    for line in choice.why:
        console.print(line, highlight=False)
    console.print(f"gateway on {gateway}, workers on {', '.join(choice.best.workers) or 'no robot'}", highlight=False)
    console.print(f"cut: {choice.best.cut}", highlight=False, soft_wrap=True)  # to be copied
    if args.output:
        more = f", max_frames: {frames}" if frames != in_work(0, choice.best.stages) else ""
        told = f"written; in the cluster's parameters:  gateway: {{plan: {args.output}{more}}}"
        console.print(told, highlight=False, soft_wrap=True)
