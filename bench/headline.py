# SPDX-License-Identifier: Apache-2.0
r"""The headline bench: an emulated fleet of 1 to 8 robots, every way to divide a network, one table, one picture.

    sudo .venv/bin/dnn_dist-env python bench/headline.py --models build/models
    sudo .venv/bin/dnn_dist-env python bench/headline.py --models build/models --network yolov2_front --robots 6 \
        --ways direct --frames 5 --repeat 1
    .venv/bin/dnn_dist-env python bench/headline.py --models build/models --dry

Robots are network namespaces, joined by the air of medium.py; each has a worker that computes at `--pace`, by waiting.
Camera and gateway are on r1. A way's cut is that of headline_cases.py, or `--cut`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml
from headline_cases import MODELS, WAYS, Setting, calculated, model_file, named, plan_of
from headline_run import Ask, real_seconds, run
from headline_show import picture, tables
from medium import Weather

from dnn_dist.errors import DnnDistError
from dnn_dist.graph.tflite import read_network

MEASURES = ("real", "latency", "throughput", "idle", "slow", "kill")


def cases(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every combination that is asked for; one robot is one case, whatever the way."""
    found: list[dict[str, Any]] = []
    for network in args.network:
        for rate in args.rate:
            for robots in args.robots:
                for way in args.ways:
                    one = {"network": network, "rate": rate, "robots": robots, "pace": args.pace}
                    case = {**one, "way": "local" if robots == 1 and not args.cut else way}
                    if case not in found and (case["way"] != "local" or robots == min(args.robots)):
                        found.append(case)
    return found


def prepare(args: argparse.Namespace, case: dict[str, Any]) -> tuple[Setting, Any]:
    """The setting of a case and its division; `case` gets what can be calculated."""
    network = read_network(model_file(case["network"], args.models, args.folder / "models"))
    weather = Weather(rate=1e6 * case["rate"], delay=args.delay / 1000, overhead=args.overhead / 1e6, loss=args.loss)
    setting = Setting(network, MODELS[case["network"]], case["robots"], args.pace, weather)
    division = plan_of(case["way"], setting, args.cut)
    case["cut"], case["mode"] = division.cut, division.mode
    case["calculated"] = calculated(setting, division)
    return setting, division


