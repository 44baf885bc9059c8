# SPDX-License-Identifier: Apache-2.0
"""What redundancy and stealing are worth on real nodes: each figure beside its control, the run with the mechanism off.

    make build
    .venv/bin/dnn_dist-env python bench/robustness.py kill --out kill.json
    .venv/bin/dnn_dist-env python bench/robustness.py spares sources chains many join
    .venv/bin/dnn_dist-env python bench/robustness.py soak --minutes 10

Workers are paced (`--pace`, million MACs a second): after computing each waits until a robot of that speed would be
done. So they share no cores as long as the machine's load stays under 80 %; the table shows it. Runs of different
cases alternate, so that what else the machine does meets them all; figures are medians over `--repeat` runs.

The plan of `kill` and `spares` divides the convolutions 8, 9, 11 and 12, one coded stage after the other with a
pooling at the gateway between two of them. They hold 39 % of the model's MACs and 64 % of its weights. Earlier ones
have outputs so large that slices would mostly travel; a tiled front could not lose a robot without computing again. The
gateway runs what is left, at full speed, so that the latency is that of the coded stages.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from fleet import WARM_UP, Fleet, Load, flying, robots
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dnn_dist.errors import DnnDistError
from dnn_dist.run.report import Status

CONVOLUTIONS = "8..12"
EXACT = (Status.COMPLETE, Status.DECODED, Status.RECOMPUTED)
"""Frames in which nothing is missing."""
CAMERA = 10.0  # frames a second: always a newer image than the one in work, and one that waits


@dataclass(frozen=True)
class Case:
    """A cluster and a plan."""

    cut: str
    robots: Mapping[str, Any]
    victims: tuple[str, ...] = ()  # workers that are killed half way
    prefix: str = ""  # of the watched source's topics
    gateway: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)  # of all nodes

    def parameters(self, pace: float) -> dict[str, Any]:
        """All nodes' parameters. The deadline is long: how late a frame comes is to be seen, not cut off."""
        gateway = {"cut": self.cut, "deadline": 20.0, **self.gateway}
        return {"gateway": gateway, "worker": {"pace": pace}, "camera": {"rate": CAMERA}}


@dataclass
class Bench:
    """What all commands need."""

    args: argparse.Namespace
    progress: Progress

    @contextmanager
    def flying(self, name: str, case: Case, pace: float, **options: Any) -> Iterator[Fleet]:
        """The case's cluster, with its progress on screen."""
        task = self.progress.add_task(name, total=None)
        logs = self.args.folder / name.replace(" ", "_")
        with flying(
            case.robots, case.parameters(pace), logs, case.prefix, more=case.environment, **options
        ) as fleet:
            fleet.watch.on_report = lambda report: self.progress.advance(task)
            yield fleet
        self.progress.update(task, total=self.progress.tasks[task].completed)

    def alternate(
        self, cases: Mapping[str, Case], measure: Callable[[Fleet, Case], dict[str, Any]], pace: float
    ) -> dict[str, list[dict[str, Any]]]:
        """Measure each case in turn, `--repeat` times."""
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
        for turn in range(self.args.repeat):
            for name, case in cases.items():
                with self.flying(f"{name}, run {turn + 1}", case, pace) as fleet:
                    load = Load(fleet)
                    found[name].append({**measure(fleet, case), **load.told()})
        return found


def summary(reports: Sequence[Any]) -> dict[str, Any]:
    """How frames ended. `lost`: not reported, or with something missing; latencies from announcement to report, ms."""
    numbers = [report.frame for report in reports]
    exact = sum(report.status in EXACT for report in reports)
    latencies = [1000 * float(report.latency) for report in reports]
    return {
        "frames": len(reports),
        "lost": max(numbers) - min(numbers) + 1 - exact,
        "statuses": dict(Counter(Status(report.status).name.lower() for report in reports)),
        "p50_ms": median(latencies),
        "p99_ms": float(np.percentile(latencies, 99)),
        "latencies_ms": latencies,
    }


# Commands: each returns what is written as JSON, and prints its table -------------------------------------------------


