# SPDX-License-Identifier: Apache-2.0
"""What the state machines are told (events) and what they want done (actions). Values; durations in seconds.

Named tuples, since a frozen dataclass takes a node a millisecond of its start. Each machine is
`handle(event, now) -> actions`. `run/partition.py`, `run/aggregator.py` and `run/computer.py` turn
messages into events and perform the actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dnn_dist.cut.feeds import Maker
from dnn_dist.run.report import FrameReport
from dnn_dist.run.shape import PlanShape
from dnn_dist.run.state import Progress, SourceState, WorkerState
from dnn_dist.run.values import Route
from dnn_dist.run.wire import TaskKey

# Events of several machines -------------------------------------------------------------------------------------------


class Tick(NamedTuple):
    """Time has passed."""


class PlanInstalled(NamedTuple):
    """Frames may name this plan from now on. To the dispatcher: it comes into force when workers are ready for it."""

    plan: str
    shape: PlanShape
    rate: float | None = None  # bytes/s of the link to a server from which it is the best; None: it has no such range


class WorkerHeard(NamedTuple):
    """A worker's state arrived."""

    state: WorkerState


class StillHeard(NamedTuple):
    """States arrived that said nothing new: worker -> when the newest came, s."""

    at: Mapping[str, float]


class ProgressHeard(NamedTuple):
    """An aggregator said what it holds."""

    progress: Progress


class StatesHeard(NamedTuple):
    """To a worker: states of sources, progress of aggregators, or both, in the order in which they arrived."""

    states: tuple[SourceState | Progress, ...]
    later: bool = False  # something else follows at once: act on both together


class WorkerReachable(NamedTuple):
    """The topics between this source and a worker have met, or have lost each other."""

    worker: str
    reachable: bool


class SourceReachable(NamedTuple):
    """The topics between a source and this worker have met, or have lost each other."""

    source: str
    reachable: bool


# Dispatcher -----------------------------------------------------------------------------------------------------------


class FrameReady(NamedTuple):
    """Event: a frame begins, and the model's input is at hand. Later stages are ready when Progress says so."""

    frame: int
    plan: str
    deadline: float  # s, on this machine's clock


class FrameRefused(NamedTuple):
    """Event: this frame gets no work: it has no pixels, or the aggregator does not take it."""

    frame: int


class SendWork(NamedTuple):
    """Action: send a task to a worker."""

    worker: str
    worker_session: int
    key: TaskKey
    plan: str
    number: int
    attempt: int
    budget: float  # s left of the frame's deadline
    routes: tuple[Route, ...] = ()
    again: bool = False  # no task: feeds of one that the worker has go there as well
    alone: bool = False  # strips that are not there will not come: compute the full tile


class SendProbe(NamedTuple):
    """Action: send a worker a work without a task, which tells the link's rate."""

    worker: str
    worker_session: int
    number: int
    size: int  # bytes


class SendScatter(NamedTuple):
    """Action: tell an aggregator elsewhere which pieces of a frame need what it merged, and who computes them."""

    frame: int
    plan: str
    routes: tuple[Route, ...]


class PublishSource(NamedTuple):
    """Action: say how this source is."""

    state: SourceState


class PublishPlan(NamedTuple):
    """Action: say what this plan is, in full: it is new, or a worker lacks it."""

    plan: str


class PlanInForce(NamedTuple):
    """Action: new frames take this plan."""

    plan: str
    why: str = ""


class PlanWithdrawn(NamedTuple):
    """Action: an installed plan does not come into force."""

    plan: str
    why: str


class ReleaseFrame(NamedTuple):
    """Action: the dispatcher needs nothing of this frame any more."""

    frame: int


# Gatherer -------------------------------------------------------------------------------------------------------------


class FrameAnnounced(NamedTuple):
    """Event: a frame of this source begins."""

    session: int
    frame: int
    plan: str
    budget: float  # s
    error: str = ""  # why it has no pixels; then it ends at once, without a result
    level: int = 0  # of saving


class ResultArrived(NamedTuple):
    """Event: a worker's answer."""

    key: TaskKey
    plan: str
    worker: str
    stolen: bool  # the worker is on another robot than the source
    attempt: int
    computed: float  # s
    bytes: int
    error: str = ""  # why it has no outputs; the source sends the task elsewhere


