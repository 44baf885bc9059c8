# SPDX-License-Identifier: Apache-2.0
"""One run of a case of `headline.py`: a fleet over the air is started, warmed up, measured, disturbed."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from air import EXACT, listening
from fleet import Load
from full_size import pss
from headline_cases import Division, Setting, plan_text
from medium import CALM, Weather
from namespaces import Air

from dnn_dist.cli.supervisor import Supervisor, share
from dnn_dist.cluster import Process, parse_cluster, processes
from dnn_dist.run.report import Status

SOURCE = "front"
LEAST_WARM, MOST_WARM = 4, 30  # frames that are not counted: interpreters, weights, measured speeds come into being
SETTLED = 0.05  # what the last latencies may differ from their median, as a share of it, when a fleet is warm
STEADY = 3  # of these last ones
PATIENCE = 40.0  # s, and what a frame may take: until a report comes
QUIET = 3.0  # s of idle traffic
AFTER = 2  # frames after a disturbance that are not part of the latency after it
PACED = re.compile(r"<max_bytes_per_period>(\d+)</max_bytes_per_period>")
JOINED = re.compile(r"worker joined: worker '(\w+)'")
SHIPPED_AIR = 20e6  # bit/s that the shipped profile for the air is made for


@dataclass(frozen=True)
class Ask:
    """How a case is measured."""

    frames: int  # of each measure
    in_work: int  # of the throughput
    measures: tuple[str, ...]
    network: str = "wifi"  # profile
    window: int = 4_000_000  # bytes; the profile's for the air is less than one piece of these networks
    deadline: float = 60.0  # s
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # node -> other parameters
    profiles: Path | None = None  # None: the shipped ones, scaled to the air
    warm: int = LEAST_WARM
    told: Callable[[str], None] = lambda line: None  # hears each frame's line


def profiles_for(rate: float, folder: Path) -> Path:
    """The shipped DDS profiles, each process of the one for the air with the same share of this rate (bit/s)."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (share() / "config" / "network").glob("*.xml"):
        text = path.read_text()
        (folder / path.name).write_text(
            PACED.sub(lambda m: m[0].replace(m[1], str(round(int(m[1]) * rate / SHIPPED_AIR))), text)
        )
    return folder.resolve()


class Flight:
    """A fleet at work. Reports are numbered in the order in which they came."""

    def __init__(self, air: Air, supervisor: Supervisor, listener: subprocess.Popen[bytes], path: Path) -> None:
        self.air, self.supervisor = air, supervisor
        self.reports: list[dict[str, Any]] = []
        self.started: dict[str, int] = {}  # name -> process id
        self.watches = True  # what dies is started again, as launch does
        self._listener, self._file, self._part = listener, path.open(), ""
        self._answers: list[dict[str, Any]] = []

    def pids(self) -> dict[str, int]:
        return {name: child.pid for name, child in self.supervisor.running.items()}

    def hear(self) -> None:
        """Take what was reported meanwhile."""
        *lines, self._part = (self._part + self._file.read()).split("\n")
        for line in map(json.loads, lines):
            (self._answers if "set" in line else self.reports).append(line)
        if self.watches:
            self.supervisor.look()
            for name, why in self.supervisor.ended.items():
                raise RuntimeError(f"{name} ended: {why}")

    def until(self, condition: Callable[[], Any], what: str, seconds: float) -> None:
        """Wait for the condition; RuntimeError when it does not come."""
        end = time.monotonic() + seconds
        while True:
            self.hear()
            if condition():
                return
            if time.monotonic() > end:
                raise RuntimeError(f"not within {seconds:.0f} s: {what}")
            time.sleep(0.02)

    def frames(self, count: int, each: float) -> list[dict[str, Any]]:
        """The next so many reports, each of which may take so many seconds."""
        began = len(self.reports)
        for number in range(began + 1, began + count + 1):
            self.until(lambda n=number: len(self.reports) >= n, f"report {number}", PATIENCE + each)
        return self.reports[began : began + count]

    def set(self, node: str, name: str, value: Any) -> None:
        """Change a parameter of a node while it runs."""
        before = len(self._answers)
        self._listener.stdin.write(json.dumps({"node": f"/{node}", "name": name, "value": value}).encode() + b"\n")
        self._listener.stdin.flush()
        self.until(lambda: len(self._answers) > before, f"{node} takes {name}", PATIENCE)
        if why := self._answers[-1].get("error"):
            raise RuntimeError(f"{node}: {name}: {why}")

    def quiet(self, seconds: float, most: float) -> None:
        """Until no report has come for so long."""
        self.until(lambda: time.monotonic() > self.reports[-1]["time"] + seconds, "the fleet is idle", most)