def run_kill(bench: Bench) -> dict[str, Any]:
    """A worker dies (SIGKILL) in the middle of a frame and stays away.

    `after / before`: median latency of the frames after the kill to that of those before; bar: at most 1.05 with
    parity, missed without. `hit`: latency of the frame in which it died to the median before. `lost`: bar 0.
    Controls: as many slices on as many robots (5), and the same four slices on four robots. There a task is found by
    its worker's silence, computed again, and from then on the pieces outnumber the workers.
    """
    pace = bench.args.pace or 40.0
    cases = {
        "4+1 on 5, one dies": Case(_slices("4+1"), robots(5), ("r3",)),
        "4+2 on 6, two die": Case(_slices("4+2"), robots(6), ("r3", "r4")),
        "control: 5 on 5, one dies": Case(_slices("5"), robots(5), ("r3",)),
        "control: 4 on 4, one dies": Case(_slices("4"), robots(4), ("r3",)),
    }

    def measure(fleet: Fleet, case: Case) -> dict[str, Any]:
        before = fleet.frames(bench.args.frames)
        usual = median(float(report.latency) for report in before)
        fleet.watch.spin(usual / 2)  # the next frame is half done
        for victim in case.victims:
            fleet.supervisor.kill(f"worker_{victim}")
        hit, *after = fleet.frames(bench.args.frames + 1)
        return {
            **summary([*before, hit, *after]),
            "before_ms": 1000 * usual,
            "after_ms": summary(after)["p50_ms"],
            "ratio": summary(after)["p50_ms"] / 1000 / usual,
            "hit_ratio": float(hit.latency) / usual,
            "hit_status": Status(hit.status).name.lower(),
        }

    found = bench.alternate(cases, measure, pace)
    columns = {"before ms": "before_ms", "after ms": "after_ms", "after / before": "ratio", "hit": "hit_ratio"}
    show(f"kill, {pace:g} MMAC/s a worker", found, columns)
    for name, runs in found.items():
        told = median(run["ratio"] for run in runs)
        bar(name, "after / before", told, "<=", 1.05, "control" in name)
        bar(name, "frames lost", sum(run["lost"] for run in runs), "<=", 0)
    return {"pace": pace, "runs": found}


def run_spares(bench: Bench) -> dict[str, Any]:
    """What redundancy on demand costs when nobody is slow, and what it is worth when somebody is.

    Medians and 99th percentiles of the latency, of all runs' frames together. Bars: nobody slow, `4+1` on five workers
    to four slices on four, 1.05; one of five workers five times slower, to all equal, 1.15; one piece in twenty taking
    ten times as long, to as many slices without parity, half. Controls: parities always sent with the others; there the
    first costs a quarter, and a second straggler among five is waited for.
    """
    pace = bench.args.pace or 60.0
    slow = robots(5, r3={"pace": pace / 5})
    strays = {"environment": {"DNN_DIST_DISTURB": "seed=1,straggling=0.05,slowdown=10"}}
    always: dict[str, Any] = {"gateway": {"redundancy": "always"}}
    cases = {
        "4 on 4": Case(_slices("4"), robots(4)),
        "4+1": Case(_slices("4+1"), robots(5)),
        "4+1 always": Case(_slices("4+1"), robots(5), **always),
        "4+1, one slow": Case(_slices("4+1"), slow),
        "4+1 always, one slow": Case(_slices("4+1"), slow, **always),
        "5, one slow": Case(_slices("5"), slow),
        "4, stragglers": Case(_slices("4"), robots(5), **strays),
        "4+1, stragglers": Case(_slices("4+1"), robots(5), **strays),
        "4+1 always, stragglers": Case(_slices("4+1"), robots(5), **strays, **always),
    }
    found = bench.alternate(cases, lambda fleet, case: summary(fleet.frames(bench.args.frames)), pace)
    show(f"spares, {pace:g} MMAC/s a worker", found, {"p50 ms": "p50_ms", "p99 ms": "p99_ms"})
    late = {name: [one for run in runs for one in run["latencies_ms"]] for name, runs in found.items()}
    p50 = {name: float(np.median(some)) for name, some in late.items()}
    p99 = {name: float(np.percentile(some, 99)) for name, some in late.items()}
    for name in ("4+1", "4+1 always"):
        control = name.endswith("always")
        bar(name, "median, nobody slow, to 4 on 4", p50[name] / p50["4 on 4"], "<=", 1.05, control)
        bar(name, "p99, one slow, to all equal", p99[f"{name}, one slow"] / p99[name], "<=", 1.15)
        bar(name, "p99, stragglers, to uncoded", p99[f"{name}, stragglers"] / p99["4, stragglers"], "<=", 0.5, control)
    bar("5 uncoded", "p99, one slow, to 4+1 all equal", p99["5, one slow"] / p99["4+1"], "<=", 1.15, control=True)
    return {"pace": pace, "runs": found, "p50_ms": p50, "p99_ms": p99}


