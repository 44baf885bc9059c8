# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist demo`: a cluster on this machine: synthetic or own camera, gateway, workers, live table, a video."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from dnn_dist.cli.chaos import Chaos, disturbance, schedule
from dnn_dist.cli.domain import own_domain
from dnn_dist.cli.summary import Summary
from dnn_dist.cli.supervisor import Supervisor, share
from dnn_dist.cluster import Cluster, processes, read_cluster, shipped_file, with_workers
from dnn_dist.errors import ConfigError
from dnn_dist.signals import hold, restore, told_to_stop

WARNING = re.compile(r"^\[WARN\] \[[\d.]+\] \[\w+\]: (?P<kind>[^:]+): (?P<text>.*)$", re.MULTILINE)
"""A note of a node in its log."""

PI_3 = 2100.0
"""Million MACs a second of one core of a Raspberry Pi 3: VGG16's 15.3 GMAC of convolutions in 7.25 s, as measured by
the authors of the collaborative execution framework."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--frames", type=int, default=60, help="frames to report before the end (default 60)")
    parser.add_argument("--workers", type=int, help="workers instead of the parameter file's, each on its own robot")
    parser.add_argument("--kill", action="store_true", help="kill a worker half way (SIGKILL)")
    parser.add_argument(
        "--chaos",
        type=int,
        metavar="SEED",
        help="kill, stop and start workers, and lose, double and delay messages, by a seed that reproduces",
    )
    parser.add_argument(
        "--params",
        type=Path,
        help="parameter file of a cluster (default: one that is shipped); where it lists no camera, publish images "
        "yourself",
    )
    parser.add_argument("--network", default="", help="transport profile: local, wired or wifi")
    parser.add_argument(
        "--pace",
        type=float,
        default=PI_3,
        metavar="MMACS",
        help="let every node compute as slowly as a robot of this many million MACs a second (default: a Raspberry "
        "Pi 3), so that processes on one machine behave as robots; 0: full speed",
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of video, picture and summary")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds without a report that end the demo")


def run(args: argparse.Namespace) -> int:
    """Start, watch, stop, sum up. 0 when every frame was reported once and at least one was complete.

    Ctrl-C and SIGTERM end it early, in the same order and with 0: what was seen so far is still worth its summary.
    """
    hold()  # ROS is in this process, and must see no KeyboardInterrupt
    try:
        return _run(args)
    finally:
        restore()


def _run(args: argparse.Namespace) -> int:
    if args.frames < 1:
        raise ConfigError(f"--frames is {args.frames}, expected 1 or more")
    profiles = share() / "config" / "network"
    file = args.params or share() / "config" / shipped_file(args.network)
    cluster = _paced(read_cluster(file), args.pace)
    if args.workers is not None:
        cluster = with_workers(cluster, args.workers)
    started = processes(cluster, profiles, network=args.network, watched=True)
    cameras = [process for process in started if process.executable == "camera"]
    if not cluster.sources:
        raise ConfigError(f"{file} lists no gateway, expected one")
    others = [process for process in started if process.executable != "camera"]
    environment = {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"),
    }
    if args.chaos is not None:
        environment |= disturbance(args.chaos)
    args.out.mkdir(parents=True, exist_ok=True)
    for old in (args.out / "log").glob("*.log"):
        old.unlink()
    # Imported here: only a machine with ROS can get this far, and the command line must work without.
    from dnn_dist.nodes.watch import watching

    prefix = f"{cluster.sources[0]}/" if len(cluster.sources) > 1 else ""
    rate = float(cameras[0].parameters.get("rate", 5.0)) if cameras else 5.0
    summary = Summary(args.out, args.frames, rate)
    with (
        own_domain() as domain,
        Supervisor(args.out / "log", {**environment, **domain}) as supervisor,
        watching({**environment, **domain, **started[0].environment}, prefix=prefix, overlay=True) as watch,
    ):
        watch.on_report = summary.add_report
        watch.on_overlay = summary.add_overlay
        supervisor.start(others)
        _await_workers(watch, supervisor, args, sum(process.executable == "worker" for process in others))
        if not told_to_stop():
            supervisor.start(cameras)
            if not cameras:
                _ask_for_images(f"{prefix}image", {**environment, **domain})
            _watch(watch, supervisor, summary, args)
        codes = supervisor.stop()
    summary.detections = {key: len(found.detections) for key, found in watch.detections.items()}
    told = summary.write(exit_codes=codes, pace=args.pace)
    Console().print(_table(told, None))
    _print_warnings(supervisor, [process.name for process in started])
    print(summary.closing_line(told))
    return 0 if told_to_stop() or (told["frames_reported"] >= args.frames and told["reported"]["complete"]) else 1


def _ask_for_images(topic: str, environment: Mapping[str, str]) -> None:
    names = ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")
    told = " ".join(f"{name}={environment[name]}" for name in names)
    print(f"ready; the parameter file lists no camera: publish images on {topic}, with {told}", flush=True)


def _print_warnings(supervisor: Supervisor, names: Sequence[str]) -> None:
    """Of each kind of warning the first, so that nobody has to search the logs for why frames are missing."""
    found = {
        (name, said["kind"]): said["text"]
        for name in names
        for said in reversed(list(WARNING.finditer(supervisor.log(name))))
    }
    if not found:
        return
    table = Table("node", "warning", "the first", title="what the nodes warned of")
    for (name, kind), text in found.items():
        table.add_row(name, kind, text)
    Console(soft_wrap=False).print(table)


def _paced(cluster: Cluster, pace: float) -> Cluster:
    parameters = {node: dict(values) for node, values in cluster.parameters.items()}
    parameters.setdefault("all", {}).setdefault("pace", pace)
    return replace(cluster, parameters=parameters)


def _await_workers(watch: Any, supervisor: Supervisor, args: argparse.Namespace, workers: int) -> None:
    """Wait until all workers offer room, so that the first frame finds a cluster, or until told to stop."""
    end = time.monotonic() + args.timeout
    while not watch.ready(workers) and not told_to_stop():
        watch.spin(0.1)
        for name, child in supervisor.running.items():
            if child.poll():
                raise ConfigError(f"{name} ended: {supervisor.last_word(name)}")
        if time.monotonic() > end:
            raise ConfigError(
                f"only {sorted(watch.workers) or 'no worker'} answered within {args.timeout:g} s; "
                f"see {args.out / 'log'} for what the nodes say"
            )


def _watch(watch: Any, supervisor: Supervisor, summary: Summary, args: argparse.Namespace) -> None:
    """The live table, until all frames are reported, nothing comes any more, or it is told to stop."""
    victim = sorted(name for name in supervisor.running if name.startswith("worker"))[-1] if args.kill else ""
    console = Console()
    told = 0
    chaos, began = None, time.monotonic()
    if args.chaos is not None:
        workers = sorted(name for name in supervisor.running if name.startswith("worker"))
        chaos = Chaos(supervisor, schedule(args.chaos, args.frames / summary.rate, workers))
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while len(summary.reports) < args.frames and not told_to_stop():
            watch.spin(0.1)
            supervisor.look()
            for name, why in supervisor.ended.items():
                raise ConfigError(f"{name} ended for good: {why}")
            if chaos is not None:
                chaos.look(time.monotonic() - began)
            if victim and len(summary.reports) >= args.frames // 2:
                supervisor.kill(victim)
                summary.killed(victim)
                victim = ""
            if console.is_terminal:
                live.update(_table(summary.told(), summary.age()))
            elif len(summary.reports) // 10 > told:
                told = len(summary.reports) // 10
                print(summary.line(), flush=True)
            if summary.age() > args.timeout:
                print(f"no report for {args.timeout:g} s; see {args.out / 'log'}", file=sys.stderr)
                return
    if chaos is not None:
        chaos.end()
        print(*chaos.done, sep="\n")
    # The pictures of the last frames are still being drawn.
    end = time.monotonic() + 1.0
    while summary.pictures < len(summary.reports) and time.monotonic() < end and not told_to_stop():
        watch.spin(0.05)


def _table(told: Mapping[str, Any], age: float | None) -> Table:
    latency = told["latency_ms"]
    title = (
        f"{told['frames_reported']} frames, {told['frames_per_second']:.1f}/s, "
        f"latency p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms"
    )
    if age is not None:
        title += f", last frame {age:.1f} s ago"
    table = Table(title=title)
    for heading in ("worker", "tasks", "stolen", "recomputed", "KB in", "KB out", "computing s"):
        table.add_column(heading, justify="left" if heading == "worker" else "right")
    for name, share_ in sorted(told["workers"].items()):
        row = (
            share_["tasks"],
            share_["stolen"],
            share_["recomputed"],
            share_["bytes_in"] // 1000,
            share_["bytes_out"] // 1000,
        )
        table.add_row(name, *map(str, row), f"{share_['computed_s']:.1f}")
    table.caption = ", ".join(f"{status} {count}" for status, count in told["reported"].items())
    return table
