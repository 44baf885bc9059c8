# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist profile MODEL`: measures this robot op by op and writes it into a fleet file."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dnn_dist.cli.measure import Measured, measure, ranges
from dnn_dist.errors import ConfigError
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.fleet import FORMAT, measured_text, parse_fleet
from dnn_dist.plan.units import DURATION, POWER, SIZE, SPEED, brief
from dnn_dist.yamlfile import read_yaml


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a .tflite file, or the name of a shipped one")
    parser.add_argument("--fleet", type=Path, metavar="F", help="fleet file to write into; made if it is not there")
    parser.add_argument("--robot", default="this", metavar="NAME", help="name in the fleet file; default: this")
    parser.add_argument("--repeat", type=int, default=9, metavar="N", help="runs, of which the median counts; 9")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="as the worker's parameter; default: 1")
    parser.add_argument("--memory", metavar="M", help="e.g. '700 MB'; default: what is free now")
    parser.add_argument("--idle", metavar="P", help="power when idle, e.g. '1.3 W'")
    parser.add_argument("--busy", metavar="P", help="power when computing, e.g. '6.5 W'")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    for name in ("repeat", "threads"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} is {getattr(args, name)}, expected 1 or more")
    network = read_network(args.model)
    given = _given(args)
    tree = _read(args.fleet)  # a broken file should be known before measuring takes its time
    found = _measure(network, args)
    keys = robot_keys(network, found, given)
    if args.fleet:
        _write(args.fleet, merged(tree, args.robot, keys))
    if args.json:
        facts = {"robot": args.robot, "model": network.sha256, "whole_s": found.whole, "apart_s": found.apart}
        print(json.dumps({**facts, "overhead_s": found.overhead, "ops_s": found.ops, "keys": keys}, indent=1))
    else:
        _print(network, found, args, keys)
    return 0


def robot_keys(network: Network, found: Measured, given: dict[str, Any]) -> dict[str, Any]:
    """What was measured, and was given, as the keys of a robot in a fleet file."""
    compute = found.whole - found.overhead
    return {
        **({"speed": SPEED.write(float(f"{network.macs / compute:.4g}"))} if network.macs and compute > 0 else {}),
        "overhead": DURATION.write(float(f"{found.overhead:.3g}")),
        **given,
        "measured": {network.sha256: measured_text(tuple(float(f"{s:.6g}") for s in found.ops))},
    }


def merged(tree: Any, robot: str, keys: dict[str, Any]) -> dict[str, Any]:
    """A fleet file's tree with a robot's keys put in; what it measured of other models stays.

    ConfigError when the result is no fleet: a new robot may lack a link.
    """
    tree = tree or {"dnn_dist_fleet": FORMAT, "robots": {}}
    robots = tree.get("robots") or {}
    before = robots.get(robot) or {}
    measured = {**(before.get("measured") or {}), **keys["measured"]}
    if not before and "speed" not in keys:
        raise ConfigError(f"{robot}: the model has no multiply-accumulates to tell a speed by; take another model")
    whole = {**tree, "robots": {**robots, robot: {**before, **keys, "measured": measured}}}
    parse_fleet(whole, "with what was measured the fleet file")
    return whole


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """Memory and power as written, checked."""
    power = {key: text for key in ("idle", "busy") if (text := getattr(args, key))}
    for key, text in power.items():
        POWER.read(text, f"--{key}")
    memory = args.memory or _free_memory()
    if memory:
        SIZE.read(memory, "--memory", positive=True)
    return {**({"memory": memory} if memory else {}), **({"power": power} if power else {})}


def _free_memory() -> str:
    """What the system could give a process now, in whole megabytes; empty where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return ""
    free = [int(line.split()[1]) * 1024 // 10**6 for line in lines if line.startswith("MemAvailable")]
    return f"{free[0]} MB" if free and free[0] else ""


def _measure(network: Network, args: argparse.Namespace) -> Measured:
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("whole model", total=1 + len(ranges(network)))

        def done(what: str) -> None:
            progress.update(task, advance=1, description=what)

        return measure(network, time.perf_counter, args.repeat, args.threads, done)


def _read(path: Path | None) -> Any:
    if path is None or not path.exists():
        return None
    tree = read_yaml(path, "fleet file")
    parse_fleet(tree, str(path))
    return tree


def _write(path: Path, tree: dict[str, Any]) -> None:
    """The file anew, with the comment that it began with."""
    comment = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else ():
        if not line.startswith("#"):
            break
        comment.append(line)
    text = yaml.safe_dump(tree, sort_keys=False, width=120, default_flow_style=None)
    try:
        path.write_text("".join(comment) + text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: can't write the fleet file: {error.strerror or error}") from None


def _print(network: Network, found: Measured, args: argparse.Namespace, keys: dict[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(f"{network.path.name}: {brief(found.whole)}, {keys.get('speed', 'no MACs')}")
    console.print(
        f"its ops one by one: {brief(found.apart)}; a piece costs {brief(found.overhead)} more than "
        "its ops, the rest is scaled to the whole model's time"
    )
    slowest = sorted(network.ops, key=lambda op: -found.ops[op.index])[:5]
    for op in slowest:
        console.print(f"  op {op.index:3} {op.kind:20} {1000 * found.ops[op.index]:9.4g} ms")
    if args.fleet:
        console.print(f"written to {args.fleet} as {args.robot}")
