# SPDX-License-Identifier: Apache-2.0
"""Stores and pieces without arrays: a tensor is the number of its bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from dnn_dist.cut.feeds import AGGREGATOR, Maker
from dnn_dist.plan.plan import WIRES
from dnn_dist.run.events import Role
from dnn_dist.run.saving import NONE, Saving
from dnn_dist.run.shape import PlanShape
from dnn_dist.run.values import PlanText
from dnn_dist.run.wire import WireError
from dnn_dist.run.workshop import NOTHING, Made
from dnn_dist.sim.scenario import Load


@dataclass(frozen=True, slots=True)
class SizePlan:
    """A plan as its name."""

    hash: str
    cut: str = ""

    def to_yaml(self) -> str:
        return self.hash


class SizeStore:
    """A `Store` (run/store.py) of sizes. What happens to its frames is told to whom it may concern."""

    input_sizes: tuple[tuple[int, int], ...] = ((0, 0),)
    pieces_digest = ""

    def __init__(
        self,
        load: Load,
        kept: Callable[[int, int, int], None] = lambda frame, stage, piece: None,
        settled: Callable[[int, int], None] = lambda frame, stage: None,
        merges: bool = True,
    ) -> None:
        """`merges`: as of a `TensorStore`."""
        self._merges = merges
        self.plan, self.shape = SizePlan(load.plan), load.shape
        self._kept, self._settled = kept, settled

    def begin(self, frame: int, pixels: Any = None, saving: Saving = NONE) -> None:
        pass

    def release(self, frame: int) -> None:
        pass

    def image(self, pixels: Any) -> Any:
        return ()

    def read_image(self, image: Any) -> Any:
        return None

    def work(self, frame: int, stage: int, piece: int) -> int:
        found = self.shape.stages[stage].pieces[piece]
        return found.bytes_in - (0 if self._merges else found.merged)

    def probe(self, size: int) -> int:
        return size

    def feed(self, frame: int, stage: int, piece: int) -> int:
        _piece(self.shape, stage, piece)
        return self.shape.stages[stage].pieces[piece].merged

    def check(self, stage: int, piece: int, outputs: int) -> tuple[int, Any]:
        _piece(self.shape, stage, piece)
        return outputs, None

    def keep(self, frame: int, stage: int, piece: int, outputs: Any) -> None:
        self._kept(frame, stage, piece)

    def settle(self, frame: int, stage: int, whole: bool) -> None:
        self._settled(frame, stage)

    def run_local(self, frame: int, stage: int) -> None:
        pass

    def macs(self, stage: int) -> int:
        return sum(piece.macs for piece in self.shape.stages[stage].pieces)


class SizePieces:
    """`Pieces` (run/workshop.py) of sizes."""

    def __init__(self, shapes: Callable[[str], PlanShape], on_demand: bool) -> None:
        """`shapes`: of a plan by its name."""
        self._shapes, self._on_demand = cache(shapes), on_demand
        self._ready: set[tuple[str, int, int, bool]] = set()

    def build(self, offered: PlanText) -> bool:
        return self._on_demand

    def drop(self, plan: str) -> None:
        self._ready = {form for form in self._ready if form[0] != plan}

    def macs(self, plan: str, stage: int, piece: int, alone: bool = False) -> int:
        macs = _piece(self._shapes(plan), stage, piece)[0]
        return self._shapes(plan).stages[stage].pieces[piece].alone if alone else macs

    def ready(self, plan: str, stage: int, piece: int, alone: bool = False) -> bool:
        return not (self._on_demand or alone) or self._form(plan, stage, piece, alone) in self._ready

    def prepare(self, plan: str, stage: int, piece: int, alone: bool = False) -> None:
        self._ready.add(self._form(plan, stage, piece, alone))

    def _form(self, plan: str, stage: int, piece: int, alone: bool) -> tuple[str, int, int, bool]:
        return plan, stage, self._shapes(plan).stages[stage].form(piece), alone

    def role(self, plan: str, stage: int, piece: int, inputs: Any) -> Role:
        shape = self._shapes(plan)
        _piece(shape, stage, piece)
        found = shape.stages[stage].pieces[piece]
        lacks = found.merged > 0 and (inputs or 0) <= found.bytes_in - found.merged  # nothing, when asked again
        awaits = frozenset(found.feeds) | ({AGGREGATOR} if lacks else set())
        return Role(awaits, frozenset(found.takers), shape.stages[stage].reports)

    def run(
        self,
        plan: str,
        stage: int,
        piece: int,
        inputs: Any,
        fed: Mapping[Maker, Any] = NOTHING,
        alone: bool = False,
        wire: str = WIRES[0],
    ) -> Made:
        size = _piece(self._shapes(plan), stage, piece)[1]
        return Made(size, size)

    def boxes(self, plan: str, taker: Maker, maker: Maker, outputs: Any, wire: str = WIRES[0]) -> int:
        return self._shapes(plan).stages[taker[0]].pieces[taker[1]].feeds[maker]

    def accept(self, plan: str, taker: Maker, maker: Maker, boxes: int) -> int:
        _piece(self._shapes(plan), *taker)
        found = self._shapes(plan).stages[taker[0]].pieces[taker[1]]
        if (found.merged if maker == AGGREGATOR else found.feeds.get(maker)) != boxes:
            raise WireError(f"feed of {boxes} bytes of {maker} for {taker}")
        return boxes

    @property
    def chained(self) -> bool:
        return False  # workers know each other from the start

    def health(self) -> dict[str, Any]:
        return {}


def _piece(shape: PlanShape, stage: int, piece: int) -> tuple[int, int]:
    """MACs of a piece, and bytes of its outputs."""
    if not (0 <= stage < len(shape.stages) and 0 <= piece < len(shape.stages[stage].pieces)):
        raise WireError(f"there is no piece {piece} of stage {stage}")
    found = shape.stages[stage].pieces[piece]
    return found.macs, found.bytes_out
