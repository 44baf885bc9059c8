# SPDX-License-Identifier: Apache-2.0
"""A chain while its workers die one after the other, and while one gets slow; what a worker of it takes of memory.

    sudo .venv/bin/dnn_dist-env python bench/midchain.py --models build/models --out build/bench/midchain.json
    sudo .venv/bin/dnn_dist-env python bench/midchain.py --models build/models --kills 3
    sudo .venv/bin/dnn_dist-env python bench/midchain.py --models build/models --measure memory

The fleet is that of headline.py (namespaces, air, workers that compute at `--pace`), the plan the planner's.

kills:  one worker, never that of r1, dies by SIGKILL at a random moment of a frame and is started again, `--kills`
        times. The deadline is three times the median latency. The next one dies when this one computes again in every
        frame and latencies have settled.
five:   the last one dies and stays away; and the same plan is started on one robot less. Ratio of their latencies.
slow:   the last robot becomes five times slower. Latency from the third frame on, to that of one robot less.
memory: the most PSS of a worker of the chain, beside one of the shipped detector with the shipped cut, on as many
        robots.

Frames of all measures on the chain's fleet are judged: each reported once, in time, and its status fits its counts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from air import EXACT
from fleet import Load
from full_size import pss
from headline import ask_of, machine, options, prepare, read_options, save
from headline_cases import MODELS, Division, Model, Setting, named
from headline_run import AFTER, MOST_WARM, STEADY, Flight, flying, frame_line, kill, measured, settle, slow, warm
from headline_show import markdown

from dnn_dist.cli.supervisor import share
from dnn_dist.cluster import read_cluster, shipped_file
from dnn_dist.errors import DnnDistError
from dnn_dist.graph.tflite import read_network
from dnn_dist.run.report import Status
from dnn_dist.settings import AggregatorSettings

MEASURES = ("kills", "five", "slow", "memory")
PATIENCE = 3.0  # times the deadline
LOOK = 0.2  # s from a look at memory to the next
TROUBLE = re.compile(r"^\[(?:WARN|ERROR|FATAL)\] \[[\d.]+\] \[([\w.]+)\]: ([^:\n]+)", re.MULTILINE)
SHIPPED = Path(__file__).parents[1] / "models"
BARS = {"five": 1.05, "slow": 1.10, "memory": 60.0}
LAWS = ("missing", "twice", "late", "no_result", "wrong_status")


# What reports say -----------------------------------------------------------------------------------------------------


def judged(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is to hold of the reports of one source: each frame once, in time, its status that of its worst piece.

    Lists of frame numbers under the names of LAWS. `sessions`: of the source; more than one says that it was restarted.
    """
    count = Counter(one["frame"] for one in reports)
    slack = AggregatorSettings.timer_slack
    return {
        "frames": len(reports),
        "missing": [n for n in range(min(count), max(count)) if n not in count] if count else [],
        "twice": [number for number, times in count.items() if times > 1],
        "late": [one["frame"] for one in reports if one["latency"] > one["budget"] + slack],
        "no_result": [one["frame"] for one in reports if one["status"] == Status.NO_RESULT],
        "wrong_status": [one["frame"] for one in reports if one["status"] not in _statuses(one)],
        "sessions": len({one["session"] for one in reports}),
        "statuses": dict(Counter(Status(one["status"]).name.lower() for one in reports)),
    }


def _statuses(one: Mapping[str, Any]) -> tuple[Status, ...]:
    """What a report's counts allow as its status."""
    if one["filled"]:
        return Status.FILLED, Status.NO_RESULT
    if one["decoded"]:
        return Status.DECODED, Status.NO_RESULT
    return Status.RECOMPUTED if one["recomputed"] else Status.COMPLETE, Status.NO_RESULT


def back_after(reports: Sequence[Mapping[str, Any]], victim: str) -> int | None:
    """Which of the reports after a death is the first that has work of the victim's next life; the first was hit."""
    return next((n for n, one in enumerate(reports[1:], start=2) if works(one, victim)), None)


def works(one: Mapping[str, Any], worker: str) -> bool:
    """Whether results of this worker are part of a frame."""
    return bool(one["workers"].get(worker, {}).get("tasks"))


