# SPDX-License-Identifier: Apache-2.0
"""A real cluster on this machine for a bench: started, listened to, and what it costs in processor time and memory."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from dnn_dist.cli.domain import DOMAINS, free_domain
from dnn_dist.cli.supervisor import Supervisor, share
from dnn_dist.cluster import Process, parse_cluster, processes

PATIENCE = 90.0  # s for what should take a few, before a run is given up
WARM_UP = 4  # frames that are not counted: interpreters, topics and measured speeds come into being
TICKS = os.sysconf("SC_CLK_TCK")
NEXT_DOMAIN = cycle(DOMAINS)  # each run takes the next one, since what was killed haunts its own for a while


@dataclass
class Fleet:
    """A cluster that runs. Nothing that dies is started again."""

    supervisor: Supervisor
    watch: Any  # dnn_dist.nodes.watch.Watch
    processes: tuple[Process, ...]
    seconds_to_ready: float  # from the first process's start until every worker offered room

    def until(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
        """Listen until the condition holds; RuntimeError when it does not come."""
        end = time.monotonic() + seconds
        while not condition():
            self.watch.spin(0.02)
            if time.monotonic() > end:
                raise RuntimeError(f"not within {seconds:g} s: {what}")

    def start_cameras(self) -> None:
        """Let images come."""
        self.supervisor.start(process for process in self.processes if process.executable == "camera")

    def frames(self, count: int) -> list[Any]:
        """The next so many reports of the source that is watched."""
        began = len(self.watch.reports)
        self.until(lambda: len(self.watch.reports) >= began + count, f"{count} frames are reported", PATIENCE + count)
        return list(self.watch.reports[began : began + count])

    def rss(self) -> dict[str, float]:
        """Resident memory of every node in MB."""
        found = {}
        for name, child in self.supervisor.running.items():
            lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
            found[name] = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
        return found


@contextmanager
def flying(
    robots: Mapping[str, Any],
    parameters: Mapping[str, Any],
    logs: Path,
    prefix: str = "",
    cameras: bool = True,
    more: Mapping[str, str] | None = None,
) -> Iterator[Fleet]:
    """A cluster whose workers are all ready and, with `cameras`, warm; at the end nothing is left running.

    `prefix`: of the topics of the source that is watched, where the cluster has several, e.g. "front/". `more`:
    environment of the nodes.
    """
    from dnn_dist.nodes.watch import watching

    started = processes(parse_cluster({"robots": robots, "parameters": parameters}, "bench"), _profiles())
    workers = sum(process.executable == "worker" for process in started)
    with ExitStack() as stack:
        domain = stack.enter_context(free_domain(next(NEXT_DOMAIN)))
        environment = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": str(domain)}
        supervisor = stack.enter_context(Supervisor(logs, {**environment, **(more or {})}))
        watch = stack.enter_context(watching({**environment, **started[0].environment}, prefix=prefix))
        began = time.monotonic()
        supervisor.start(process for process in started if process.executable != "camera")
        fleet = Fleet(supervisor, watch, started, math.nan)
        fleet.until(lambda: watch.ready(workers), f"{workers} workers are ready; see {logs}")
        fleet.seconds_to_ready = time.monotonic() - began
        if cameras:
            fleet.start_cameras()
            fleet.frames(WARM_UP)
        yield fleet


def robots(workers: int, **own: Mapping[str, Any]) -> dict[str, Any]:
    """Robot r1 with camera and gateway, and workers each on a robot of its own from r1 on; `own`: parameters of some.

    >>> robots(2, r2={"pace": 20.0})["r2"]
    {'nodes': ['worker'], 'parameters': {'worker': {'pace': 20.0}}}
    """
    found: dict[str, Any] = {f"r{number}": {"nodes": ["worker"]} for number in range(1, workers + 1)}
    found["r1"] = {"source": "front", "nodes": ["camera", "gateway", "worker"]}
    for name, values in own.items():
        found[name]["parameters"] = {"worker": dict(values)}
    return found


class Load:
    """Share of this machine's cores that was busy since this was made, 0 to 1."""

    def __init__(self, fleet: Fleet) -> None:
        self._pids = [child.pid for child in fleet.supervisor.running.values()]
        self._before, self._began = self._read(), time.monotonic()

    def told(self) -> dict[str, float]:
        """`own`: by the cluster's nodes; `machine`: by whatever ran, all else that this machine does included."""
        cores = os.cpu_count() or 1
        own, busy, total = (after - before for after, before in zip(self._read(), self._before, strict=True))
        return {
            "own_load": own / TICKS / cores / (time.monotonic() - self._began),
            "machine_load": busy / max(1, total),
        }

    def _read(self) -> tuple[int, int, int]:
        """Clock ticks: of the nodes (one that has died counts no more), of all that was busy, of all."""
        all_ = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(map(ticks, self._pids)), sum(all_) - all_[3] - all_[4], sum(all_)


def ticks(pid: int) -> int:
    """Clock ticks of processor time that a process has used; 0 when it is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return int(words[11]) + int(words[12])


def _profiles() -> Path:
    return share() / "config" / "network"
