# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist simulate PLAN --fleet F`: a plan on a fleet in virtual time, with faults; a table, JSON, and a Gantt chart.

PLAN is a plan file, or the text of a cut. What runs is the live cluster's own dispatcher, gatherer and workers.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dnn_dist.cli.gantt import draw_gantt
from dnn_dist.cli.given import plan_file
from dnn_dist.errors import ConfigError, PlanError
from dnn_dist.graph.digest import cached_sha256
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.bylink import read_by_link
from dnn_dist.plan.fleet import Fleet, read_fleet
from dnn_dist.plan.plan import WIRES, Plan
from dnn_dist.run.report import Status
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.shipped import find_model, shipped_models
from dnn_dist.sim import Load, Outcome, Scenario, Source, parse_faults, plan_load, simulate

PERCENTILES = (50, 95, 99, 100)
ENDLESS = 20.0
"""Without a deadline a frame is given up after this many times what one robot alone would take."""
MOST_ROWS = 24
MODEL = "warehouse_float32.tflite"
"""What a cut is of, if nothing else is said."""
FAULTS = (
    'e.g. "kill r2@3.0, restart r2@5, stop r3@1, go r3@2, slow r3 x5@2..6, link r1 r2 x0.1@3..4, chaos:7", '
    "seconds after the first image"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("plan", metavar="PLAN", help="a plan file, or a cut as for `dnn_dist check`, e.g. tiles:3x3")
    add("--fleet", required=True, metavar="F", help="a fleet file; examples are in config/fleets")
    add("--model", metavar="M", help=f"a .tflite file, or the name of a shipped one; default: the plan's, or {MODEL}")
    add("--frames", type=int, metavar="N", default=20, help="images of each source (default 20)")
    add("--rate", type=float, metavar="HZ", help="images a second of each source; default: as there is a place")
    add("--sources", metavar="R,R", help="robots with a camera; default: the fleet's first")
    add("--workers", metavar="R,R", help="robots that compute pieces; default: those of the plan, or all")
    add(
        "--max-frames",
        type=int,
        metavar="N",
        default=DispatcherSettings.max_frames,
        help="frames of a source in work at once, as the gateway's parameter (default %(default)s)",
    )
    add("--deadline", type=float, metavar="S", help="seconds from an image to its report; default: none to speak of")
    add("--mode", choices=("stealing", "sharing"), default=DispatcherSettings.mode, help="as the gateway's parameter")
    add("--window", type=int, metavar="BYTES", help="bytes on the way at once, as the gateway's parameter")
    add("--redundancy", choices=("demand", "always"), default="demand", help="as the gateway's parameter")
    add(
        "--prefetch",
        type=int,
        metavar="N",
        default=WorkerSettings.prefetch,
        help="tasks that wait at a worker (default %(default)s)",
    )
    add("--wire", choices=WIRES, help="how float tensors travel; default: as the plan says, or float32")
    add("--replicas", type=int, metavar="N", help="workers of each piece without parity; default: the plan's, or 1")
    add("--faults", default="", metavar="TEXT", help=FAULTS)
    add("--seed", type=int, metavar="N", default=0, help="of service times, delays and losses (default 0)")
    add("--json", action="store_true", help="print one JSON object instead of tables")
    add("-o", "--output", metavar="PNG", help="a Gantt chart of frames over robots (needs matplotlib)")


def run(args: argparse.Namespace) -> int:
    """Simulate and print; 0 unless frames were left without a report."""
    fleet = read_fleet(args.fleet)
    network, plan = read_plan(args.plan, args.model)
    plan = replace(plan, **{key: getattr(args, key) for key in ("wire", "replicas") if getattr(args, key) is not None})
    _robots(",".join(plan.robots) or None, fleet, "the plan's robots")
    steps = read_by_link(Path(args.plan)) if plan_file(args.plan) else ()
    by_link = tuple((step.rate, plan_load(network, replace(plan, cut=step.cut))) for step in steps)
    what = scenario(args, fleet, plan_load(network, plan), by_link)
    began = time.perf_counter()
    outcome = simulate(what)
    seconds = time.perf_counter() - began
    if args.output:
        draw_gantt(outcome, args.output, f"{plan.cut} of {network.path.name} on {Path(args.fleet).stem}")
    if args.json:
        print(json.dumps({"plan": plan.hash, "cut": plan.cut, **facts(outcome)}, indent=1))
    else:
        _print(outcome, plan, fleet, seconds)
    return 1 if outcome.unreported else 0


def read_plan(text: str, model: str | None) -> tuple[Network, Plan]:
    """The network, and the plan in a file or of a cut. Raises one line when there is neither.

    `model`: a .tflite file; None: the one that the plan names by its hash, or for a cut the shipped one.
    """
    plan = plan_file(text)
    if plan is None:
        network = read_network(find_model(model or MODEL))
        return network, Plan(model=network.sha256, cut=text)
    return read_network(find_model(model) if model else _model_of(plan, Path(text))), plan


def _model_of(plan: Plan, path: Path) -> Path:
    """The file that a plan was made for: a shipped one, or one beside the plan."""
    folders = [path.resolve().parent, *filter(None, [shipped_models()])]
    for candidate in (file for folder in folders for file in sorted(folder.glob("*.tflite"))):
        with suppress(OSError):  # not readable: another may be the one
            descriptor = os.open(candidate, os.O_RDONLY | os.O_NONBLOCK)
            try:
                if cached_sha256(candidate, descriptor) == plan.model:
                    return candidate
            finally:
                os.close(descriptor)
    raise PlanError(
        f"{path}: made for the model with SHA-256 {plan.model[:12]}..., which is no .tflite file beside the plan and "
        "none that is shipped; name its file by --model"
    )


def scenario(
    args: argparse.Namespace, fleet: Fleet, load: Load, by_link: tuple[tuple[float, Load], ...] = ()
) -> Scenario:
    """What the arguments ask for."""
    sources, workers = _robots(args.sources, fleet, "--sources"), _robots(args.workers, fleet, "--workers")
    for option, value, least in (
        ("--frames", args.frames, 1),
        ("--max-frames", args.max_frames, 0),
        ("--prefetch", args.prefetch, 0),
        ("--window", args.window, 1000),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{option} is {value}, expected {least} or more")
    for option, value in (("--rate", args.rate), ("--deadline", args.deadline)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{option} is {value}, expected a number above 0")
    sources = sources or fleet.names[:1]
    alone = max(_alone(fleet, load, name) for name in fleet.names)
    deadline = ENDLESS * max(alone, 1.0) if args.deadline is None else args.deadline
    dispatcher = DispatcherSettings(mode=args.mode, redundancy=args.redundancy)
    if args.window is not None:
        dispatcher = replace(dispatcher, window=args.window)
    each = [
        Source(
            robot,
            load,
            frames=args.frames,
            rate=args.rate,
            deadline=deadline,
            max_frames=args.max_frames,
            dispatcher=dispatcher,
            by_link=by_link,
        )
        for robot in sources
    ]
    lasts = args.frames * deadline if args.rate is None else args.frames / args.rate + deadline
    shortest = args.frames * alone / len(fleet.names) if args.rate is None else args.frames / args.rate
    return Scenario(
        fleet,
        tuple(each),
        workers=workers or None,
        faults=parse_faults(args.faults, fleet.names, shortest),
        seed=args.seed,
        worker=WorkerSettings(prefetch=args.prefetch),
        limit=lasts + 10.0,
    )


def _alone(fleet: Fleet, load: Load, name: str) -> float:
    """Seconds that one robot takes for a frame by itself."""
    robot = fleet.robot(name)
    stages = enumerate(load.shape.stages)
    return sum(load.time(robot, index, piece) for index, stage in stages for piece in range(len(stage.pieces)))


def _robots(text: str | None, fleet: Fleet, option: str) -> tuple[str, ...]:
    names = tuple(filter(None, (text or "").split(",")))
    if text is not None and not names:
        raise ConfigError(f"{option}: names no robot; give some of {', '.join(fleet.names[:8])}")
    for name in names:
        try:
            fleet.robot(name)
        except ConfigError as error:
            raise ConfigError(f"{option}: {error}") from None
    return names


def facts(outcome: Outcome) -> dict[str, Any]:
    """What came of the run, as JSON has it; null where there is nothing to say."""
    return {
        "frames": len(outcome.frames),
        "images": outcome.images,
        "dropped": outcome.dropped,
        "unreported": outcome.unreported,
        "statuses": outcome.statuses,
        "quality": outcome.quality,
        "latency": {f"p{p}": _finite(outcome.percentile(p)) for p in PERCENTILES},
        "throughput": outcome.throughput,
        "seconds": outcome.seconds,
        "traffic": outcome.traffic,
        "resent": outcome.resent,
        "energy": outcome.energy,
        "tasks": outcome.tasks,
        "robots": {
            name: {key: getattr(use, key) for key in ("tasks", "busy", "energy", "memory", "sent", "received")}
            for name, use in outcome.robots.items()
        },
        "notes": dict(outcome.notes),
        "events": outcome.events,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class _Line:
    what: str
    text: str


def _print(outcome: Outcome, plan: Plan, fleet: Fleet, seconds: float) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    console.print(f"[bold]{escape(plan.cut)}[/bold] on {len(fleet.names)} robots, plan {plan.hash}")
    table = Table(box=SIMPLE_HEAD, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    for line in _lines(outcome):
        table.add_row(line.what, escape(line.text))
    console.print(table)
    table = Table(box=SIMPLE_HEAD)
    for name in ("robot", "tasks", "busy", "memory", "sent", "received", "energy"):
        table.add_column(name, justify="left" if name == "robot" else "right")
    busiest = sorted(outcome.robots, key=lambda name: -outcome.robots[name].busy)[:MOST_ROWS]
    for name in (name for name in outcome.robots if name in busiest):
        use = outcome.robots[name]
        share = use.busy / outcome.seconds if outcome.seconds else 0.0
        energy = "" if use.energy is None else f"{use.energy:.1f} J"
        row = (name, str(use.tasks), f"{share:.0%}", *(f"{value / 1e6:.2f} MB" for value in (use.memory, use.sent)))
        table.add_row(*map(escape, (*row, f"{use.received / 1e6:.2f} MB", energy)))
    console.print(table)
    if len(outcome.robots) > MOST_ROWS:
        console.print(f"and {len(outcome.robots) - MOST_ROWS} robots that were less busy")
    console.print(f"[dim]{outcome.seconds:.1f} s simulated in {seconds:.2f} s[/dim]")


def _lines(outcome: Outcome) -> list[_Line]:
    count = len(outcome.frames)
    ended = ", ".join(f"{many} {status.replace('_', ' ')}" for status, many in outcome.statuses.items() if many)
    latency = ", ".join(
        f"{'slowest' if p == 100 else 'median' if p == 50 else f'p{p}'} {outcome.percentile(p) * 1000:.0f} ms"
        for p in PERCENTILES
    )
    lines = [_Line("frames", f"{ended or 'none'}; {outcome.dropped} of {outcome.images} images dropped")]
    if outcome.unreported:
        lines.append(_Line("unreported", f"{outcome.unreported} frames were still open when time was up"))
    if outcome.latencies:
        lines += [
            _Line("latency", latency),
            _Line("throughput", f"{outcome.throughput:.2f} frames/s"),
        ]
    if any(run.report.status in (Status.FILLED, Status.NO_RESULT) for run in outcome.frames):
        lines.append(_Line("quality", f"{outcome.quality:.3f} of 1, mean"))
    again = f", {outcome.resent / 1e6:.2f} MB sent again" if outcome.resent else ""
    lines.append(_Line("traffic", f"{outcome.traffic / count / 1e6 if count else 0:.3f} MB a frame{again}"))
    if outcome.energy is not None and count:
        lines.append(_Line("energy", f"{outcome.energy / count:.2f} J a frame, all robots"))
    known = [f"{many} x {kind}" for kind, many in outcome.notes.items() if kind not in _USUAL]
    return [*lines, *([_Line("notes", ", ".join(known))] if known else [])]


_USUAL = ("plan ready", "source joined", "worker joined")