def troubles(logs: Mapping[str, str]) -> dict[str, int]:
    """What nodes warned of, and how often; `logs`: node -> what it printed."""
    found = Counter(f"{name}: {what}" for text in logs.values() for name, what in TROUBLE.findall(text))
    found.update({f"{name}: traceback": n for name, text in logs.items() if (n := text.count("Traceback"))})
    return dict(found.most_common())


# What is measured -----------------------------------------------------------------------------------------------------


def disturbed(args: argparse.Namespace, setting: Setting, division: Division) -> dict[str, Any]:
    """The fleet of the chain: calm, slow, killed again and again, killed for good."""
    ask, usual, folder = ask_of(args), _usual(setting), args.folder / "chain"
    victims = [f"worker_{name}" for name in division.workers or _names(setting) if name != "r1"]
    found: dict[str, Any] = {"victims": victims}
    with flying(setting, division, ask, folder, args.seed) as flight:
        found["warm"] = warm(flight, ask, usual, setting.weather)
        began, load = len(flight.reports), Load(flight)
        found["calm"] = measured(flight, args.frames, usual, args.told)
        if "slow" in args.measure:
            found["slow"] = slow(flight, setting, ask, usual, args.seed)
            found["slow"]["back"] = settle(flight, usual, also=lambda one: works(one, f"r{setting.robots}"))
        if "kills" in args.measure:
            found["kills"] = kills(flight, args, victims, found["calm"]["latency_s"], usual)
        found["died"] = sorted(set(flight.pids().items()) - set(flight.started.items()))
        found["respawns"] = dict(flight.supervisor.respawns)
        if "five" in args.measure:
            found["five"] = kill(flight, setting, ask, usual, args.seed)
        found["judged"] = judged(flight.reports[began:])
        found |= load.told()
    found["troubles"] = troubles({path.stem: path.read_text(errors="replace") for path in folder.glob("log/*.log")})
    return found


def kills(
    flight: Flight, args: argparse.Namespace, victims: Sequence[str], latency: float, usual: float
) -> list[dict[str, Any]]:
    """One death after the other."""
    chance = random.Random(args.seed)
    deadline = min(60.0, 3 * latency)
    flight.set("gateway_r1", "deadline", deadline)
    flight.frames(AFTER, usual)  # one may have been begun with the deadline before
    found = []
    for number in range(args.kills):
        one = _killed(flight, chance.choice(victims), chance.random(), latency, args)
        found.append(one)
        args.told(f"kill {number + 1} of {args.kills}: {json.dumps(one)}")
    return found


def _killed(flight: Flight, node: str, moment: float, latency: float, args: argparse.Namespace) -> dict[str, Any]:
    """A worker dies at this moment of a frame, as a share of its latency; until all is as before."""
    victim, patience = node.removeprefix("worker_"), PATIENCE * 3 * latency
    flight.frames(1, patience)
    time.sleep(moment * latency)
    flight.hear()
    began, before, due = len(flight.reports), flight.pids(), flight.supervisor.respawns.get(node, 0) + 1
    flight.supervisor.kill(node)
    at = time.monotonic()
    flight.until(lambda: flight.supervisor.respawns.get(node, 0) >= due and node in flight.pids(), f"{node} lives", 30)
    settled = settle(flight, patience, also=lambda one: works(one, victim))
    reports = flight.reports[began:]
    for report in reports:
        args.told(f"  kill {frame_line(report)}")
    back, pids = back_after(reports, victim), flight.pids()
    return {
        "victim": victim,
        "moment": moment,
        "frame": reports[0]["frame"],
        "hit_s": reports[0]["latency"],
        "status": Status(reports[0]["status"]).name.lower(),
        "recomputed": reports[0]["recomputed"],
        "filled": reports[0]["filled"],
        "worst_after_s": max(one["latency"] for one in reports[1:]),
        "inexact": sum(one["status"] not in EXACT for one in reports),
        "back_frames": back,
        "back_s": reports[back - 1]["time"] - at if back else None,
        "settled": settled,
        "settled_frames": len(reports),
        "latency_s": median(one["latency"] for one in reports[-STEADY:]),
        "others_died": sorted(name for name, pid in before.items() if name != node and pids.get(name) != pid),
        "loadavg": os.getloadavg()[0],
    }


