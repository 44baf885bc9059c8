# SPDX-License-Identifier: Apache-2.0
"""Networks at full size on a real cluster: does every frame come whole, and does every process live on?

    python bench/make_full_models.py build/models yolov2_608 vgg16
    .venv/bin/dnn_dist-env python bench/full_size.py build/models
    .venv/bin/dnn_dist-env python bench/full_size.py build/models slices yolov2_608=layers:4
    .venv/bin/dnn_dist-env python bench/full_size.py build/models tiles --memory

A case is one of these, or MODEL=CUT:

| case | model, cut | what is hard about it |
|---|---|---|
| `tiles` | YOLOv2 at 608 x 608, `tiles:5x5@0..27` | pieces of 14 MB of weights, made ready when first given |
| `slices` | VGG16, `slices:4+1@19`, its first dense layer | slices and parity of 103 MB each; the rest is local |

A camera, a gateway and `--workers` workers with their default settings, but for the deadline: two cores cannot
compute so much in half a second. What dies is started again, as launch does. The exit code is 1 when that happened, or
when one of the first `--frames` frames lacks anything; warm-up counts. With `--memory` the shipped detector runs first,
with its shipped cut; what a worker takes more than one of that has a bar too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from fleet import TICKS, Fleet, flying, robots, ticks
from rich.console import Console
from rich.table import Table

from dnn_dist.cli.supervisor import share
from dnn_dist.cluster import read_cluster, shipped_file
from dnn_dist.errors import DnnDistError
from dnn_dist.run.report import Status

MOST_MORE = 120.0
"""MB that a worker may take more than one of the shipped detector."""
EXACT = (Status.COMPLETE, Status.DECODED, Status.RECOMPUTED)
"""Frames in which nothing is missing."""
MOST_RESPAWNS = 20
"""In one case; then it is over."""
STRIDE = 32  # of YOLOv2: pixels of the input per cell
ANCHORS = ((0.57273, 0.677385), (1.87446, 2.06253), (3.33843, 5.47434), (7.88282, 3.52778), (9.77052, 9.16828))
"""Of yolov2.cfg, in cells."""


@dataclass(frozen=True)
class Case:
    """A model of make_full_models.py and how it is cut."""

    model: str
    cut: str


CASES = {
    "tiles": Case("yolov2_608", "tiles:5x5@0..27"),
    "slices": Case("vgg16", "slices:4+1@19"),
}


def shipped() -> tuple[str, Case]:
    """Name and cut of the detector that comes with the package, as its parameter file has them."""
    parameters = read_cluster(share() / "config" / shipped_file()).parameters
    return parameters["all"]["model"], Case(Path(parameters["all"]["model"]).stem, parameters["gateway"]["cut"])


def write_card(model: Path) -> None:
    """The card of YOLOv2 beside the model; a classifier needs none."""
    if model.stem.startswith("yolov2"):
        card = {
            "classes": [f"class {number}" for number in range(80)],
            "input": {"shape": [1, 608, 608, 3]},
            "output": {
                "head": "yolo",
                "decode": "yolov2",
                "strides": [STRIDE],
                "anchors": [[[STRIDE * side for side in anchor] for anchor in ANCHORS]],
            },
        }
        model.with_suffix(".yaml").write_text(json.dumps(card, indent=1) + "\n")  # JSON is YAML


def pss(pid: int) -> float:
    """Memory of a process in MB; what it shares with others is divided among them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


@dataclass
class Watched:
    """A cluster at work: what dies is started again and counted, memory is looked at once a second."""

    fleet: Fleet

    def __post_init__(self) -> None:
        self.started = self.pids()
        self.memory: dict[str, float] = {}  # node -> the most so far, MB
        self._looked = 0.0  # s

    def pids(self) -> dict[str, int]:
        return {name: child.pid for name, child in self.fleet.supervisor.running.items()}

    def enough(self, frames: int) -> bool:
        """Whether so many frames are reported, or processes die so often that there is nothing to wait for."""
        self.fleet.supervisor.look()
        if time.monotonic() - self._looked > 1.0:
            self._looked = time.monotonic()
            for name, pid in self.pids().items():
                self.memory[name] = max(self.memory.get(name, 0.0), pss(pid))
        died = sum(self.fleet.supervisor.respawns.values())
        return len(self.fleet.watch.reports) >= frames or died >= MOST_RESPAWNS


def find(case: Case, models: Path) -> str:
    """The model of a case, with its card beside it."""
    model = (models / f"{case.model}.tflite").resolve()
    if not model.is_file():
        raise DnnDistError(f"there is no {model}; python bench/make_full_models.py {models} {case.model}")
    write_card(model)
    return str(model)