def line(case: dict[str, Any], found: dict[str, Any]) -> str:
    """One run in a few words."""
    sums = case["calculated"]
    told = [f"{case['network']} {case['robots']} robots {case['rate']:g} Mbit/s {case['way']}"]
    for name in ("latency", "throughput"):
        if one := found.get(name):
            taken = one["latency_s"] if name == "latency" else one["interval_s"]
            told.append(
                f"{name} {taken:.3f} s ({sums['alone_s'] / taken:.2f} x one robot, bound {sums['bound_s']:.3f}; spread "
                f"{min(one['latencies_s']):.3f}..{max(one['latencies_s']):.3f}; glue {one['glue_s']:.3f}); "
                f"air {one['air_bytes'] / 1e6:.2f} MB a frame ({sums['predicted_bytes'] / 1e6:.2f} by calculation), "
                f"{100 * one['air_share']:.0f} % used, {one['air_dropped']} dropped; {one['statuses']}, recomputed "
                f"{one['recomputed']}, sent again {one['resent_bytes'] / 1e6:.2f} MB; "
                f"nodes {one['cpu_s']:.2f} CPU s a frame, machine {100 * one['machine_load']:.0f} %"
            )
    if "idle_bytes_per_s" in found:
        told.append(f"idle air {found['idle_bytes_per_s'] / 1e3:.0f} kB/s")
    for name in ("slow", "kill"):
        if one := found.get(name):
            told.append(
                f"{name}: before {one['before_s']:.3f}, hit {one['hit_s']:.3f}, "
                f"after {one['after']['latency_s']:.3f} s, {one['statuses']}"
            )
    told.append(f"warm {found['warm']}; same processes {found['same_processes']}, respawns {found['respawns']}")
    return "\n    ".join(told)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every case in turn, `--repeat` times; what `--out` has already is not measured again when `--resume` is given."""
    wanted = cases(args)
    found = {"machine": machine(), "options": {k: str(v) for k, v in vars(args).items()}, "cases": wanted}
    if args.resume and args.out and args.out.is_file():
        _take_up(wanted, json.loads(args.out.read_text())["cases"])
    if "real" in args.measure:
        for network in args.network:
            path = model_file(network, args.models, args.folder / "models")
            found.setdefault("real_s", {})[network] = real_seconds(path)
            print(f"{network}: {found['real_s'][network]:.2f} s of one core a frame", file=sys.stderr, flush=True)
    for turn in range(args.repeat):
        for case in wanted:
            runs = case.setdefault("runs", [])
            if len(runs) <= turn:
                runs.append(_one(args, case, turn))
                save(args.out, found)
    return found


def _one(args: argparse.Namespace, case: dict[str, Any], turn: int) -> dict[str, Any]:
    """One run of a case, or why there is none."""
    name = f"{case['network']}-{case['rate']:g}-{case['robots']}-{case['way']}"
    in_work = args.in_work or (min(16, max(2, case["robots"])) if case["way"] == "pipeline" else 2)
    ask = ask_of(args, in_work)
    try:
        setting, division = prepare(args, case)
        args.told(f"cut: {division.cut}")
        found = run(setting, division, ask, args.folder / "runs" / f"{name}-{turn}", seed=args.seed + turn)
    except (DnnDistError, RuntimeError) as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return {"error": str(error)}
    print(line(case, found), file=sys.stderr, flush=True)
    return found


def _take_up(wanted: list[dict[str, Any]], before: list[dict[str, Any]]) -> None:
    """Give the cases the runs that they had."""
    for case in wanted:
        for old in before:
            if all(old.get(key) == value for key, value in case.items()):
                case.update(old)
                case["runs"] = [run for run in old.get("runs", []) if "error" not in run]
                break


def machine() -> dict[str, Any]:
    """What all this ran on."""
    system = os.uname()
    return {"cores": os.cpu_count(), "loadavg": os.getloadavg(), "kernel": system.release, "cpu": system.machine}


def save(path: Path | None, found: dict[str, Any]) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")


def met(found: dict[str, Any]) -> bool:
    """Whether every case ran, no process was started again, and no frame lacked anything or was computed again."""
    runs = [run for case in found["cases"] for run in case.get("runs", [])]
    calm = [run[name] for run in runs for name in ("latency", "throughput") if name in run]
    return (
        not any("error" in run or run["respawns"] or not run["same_processes"] for run in runs)
        and not any(one["recomputed"] or one["filled"] for one in calm)
        and all(set(one["statuses"]) == {"complete"} for one in calm)
    )


def dry(args: argparse.Namespace) -> bool:
    """The cases with what can be calculated; False when one cannot be cut."""
    wanted = cases(args)
    for case in wanted:
        try:
            prepare(args, case)
        except DnnDistError as error:
            case["error"] = str(error)
        head = f"{case['network']:13} {case['rate']:4g} Mbit/s {case['robots']} robots {case['way']:9}"
        if "error" in case:
            print(f"{head} {case['error']}")
            continue
        sums = case["calculated"]
        print(
            f"{head} bound {sums['bound_s']:.3f} s, predicted {sums['predicted_s']:.3f} s, two frames in work "
            f"{sums['predicted_interval_s']:.3f} s, {sums['predicted_bytes'] / 1e6:.2f} MB, "
            f"work ratio {sums['work_ratio']:.3f}: {case['cut']}",
            flush=True,
        )
    return not any("error" in case for case in wanted)


def _settings(entries: list[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        node, _, parameter = name.partition(".")
        found.setdefault(node, {})[parameter] = yaml.safe_load(value)
    return found


def options(parser: argparse.ArgumentParser) -> None:
    """What every bench of such a fleet can be asked for."""
    parser.add_argument("--models", type=Path, required=True, help="folder of what make_full_models.py wrote")
    parser.add_argument("--cut", default="", help="instead of the way's own")
    parser.add_argument("--delay", type=float, default=2.0, help="of the air, ms")
    parser.add_argument("--overhead", type=float, default=50.0, help="of each packet on the air, us")
    parser.add_argument("--loss", type=float, default=0.0, help="share of packets lost on the air")
    parser.add_argument("--pace", type=float, default=1000.0, help="of a robot, million MACs a second")
    parser.add_argument("--frames", type=int, default=6, help="of each measure")
    parser.add_argument("--warm", type=int, default=4, help="least frames before; they have to settle, too")
    parser.add_argument("--deadline", type=float, default=60.0)
    parser.add_argument("--transport", default="wifi", help="DDS profile: wifi (scaled to the air's rate) or wired")
    parser.add_argument("--window", type=int, default=Ask.window, help="the gateway's, bytes (4 MB)")
    parser.add_argument("--profiles", type=Path, help="folder of DDS profiles, taken as they are")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.NAME=VALUE", help="another parameter")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write all figures to this JSON file")
    parser.add_argument("--quiet", action="store_true", help="no line for each frame")


def read_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What is asked for, `--set` and `--quiet` made ready for `ask_of`."""
    args = parser.parse_args()
    args.settings = _settings(args.set)
    args.told = (lambda text: None) if args.quiet else (lambda text: print(text, file=sys.stderr, flush=True))
    return args