def started(args: argparse.Namespace, setting: Setting, division: Division, name: str) -> dict[str, Any]:
    """Latency and memory of a fleet that nothing happens to."""
    ask, usual = ask_of(args), _usual(setting)
    with flying(setting, division, ask, args.folder / name, args.seed) as flight:
        found: dict[str, Any] = {"warm": warm(flight, ask, usual, setting.weather)}
        found |= measured(flight, args.frames, usual, args.told)
        found["judged"] = judged(flight.reports)
        found["memory_mb"] = most_memory(flight, args.frames, usual)
        found["same_processes"] = flight.pids() == flight.started
    return found


def most_memory(flight: Flight, frames: int, usual: float) -> dict[str, float]:
    """The most that each worker had at once during so many frames, looked at several times in each; MB of PSS."""
    workers = {name: pid for name, pid in flight.pids().items() if name.startswith("worker_")}
    most, looked, end = dict.fromkeys(workers, 0.0), 0.0, len(flight.reports) + frames

    def enough() -> bool:
        nonlocal looked
        if time.monotonic() - looked > LOOK:
            looked = time.monotonic()
            most.update({name: max(most[name], pss(pid)) for name, pid in workers.items()})
        return len(flight.reports) >= end

    flight.until(enough, f"{frames} frames are reported", PATIENCE * frames * usual)
    return most


def with_fewer(setting: Setting, division: Division) -> tuple[Setting, Division]:
    """The same plan on one robot less."""
    fewer = replace(setting, robots=setting.robots - 1)
    workers = tuple(name for name in division.workers if name in _names(fewer))
    return fewer, replace(division, workers=workers)


def shipped(setting: Setting) -> tuple[Setting, Division]:
    """The detector that comes with the package, cut as its parameter file has it, on as many robots."""
    parameters = read_cluster(share() / "config" / shipped_file()).parameters
    network = read_network(SHIPPED / parameters["all"]["model"])
    side = max(network.tensors[network.inputs[0]].shape[1:3])
    return replace(setting, network=network, model=Model("", side, 0, 0)), Division(parameters["gateway"]["cut"])


def _names(setting: Setting) -> list[str]:
    return [f"r{number}" for number in range(1, setting.robots + 1)]