@contextmanager
def flying(setting: Setting, division: Division, ask: Ask, folder: Path, seed: int = 0) -> Iterator[Flight]:
    """The fleet of a case at work, in calm air. What `folder` had is gone."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    started = processes(_cluster(setting, division, ask, folder), ask.profiles or profiles_for(
        setting.weather.rate, folder / "network"))  # fmt: skip
    environment = {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",  # by multicast, in namespaces that nothing leaves
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    with ExitStack() as stack:
        air = stack.enter_context(Air([f"r{n}" for n in range(1, setting.robots + 1)], CALM, seed))

        def prefix(process: Process) -> list[str]:
            return air.enter(process.robot)

        supervisor = stack.enter_context(Supervisor(folder / "log", environment, prefix=prefix))
        camera = next(process for process in started if process.executable == "camera")
        listener = stack.enter_context(listening(air, camera, "report", environment, folder / "reports.jsonl"))
        supervisor.start(process for process in started if process is not camera)
        flight = Flight(air, supervisor, listener, folder / "reports.jsonl")
        # Who comes late would find the larger pieces with those who had them first.
        flight.until(lambda: _complete(supervisor, division, setting.robots), "all workers are ready", PATIENCE)
        supervisor.start([camera])
        flight.started = flight.pids()
        yield flight


def _complete(supervisor: Supervisor, division: Division, robots: int) -> bool:
    """Whether the gateway knows all workers, and those of the plan are ready for it."""
    joined = set(JOINED.findall(supervisor.log("gateway_r1")))
    ready = all("plan ready" in supervisor.log(f"worker_{name}") for name in division.workers or joined)
    return ready and len(joined) == robots


def _cluster(setting: Setting, division: Division, ask: Ask, folder: Path) -> Any:
    """Robot r1 with camera, gateway and a worker; the others compute."""
    robots: dict[str, Any] = {f"r{n}": {"nodes": ["worker"]} for n in range(1, setting.robots + 1)}
    robots["r1"] = {"source": SOURCE, "nodes": ["camera", "gateway", "worker"]}
    bound = setting.network.macs / (setting.robots * setting.pace * 1e6)
    everywhere = {"model": str(setting.network.path.resolve()), "pace": float(setting.pace), "lifespan": 10.0}
    everywhere["window"] = ask.window
    side = setting.model.side
    gateway = {"cut": division.cut, "mode": division.mode, "deadline": float(ask.deadline)}
    if division.workers:
        plan = folder / "plan.yaml"
        plan.write_text(plan_text(setting.network, division))
        gateway["plan"] = str(plan.resolve())
    parameters: dict[str, dict[str, Any]] = {
        "all": everywhere,
        "gateway": gateway,
        "camera": {"height": side, "width": side, "rate": min(20.0, max(2.0, 2 / bound))},
        "worker": {},
    }
    for node, values in ask.settings.items():
        parameters[node] = {**parameters.get(node, {}), **values}
    return parse_cluster({"network": ask.network, "robots": robots, "parameters": parameters}, "bench")


# What is measured -----------------------------------------------------------------------------------------------------


def run(setting: Setting, division: Division, ask: Ask, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Measure one case; seconds and bytes."""
    usual = 2 * setting.network.macs / (setting.pace * 1e6)
    found: dict[str, Any] = {"loadavg_before": os.getloadavg()[0]}
    began = time.monotonic()
    with flying(setting, division, ask, folder, seed) as flight:
        found["warm"] = warm(flight, ask, usual, setting.weather)
        if "latency" in ask.measures:
            found["latency"] = measured(flight, ask.frames, usual, ask.told)
        if "idle" in ask.measures:
            found["idle_bytes_per_s"] = _idle(flight, usual)
        if "throughput" in ask.measures:
            flight.set("gateway_r1", "max_frames", ask.in_work)
            flight.frames(ask.in_work + 1, usual)
            found["throughput"] = {"in_work": ask.in_work, **measured(flight, ask.frames, usual, ask.told)}
            flight.set("gateway_r1", "max_frames", 1)
        found["memory_mb"] = {name: pss(pid) for name, pid in flight.pids().items()}
        found["respawns"] = dict(flight.supervisor.respawns)
        found["same_processes"] = flight.pids() == flight.started
        for measure, disturb in (("slow", slow), ("kill", kill)):
            if measure in ask.measures and setting.robots > 1:
                found[measure] = disturb(flight, setting, ask, usual, seed)
    found["seconds"] = time.monotonic() - began
    return found


