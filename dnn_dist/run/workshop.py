# SPDX-License-Identifier: Apache-2.0
"""The pieces of all plans that one worker computes, within one budget of memory.

A plan's pieces are all made ready at once while those of all such plans take up to `prepared`. Else they are made
ready *on demand*, each form when it is first given, so that a robot maps the weights of its own pieces and no others.
Forms are few then: larger tiles compute smaller ones (cut/forms.py). A form that was not used for long is dropped, and
beyond `memory` those used longest ago are.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from dnn_dist.cut.digest import pieces_digest
from dnn_dist.cut.feeds import Maker
from dnn_dist.cut.piece import Piece
from dnn_dist.cut.sides import SIDES
from dnn_dist.errors import PlanError
from dnn_dist.graph.network import Network
from dnn_dist.plan.plan import WIRES, Plan
from dnn_dist.plan.policy import idle_uses
from dnn_dist.run.events import Role
from dnn_dist.run.mapped import free_memory
from dnn_dist.run.pieces import Form, PieceSet
from dnn_dist.run.values import PlanText
from dnn_dist.run.wire import WireError, WireTensor
from dnn_dist.settings import WorkerSettings

NOTHING: Mapping[Maker, Any] = MappingProxyType({})
"""For pieces that others give nothing."""


class Made(NamedTuple):
    """What came of a piece."""

    bytes: int  # of the result
    result: Any  # what the aggregator gets, as it travels
    outputs: Any = None  # what others get boxes of


class _Use(NamedTuple):
    """The last use of a form."""

    bytes: int  # of its weights
    number: int  # among the uses of all forms that are made ready on demand


class Pieces(Protocol):
    """What a worker asks for; tensors that travel are its own affair."""

    def build(self, offered: PlanText) -> bool:
        """Job: take up a plan; whether its pieces are made ready on demand. DnnDistError when it cannot be served."""

    def drop(self, plan: str) -> None:
        """Free a plan's pieces."""

    def macs(self, plan: str, stage: int, piece: int, alone: bool = False) -> int:
        """The work of a piece, `alone`: without strips. WireError when it is none, or not for this robot."""

    def ready(self, plan: str, stage: int, piece: int, alone: bool = False) -> bool:
        """Whether its weights need not be read first."""

    def prepare(self, plan: str, stage: int, piece: int, alone: bool = False) -> None:
        """Job: read its weights."""

    def role(self, plan: str, stage: int, piece: int, inputs: Any) -> Role:
        """What a piece is in its chain, and whether it must wait for what did not come with its work."""

    def run(
        self,
        plan: str,
        stage: int,
        piece: int,
        inputs: Any,
        fed: Mapping[Maker, Any],
        alone: bool = False,
        wire: str = WIRES[0],
    ) -> Made:
        """Job: compute it of what came with its work and what others gave, `alone`: but for strips. `wire`: of the
        result's float32 tensors, unless the plan's is narrower.
        """

    def boxes(self, plan: str, taker: Maker, maker: Maker, outputs: Any, wire: str = WIRES[0]) -> Any:
        """What a piece gives another of its `Made.outputs`, as it travels; WireError when it gives it nothing."""

    def accept(self, plan: str, taker: Maker, maker: Maker, boxes: Any) -> Any:
        """What another piece or the aggregator gives, as it came, for `run`; WireError when that is not as planned."""

    @property
    def chained(self) -> bool:
        """Whether a plan is for workers that have met: with direct boundaries, strips to lend, or a server."""

    def health(self) -> dict[str, Any]:
        """What diagnostics say."""