class LocalDone(NamedTuple):
    """Event: a local stage has ended, with `error` in one line if it failed; named as in `RunLocal`."""

    session: int
    frame: int
    plan: str
    stage: int
    seconds: float  # of computing
    error: str = ""


class FrameFailed(NamedTuple):
    """Event: something that nobody expected happened with this frame; it ends without a result."""

    frame: int
    why: str


class FrameBegun(NamedTuple):
    """Action: the frame announced is taken; before any other action for it."""

    frame: int


class Keep(NamedTuple):
    """Action: keep the outputs of this result until the stage is settled."""

    key: TaskKey


class Fill(NamedTuple):
    """Action: these pieces did not come and are filled in, as the plan says, when the stage is settled."""

    frame: int
    stage: int
    pieces: tuple[int, ...]


class Settled(NamedTuple):
    """Action: a stage has all that it needs: make its tensors. `whole`: nothing was filled in."""

    frame: int
    stage: int
    whole: bool
    pieces: tuple[int, ...] = ()  # held; where a coded stage lacks data pieces, they are decoded from the others


class RunLocal(NamedTuple):
    """Action: run a local stage; its end is the event `LocalDone`."""

    session: int  # of the source: a restarted one counts its frames from 0 again
    frame: int
    plan: str
    stage: int
    last: bool  # the detection head follows


class Publish(NamedTuple):
    """Action: publish the frame's report and detections; then its tensors may go."""

    report: FrameReport


class PublishProgress(NamedTuple):
    """Action: tell the source's dispatcher and the workers what is done."""

    progress: Progress


# Worker ---------------------------------------------------------------------------------------------------------------


class PlanOffered(NamedTuple):
    """Event: a source wants this plan computed."""

    plan: str
    robots: tuple[str, ...] = ()  # whose workers take part; none named: all


class PlanBuilt(NamedTuple):
    """Event: a plan's pieces can be computed; `refused` says in one line why they cannot, and will not be."""

    plan: str
    refused: str = ""
    on_demand: bool = False  # each piece is made ready when it is first given


class Role(NamedTuple):
    """What a piece is in its chain."""

    awaits: frozenset[Maker] = frozenset()  # pieces that it gets something of, and perhaps the aggregator
    feeds: frozenset[Maker] = frozenset()  # pieces that get something of it
    reports: bool = True  # the aggregator does


class WorkArrived(NamedTuple):
    """Event: a task, as its message names it; `again` and `alone` as in `SendWork`."""

    key: TaskKey
    plan: str
    worker_session: int
    number: int
    budget: float = float("inf")  # s left of the frame's deadline
    ready: bool = True  # its piece need not be made ready first
    role: Role = Role()
    again: bool = False
    alone: bool = False  # then the role awaits no strips


class FeedArrived(NamedTuple):
    """Event: what `maker` gives to a task is here."""

    key: TaskKey
    maker: Maker
    plan: str


class PeersReachable(NamedTuple):
    """Event, of workers and aggregators: feeds can be sent to these workers, and to no others."""

    workers: frozenset[str]


class Prepared(NamedTuple):
    """Event: the piece of this task is ready, or cannot be had; computing it will tell."""

    key: TaskKey


class Unready(NamedTuple):
    """Event: the task to be computed lacks its weights: they were dropped since it came."""

    key: TaskKey


class Computed(NamedTuple):
    """Event: the task at the head of the list was computed, or failed with `error` in one line."""

    key: TaskKey
    plan: str
    seconds: float
    macs: int
    error: str = ""
    bytes: int = 0  # of its outputs


class BuildPlan(NamedTuple):
    """Action: make a plan's pieces ready, beside computing."""

    plan: str


class DropPlan(NamedTuple):
    """Action: free the pieces of this plan."""

    plan: str


class Prepare(NamedTuple):
    """Action: make the piece of this task ready, beside computing; its end is the event `Prepared`."""

    key: TaskKey


class Compute(NamedTuple):
    """Action: compute this task; its end is the event `Computed`."""

    key: TaskKey


class SendFeeds(NamedTuple):
    """Action: send what was computed to the pieces of the chain that get something of it."""

    key: TaskKey


class Reroute(NamedTuple):
    """Action: the feeds of this task go where the work that arrived says, those that it does not name as before."""

    key: TaskKey


class SendResult(NamedTuple):
    """Action: send what was computed, or its error."""

    key: TaskKey


class PublishWorker(NamedTuple):
    """Action: say how this worker is."""

    state: WorkerState