def run_sources(bench: Bench) -> dict[str, Any]:
    """Two sources, three workers; the second source has no images, so that the worker on its robot steals.

    `frames/s` of the first source, to that of the control, in which this worker serves its own source only and is
    therefore left out. Three workers to two: 1.5 is what there is to gain; bar: 1.3.
    """
    pace = bench.args.pace or 200.0
    busy = {"source": "front", "nodes": ["camera", "gateway", "worker"]}
    idle = {"source": "rear", "nodes": ["gateway", "worker"]}
    alone = {"source": "rear", "nodes": ["gateway"]}
    other = {"nodes": ["worker"]}
    options: dict[str, Any] = {"cut": "tiles:3x3@0..7", "prefix": "front/", "gateway": {"max_frames": 2}}
    cases = {
        "stealing": Case(robots={"r1": busy, "r2": idle, "r3": other}, **options),
        "control: own source only": Case(robots={"r1": busy, "r2": alone, "r3": other}, **options),
    }

    def measure(fleet: Fleet, case: Case) -> dict[str, Any]:
        reports, rate = paced(fleet, bench.args.frames)
        tasks = Counter[str]()
        for share in (share for report in reports for share in report.workers):
            tasks[share.worker] += share.tasks
        return {**summary(reports), "frames_per_s": rate, "tasks": dict(sorted(tasks.items()))}

    found = bench.alternate(cases, measure, pace)
    show(f"sources, {pace:g} MMAC/s a worker", found, {"frames/s": "frames_per_s", "p50 ms": "p50_ms"})
    rates = {name: median(run["frames_per_s"] for run in runs) for name, runs in found.items()}
    ratio = rates["stealing"] / rates["control: own source only"]
    bar("stealing", "frames/s to control", ratio, ">=", 1.3)
    stolen = [run["tasks"].get("r2", 0) / sum(run["tasks"].values()) for run in found["stealing"]]
    bar("stealing", "share of tasks of the idle source's worker", median(stolen), ">=", 0.25)
    return {"pace": pace, "runs": found, "ratio": ratio}


def run_chains(bench: Bench) -> dict[str, Any]:
    """Two sources on four workers, both with chains, both with more images than can be computed.

    `frames/s` of both together, to that of one source that has the workers for itself; bar: 0.9, and neither below 0.4.
    `p99 / p50` of the latency: a source that waits for the other's chain to end would show it; bar: 4.
    """
    pace = bench.args.pace or 100.0
    busy, still, other = (["camera", "gateway", "worker"], ["gateway", "worker"], ["worker"])
    chains = {"cut": "tiles:2x2@0..3>tiles:2x2@4..7>bands:4@8..9", "gateway": {"max_frames": 2}}

    def fleet(*nodes: list[str]) -> dict[str, Any]:
        sources = {f"r{n}": {"source": f"s{n}", "nodes": own} for n, own in enumerate(nodes, 1)}
        return {**sources, "r3": {"nodes": other}, "r4": {"nodes": other}}

    cases = {
        "one source": Case(robots=fleet(busy, still), prefix="s1/", **chains),
        "two, the first": Case(robots=fleet(busy, busy), prefix="s1/", **chains),
        "two, the second": Case(robots=fleet(busy, busy), prefix="s2/", **chains),
    }

    def measure(fleet: Fleet, case: Case) -> dict[str, Any]:
        reports, rate = paced(fleet, bench.args.frames)
        told = summary(reports)
        return {**told, "frames_per_s": rate, "stall": told["p99_ms"] / told["p50_ms"]}

    found = bench.alternate(cases, measure, pace)
    columns = {"frames/s": "frames_per_s", "p50 ms": "p50_ms", "p99 ms": "p99_ms"}
    show(f"chains, {pace:g} MMAC/s a worker", found, columns)
    alone, first, second = (median(run["frames_per_s"] for run in runs) for runs in found.values())
    bar("two sources", "frames/s of both to one alone", (first + second) / alone, ">=", 0.9)
    bar("two sources", "frames/s of the slower to one alone", min(first, second) / alone, ">=", 0.4)
    bar("two sources", "p99 / p50", max(run["stall"] for runs in found.values() for run in runs), "<=", 4)
    return {"pace": pace, "runs": found, "together": (first + second) / alone}


