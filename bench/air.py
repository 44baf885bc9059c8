# SPDX-License-Identifier: Apache-2.0
"""Real nodes over an emulated Wi-Fi: each robot of a parameter file in a network namespace of its own.

    make build
    sudo .venv/bin/dnn_dist-env python bench/air.py window      # two sources, byte window on and off
    sudo .venv/bin/dnn_dist-env python bench/air.py cut         # all links cut for 1.5 s, several times
    sudo .venv/bin/dnn_dist-env python bench/air.py profile     # network profile `wifi` against `local`
    sudo .venv/bin/dnn_dist-env python bench/air.py saving      # frames that may travel smaller on a slow link
    sudo .venv/bin/dnn_dist-env python bench/air.py shipped     # what `network:=wifi` starts when no file is named

Every cluster starts in calm air; when all sources have had complete frames the air gets bad, and after a time to
settle, measuring begins. Runs of one scenario alternate, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml
from medium import CALM, Weather
from namespaces import Air

from dnn_dist.cli.demo import PI_3
from dnn_dist.cli.supervisor import Supervisor, share
from dnn_dist.cluster import Cluster, Process, Robot, parse_cluster, processes, read_cluster, shipped_file
from dnn_dist.errors import DnnDistError
from dnn_dist.run.report import Status

EXACT = (Status.COMPLETE, Status.DECODED, Status.RECOMPUTED)
"""Frames in which nothing is missing."""
PATIENCE = 40.0  # s until all sources have had a complete frame in calm air
SLOW = 4e6  # bit/s of the air in scenario saving
CARRIED = 475_000.0  # bytes on the air of a frame of air.yaml: 348 kB of tiles, 82 kB of results, and headers
SETTLE = 3.0  # s of bad air before measuring: what was sent in calm air is gone


@dataclass
class Fleet:
    """A cluster over the air."""

    air: Air
    cluster: Cluster
    supervisor: Supervisor
    folder: Path
    rate: float  # frames a second, of all sources

    @property
    def sources(self) -> list[str]:
        return [robot.source for robot in self.cluster.robots if robot.source]

    def reports(self, since: float = 0.0, until: float = float("inf")) -> list[dict[str, Any]]:
        """Reports of all sources that came from `since` to `until` (s, steady clock), in order."""
        lines = [line for source in self.sources for line in (self.folder / f"{source}.jsonl").open()]
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return sorted((one for one in found if since <= one["time"] < until), key=lambda one: one["time"])

    def wait(self, seconds: float) -> None:
        """Let it run; processes that die are started again."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.supervisor.look()
            time.sleep(min(0.1, left))

    def await_frames(self, frames: int = 3) -> None:
        """Until every source has had so many complete frames; RuntimeError when they do not come."""
        end = time.monotonic() + PATIENCE
        while True:
            done = [one["source"] for one in self.reports() if one["status"] in EXACT]
            if all(done.count(source) >= frames for source in self.sources):
                return
            if time.monotonic() > end:
                raise RuntimeError(f"no complete frames in calm air within {PATIENCE:g} s; see {self.folder}/log")
            self.wait(0.2)


@contextmanager
def flying(cluster: Cluster, folder: Path, profiles: Path, network: str = "", seed: int = 0) -> Iterator[Fleet]:
    """The cluster in calm air, all its sources at work."""
    started = processes(cluster, profiles.resolve(), network=network)
    # Discovery by multicast, in namespaces that nothing leaves. The domain is this run's all the same.
    environment = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "ROS_DOMAIN_ID": str(1 + os.getpid() % 100)}
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        air = stack.enter_context(Air([robot.name for robot in cluster.robots], CALM, seed))

        def prefix(process: Process) -> list[str]:
            return air.enter(process.robot)

        supervisor = stack.enter_context(Supervisor(folder / "log", environment, prefix=prefix))
        cameras = [process for process in started if process.executable == "camera"]
        for camera in cameras:
            source = next(robot.source for robot in cluster.robots if robot.name == camera.robot)
            topic = camera.remappings.get("report", "report")
            stack.enter_context(listening(air, camera, topic, environment, folder / f"{source}.jsonl"))
        supervisor.start(started)
        fleet = Fleet(air, cluster, supervisor, folder, sum(camera.parameters["rate"] for camera in cameras))
        fleet.await_frames()
        yield fleet


