# SPDX-License-Identifier: Apache-2.0
"""A master and its devices on a Wi-Fi whose messages are late at random: the setting of CDC's measurements.

Tensors and answers of a frame take Gamma-distributed times, there and back. Frames are far apart, so that nothing of
one delays the next, and nobody is taken for dead meanwhile, unless a fault is asked for: what is seen is the rule by
which results are merged.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.run.gathered import GathererSettings
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.run.wire import TaskKey
from dnn_dist.sim import Load, Scenario, Source
from dnn_dist.sim.cluster import Cluster
from dnn_dist.sim.faults import Fault

MASTER = "master"
BANDWIDTH = 4.6e6  # bytes/s; as fitted to DeepThings' Wi-Fi
HEARTBEAT = 20.0  # s; states are of no use here
PATIENT = {"transit": 1e6, "worker_timeout": 1e6, "lease_min": 1e6}


@dataclass(frozen=True, slots=True)
class Delays:
    """Of one message, one way: Gamma(shape, scale in s)."""

    shape: float
    scale: float


HISTOGRAM = Delays(0.147, 2.8)
"""As in CDC's Fig. 1: two parameters from its two figures. There and back together are Gamma(0.294, 2.8 s), of which
34 % take less than 46 ms and 42 % less than 96 ms; 50 ms of computing and 4 ms on the air come on top."""
MESSAGE = Delays(1.0, 0.080)
"""Exponential, of the mean that Hadidi et al. give for a message between two Pis (75 to 85 ms). Nothing is fitted."""


class Watched(Cluster):
    """A cluster that notes when each result came."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.arrivals: list[float] = []  # s after the frame's announcement
        self._begun: dict[int, float] = {}

    def announced(self, source: str, frame: int) -> None:
        self._begun[frame] = self.agenda.now

    def kept(self, key: TaskKey) -> None:
        self.arrivals.append(self.agenda.now - self._begun[key.frame])


def cluster(
    load: Load, devices: int, delays: Delays, frames: int, gap: float, seed: int = 0, faults: tuple[Fault, ...] = ()
) -> Watched:
    """`frames` frames, one every `gap` seconds, whose pieces belong to the devices by a fixed division. With `faults`
    the usual timeouts are in force, so that a dead device is noticed.
    """
    names = tuple(f"pi{n}" for n in range(1, devices + 1))
    robots = tuple(Robot(name, speed=1e9) for name in (MASTER, *names))  # the load knows how long things take
    air = Link(BANDWIDTH, gamma=(delays.shape, delays.scale), medium="wifi")
    calm = {"heartbeat": HEARTBEAT} if not faults else {}
    patient = PATIENT if not faults else {}
    shares = tuple((name, 1.0) for name in names)
    # As in the paper a parity is always sent.
    dispatcher = DispatcherSettings(
        mode="sharing", shares=shares, window=10**12, redundancy="always", **calm, **patient
    )
    gatherer = GathererSettings(worker_timeout=1e6, **calm)
    source = Source(MASTER, load, frames=frames, rate=1 / gap, workers=names, dispatcher=dispatcher, gatherer=gatherer)
    settings = WorkerSettings(**calm, **({"source_timeout": 1e6, "remember": 1e6} if not faults else {}))
    fleet = Fleet(robots, (LinkRule((), air),))
    return Watched(
        Scenario(
            fleet,
            (source,),
            workers=names,
            faults=faults,
            seed=seed,
            worker=settings,
            warm_up=60.0,
            limit=2 * gap * frames + 600,
        )
    )