def paced(fleet: Fleet, count: int) -> tuple[list[Any], float]:
    """The next so many reports, and how many came a second."""
    began = time.monotonic()
    reports = fleet.frames(count)
    return reports, len(reports) / (time.monotonic() - began)


def run_soak(bench: Bench) -> dict[str, Any]:
    """Full load for `--minutes`: images come faster than they can be computed, two frames are in work at once.

    `end / start`: resident memory of each node, medians of the last and the first tenth (at least 5 samples) of
    samples taken every second, after `--warm-up` seconds in which pools and caches fill; bar: at most 1.05.
    `middle`: the median of all samples; what levels off is nearer to the end there than to the start, a leak is not.
    """
    pace = bench.args.pace or 2100.0
    case = Case("tiles:2x2@0..7;" + _slices("4+1"), robots(5), gateway={"max_frames": 2})
    with bench.flying("soak", case, pace) as fleet:
        fleet.watch.spin(bench.args.warm_up)
        load, first = Load(fleet), len(fleet.watch.reports)
        samples, end = [], time.monotonic() + 60 * bench.args.minutes
        while time.monotonic() < end:
            fleet.watch.spin(1.0)
            samples.append(fleet.rss())
        told = {**summary(fleet.watch.reports[first:]), **load.told()}
    some = max(5, len(samples) // 10)
    nodes = {}
    for name in samples[0]:
        start, last = (median(sample[name] for sample in part) for part in (samples[:some], samples[-some:]))
        middle = median(sample[name] for sample in samples)
        nodes[name] = {"start_mb": start, "middle_mb": middle, "end_mb": last, "ratio": last / start}
    table = Table(
        "node", "start MB", "middle MB", "end MB", "end / start", title=f"soak, {bench.args.minutes:g} minutes"
    )
    for name, one in nodes.items():
        table.add_row(name, *(f"{one[key]:.1f}" for key in ("start_mb", "middle_mb", "end_mb")), f"{one['ratio']:.3f}")
    Console().print(table)
    show("soak", {"soak": [told]}, {"p50 ms": "p50_ms", "p99 ms": "p99_ms"})
    bar("soak", "largest end / start of resident memory", max(one["ratio"] for one in nodes.values()), "<=", 1.05)
    del told["latencies_ms"]
    return {"pace": pace, "nodes": nodes, "samples": samples[:: max(1, len(samples) // 60)], **told}


def run_many(bench: Bench) -> dict[str, Any]:
    """A cluster of `--workers` starts, computes, and stops as by Ctrl-C.

    Seconds from the first process's start until all workers offer room, and from asking them to stop until all have;
    bar: every exit code is 0.
    """
    pace = bench.args.pace or 300.0
    case = Case("tiles:4x4@0..7", robots(bench.args.workers))
    with bench.flying("many", case, pace) as fleet:
        load = Load(fleet)
        reports = fleet.frames(bench.args.frames)
        told, ready, began = {**summary(reports), **load.told()}, fleet.seconds_to_ready, time.monotonic()
        codes = fleet.supervisor.stop()
        stopped = time.monotonic() - began
    served = {share.worker for report in reports for share in report.workers}
    show(f"many, {bench.args.workers} workers", {"many": [told]}, {"p50 ms": "p50_ms", "p99 ms": "p99_ms"})
    print(f"ready after {ready:.1f} s, stopped after {stopped:.1f} s, {len(served)} workers had tasks")
    bar("many", "nodes with another exit code than 0", sum(code != 0 for code in codes.values()), "<=", 0)
    return {"ready_s": ready, "stop_s": stopped, "exit_codes": codes, "served": sorted(served), **told}


def run_join(bench: Bench) -> dict[str, Any]:
    """A worker that was never there joins; one that was killed comes back; one that was stopped (SIGSTOP, 2 s) goes on.

    Seconds from the process's start, or SIGCONT, to the first report of a frame that it computed a piece of; bar: 2.
    With the process's start its interpreter, ROS and the model's pieces are in it, and the rest of the frame.
    """
    pace = bench.args.pace or 400.0
    case = Case("tiles:3x3@0..7", robots(3))
    found: dict[str, list[float]] = {"joins late": [], "killed, comes back": [], "stopped, goes on": []}
    with bench.flying("join", case, pace) as fleet:
        load, supervisor, reports = Load(fleet), fleet.supervisor, fleet.watch.reports
        model = next(process for process in fleet.processes if process.name == "worker_r3")

        def seconds_to_work(worker: str, begin: Callable[[], None]) -> float:
            began, known = time.monotonic(), len(reports)
            begin()
            fleet.until(
                lambda: any(share.worker == worker for report in reports[known:] for share in report.workers),
                f"worker {worker} takes work",
            )
            return time.monotonic() - began

        for turn in range(bench.args.repeat):
            name = f"r{4 + turn}"
            values = {**model.parameters, "worker": name, "robot": name}
            late = replace(model, name=f"worker_{name}", robot=name, parameters=values)
            found["joins late"].append(seconds_to_work(name, lambda late=late: supervisor.start([late])))
            victim = supervisor.running["worker_r3"]
            victim.kill()
            victim.wait()
            fleet.watch.spin(2.0)
            found["killed, comes back"].append(seconds_to_work("r3", lambda: supervisor.start([model])))
            pid = supervisor.running["worker_r2"].pid
            os.kill(pid, signal.SIGSTOP)
            fleet.watch.spin(2.0)
            found["stopped, goes on"].append(seconds_to_work("r2", lambda pid=pid: os.kill(pid, signal.SIGCONT)))
            supervisor.kill(f"worker_{name}")
        told = {**summary(reports[WARM_UP:]), **load.told()}
    show(f"join, {pace:g} MMAC/s a worker", {"join": [told]}, {"p50 ms": "p50_ms", "p99 ms": "p99_ms"})
    for name, seconds in found.items():
        bar(name, "seconds to work, the longest", max(seconds), "<=", 2)
    return {"pace": pace, "seconds": found, **told}


# Figures --------------------------------------------------------------------------------------------------------------


def show(title: str, found: Mapping[str, list[dict[str, Any]]], columns: Mapping[str, str]) -> None:
    """A row a case: medians over its runs, sums of frames; loads as the highest of all runs."""
    table = Table("", *columns, "frames", "lost", "statuses", "nodes' load", "machine's load", title=title)
    for name, runs in found.items():
        figures = [median(run[key] for run in runs) for key in columns.values()]
        statuses: Counter[str] = sum((Counter(run["statuses"]) for run in runs), Counter())
        table.add_row(
            name,
            *(f"{figure:.0f}" if figure >= 20 else f"{figure:.2f}" for figure in figures),
            str(sum(run["frames"] for run in runs)),
            str(sum(run["lost"] for run in runs)),
            ", ".join(f"{status} {count}" for status, count in statuses.items()),
            *(f"{100 * max(run[key] for run in runs):.0f} %" for key in ("own_load", "machine_load")),
        )
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def bar(name: str, what: str, value: float, sense: str, limit: float, control: bool = False) -> None:
    """One line: is the bar met? A control is meant to miss it."""
    met = value <= limit if sense == "<=" else value >= limit
    wanted = " (a control: meant to miss it)" if control else ""
    print(f"{name}: {what} {value:.2f}, bar {sense} {limit:g}: {'met' if met else 'missed'}{wanted}")


def _slices(how: str) -> str:
    return f"slices:{how}@{CONVOLUTIONS}"


COMMANDS = {
    "kill": run_kill,
    "spares": run_spares,
    "sources": run_sources,
    "chains": run_chains,
    "soak": run_soak,
    "many": run_many,
    "join": run_join,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="+", choices=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument(
        "--pace", type=float, default=0.0, help="million MACs a second of a worker (default: each its own)"
    )
    parser.add_argument("--frames", type=int, default=30, help="measured per run; kill: before, and again after")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each case")
    parser.add_argument("--minutes", type=float, default=10.0, help="of soak")
    parser.add_argument("--warm-up", type=float, default=60.0, help="seconds before soak looks at memory")
    parser.add_argument("--workers", type=int, default=12, help="of many")
    parser.add_argument("--folder", type=Path, default=Path("out/robustness"), help="logs of each run")
    parser.add_argument("--out", type=Path, help="write all figures to this JSON file")
    args = parser.parse_args()
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    found: dict[str, Any] = {"cores": os.cpu_count(), "load_average": os.getloadavg()}
    try:
        for name in args.commands:
            with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
                found[name] = COMMANDS[name](Bench(args, progress))
            if args.out:
                args.out.write_text(json.dumps(found, indent=1) + "\n")
    except (DnnDistError, RuntimeError) as error:
        print(f"robustness: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
