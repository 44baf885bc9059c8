# SPDX-License-Identifier: Apache-2.0
"""The text of a cut, and the stages it gives.

    cut     = stage *((";" | ">" | ">>") stage)      ";" gathered: tensors meet at the aggregator, and go out anew;
                                                     ">" direct: straight from the workers that made them, feeds.py;
                                                     ">>" direct, to other robots: a pipeline of groups
    stage   = "tiles:" group *("+" group)            Fused Tile Partitioning, each group a stage
            | "tiles:auto"                           tiled ranges between ops that cannot be tiled
            | "bands:" robots ["g"] [range]          MoDNN's row bands, a stage for each layer
            | "slices:" robots ["+" PARITIES] [range]   output channels of each layer that has weights, a stage
                                                     for each; with parities any `robots` pieces are enough
            | "layers:" robots ["g"] [range]         a pipeline of contiguous runs of layers
            | "front" [ops] | "rest" [ops]           on the source's own robot, and on a server: layers, in any
                                                     closed sets, see sides.py
            | "local" [range]                        at the robot that gathers
    group   = ROWS "x" COLUMNS ["b"] ["r"] [range | "@auto"]   b: balanced, border tiles larger; r: neighbours reuse
                                                     what both would compute, see reuse.py
    robots  = COUNT | SPEED *("," SPEED)             equal robots, or what each can do in relation to the others
    range   = "@" FIRST [".." [LAST]]                ops, both included; "@FIRST" is one op
    ops     = "@" FIRST [".." LAST] *("+" FIRST [".." LAST])

Between the stages of one `bands` boundaries are direct (">"), between those of one `layers` to other robots (">>"), or
gathered with "g". Slices and local stages have gathered boundaries on both sides; fronts and rests are joined
directly to each other alone.

Without a range a stage starts where the one before it ended. Tiles and bands then go as deep as they can, layers as
far as shapes are known, slices and local to the end. What no stage names becomes local stages, so that stages always
cover the whole network.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from dnn_dist.cut.auto import auto_stages
from dnn_dist.cut.bands import cut_bands
from dnn_dist.cut.feeds import FEEDING
from dnn_dist.cut.layers import cut_layers
from dnn_dist.cut.local import cut_local
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.shares import Speeds
from dnn_dist.cut.sides import SIDES, Ranges, cut_sides
from dnn_dist.cut.slices import cut_slices
from dnn_dist.cut.tiles import cut_tiles, is_closed
from dnn_dist.errors import CutError
from dnn_dist.graph.flatbuffer import BrokenBuffer
from dnn_dist.graph.network import Network

_CURES = {
    "tiles": "write tiles:ROWSxCOLUMNS, tiles:3x3@FIRST..LAST, tiles:5x5b (balanced), tiles:5x5r (reuse) or tiles:auto",
    "bands": "write bands:COUNT or bands:SPEED,SPEED,..., for example bands:4 or bands:2,1,1@0..15",
    "slices": "write slices:COUNT, slices:COUNT+PARITIES or slices:SPEED,SPEED,..., for example slices:4+1@16..20",
    "layers": "write layers:COUNT or layers:SPEED,SPEED,..., for example layers:3",
    "front": "write front@FIRST..LAST+FIRST..LAST, for example front@0..5+9..12>rest",
    "rest": "write rest, or rest@FIRST..LAST+FIRST..LAST, for example front@0..5+9..12>rest",
    "local": "write local or local@FIRST..LAST",
}
_CURE = "write stages of tiles:3x3, bands:4, slices:4+1, layers:3, front, rest or local, separated by ';', '>' or '>>'"
# re.ASCII: \d would be digits of any script
_RANGE = r"(?:@(?P<first>\d{1,6})(?P<more>\.\.(?P<last>\d{1,6})?)?)?"
_OPS = r"(?:@(?P<ops>\d{1,6}(?:\.\.\d{1,6})?(?:\+\d{1,6}(?:\.\.\d{1,6})?)*))?"
_ROBOTS = r"(?P<robots>\d{1,6}(?:\.\d{1,3})?(?:,\d{1,6}(?:\.\d{1,3})?){0,255})"
_GRID = r"(?P<rows>\d{1,4})x(?P<columns>\d{1,4})(?P<balanced>b)?(?P<reuse>r)?"
_GROUP = re.compile(rf"{_GRID}(?:(?P<auto>@auto)|{_RANGE})", re.ASCII)
_STAGES = {
    "bands": re.compile(rf":{_ROBOTS}(?P<gathered>g)?{_RANGE}", re.ASCII),
    "slices": re.compile(rf":{_ROBOTS}(?:\+(?P<parity>\d{{1,3}}))?{_RANGE}", re.ASCII),
    "layers": re.compile(rf":{_ROBOTS}(?P<gathered>g)?{_RANGE}", re.ASCII),
    "front": re.compile(_OPS, re.ASCII),
    "rest": re.compile(_OPS, re.ASCII),
    "local": re.compile(_RANGE, re.ASCII),
}
_MARK = re.compile(">>|[;>]")
_MOST_ROBOTS = 256


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One stage, or several of one kind, as the user wrote it."""

    kind: str
    grid: tuple[int, int] = (2, 2)
    """Of tiles: rows, columns."""
    balanced: bool = False
    reuse: bool = False
    """Whether neighbours give each other strips."""
    auto: bool = False
    """Tiles between ops that cannot be tiled."""
    speeds: Speeds = ()
    """Of the robots that bands, slices or layers are for."""
    parity: int = 0
    robots: str = ""
    """Speeds (and parities) as written."""
    direct: bool = False
    """Whether '>' or '>>' stands before it."""
    group: bool = False
    """Whether '>>' does."""
    gathered: bool = False
    """Whether bands or layers have gathered boundaries between them."""
    ops: Ranges = ()
    """Of a front or rest; none: all that is left."""
    first: int | None = None
    """None: where the stage before ended."""
    last: int | None = None
    """None: as far as it goes."""


