# SPDX-License-Identifier: Apache-2.0
"""What a task costs outside its kernels: processor time of a real gateway and four real workers, by process and thread.

    .venv/bin/dnn_dist-env python bench/glue.py [--seconds 20] [--out glue.json]

The network is one max pool over an image of 848 x 848 pixels, in 8 x 8 tiles: work of 34 kB, a result of 48 bytes, and
next to no computing. Three clusters, one after the other, each with its defaults but for the deadline:

| cluster | what it shows |
|---|---|
| `idle` | images do not come: share of a core that the gateway takes, and a worker |
| `tasks` | `--rate` images a second: processor time of all nodes but the camera for each task |
| `images` | the same images, nothing distributed: what of that is the image's |

Processor time is what the kernel counted for each thread, so that it is the same on a busy machine, or nearly: what
shares its caches costs up to twice as much. Compare runs taken in turn. Threads: `python` runs the node, `job` its
pieces or local stages, `dds` are those of DDS: what it receives, sends later, and times.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from fleet import TICKS, Fleet, flying, robots
from rich.console import Console
from rich.table import Table

from dnn_dist.errors import DnnDistError
from dnn_dist.graph.flatbuffer import pack
from dnn_dist.graph.schema import DTYPES, OPERATOR_CODES, UNIONS

SIDE, GRID, POOL = 848, 8, 53
BARS = {"ms a task": 0.5, "gateway idle %": 2.0, "worker idle %": 1.0}


def write_model(folder: Path) -> Path:
    """One max pool, and a card whose head finds nothing."""
    shapes = (1, SIDE, SIDE, 3), (1, SIDE // POOL, SIDE // POOL, 3)
    kind = OPERATOR_CODES["MAX_POOL_2D"]
    options = {"stride_h": POOL, "stride_w": POOL, "filter_height": POOL, "filter_width": POOL, "padding": 1}
    graph = {
        "tensors": [
            {"shape": np.array(shape, np.int32), "name": f"t{n}", "type": DTYPES.index("float32")}
            for n, shape in enumerate(shapes)
        ],
        "inputs": np.array([0], np.int32),
        "outputs": np.array([1], np.int32),
        "operators": [
            {
                "opcode_index": 0,
                "inputs": np.array([0], np.int32),
                "outputs": np.array([1], np.int32),
                "builtin_options_type": {name: number for number, name in UNIONS["BuiltinOptions"].items()}[
                    "Pool2DOptions"
                ],
                "builtin_options": options,
            }
        ],
    }
    code = {"deprecated_builtin_code": kind, "builtin_code": kind, "version": 1}
    tree = {"version": 3, "operator_codes": [code], "subgraphs": [graph], "buffers": [{}]}
    model = folder / "pool.tflite"
    model.write_bytes(pack(tree, "Model", b"TFL3"))
    card = {"classes": ["nothing"], "input": {"shape": [1, SIDE, SIDE, 3]}, "output": {"head": "nohead:NoHead"}}
    model.with_suffix(".yaml").write_text(json.dumps(card) + "\n")  # JSON is YAML
    return model


def threads(pid: int) -> Counter[str]:
    """Seconds of processor time of a process's threads so far, by what they are."""
    found: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name, words = (task / "comm").read_text().strip(), (task / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has just ended
            continue
        kind = "dds" if name.startswith("dds") else "python" if task.name == str(pid) else "job"
        found[kind] += (int(words[11]) + int(words[12])) / TICKS
    return found


def measured(fleet: Fleet, seconds: float) -> dict[str, Any]:
    """What nodes take within so many seconds, and what they do for it."""
    pids = {name: child.pid for name, child in fleet.supervisor.running.items() if not name.startswith("camera")}
    before, began, seen = {name: threads(pid) for name, pid in pids.items()}, time.monotonic(), len(fleet.watch.reports)
    fleet.watch.spin(seconds)
    took = time.monotonic() - began
    reports = fleet.watch.reports[seen:]
    used = {name: {kind: s - before[name][kind] for kind, s in threads(pid).items()} for name, pid in pids.items()}
    return {
        "seconds": took,
        "frames": len(reports),
        "tasks": sum(share.tasks for report in reports for share in report.workers),
        "gateway": next(kinds for name, kinds in used.items() if name.startswith("gateway")),
        "workers": [kinds for name, kinds in used.items() if name.startswith("worker")],
    }


def run(case: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One cluster."""
    model, images = write_model(folder), folder / "images"
    images.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (SIDE // 16, SIDE // 16, 3), np.uint8)
    cv2.imwrite(str(images / "one.bmp"), np.kron(noise, np.ones((16, 16, 1), np.uint8)))
    parameters = {
        "all": {"model": str(model)},
        "camera": {"source": str(images), "rate": args.rate, "height": SIDE, "width": SIDE},
        "gateway": {"cut": "local" if case == "images" else f"tiles:{GRID}x{GRID}@0", "deadline": 30.0},
    }
    with flying(robots(args.workers), parameters, folder / "logs" / case, cameras=case != "idle") as fleet:
        fleet.watch.spin(2.0)  # discovery is over
        return measured(fleet, args.seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="idle, tasks, images (all)")
    parser.add_argument("--seconds", type=float, default=20.0, help="that are measured, of each cluster (20)")
    parser.add_argument("--rate", type=float, default=5.0, help="images a second (5)")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--out", type=Path, help="write all figures to this JSON file")
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    found: dict[str, Any] = {}
    with TemporaryDirectory(prefix="glue_") as folder:
        try:
            for case in args.cases or ("idle", "tasks", "images"):
                found[case] = run(case, Path(folder), args)
        except (DnnDistError, RuntimeError) as error:
            print(f"glue: {error}", file=sys.stderr)
            return 1
    show(found)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    for case, one in found.items():
        workers: Counter[str] = Counter()
        for kinds in one["workers"]:
            workers.update(kinds)
        each = len(one["workers"]) if case == "idle" else 1
        unit = {"idle": one["seconds"] / 100, "images": one["frames"] / 1000}.get(case, one["tasks"] / 1000) or 1.0
        what = {"idle": "% of a core", "images": "ms a frame"}.get(case, "ms a task")
        title = f"{case}: {one['frames']} frames, {one['tasks']} tasks in {one['seconds']:.0f} s"
        table = Table("node", *(kinds := ("python", "job", "dds")), "all", title=f"{title}; {what}")
        for name, used in (("gateway", one["gateway"]), ("a worker" if each > 1 else "workers", workers)):
            share = [used.get(kind, 0.0) / unit / (each if name == "a worker" else 1) for kind in kinds]
            table.add_row(name, *(f"{value:.3f}" for value in (*share, sum(share))))
        if case == "tasks":
            total = (sum(one["gateway"].values()) + sum(workers.values())) / unit
            table.add_row("all", "", "", "", f"{total:.3f}")
        console.print(table)
    print("bars: " + ", ".join(f"{what} {bar:g}" for what, bar in BARS.items()))


if __name__ == "__main__":
    sys.exit(main())