@contextmanager
def listening(
    air: Air, camera: Process, topic: str, environment: Mapping[str, str], path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Write the reports of a source to a file, heard on its own robot; what is given takes the orders of listen.py."""
    with path.open("w") as out, path.with_suffix(".err").open("w") as errors:
        listener = subprocess.Popen(
            [*air.enter(camera.robot), sys.executable, str(Path(__file__).with_name("listen.py"))],
            env={**os.environ, **environment, **camera.environment, "AIR_REPORT": f"{camera.namespace}/{topic}"},
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
        try:
            yield listener
        finally:
            listener.terminate()
            listener.communicate()


# What a run comes to --------------------------------------------------------------------------------------------------


def measure(fleet: Fleet, weather: Weather, seconds: float) -> dict[str, Any]:
    """Frames, latency and traffic of so many seconds of this weather."""
    fleet.air.set(weather)
    fleet.wait(SETTLE)
    before, began = fleet.air.counters(), time.monotonic()
    fleet.wait(seconds)
    after, ended = fleet.air.counters(), time.monotonic()
    it = {name: after[name] - before[name] for name in before}
    reports = fleet.reports(began, ended)
    exact = [one for one in reports if one["status"] in EXACT]
    late = [1000 * one["latency"] for one in exact]
    useful = sum(sum(one["bytes"].values()) for one in exact)
    return {
        "frames_offered": round(fleet.rate * seconds),
        "frames": {status.name.lower(): sum(one["status"] == status for one in reports) for status in Status},
        "delivered": len(exact) / (fleet.rate * seconds),
        "pieces_recomputed": sum(one["recomputed"] for one in reports),
        "p50_ms": float(np.percentile(late, 50)) if late else None,
        "p99_ms": float(np.percentile(late, 99)) if late else None,
        "useful_bytes": useful,
        "sent_bytes": it["sent_bytes"],
        "traffic_ratio": it["sent_bytes"] / useful if useful else None,
        "air_used": it["airtime"] / it["seconds"],
        "queue_drops": it["dropped"] / max(1, it["offered"]),
        "lost": it["lost"] / max(1, it["sent"]),
    }


def recoveries(fleet: Fleet, weather: Weather, times: int, length: float) -> list[dict[str, Any]]:
    """Cut all links for `length` seconds, so many times; how long after healing each source had a complete frame."""
    fleet.air.set(weather)
    fleet.wait(SETTLE)
    found = []
    for _ in range(times):
        fleet.await_frames(1)
        cut_at = fleet.air.command("cut")["time"]
        fleet.wait(length)
        healed_at = fleet.air.command("heal")["time"]
        fleet.wait(5.0 + 0.37 * len(found))  # not in step with the cameras
        during = fleet.reports(cut_at, healed_at)
        after = [one for one in fleet.reports(healed_at) if one["status"] in EXACT]
        first = {one["source"]: one["time"] - healed_at for one in reversed(after)}
        found.append(
            {
                "complete_during_cut": sum(one["status"] in EXACT for one in during),
                "reported_during_cut": len(during),
                **{f"recovery_{source}_s": first.get(source) for source in fleet.sources},
            }
        )
    return found


# Scenarios ------------------------------------------------------------------------------------------------------------


def _cluster(path: Path, values: list[str]) -> Cluster:
    """The cluster of a parameter file with some values changed."""
    read_cluster(path)  # says what is wrong with the file itself
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in values:
        name, _, value = entry.partition("=")
        node, _, parameter = name.partition(".")
        tree.setdefault("parameters", {}).setdefault(node, {})[parameter] = yaml.safe_load(value)
    return parse_cluster(tree, str(path))


def with_gateway(cluster: Cluster, **values: Any) -> Cluster:
    """The cluster with other parameters of its gateways."""
    parameters = {**cluster.parameters, "gateway": {**cluster.parameters.get("gateway", {}), **values}}
    return replace(cluster, parameters=parameters)


def busier(cluster: Cluster, factor: float, frames: int) -> Cluster:
    """The cluster with cameras so much faster, and up to so many frames of a source in work at once."""

    def faster(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        camera = dict(parameters.get("camera", {}))
        if "rate" in camera:
            camera["rate"] *= factor
        return {**parameters, "camera": camera}

    robots = tuple(replace(robot, parameters=faster(robot.parameters)) for robot in cluster.robots)
    cluster = replace(cluster, robots=robots, parameters=faster(cluster.parameters))
    return with_gateway(cluster, max_frames=frames)


def alternate(args: argparse.Namespace, cases: Mapping[str, tuple[Cluster, str]]) -> dict[str, list[dict[str, Any]]]:
    """Measure each case (cluster, network) in turn, `--repeat` times."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    for turn in range(args.repeat):
        for name, (cluster, network) in cases.items():
            folder = args.folder / f"{name.replace(' ', '_')}-{turn}"
            with flying(cluster, folder, args.profiles, network, args.seed + turn) as fleet:
                found[name].append(measure(fleet, args.weather, args.seconds))
            print(f"  {name}, run {turn + 1}: {_line(found[name][-1])}", file=sys.stderr, flush=True)
    return found


def run_window(args: argparse.Namespace, cluster: Cluster) -> dict[str, Any]:
    """The byte window on and off, with more to send than the air takes at once."""
    cluster = busier(cluster, args.load, args.frames)
    cases = {
        f"window {args.window // 1000} kB": (with_gateway(cluster, window=args.window), ""),
        "window off": (with_gateway(cluster, window=1_000_000_000), ""),
    }
    found = alternate(args, cases)
    _print_table("Byte window, two sources", found)
    for name, runs in found.items():
        delivered = median(one["delivered"] for one in runs)
        meant = " (a control: meant to collapse)" if name == "window off" else ""
        print(
            f"{name}: delivered {100 * delivered:.0f} %, bar >= 50 %: {'met' if delivered >= 0.5 else 'missed'}{meant}"
        )
    return found


def run_profile(args: argparse.Namespace, cluster: Cluster) -> dict[str, Any]:
    """Network profile `wifi` against `local`."""
    cluster = with_gateway(cluster, window=args.window)
    found = alternate(args, {f"network: {network}": (cluster, network) for network in args.networks})
    _print_table("Network profile", found)
    return found


def run_cut(args: argparse.Namespace, cluster: Cluster) -> dict[str, Any]:
    """All links cut."""
    cluster = with_gateway(cluster, window=args.window)
    with flying(cluster, args.folder / "cut", args.profiles, seed=args.seed) as fleet:
        found = recoveries(fleet, args.weather, 2 * args.repeat, args.cut)
    times = [value for one in found for name, value in one.items() if name.startswith("recovery")]
    known = sorted(value for value in times if value is not None)
    print(f"\nAll links cut for {args.cut:g} s, {len(found)} times")
    for one in found:
        shown = "  ".join(
            f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}" for name, value in one.items()
        )
        print(f"  {shown}")
    if known:
        print(
            f"from healing to a source's first complete frame: median {median(known):.2f} s, "
            f"longest {known[-1]:.2f} s, within 1 s {sum(value <= 1 for value in known)} of {len(times)}"
        )
        print(f"longest: bar <= 1 s: {'met' if len(known) == len(times) and known[-1] <= 1 else 'missed'}")
    return {"cuts": found, "seconds": times}