def parse_cut(text: str) -> tuple[StageSpec, ...]:
    """The stages that the text names; raises CutError with the cure when it is not understood."""
    marks = [";", *re.findall(_MARK, text)]
    parts = re.split(_MARK, " ".join(text.split()))
    found: list[StageSpec] = []
    for before, part in zip(marks, parts, strict=True):
        first, *more = _parse_stage(part.strip())
        found += [replace(first, direct=before != ";", group=before == ">>"), *more]
    return tuple(found)


def _parse_stage(text: str) -> Iterator[StageSpec]:
    kind = (re.match(r"[a-z]*", text) or [""])[0]
    rest = text[len(kind) :]
    if kind == "tiles" and rest == ":auto":
        yield StageSpec("tiles", auto=True)
        return
    if kind == "tiles":
        for group in rest.removeprefix(":").split("+"):
            yield _parse_group(text, group if rest.startswith(":") else "")
        return
    match = _STAGES[kind].fullmatch(rest) if kind in _STAGES else None
    if match is None:
        raise CutError(f"the cut '{text[:80]}' is not understood; {_CURES.get(kind, _CURE)}")
    found = match.groupdict()
    parity, robots = int(found.get("parity") or 0), found.get("robots") or ""
    speeds = _speeds(text, robots) if robots else ()
    written = f"{robots}+{parity}" if parity else robots
    if kind in SIDES:
        yield StageSpec(kind, ops=_ops(found["ops"] or ""))
        return
    first, last = _range(match)
    gathered = bool(found.get("gathered"))
    yield StageSpec(kind, speeds=speeds, parity=parity, robots=written, gathered=gathered, first=first, last=last)


def _parse_group(text: str, group: str) -> StageSpec:
    match = _GROUP.fullmatch(group.strip())
    if match is None:
        raise CutError(f"the cut '{text[:80]}' is not understood; {_CURES['tiles']}")
    grid = int(match["rows"]), int(match["columns"])
    if min(grid) < 1:
        raise CutError(f"the cut '{text[:80]}' has no tiles: rows and columns start at 1")
    first, last = _range(match)
    balanced, reuse, auto = (bool(match[name]) for name in ("balanced", "reuse", "auto"))
    return StageSpec("tiles", grid, balanced, reuse, auto, first=first, last=last)


def _range(match: re.Match[str]) -> tuple[int | None, int | None]:
    first, last = (int(match[name]) if match[name] else None for name in ("first", "last"))
    return first, last if match["more"] else first


def _ops(text: str) -> Ranges:
    ends = (part.split("..") for part in text.split("+") if part)
    return tuple((int(first), int(last[0]) if last else int(first)) for first, *last in ends)


def _speeds(text: str, robots: str) -> Speeds:
    """Equal speeds for a count, else those that are listed; integers wherever they can be."""
    speeds = [float(word) for word in robots.split(",")]
    if len(speeds) == 1:
        count = int(speeds[0])
        if count != speeds[0] or not 1 <= count <= _MOST_ROBOTS:
            raise CutError(f"the cut '{text[:80]}': {robots} is no number of robots from 1 to {_MOST_ROBOTS}")
        return (1.0,) * count
    if min(speeds) <= 0:
        raise CutError(f"the cut '{text[:80]}': a robot of speed 0 can do nothing; leave it out")
    return tuple(speeds)