class Workshop:
    """See the module. Real pieces of a real network."""

    def __init__(self, network: Network, settings: WorkerSettings) -> None:
        self._network, self._threads = network, settings.threads
        self._prepared, self._memory = settings.prepared * 1e6, settings.memory * 1e6
        self._sets: dict[str, PieceSet] = {}  # plan -> its pieces
        self._whole: set[str] = set()  # plans of which all pieces are ready
        self._used: dict[tuple[str, Form], _Use] = {}  # made ready on demand, last used last
        self._uses = 0
        self._lock = threading.Lock()  # of the books above; weights are read outside it

    def build(self, offered: PlanText) -> bool:
        plan = Plan.from_yaml(offered.text)
        stages = plan.stages(self._network)
        derived = pieces_digest(self._network, stages)
        if derived != offered.pieces:
            raise PlanError(
                f"plan {offered.plan}: source {offered.source!r} derives other pieces of it, {offered.pieces[:16]!r}, "
                f"than this robot, {derived!r}; install one version of dnn_dist everywhere"
            )
        for few in (False, True):
            pieces = PieceSet(self._network, plan, stages, local=False, threads=self._threads, few=few)
            with self._lock:
                whole = pieces.size + self._bytes_of_whole() <= self._prepared
            if whole:
                pieces.prepare()
                break
        with self._lock:
            self._sets[offered.plan] = pieces
            self._memory = self._memory or free_memory() / 2
            if whole:
                self._whole.add(offered.plan)
        return not whole

    def drop(self, plan: str) -> None:
        with self._lock:
            self._sets.pop(plan, None)
            self._whole.discard(plan)
            self._used = {key: use for key, use in self._used.items() if key[0] != plan}

    def macs(self, plan: str, stage: int, piece: int, alone: bool = False) -> int:
        pieces = self._of(plan)
        pieces.form(stage, piece)
        found: Piece = pieces.piece(stage, piece, alone)
        return found.macs

    def ready(self, plan: str, stage: int, piece: int, alone: bool = False) -> bool:
        pieces = self._of(plan)
        return pieces.ready(pieces.form(stage, piece, alone))

    def prepare(self, plan: str, stage: int, piece: int, alone: bool = False) -> None:
        pieces = self._of(plan)
        form = pieces.form(stage, piece, alone)
        self._make_room(plan, form, pieces)
        pieces.prepare(form)

    def role(self, plan: str, stage: int, piece: int, inputs: list[WireTensor]) -> Role:
        pieces = self._of(plan)
        pieces.form(stage, piece)
        return pieces.role(stage, piece, inputs)

    def run(
        self,
        plan: str,
        stage: int,
        piece: int,
        inputs: list[WireTensor],
        fed: Mapping[Maker, Sequence[np.ndarray]] = NOTHING,
        alone: bool = False,
        wire: str = WIRES[0],
    ) -> Made:
        pieces = self._of(plan)
        form = pieces.form(stage, piece, alone)
        arrays = pieces.inputs(stage, piece, inputs, fed, alone)
        if plan not in self._whole or pieces.spare(form):
            self._make_room(plan, form, pieces)
        outputs = pieces.run(stage, piece, arrays, alone)
        result = pieces.result(stage, piece, outputs, wire)
        return Made(sum(tensor.bytes for tensor in result), result, outputs)

    def boxes(
        self, plan: str, taker: Maker, maker: Maker, outputs: Sequence[np.ndarray], wire: str = WIRES[0]
    ) -> list[WireTensor]:
        return self._of(plan).boxes(taker, maker, outputs, wire)

    def accept(self, plan: str, taker: Maker, maker: Maker, boxes: Sequence[WireTensor]) -> list[np.ndarray]:
        return self._of(plan).accept(taker, maker, boxes)

    @property
    def chained(self) -> bool:
        stages = (stage for pieces in list(self._sets.values()) for stage in pieces.stages)
        return any(stage.direct or stage.reuses or stage.kind in SIDES for stage in stages)

    def health(self) -> dict[str, Any]:
        with self._lock:
            ready = self._bytes_on_demand() + self._bytes_of_whole()
            forms = len(self._used) + sum(len(self._sets[plan].sizes) for plan in self._whole)
            return {
            "plans ready": " ".join(self._sets) or "none",
            "forms ready": forms,
            "pieces ready (MB)": round(ready / 1e6, 1),
        }

    def _of(self, plan: str) -> PieceSet:
        pieces = self._sets.get(plan)
        if pieces is None:
            raise WireError(f"plan {plan[:32]!r} is not ready here")
        return pieces

    def _bytes_of_whole(self) -> int:
        """Of the plans of which all pieces are ready; with the lock held."""
        return sum(self._sets[plan].size for plan in self._whole)

    def _bytes_on_demand(self) -> int:
        """Of the forms that were made ready on demand; with the lock held."""
        return sum(use.bytes for use in self._used.values())

    def _make_room(self, plan: str, form: Form, pieces: PieceSet) -> None:
        """A form is used now; drop what was not used for long, and where the form would take more than the memory
        allowed, those used longest ago.
        """
        with self._lock:
            self._used.pop((plan, form), None)
            whole, self._uses = self._bytes_of_whole(), self._uses + 1
            while self._used:
                (its, old), use = next(iter(self._used.items()))
                idle = self._uses - use.number > idle_uses(len(self._used))
                if not idle and whole + self._bytes_on_demand() + pieces.sizes[form] <= self._memory:
                    break
                del self._used[its, old]
                self._sets[its].drop(old)
            self._used[plan, form] = _Use(pieces.sizes[form], self._uses)
