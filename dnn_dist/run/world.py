# SPDX-License-Identifier: Apache-2.0
"""The port between what a process does and what it runs in: ROS (nodes/world.py) or virtual time (sim/process.py).

Everything that happens enters by `Loop.post`: events are taken one after the other, and the actions of one are
performed before the next is taken. Nothing that is posted meanwhile, by an action or from within it, is taken in
between. Time is read for each event. Draining is bounded, so that timers and topics are not starved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol

from dnn_dist.errors import DnnDistError
from dnn_dist.run.events import Tick
from dnn_dist.run.notes import Note
from dnn_dist.run.trust import Speakers, refusal
from dnn_dist.run.wire import TaskKey

MOST = 1000
"""Events taken in one go."""


class Job(NamedTuple):
    """What takes time, and runs beside the loop: jobs of one lane in order, lanes beside each other."""

    lane: str  # compute | prepare | local
    call: Callable[[], Any]
    key: TaskKey | None = None  # what it is for; None: for a plan
    plan: str = ""
    macs: int = 0


Done = Callable[[Any, str, float], None]
"""What is called when a job has ended: its result, why it has none (one line), seconds from its start."""


class World(Protocol):
    """See the module."""

    def now(self) -> float:
        """Steady time, in seconds."""

    def wake(self, when: float, call: Callable[[], None]) -> None:
        """Have `call` called at steady time `when`, and not when an earlier `wake` of it said."""

    def send(self, value: Any, to: str = "") -> None:
        """Send a value of run/values.py or run/state.py to whom it concerns; `to` names the worker or the source."""

    def run(self, job: Job, done: Done) -> None:
        """Run a job; `done` is called between two events."""

    def note(self, note: Note) -> None:
        """Count a note, and say it where people look."""

    def caught(self, error: Exception, where: str) -> None:
        """An exception that nobody expected: count and name it. It is at hand (`sys.exc_info`)."""


class Loop:
    """The queue of a process. See the module."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._queue: deque[tuple[Part, Any]] = deque()
        self._draining = False

    def post(self, part: Part, event: Any) -> None:
        """Have `part` take an event, after those that were posted before."""
        self._queue.append((part, event))
        if not self._draining:
            self._drain()

    def _drain(self) -> None:
        self._draining = True
        try:
            for _ in range(MOST):
                if not self._queue:
                    return
                part, event = self._queue.popleft()
                part.take(event)
        finally:
            self._draining = False
        self._world.wake(self._world.now(), self._drain)


class Machine(Protocol):
    """A state machine of this package."""

    def handle(self, event: Any, now: float) -> list[Any]: ...

    def next_wake(self) -> float: ...


class Part:
    """One machine in a process: turns what is heard into events, and performs actions."""

    machine: Machine
    takes: ClassVar[Mapping[type, Callable[[Any, Any], None]]]  # type of what is posted -> method; others: the machine
    performs: ClassVar[Mapping[type, Callable[[Any, Any], None]]]  # type of an action -> method
    speakers: ClassVar[Speakers] = {}  # who is to be trusted for what is heard
    trusted: frozenset[str] = frozenset()  # their names; none: all

    def __init__(self, world: World, loop: Loop) -> None:
        self.world = world
        self.post: Callable[[Any], None] = partial(loop.post, self)
        """Takes a value that was heard, or an event."""
        self._tick = partial(loop.post, self, Tick())

    def take(self, what: Any) -> None:
        """For the loop."""
        try:
            refused = refusal(what, self.speakers, self.trusted) if self.trusted else None
            if refused is not None:
                self.world.note(refused)
                return
            take = self.takes.get(type(what))
            if take is None:
                self.handle(what)
            else:
                take(self, what)
        except DnnDistError as error:
            self.world.note(Note("bad message", str(error), about=type(what).__name__))
        except Exception as error:  # noqa: BLE001  the net; what it was about ends, the process goes on
            self.world.caught(error, f"taking {type(what).__name__}")
            self.failed(what, "an internal error; see the log")

    def handle(self, event: Any) -> None:
        """Have the machine take an event, and perform what follows. When one action fails the others still run."""
        for action in self.machine.handle(event, self.world.now()):
            if type(action) is Note:
                self.world.note(action)
                continue
            try:
                self.performs[type(action)](self, action)
            except DnnDistError as error:
                self.world.note(Note("bad message", str(error), about=type(action).__name__))
                self.failed(action, str(error))
            except Exception as error:  # noqa: BLE001  the net
                self.world.caught(error, f"performing {type(action).__name__}")
                self.failed(action, "an internal error; see the log")
        self.after()
        self.wake()

    def wake(self) -> None:
        """Have the machine look at its clock when it wants to."""
        self.world.wake(self.machine.next_wake(), self._tick)

    def after(self) -> None:
        """An event was taken, and all that followed was done."""

    def failed(self, what: Any, why: str) -> None:
        """End the frame or the task that `what` is about."""
