# SPDX-License-Identifier: Apache-2.0
"""What processes say to each other, beside the states of run/state.py. The world carries them: as messages, or in
virtual time. Tensors in them are the store's affair: arrays, or just a size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dnn_dist.plan.plan import WIRES
from dnn_dist.run.report import FrameReport
from dnn_dist.run.wire import TaskKey


class PlanText(NamedTuple):
    """A plan of a source, in full."""

    source: str
    session: int
    plan: str  # hash of the text
    text: str
    pieces: str  # digest of the pieces that the source derives from it; who derives others must not take part
    robots: tuple[str, ...] = ()  # whose workers take part; none named: all


class Installed(NamedTuple):
    """A partition's store of a plan, for the aggregator in its process, which shares it."""

    store: Any


class Frame(NamedTuple):
    """A frame as it is announced to its aggregator, before any work is sent."""

    source: str
    session: int
    frame: int
    plan: str
    budget: float  # s
    about: Any  # what the outputs need: header, sizes, picture
    dropped: int = 0  # images, in this session so far
    error: str = ""  # why it has no pixels
    image: Any = ()  # the model's input, where a local stage takes it and the aggregator is elsewhere
    saving: str = ""  # what travels smaller than usual
    level: int = 0  # how much that is, of what was asked for; see run/saving.py


class Route(NamedTuple):
    """Where a piece's feed goes: the piece of its chain that it is for, and who computes that."""

    stage: int
    piece: int
    worker: str
    session: int  # the worker's


class Work(NamedTuple):
    """A task. Without a plan it is none, but a probe of the link: that the worker has seen it is all.
    `again`: no task, but feeds of one that this worker has, computed or not, go where `routes` say.
    `alone`: strips of it that are not there will not come; a tile is then computed in full.
    """

    key: TaskKey
    plan: str
    worker_session: int  # of the worker that it is meant for
    number: int  # counts the pair's work
    attempt: int
    budget: float  # s
    inputs: Any
    routes: tuple[Route, ...] = ()
    again: bool = False
    alone: bool = False
    wire: str = WIRES[0]  # of float32 tensors that it gives, unless the plan's is narrower


class Scatter(NamedTuple):
    """To an aggregator elsewhere: these pieces need what was made before their chain."""

    source: str
    session: int
    frame: int
    plan: str
    routes: tuple[Route, ...]


class Feed(NamedTuple):
    """What one piece of a chain gives another, from worker to worker; or an aggregator, of what it merged."""

    key: TaskKey  # of the piece that it is for
    stage: int  # of the piece that made it; see AGGREGATOR in cut/feeds.py
    piece: int
    plan: str
    worker: str  # that sends it, or the source
    worker_session: int  # or the aggregator's
    receiver_session: int  # of the worker that it is meant for
    boxes: Any


class Result(NamedTuple):
    """A worker's answer."""

    key: TaskKey
    plan: str
    worker: str
    worker_session: int
    attempt: int
    waited: float  # s from arrival to computing
    computed: float  # s
    error: str  # empty, or why there are no outputs
    outputs: Any


class Outcome(NamedTuple):
    """How a frame ended, for those who asked."""

    report: FrameReport
    frame: Frame
    outputs: Any  # of the model's last stage, as the aggregator's `finish` made them; None without a result
    tiles: dict[tuple[int, int], tuple[str, str]]  # stage, piece -> (fresh, recomputed or filled; worker)
    store: Any  # of the frame's plan