def _usual(setting: Setting) -> float:
    """What one robot would take, and as much again."""
    return 2 * setting.network.macs / (setting.pace * 1e6)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All that is asked for; the JSON of `--out`."""
    case = {name: getattr(args, name) for name in ("network", "rate", "robots", "pace")} | {"way": "direct"}
    setting, division = prepare(args, case)
    args.told(f"cut: {division.cut}")
    asked = {name: str(value) for name, value in vars(args).items()}
    found: dict[str, Any] = {"machine": machine(), "options": asked, "case": case}
    if {"five", "slow"} & set(args.measure):
        found["fewer"] = started(args, *with_fewer(setting, division), "fewer")
        save(args.out, found)
    if set(args.measure) - {"memory"}:
        found["chain"] = disturbed(args, setting, division)
        save(args.out, found)
    if "memory" in args.measure:
        found["memory"] = {
            "chain": started(args, setting, division, "memory_chain"),
            "shipped": started(args, *shipped(setting), "memory_shipped"),
        }
    save(args.out, found)
    return found


# What it comes to -----------------------------------------------------------------------------------------------------

Line = tuple[str, str, str, bool | None]
"""What, figure, bar, whether that is met."""


def lines(found: Mapping[str, Any]) -> Iterator[Line]:
    """Figures against their bars."""
    chain = found.get("chain")
    if chain:
        calm, bound = chain["calm"]["latency_s"], found["case"]["calculated"]["bound_s"]
        yield "latency, calm", f"{calm:.3f} s, bound {bound:.3f} s", "", None
        yield from _of_frames(chain)
    if "kills" in (chain or {}):
        yield from _of_kills(chain)
    for name, what in (("five", "killed for good, to started without"), ("slow", "one five times slower, to without")):
        if name in (chain or {}):
            after, fewer = chain[name]["after"]["latency_s"], found["fewer"]["latency_s"]
            text = f"{after:.3f} / {fewer:.3f} s = {after / fewer:.3f}, {_counts(chain[name]['statuses'])}"
            text += "" if chain[name].get("back", True) else "; it is not in the crew again"
            yield what, text, f"<= {BARS[name]}", after / fewer <= BARS[name]
    if "memory" in found:
        most, usual = (found["memory"][name]["memory_mb"].values() for name in ("chain", "shipped"))
        more = max(most) - median(usual)
        text = f"most {max(most):.0f} MB, shipped detector {median(usual):.0f} MB (median): {more:+.0f} MB"
        yield "memory (PSS) of a worker", text, f"<= {BARS['memory']:+.0f} MB", more <= BARS["memory"]


def _of_frames(chain: Mapping[str, Any]) -> Iterator[Line]:
    told = chain["judged"]
    yield "frames reported", f"{told['frames']}: {_counts(told['statuses'])}", "", None
    for law in LAWS:
        text = f"{len(told[law])}" + (f": {', '.join(map(str, told[law][:10]))}" if told[law] else "")
        yield f"frames {law.replace('_', ' ')}", text, "0", not told[law]
    deaths = Counter(f"worker_{one['victim']}" for one in chain.get("kills", ()))
    ours = told["sessions"] == 1 and chain["respawns"] == dict(deaths) and len(chain["died"]) == len(deaths)
    text = f"{sum(chain['respawns'].values())} for {deaths.total()} kills"
    yield "respawns", text, "one for each kill", ours


def _of_kills(chain: Mapping[str, Any]) -> Iterator[Line]:
    deaths, calm = chain["kills"], chain["calm"]["latency_s"]
    if not deaths:
        return
    hit = [one["hit_s"] / calm for one in deaths]
    text = f"{_counts(Counter(one['status'] for one in deaths))}; latency x {median(hit):.2f}, at most x {max(hit):.2f}"
    yield f"frames hit, {len(deaths)} kills", text, "", None
    back = [one for one in deaths if one["back_frames"]]
    text = f"{len(back)} of {len(deaths)}"
    if back:
        seconds, frames = [one["back_s"] for one in back], [one["back_frames"] for one in back]
        text += f"; after {median(seconds):.1f} s, at most {max(seconds):.1f} s and {max(frames)} frames"
    yield "back in the crew", text, "all", len(back) == len(deaths)
    settled = sum(one["settled"] for one in deaths)
    ratio = max(one["latency_s"] / calm for one in deaths)
    text = f"{settled} of {len(deaths)} within {MOST_WARM} frames; latency then at most x {ratio:.2f}"
    yield "settled", text, "all", settled == len(deaths)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def tables(found: Mapping[str, Any]) -> Iterator[str]:
    """Markdown: figures against their bars, then each kill."""
    told = list(lines(found))
    met = {True: "met", False: "missed", None: ""}
    yield from markdown(("what", "figure", "bar", ""), [(what, text, bar, met[fine]) for what, text, bar, fine in told])
    deaths = found.get("chain", {}).get("kills", ())
    if deaths:
        yield ""
        yield from markdown(
            ("worker", "moment", "frame hit", "s", "computed again, filled", "back after", "settled after", "then s"),
            [
                (
                    one["victim"], f"{one['moment']:.2f}", one["status"], f"{one['hit_s']:.2f}",
                    f"{one['recomputed']}, {one['filled']}",
                    f"{one['back_frames']} frames, {one['back_s']:.1f} s" if one["back_frames"] else "never",
                    f"{one['settled_frames']} frames" if one["settled"] else "not", f"{one['latency_s']:.2f}",
                )
                for one in deaths
            ],
        )  # fmt: skip
    warned = found.get("chain", {}).get("troubles", {})
    if warned:
        yield f"\nwarned of: {', '.join(f'{what} x {count}' for what, count in warned.items())}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    parser.add_argument("--network", default="yolov2_front", help=", ".join(MODELS))
    parser.add_argument("--robots", type=int, default=6)
    parser.add_argument("--rate", type=float, default=60.0, help="of the air, Mbit/s (60)")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--measure", nargs="+", default=["kills", "five", "slow"], choices=MEASURES, metavar="MEASURE",
        help=f"{', '.join(MEASURES)} (kills five slow)",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, default=Path("out/midchain"), help="logs and reports of each run")
    return read_options(parser)


def main() -> int:
    args = parse()
    if os.geteuid() != 0:
        print("midchain: network namespaces need root: run with sudo", file=sys.stderr)
        return 2
    try:
        named([args.network], list(MODELS), "network")
        found = measure(args)
    except (DnnDistError, RuntimeError) as error:
        print(f"midchain: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("\n".join(tables(found)))
    busy = found.get("chain", {}).get("machine_load")
    told = f"; machine {100 * busy:.0f} % busy" if busy is not None else ""
    print(f"\nload average {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores{told}")
    return 0 if all(fine is not False for *_, fine in lines(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