def run_shipped(args: argparse.Namespace, _: Cluster) -> dict[str, Any]:
    """The parameter file that is shipped for the air, computing as slowly as Raspberry Pi 3."""
    found = alternate(args, {"shipped": (shipped(), "")})
    _print_table("As shipped, camera and four workers on five robots", found)
    delivered = median(one["delivered"] for one in found["shipped"])
    met = "met" if delivered >= 0.95 else "missed"
    print(f"complete within the deadline: {100 * delivered:.0f} %, bar >= 95 %: {met}")
    return found


def run_saving(args: argparse.Namespace, cluster: Cluster) -> dict[str, Any]:
    """A link that carries 60 % of a frame's bytes within its deadline, with and without leave to send less."""
    args.weather = replace(args.weather, rate=SLOW)
    one = replace(cluster, robots=tuple(robot for robot in cluster.robots if robot.source != "rear"))
    slow = with_gateway(one, deadline=0.6 * CARRIED / (SLOW / 8), window=10_000_000)
    found = alternate(args, {"as usual": (slow, ""), "saving": (with_gateway(slow, narrow="float16", jpeg=80), "")})
    _print_table("A link for 60 % of the traffic", found)
    for name, runs in found.items():
        delivered = median(run["delivered"] for run in runs)
        control = " (a control: meant to miss it)" if name == "as usual" else ""
        met = "met" if delivered >= 0.95 else "missed"
        print(f"{name}: whole frames {100 * delivered:.0f} %, bar >= 95 %: {met}{control}")
    return found


