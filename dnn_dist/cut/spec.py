# SPDX-License-Identifier: Apache-2.0
"""The text of a cut, and the stages it gives.

    cut    = stage *(";" stage)
    stage  = "tiles:" ROWS "x" COLUMNS ["@" FIRST ".." [LAST]]  |  "local" ["@" FIRST ".." [LAST]]

Without a range a stage starts where the one before it ended; tiles then go as deep as they can, local to the
end. What no stage names at the end of the network becomes a local stage, so that stages always cover the
whole network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dnn_dist.cut.local import cut_local
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.tiles import cut_tiles
from dnn_dist.errors import CutError
from dnn_dist.graph.network import Network

_CURE = "write tiles:ROWSxCOLUMNS or tiles:ROWSxCOLUMNS@FIRST..LAST, for example tiles:3x3 or tiles:3x3@0..15"
_STAGE = re.compile(
    r"(?:(?P<tiles>tiles):(?P<rows>\d{1,4})x(?P<columns>\d{1,4})|(?P<local>local))"
    r"(?:@(?P<first>\d{1,6})\.\.(?P<last>\d{1,6})?)?"
)


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One stage as the user wrote it."""

    kind: str
    grid: tuple[int, int] = (1, 1)
    first: int | None = None
    """None: where the stage before ended."""
    last: int | None = None
    """None: as far as it goes."""


def parse_cut(text: str) -> tuple[StageSpec, ...]:
    """The stages that the text names; raises CutError with the cure when it is not understood."""
    return tuple(_parse_stage(part.strip()) for part in text.split(";"))


def _parse_stage(text: str) -> StageSpec:
    match = _STAGE.fullmatch(text)
    if match is None:
        raise CutError(f"the cut '{text}' is not understood; {_CURE}")
    first, last = (int(match[name]) if match[name] else None for name in ("first", "last"))
    if match["local"]:
        return StageSpec("local", (1, 1), first, last)
    grid = int(match["rows"]), int(match["columns"])
    if min(grid) < 1:
        raise CutError(f"the cut '{text}' has no tiles: rows and columns start at 1")
    return StageSpec("tiles", grid, first, last)


def cut_network(network: Network, text: str) -> tuple[Stage, ...]:
    """Stages that together run every op of the network once and in order, cut as the text says."""
    stages: list[Stage] = []
    done = 0  # ops cut so far
    for spec in parse_cut(text):
        first = done if spec.first is None else spec.first
        if first >= len(network.ops):
            raise CutError(f"the cut '{text}' names ops from {first} on, the model has {len(network.ops)}")
        if first < done:
            raise CutError(f"the cut '{text}' names op {first} twice: a stage starts after the one before it")
        if first > done:
            stages.append(cut_local(network, done, first - 1))
        if spec.kind == "tiles":
            stages.append(cut_tiles(network, spec.grid, first, spec.last))
        else:
            stages.append(cut_local(network, first, spec.last))
        done = stages[-1].last + 1
    if done < len(network.ops):
        stages.append(cut_local(network, done))
    return tuple(stages)