def run(case: Case, model: str, args: argparse.Namespace) -> dict[str, Any]:
    """Start the cluster, wait for the first frames, and look what became of them and of the processes."""
    parameters = {"all": {"model": model}, "gateway": {"cut": case.cut, "deadline": args.deadline}}
    for setting in args.set:
        name, _, value = setting.partition("=")
        node, _, parameter = name.partition(".")
        parameters.setdefault(node, {})[parameter] = json.loads(value)
    with flying(robots(args.workers), parameters, args.folder / case.model, cameras=False) as fleet:
        fleet.start_cameras()
        watched = Watched(fleet)
        with suppress(RuntimeError):  # fewer were reported: the figures say so
            fleet.until(lambda: watched.enough(args.frames), "frames are reported", args.frames * args.deadline)
        reports = fleet.watch.reports[: args.frames]
        ended = watched.pids()
        busy = {name: ticks(pid) / TICKS for name, pid in ended.items()}
        respawns = {name: fleet.supervisor.respawns.get(name, 0) for name in watched.started}
    tasks, computed = Counter[str](), Counter[str]()
    for part in (part for report in reports for part in report.workers):
        tasks[f"worker_{part.worker}"] += part.tasks
        computed[f"worker_{part.worker}"] += part.computed
    return {
        "ready_s": fleet.seconds_to_ready,
        "frames": len(reports),
        "exact": sum(report.status in EXACT for report in reports),
        "statuses": dict(Counter(Status(report.status).name.lower() for report in reports)),
        "recomputed": sum(report.recomputed for report in reports),
        "latencies_ms": [1000 * float(report.latency) for report in reports],
        "nodes": {
            name: {
                "pid": pid,
                "pid_at_end": ended.get(name),
                "respawns": respawns[name],
                "pss_mb": watched.memory.get(name, 0.0),
                "tasks": tasks[name],
                "computed_s": computed[name],
                "busy_s": busy.get(name, 0.0),
            }
            for name, pid in watched.started.items()
        },
    }


def show(name: str, case: Case, found: dict[str, Any], frames: int) -> bool:
    """Print a case's table; True when all is as it should be."""
    columns = ("node", "pid", "at the end", "respawns", "most PSS MB", "tasks", "s a task", "busy s")
    table = Table(*columns, title=f"{case.model}: {case.cut}")
    for node, one in found["nodes"].items():
        usual = f"{one['computed_s'] / one['tasks']:.3f}" if one["tasks"] else ""
        figures = (one["pid"], one["pid_at_end"] or "dead", one["respawns"], round(one["pss_mb"]), one["tasks"] or "")
        table.add_row(node, *map(str, figures), usual, f"{one['busy_s']:.1f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    latencies = found["latencies_ms"] or [float("nan")]
    alive = all(one["pid"] == one["pid_at_end"] and not one["respawns"] for one in found["nodes"].values())
    met = alive and found["exact"] == frames
    statuses = ", ".join(f"{status} {count}" for status, count in found["statuses"].items()) or "none reported"
    print(
        f"{name}: ready after {found['ready_s']:.1f} s; {found['exact']} of {frames} frames exact: {statuses}, "
        f"{found['recomputed']} pieces recomputed; latency first {latencies[0]:.0f}, median {median(latencies):.0f}, "
        f"longest {max(latencies):.0f} ms; processes {'the same' if alive else 'died'}: {'met' if met else 'missed'}",
        flush=True,
    )
    return met


def show_memory(name: str, found: dict[str, Any], usual: dict[str, Any]) -> bool:
    """Print what a worker takes more than one of the shipped detector; True when that is within the bar."""
    most, shipped = (
        [one["pss_mb"] for node, one in its["nodes"].items() if node.startswith("worker_")] for its in (found, usual)
    )
    more = max(most) - median(shipped)
    print(
        f"{name}: a worker takes at most {max(most):.0f} MB (PSS), of the shipped detector {median(shipped):.0f} MB "
        f"(median): {more:+.0f} MB, bar {MOST_MORE:+.0f}: {'met' if more <= MOST_MORE else 'missed'}",
        flush=True,
    )
    return more <= MOST_MORE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder of what make_full_models.py wrote")
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}, or MODEL=CUT ({', '.join(CASES)})"
    )
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--deadline", type=float, default=60.0, help="s (60, the longest that may be asked for)")
    parser.add_argument("--memory", action="store_true", help="compare with the shipped detector's workers")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.NAME=VALUE", help="another parameter")
    parser.add_argument("--folder", type=Path, default=Path("out/full_size"), help="logs of each run")
    parser.add_argument("--out", type=Path, help="write all figures to this JSON file")
    args = parser.parse_args()
    cases = {name: CASES.get(name) or Case(*name.partition("=")[::2]) for name in args.cases or CASES}
    if unknown := [name for name, case in cases.items() if not case.cut]:
        parser.error(f"there is no case {', '.join(unknown)}; take of {', '.join(CASES)}, or MODEL=CUT")
    found: dict[str, Any] = {}
    met = True
    try:
        if args.memory:
            model, case = shipped()
            found["shipped"] = run(case, model, args)
            met &= show("shipped", case, found["shipped"], args.frames)
        for name, case in cases.items():
            found[name] = run(case, find(case, args.models), args)
            met &= show(name, case, found[name], args.frames)
            if args.memory:
                met &= show_memory(name, found[name], found["shipped"])
    except (DnnDistError, RuntimeError) as error:
        print(f"full_size: {error}", file=sys.stderr)
        return 1
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