def shipped() -> Cluster:
    """config/wifi.yaml on five robots: one with the camera that does not compute, four that do."""
    cluster = read_cluster(share() / "config" / shipped_file("wifi"))
    camera = next(robot for robot in cluster.robots if robot.source)
    nodes = tuple(node for node in camera.nodes if node != "worker")
    robots = (replace(camera, nodes=nodes), *(Robot(f"w{number}", ("worker",)) for number in range(1, 5)))
    everywhere = {**cluster.parameters.get("all", {}), "pace": PI_3}
    return replace(cluster, robots=robots, parameters={**cluster.parameters, "all": everywhere})


COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("delivered", "delivered", lambda v: f"{100 * v:.0f} %"),
    ("p50_ms", "p50 ms", lambda v: f"{v:.0f}"),
    ("p99_ms", "p99 ms", lambda v: f"{v:.0f}"),
    ("traffic_ratio", "sent/useful", lambda v: f"{v:.2f}"),
    ("air_used", "air used", lambda v: f"{100 * v:.0f} %"),
    ("queue_drops", "queue drops", lambda v: f"{100 * v:.1f} %"),
    ("pieces_recomputed", "sent again", str),
)


def _line(it: Mapping[str, Any]) -> str:
    return ", ".join(f"{title} {'-' if it[key] is None else show(it[key])}" for key, title, show in COLUMNS)


def _print_table(title: str, found: Mapping[str, list[dict[str, Any]]]) -> None:
    """Medians over the runs of each case, and the worst and best of what was delivered."""
    print(f"\n{title}: medians of {len(next(iter(found.values())))} runs")
    print(f"{'':20}" + "".join(f"{heading:>13}" for _, heading, _ in COLUMNS) + f"{'worst..best':>16}")
    for name, runs in found.items():
        cells = []
        for key, _, show in COLUMNS:
            known = [one[key] for one in runs if one[key] is not None]
            cells.append(show(median(known)) if known else "-")
        shares = sorted(100 * one["delivered"] for one in runs)
        print(f"{name:20}" + "".join(f"{cell:>13}" for cell in cells) + f"{f'{shares[0]:.0f}..{shares[-1]:.0f} %':>16}")


SCENARIOS = {"window": run_window, "cut": run_cut, "profile": run_profile, "shipped": run_shipped, "saving": run_saving}
LOSS = {"shipped": 0.01, "saving": 0.0}
"""Scenario -> share of frames lost on the air, where it is not 3 %."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"{', '.join(SCENARIOS)} (default: all)")
    parser.add_argument("--params", type=Path, default=Path(__file__).with_name("air.yaml"), help="the cluster")
    parser.add_argument("--rate", type=float, default=20.0, help="of the air, Mbit/s")
    parser.add_argument("--loss", type=float, help="share of frames lost on the air (default 0.03, shipped 0.01)")
    parser.add_argument("--delay", type=float, default=5.0, help="ms")
    parser.add_argument("--window", type=int, default=200_000, help="the gateways' byte window where it is on")
    parser.add_argument("--load", type=float, default=2.0, help="scenario window: how much faster the cameras are")
    parser.add_argument("--frames", type=int, default=2, help="scenario window: frames in work at once, per source")
    parser.add_argument("--networks", nargs="+", default=["wifi", "local"], help="what scenario profile compares")
    parser.add_argument("--cut", type=float, default=1.5, help="seconds without links")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.NAME=VALUE", help="another parameter value")
    parser.add_argument("--profiles", type=Path, help="folder of DDS profiles (default: those that are shipped)")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured, per run")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each case")
    parser.add_argument("--seed", type=int, default=0, help="of what the air loses")
    parser.add_argument("--folder", type=Path, default=Path("out/air"), help="logs and reports of each run")
    parser.add_argument("--out", type=Path, help="write all figures to this JSON file")
    args = parser.parse_args()
    wrong = [name for name in args.scenarios if name not in SCENARIOS]
    if wrong:
        parser.error(f"scenario {wrong[0]!r}: expected {', '.join(SCENARIOS)}")
    found = {}
    try:
        args.profiles = args.profiles or share() / "config" / "network"
        cluster = _cluster(args.params, args.set)
        for name in args.scenarios or SCENARIOS:
            loss = LOSS.get(name, 0.03) if args.loss is None else args.loss
            args.weather = Weather(rate=1e6 * args.rate, delay=args.delay / 1000, loss=loss)
            found[name] = SCENARIOS[name](args, cluster)
    except (DnnDistError, RuntimeError) as error:
        print(f"air: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if args.out and found:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