def settle(
    flight: Flight, each: float, least: int = STEADY, most: int = MOST_WARM,
    also: Callable[[dict[str, Any]], Any] = lambda report: True,
) -> bool:  # fmt: skip
    """Frames until the last ones took about the same, lacked nothing and are as `also` has it; False: they never do."""
    began = len(flight.reports)
    while len(flight.reports) - began < most:
        flight.frames(1, each)
        last = flight.reports[began:][-STEADY:]
        usually = median(one["latency"] for one in last)
        if len(flight.reports) - began >= max(STEADY, least) and all(
            one["status"] in EXACT
            and not one["recomputed"]
            and abs(one["latency"] / usually - 1) <= SETTLED
            and also(one)
            for one in last
        ):
            return True
    return False


def warm(flight: Flight, ask: Ask, usual: float, weather: Weather) -> dict[str, Any]:
    """Frames until latencies have settled; the air gets as it is to be with the first complete one."""
    flight.until(lambda: any(one["status"] in EXACT for one in flight.reports), "a first complete frame", PATIENCE + 60)
    flight.air.set(weather)
    settled = settle(flight, usual, ask.warm)
    for one in flight.reports:
        ask.told(f"  warm {frame_line(one)}")
    return {"frames": len(flight.reports), "settled": settled}


def measured(flight: Flight, count: int, usual: float, told: Callable[[str], None]) -> dict[str, Any]:
    """So many frames: what they took, what the air carried meanwhile, what the machine had to do."""
    flight.frames(1, usual)  # from a report to a report
    load, before = Load(flight), flight.air.counters()
    last = flight.reports[-1]["time"]
    reports = flight.frames(count, usual)
    after, busy = flight.air.counters(), load.told()
    for one in reports:
        told(f"  {frame_line(one)}")
    on_air = {name: after[name] - before[name] for name in before}
    passed = reports[-1]["time"] - last
    return {
        **figures(reports),
        "interval_s": passed / count,
        "air_bytes": on_air["sent_bytes"] / count,
        "air_share": on_air["airtime"] / on_air["seconds"],
        "air_dropped": on_air["dropped"],
        "resent_bytes": on_air["resent_bytes"] / count,
        **busy,
        "cpu_s": busy["own_load"] * (os.cpu_count() or 1) * passed / count,
    }


