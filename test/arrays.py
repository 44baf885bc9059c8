# SPDX-License-Identifier: Apache-2.0
"""The cluster of virtual.py with real arrays: tensors are cut, computed by LiteRT and merged, in virtual time.

The law beside those of virtual.py: a frame that ends COMPLETE or RECOMPUTED equals the whole model, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from cutting import FIXTURES
from virtual import Cluster, MortalSource, WatchedWorker

from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.plan import Plan
from dnn_dist.run.report import Status
from dnn_dist.run.store import TensorStore
from dnn_dist.run.values import Outcome
from dnn_dist.run.workshop import Pieces, Workshop
from dnn_dist.settings import WorkerSettings
from dnn_dist.sim.scenario import Load
from dnn_dist.sim.source import Taken

PICTURES = 8


@cache
def network() -> Network:
    """The fixture that is cut."""
    return read_network(FIXTURES / "residual_float32.tflite")


@cache
def picture(number: int) -> np.ndarray:
    """One of a few images, as the model's input."""
    return np.random.default_rng(number).integers(0, 256, (32, 40, 3), np.uint8)


@cache
def whole(number: int) -> list[np.ndarray]:
    """What the whole model makes of one."""
    store = TensorStore(network(), Plan(network().sha256, "local"))
    store.begin(0, [picture(number)])
    store.run_local(0, 0)
    return store.results(0)


@dataclass(eq=False)
class Photo(Taken):
    """An image of the camera, with pixels."""

    number: int = 0
    message: Any = None
    image: np.ndarray | None = None
    header: Any = None

    def pixels(self, sizes: Any) -> list[np.ndarray]:
        self.image = picture(self.number)
        return [self.image]


class ToldStore(TensorStore):
    """A store that tells what is kept and settled, as those of sizes do."""

    def __init__(self, plan: Plan, kept: Callable[..., None], settled: Callable[..., None], **where: bool) -> None:
        super().__init__(network(), plan, **where)
        self._kept, self._settled = kept, settled

    def keep(self, frame: int, stage: int, piece: int, outputs: list[np.ndarray]) -> None:
        super().keep(frame, stage, piece, outputs)
        self._kept(frame, stage, piece)

    def settle(self, frame: int, stage: int, whole: bool) -> None:
        super().settle(frame, stage, whole)
        self._settled(frame, stage)


class ArraySource(MortalSource):
    """A source with real tensors."""

    hub: Any

    def make_store(self, load: Load, **where: bool) -> ToldStore:
        return ToldStore(self.hub.plans[load.plan], self._kept, self._settled, **where)

    def finish(self, store: Any, frame: int, about: Any) -> list[np.ndarray]:
        results: list[np.ndarray] = store.results(frame)
        return results

    def picture(self) -> Photo:
        return Photo(self.agenda.now, number=self.images % PICTURES)

    def carry(self, value: Any, to: str) -> None:
        if isinstance(value, Outcome) and value.report.status in (Status.COMPLETE, Status.RECOMPUTED):
            for ours, expected in zip(value.outputs, whole(value.frame.about.number), strict=True):
                assert not self.hub.honest or ours.tobytes() == expected.tobytes(), f"{value.report.frame} is not exact"
            self.hub.exact_frames += 1
        super().carry(value, to)


class ArrayWorker(WatchedWorker):
    """A worker with real pieces."""

    def make_pieces(self) -> Pieces:
        prepared = 0.0 if self.hub.scenario.on_demand else WorkerSettings().prepared
        return Workshop(network(), WorkerSettings(prepared=prepared))


class ArrayCluster(Cluster):
    """See the module."""

    worker_class, source_class = ArrayWorker, ArraySource

    honest = True  # nobody sends well-formed tensors of random content

    def __init__(self, workers: int, cuts: Sequence[str], *arguments: Any, **options: Any) -> None:
        """`cuts`: of the plans; the first is in force at first."""
        made = (Plan(network().sha256, cut) for cut in cuts)
        self.plans = {plan.hash: plan for plan in made}
        shapes = [shape_of(plan) for plan in self.plans.values()]
        self.exact_frames = 0
        super().__init__(
            workers, shapes[0], *arguments, others=shapes[1:], seconds=lambda robot, stage, piece: 0.01, **options
        )

    def loads(self) -> list[Load]:
        return [Load(shape, self.seconds, plan=plan) for shape, plan in zip(self.shapes, self.plans, strict=True)]


@cache
def shape_of(plan: Plan) -> Any:
    return TensorStore(network(), plan).shape
