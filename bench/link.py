# SPDX-License-Identifier: Apache-2.0
"""A robot and a server whose link gets worse, better, and is cut: which plan frames take, and what becomes of them.

    sudo .venv/bin/dnn_dist-env python bench/link.py --out link.json
    .venv/bin/dnn_dist-env python bench/link.py --dry

The robots, network and air of `cooperative.py`. The gateway has the planner's list of cuts by the rate of the link. Ten
times the air's rate falls to a tenth and comes back, then the link is cut and heals; each lasts for some frames. The
plan that is right is the one that the list has for what the air carries of tensors at that rate.

Bars: each frame reported once, complete or recomputed; from the sixth frame after a change on all have the right plan;
one switch for each change. A quarter of an hour.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from air import EXACT
from cooperative import NETWORKS, PAYLOAD, RATES, ROBOT, SERVER, SHARE, SIDE, Setting, flying, network_file, options
from headline_run import SOURCE, Flight, frame_line
from rich.console import Console
from rich.table import Table

from dnn_dist.cluster import Cluster, parse_cluster
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.bylink import ALONE, Step, best_by_link, by_link_text, step_for
from dnn_dist.plan.predict import Circumstances
from dnn_dist.run.report import Status

CHANGES = ("a tenth", "all", "cut", "healed")
SOON = 5  # frames after a change whose plan may be another
PATIENCE = 60.0  # s, for a frame
SWITCH = re.compile(r"plan in force: plan (\w+): (\S+),.* switch (\d+) by link")


@dataclass(frozen=True)
class Linked(Setting):
    """A network on a link, with the planner's list."""

    steps: tuple[Step, ...] = ()

    def carried(self, share: float) -> float:
        """Bytes/s of tensors that a process gets over the air, when that has this share of its rate. At all of it DDS
        is paced; at less it is not.
        """
        return PAYLOAD * min(SHARE, share) * self.weather.rate / 8

    def cut_for(self, change: str) -> str:
        """The cut that is right after a change."""
        share = {"a tenth": 0.1, "cut": 0.0}.get(change, 1.0)
        return step_for(self.steps, self.carried(share))

    def cluster(self) -> Cluster:
        """Camera, gateway and a worker on the robot, a worker on the server."""
        robot, server = ({"worker": {"pace": float(pace)}} for pace in self.paces)
        gateway = {
            **{"cut": ALONE, "by_link": by_link_text(self.steps), "pace": float(self.paces[0])},
            **{"deadline": 30.0, "lifespan": 5.0, "window": 100_000_000, "transit": 1.0, "worker_timeout": 1.0},
        }
        parameters = {
            "all": {"model": str(self.network.path)},
            "gateway": gateway,
            "worker": {"lifespan": 5.0},
            "camera": {"height": SIDE, "width": SIDE, "rate": 4.0},
        }
        robots = {
            ROBOT: {"source": SOURCE, "nodes": ["camera", "gateway", "worker"], "parameters": robot},
            SERVER: {"nodes": ["worker"], "parameters": server},
        }
        return parse_cluster({"network": "wifi", "robots": robots, "parameters": parameters}, "bench")


def switches(flight: Flight) -> list[tuple[str, str]]:
    """(plan, cut) of all switches by link so far, as the gateway's log has them."""
    return [(found[1], found[2]) for found in SWITCH.finditer(flight.supervisor.log(f"gateway_{ROBOT}"))]


def change(flight: Flight, setting: Linked, what: str) -> None:
    """Make it so."""
    if what in ("cut", "healed"):
        flight.air.command(f"{'cut' if what == 'cut' else 'heal'} {ROBOT} {SERVER}")
    else:
        factor = 0.1 if what == "a tenth" else 1.0
        flight.air.set(replace(setting.weather, rate=factor * setting.weather.rate))


def begun_after(reports: list[dict[str, Any]], when: float) -> list[dict[str, Any]]:
    """Reports of frames whose image came after a time (s)."""
    return [one for one in reports if one["time"] - one["latency"] >= when]