def cut_network(network: Network, text: str) -> tuple[Stage, ...]:
    """Stages that together run every op of the network once and in order, cut as the text says."""
    text = " ".join(text.split())
    stages: list[Stage] = []
    done = 0  # ops cut so far, or left to a local stage
    count = len(network.ops)
    for specs in _together(parse_cut(text)):
        spec = specs[0]
        if spec.kind in SIDES:
            found = cut_sides(network, [(one.kind, one.ops) for one in specs], done)
            stages += [replace(stage, direct=one.direct) for stage, one in zip(found, specs, strict=True)]
            done = 1 + max(stage.last for stage in stages)
            continue
        first = done if spec.first is None else spec.first
        if first >= count or (spec.last is not None and not first <= spec.last < count):
            named = first if spec.last in (None, first) else f"{first}..{spec.last}"
            raise CutError(f"the cut '{text[:80]}' names ops @{named}; the model has ops 0..{count - 1}")
        if first < done:
            raise CutError(f"the cut '{text[:80]}' names op {first} twice: a stage starts after the one before it")
        try:
            stages += _joined(spec, _cut(network, spec, first))
        except BrokenBuffer as error:  # in what reading did not look at
            raise network.file.broken(error) from None
        done = (stages[-1].last if spec.last is None else spec.last) + 1
    whole = filled(network, stages, 0, count - 1)
    for before, stage in zip((None, *whole), whole, strict=False):
        if stage.direct:
            _check_direct(text, before, stage)
        if stage.kind not in SIDES and not is_closed(network, stage.first, stage.last):
            raise CutError(
                f"the cut '{text[:80]}' ends within ops that are cut as one, at op {stage.last}; end elsewhere"
            )
    return whole


def _together(specs: Sequence[StageSpec]) -> Iterator[list[StageSpec]]:
    """Fronts and rests that are joined, as one; everything else by itself."""
    found: list[StageSpec] = []
    for spec in specs:
        if found and not (spec.direct and spec.kind in SIDES and found[-1].kind in SIDES):
            yield found
            found = []
        found.append(spec)
    yield found


def cut_text(stages: Sequence[Stage]) -> str:
    """The text of a cut that gives these stages again, each with its range."""
    marks = ["", *(mark(stage) for stage in stages[1:])]
    return "".join(before + stage.spec for before, stage in zip(marks, stages, strict=False))


def mark(stage: Stage) -> str:
    """What stands in a cut's text before a stage that is not the first."""
    return (">>" if stage.group else ">") if stage.direct else ";"


def _cut(network: Network, spec: StageSpec, first: int) -> tuple[Stage, ...]:
    if spec.kind == "tiles" and spec.auto:
        return auto_stages(network, spec.grid, first, balanced=spec.balanced, reuse=spec.reuse)
    if spec.kind == "tiles":
        return (cut_tiles(network, spec.grid, first, spec.last, spec.balanced, spec.reuse),)
    if spec.kind == "bands":
        return cut_bands(network, spec.speeds, spec.robots, first, spec.last)
    if spec.kind == "slices":
        return cut_slices(network, spec.speeds, spec.parity, spec.robots, first, spec.last)
    if spec.kind == "layers":
        return cut_layers(network, spec.speeds, spec.robots, first, spec.last)
    return (cut_local(network, first, spec.last),)


def _joined(spec: StageSpec, stages: tuple[Stage, ...]) -> Iterator[Stage]:
    """The stages of one spec with the boundaries that it asks for."""
    inner = spec.kind in ("bands", "layers") and not spec.gathered
    for number, stage in enumerate(stages):
        group = inner and spec.kind == "layers" if number else spec.group
        yield replace(stage, direct=inner if number else spec.direct, group=group)


def _check_direct(text: str, before: Stage | None, stage: Stage) -> None:
    for side in (before, stage):
        if side is None or side.kind not in FEEDING or (side.kind in SIDES) is not (stage.kind in SIDES):
            name = "nothing" if side is None else side.spec[:60]
            raise CutError(
                f"the cut '{text[:80]}': '>' joins stages of {', '.join(FEEDING)} that follow one another, fronts and "
                f"rests to each other alone; got {name} "
                f"at the '>' before {stage.spec[:60]}; write ';' there"
            )


def filled(network: Network, stages: Sequence[Stage], first: int, last: int) -> tuple[Stage, ...]:
    """The stages of ops first..last, with local ones between and behind them, where any other op has to run there."""
    named = {op for stage in stages for op in stage.ops}
    whole: list[Stage] = []
    done = first
    for stage in stages:
        whole += _local(network, range(done, stage.first), named)
        whole.append(stage)
        done = max(done, stage.last + 1)
    return (*whole, *_local(network, range(done, last + 1), named))


def _local(network: Network, ops: range, named: Collection[int]) -> Iterator[Stage]:
    left = [op for op in ops if op not in named]
    if any(not network.ops[op].folded for op in left):
        yield cut_local(network, left[0], left[-1])