def figures(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """What reports say of their frames."""
    workers = [share for one in reports for share in one["workers"].items()]
    count = len(reports)
    return {
        "latencies_s": [one["latency"] for one in reports],
        "latency_s": median(one["latency"] for one in reports),
        "glue_s": median(one["latency"] - one["computed"] - one["local"] for one in reports),
        "computed_s": median(one["computed"] for one in reports),
        "local_s": median(one["local"] for one in reports),
        "worked_s": sum(share["computed"] for _, share in workers) / count,
        "useful_bytes": sum(share["bytes_in"] + share["bytes_out"] for name, share in workers if name != "r1") / count,
        "statuses": dict(Counter(Status(one["status"]).name.lower() for one in reports)),
        "recomputed": sum(one["recomputed"] for one in reports),
        "filled": sum(one["filled"] for one in reports),
    }


def _idle(flight: Flight, usual: float) -> float:
    """Bytes a second that the air carries when there is no image."""
    camera = flight.supervisor.running["camera_r1"]
    camera.send_signal(signal.SIGSTOP)
    try:
        flight.quiet(1.0 + 2 * flight.reports[-1]["latency"], PATIENCE + 4 * usual)
        before = flight.air.counters()
        time.sleep(QUIET)  # what is measured is time
        after = flight.air.counters()
    finally:
        camera.send_signal(signal.SIGCONT)
    flight.frames(1, usual)
    return (after["sent_bytes"] - before["sent_bytes"]) / (after["seconds"] - before["seconds"])


def slow(flight: Flight, setting: Setting, ask: Ask, usual: float, seed: int) -> dict[str, Any]:
    """The last robot becomes five times slower, for some frames."""
    victim = f"worker_r{setting.robots}"
    before = figures(flight.frames(max(3, ask.frames // 2), usual))
    flight.set(victim, "pace", setting.pace / 5)
    reports = flight.frames(AFTER + ask.frames, usual)
    for one in reports:
        ask.told(f"  slow {frame_line(one)}")
    flight.set(victim, "pace", float(setting.pace))
    flight.frames(AFTER + STEADY, usual)
    return _disturbed(before, reports)


def kill(flight: Flight, setting: Setting, ask: Ask, usual: float, seed: int) -> dict[str, Any]:
    """The last robot's worker dies by SIGKILL at a random moment of a frame, and stays away."""
    before = figures(flight.frames(max(3, ask.frames // 2), usual))
    flight.set("gateway_r1", "deadline", min(60.0, 3 * before["latency_s"]))
    flight.frames(1, usual)
    time.sleep(random.Random(seed).random() * before["latency_s"])  # a moment in mid-frame
    flight.watches = False
    flight.hear()
    flight.supervisor.kill(f"worker_r{setting.robots}")
    reports = flight.frames(AFTER + ask.frames, usual)
    for one in reports:
        ask.told(f"  kill {frame_line(one)}")
    return _disturbed(before, reports)


def _disturbed(before: dict[str, Any], reports: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "before_s": before["latency_s"],
        "hit_s": max(one["latency"] for one in reports[:AFTER]),
        "after": figures(reports[AFTER:]),
        "statuses": figures(reports)["statuses"],
        "lost": sum(one["status"] not in EXACT for one in reports),
    }


def frame_line(one: Mapping[str, Any]) -> str:
    """A report in one line; seconds."""
    shares = "  ".join(f"{name} {s['tasks']}/{s['computed']:.2f}" for name, s in sorted(one["workers"].items()))
    with suppress(ValueError):
        status = Status(one["status"]).name.lower()
    return (
        f"frame {one['frame']:3} {status:10} latency {one['latency']:6.3f} = computed {one['computed']:6.3f} + local "
        f"{one['local']:6.3f} + waited {one['waited']:6.3f}; pieces {one['came']}/{one['pieces']}, recomputed "
        f"{one['recomputed']}, filled {one['filled']}; {sum(one['bytes'].values()) / 1e6:.2f} MB; tasks/s: {shares}"
    )


def real_seconds(model: Path) -> float:
    """Processor time of one frame on one core of this machine, nothing paced."""
    lines = (
        "import sys, time", "from ai_edge_litert.interpreter import Interpreter",
        "one = Interpreter(sys.argv[1], num_threads=1)", "one.allocate_tensors()", "one.invoke()",
        "began = time.process_time()", "one.invoke()", "print(time.process_time() - began)",
    )  # fmt: skip
    told = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), str(model)], capture_output=True, text=True, check=False
    )
    if told.returncode:
        raise RuntimeError(f"{model.name} does not run by itself: {told.stderr.strip().splitlines()[-1]}")
    return float(told.stdout.split()[-1])