def phase(flight: Flight, setting: Linked, what: str, frames: int) -> dict[str, Any]:
    """A change, and so many frames after it."""
    before, known = len(flight.reports), len(switches(flight))
    change(flight, setting, what)
    when = time.monotonic()
    enough = lambda: len(begun_after(flight.reports[before:], when)) >= frames  # noqa: E731
    flight.until(enough, "frames after it", frames * PATIENCE)
    reports, switched = flight.reports[before:], switches(flight)[known:]
    after = begun_after(reports, when)
    wanted = setting.cut_for(what)
    right = [bool(switched) and one["plan"] == switched[-1][0] and switched[-1][1] == wanted for one in after]
    return {
        "change": what,
        "wanted": wanted,
        "switches": [cut for _, cut in switched],
        "frames_until_right": right.index(True) if True in right else None,
        "right_after_five": all(right[SOON:]),
        "latency_s": median(one["latency"] for one in after[SOON:]),
        "worst_s": max(one["latency"] for one in reports),
        "reports": reports,
    }


@contextmanager
def at_work(setting: Linked, folder: Path) -> Iterator[Flight]:
    with flying(setting, setting.cluster(), folder, slowest=0.1) as flight:
        flight.until(lambda: any(one["status"] in EXACT for one in flight.reports), "a complete frame", 2 * PATIENCE)
        flight.air.set(setting.weather)
        wanted = setting.cut_for("all")
        flight.until(lambda: [cut for _, cut in switches(flight)][-1:] == [wanted], f"frames take {wanted}", PATIENCE)
        flight.frames(SOON, PATIENCE)
        yield flight


def main() -> int:
    parser = options(__doc__, (400.0, 2000.0), Path("build/bench/link"))
    parser.add_argument("--network", choices=NETWORKS, default="siamese")
    parser.add_argument("--link", choices=RATES, default="Wi-Fi")
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--frames", type=int, default=9, help="after each change")
    given = parser.parse_args()
    console = Console(soft_wrap=True)
    network = read_network(network_file(given.network, given.folder))
    setting = Linked(given.network, network, given.link, tuple(given.paces))
    setting = replace(setting, steps=best_by_link(network, Circumstances(setting.fleet, ROBOT), SERVER))
    console.print(f"by link: {by_link_text(setting.steps)}")
    for what in ("all", "a tenth", "cut"):
        console.print(f"{what}: {setting.cut_for(what)}")
    if given.dry:
        return 0
    phases: list[dict[str, Any]] = []
    with at_work(setting, given.folder / "run") as flight:
        for cycle in range(given.cycles):
            for what in CHANGES:
                phases.append({"cycle": cycle, **phase(flight, setting, what, given.frames)})
                for one in phases[-1]["reports"] if not given.quiet else ():
                    console.print(f"  {what}: {frame_line(one)}")
                told = {key: value for key, value in phases[-1].items() if key != "reports"}
                console.print(json.dumps(told))
        reports = list(flight.reports)
    return _told(console, phases, reports, given.out)


def _told(console: Console, phases: list[dict[str, Any]], reports: list[dict[str, Any]], out: Path | None) -> int:
    numbers = [one["frame"] for one in reports]
    ends = Counter(Status(one["status"]).name.lower() for one in reports)
    lost = sorted({*range(numbers[0], numbers[-1] + 1)} - {*numbers})
    table = Table("change", "times", "one switch", "right after five", "frames until right", "latency s", "worst s")
    for what in CHANGES:
        rows = [one for one in phases if one["change"] == what]
        until = [one["frames_until_right"] for one in rows]
        table.add_row(
            what,
            str(len(rows)),
            str(sum(len(one["switches"]) == 1 for one in rows)),
            str(sum(one["right_after_five"] for one in rows)),
            "never" if None in until else str(max(until)),
            f"{median(one['latency_s'] for one in rows):.3f}",
            f"{max(one['worst_s'] for one in rows):.3f}",
        )
    console.print(table)
    twice = len(numbers) - len(set(numbers))
    console.print(f"{len(numbers)} frames: {dict(ends)}; lost {lost}, reported twice {twice}")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"phases": phases, "ends": ends, "lost": lost}, indent=1) + "\n")
    whole = not lost and not twice and all(one["status"] in EXACT for one in reports)
    held = all(len(one["switches"]) == 1 and one["right_after_five"] for one in phases)
    console.print("bars met" if whole and held else "bar missed")
    return not (whole and held)


if __name__ == "__main__":
    sys.exit(main())