def ask_of(args: argparse.Namespace, in_work: int = 1) -> Ask:
    """How a case is to be measured."""
    return Ask(
        args.frames, in_work, tuple(args.measure), args.transport, args.window, args.deadline, args.settings,
        args.profiles, args.warm, args.told,
    )  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    parser.add_argument("--network", nargs="+", default=list(MODELS), help=", ".join(MODELS))
    parser.add_argument("--robots", nargs="+", type=int, default=[1, 2, 4, 6, 8])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), help=", ".join(WAYS))
    parser.add_argument("--rate", nargs="+", type=float, default=[60.0], help="of the air, Mbit/s (60)")
    parser.add_argument("--in-work", type=int, default=0, help="frames for throughput (2; a pipeline: its robots)")
    parser.add_argument(
        "--measure", nargs="+", default=["latency", "throughput"], choices=MEASURES, metavar="MEASURE",
        help=f"{', '.join(MEASURES)} (latency throughput)",
    )  # fmt: skip
    parser.add_argument("--repeat", type=int, default=1, help="runs of each case, in turn with the others")
    parser.add_argument("--folder", type=Path, default=Path("out/headline"), help="logs and reports of each run")
    parser.add_argument("--picture", type=Path, help="draw the speed-up (deploy/extra.py figures)")
    parser.add_argument("--resume", action="store_true", help="go on with the runs that --out has already")
    parser.add_argument("--dry", action="store_true", help="run nothing: cuts and what can be calculated")
    return read_options(parser)


def main() -> int:
    args = parse()
    if not args.dry and os.geteuid() != 0:
        print("headline: network namespaces need root: run with sudo, or --dry", file=sys.stderr)
        return 2
    try:
        named(args.network, list(MODELS), "network")
        named(args.ways, list(WAYS), "way")
        if args.dry:
            return 0 if dry(args) else 1
        found = measure(args)
        print("\n".join(tables(found["cases"])))
        if args.picture:
            picture(found["cases"], args.picture)
    except (DnnDistError, RuntimeError) as error:
        print(f"headline: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    save(args.out, found)
    fine = met(found)
    told = "no process respawned, every frame complete, none computed again"
    print(f"load average {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores; {told}: {'met' if fine else 'missed'}")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
