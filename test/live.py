# SPDX-License-Identifier: Apache-2.0
"""A real cluster for a test: real processes over DDS on the loopback interface, watched and fed from the test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dnn_dist.cli.supervisor import Supervisor, share
from dnn_dist.cluster import parse_cluster, processes
from dnn_dist.run.report import Status

PATIENCE = 30.0  # s; how long a test waits for what should happen at once, before it fails


@dataclass
class Live:
    """What a test works with."""

    supervisor: Supervisor
    watch: Any  # dnn_dist.nodes.watch.Watch
    logs: Path
    prefix: str = ""  # of the topics of the source that is fed and watched
    images: dict[str, Any] = field(default_factory=dict)  # topic -> publisher, made when first used

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Listen until the condition holds; fail with `what` and the nodes' last words when it does not come."""
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            self.watch.spin(0.05)
            self.supervisor.look()
            if time.monotonic() > end:
                words = "\n".join(f"{log.name}: {log.read_text()[-600:]}" for log in sorted(self.logs.glob("*.log")))
                raise AssertionError(f"this did not happen within {PATIENCE:g} s: {what}\n{words}")
        return value

    def publish(self, image: np.ndarray, stamp: int, topic: str = "image") -> None:
        """Publish an image as a camera would; `stamp` (s) tells it from others."""
        from builtin_interfaces.msg import Time
        from sensor_msgs.msg import Image
        from std_msgs.msg import Header

        from dnn_dist.nodes.images import rgb_to_image
        from dnn_dist.nodes.qos import OUTPUT

        if topic not in self.images:
            self.images[topic] = self.watch.offer(Image, topic, OUTPUT)
        self.until(self.images[topic].get_subscription_count, f"somebody listens to {topic}")
        self.watch.send(self.images[topic], rgb_to_image(image, Header(stamp=Time(sec=stamp), frame_id="camera")))

    def feed(self, images: list[np.ndarray]) -> None:
        """Publish images one by one, each when the one before is reported; stamps count from 1.

        A subscription may still be on its way, or give way to a reliable one: images are sent again until reported.
        """
        for stamp, image in enumerate(images, start=1):
            sent = float("-inf")

            def reported(stamp: int = stamp, image: np.ndarray = image) -> bool:
                nonlocal sent
                if time.monotonic() - sent > 3.0:
                    sent = time.monotonic()
                    self.publish(image, stamp, f"{self.prefix}image")
                return stamp in self.stamps()

            self.until(reported, f"image {stamp} is reported")

    def until_reports_of(self, image: np.ndarray, sources: set[str]) -> None:
        """Publish an image again and again until each of these sources, and no other, has reported a frame."""

        def all_report() -> bool:
            self.publish(image, 1)
            self.watch.spin(0.3)
            return sources == {report.source for report in self.watch.reports}

        self.until(all_report, f"{sorted(sources)} report frames")

    def goes_on_after_a_kill(self, victim: str) -> list[tuple[int, int]]:
        """Kill a node while a camera goes on: it is started again, frames are complete again, and none is reported
        twice. Returns (session, frame) of all reports.
        """
        reports, supervisor = self.watch.reports, self.supervisor
        supervisor.kill(victim)
        self.until(lambda: supervisor.respawns.get(victim) == 1, "it is started again")
        before = len(reports)
        self.until(
            lambda: sum(report.status == Status.COMPLETE for report in reports[before:]) >= 3,
            "frames are complete again",
        )
        numbers = [(report.session, report.frame) for report in reports]
        assert len(numbers) == len(set(numbers)), "no frame is reported twice"
        return numbers

    def stamps(self) -> dict[int, Any]:
        """Stamp (s) of an image -> its newest report."""
        return {report.header.stamp.sec: report for report in self.watch.reports}


class MachineLag:
    """How late a process of this machine is woken, at worst: what no program on it can be blamed for."""

    def __init__(self) -> None:
        self.worst = 0.0  # s
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._sleep, daemon=True)

    def __enter__(self) -> MachineLag:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _sleep(self) -> None:
        began = time.monotonic()
        while not self._ending.wait(0.01):
            now = time.monotonic()
            self.worst, began = max(self.worst, now - began - 0.01), now


@contextmanager
def live(
    folder: Path,
    robots: Mapping[str, Any],
    parameters: Mapping[str, Any] | None = None,
    network: str = "local",
    ready: int | None = None,
    prefix: str = "",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Live]:
    """A cluster of these robots; entered when `ready` workers (all of them, if None) offer their room.

    `prefix`: of the topics of the source that is watched, where the cluster has several, e.g. "front/".
    """
    from dnn_dist.nodes.watch import watching

    cluster = parse_cluster({"robots": dict(robots), "parameters": dict(parameters or {})}, "test")
    started = processes(cluster, share() / "config" / "network", network=network)
    workers = sum(process.executable == "worker" for process in started) if ready is None else ready
    with (
        Supervisor(folder / "log", environment or {}) as supervisor,
        watching(started[0].environment, prefix=prefix, overlay=True) as watch,
    ):
        supervisor.start(started)
        cluster_ = Live(supervisor, watch, folder / "log", prefix)
        cluster_.until(lambda: watch.ready(workers), f"{workers} workers offer their room")
        yield cluster_


def robots(workers: int, nodes: tuple[str, ...] = ("gateway",)) -> dict[str, Any]:
    """Robot r1 with the source, and workers each on a robot of its own from r1 on."""
    first = {"source": "front", "nodes": [*nodes, "worker"]}
    return {"r1": first, **{f"r{number}": {"nodes": ["worker"]} for number in range(2, workers + 1)}}


def children_of(pid: int) -> list[int]:
    """Process ids below a process, from the kernel."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found += [int(status.parent.name), *children_of(int(status.parent.name))]
    return found
