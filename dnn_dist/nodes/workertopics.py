# SPDX-License-Identifier: Apache-2.0
"""The topics on which workers say how they are, one of each, `WORKER/state`: received as they come and go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dnn_dist import msg
from dnn_dist.nodes import convert
from dnn_dist.nodes.qos import heartbeats
from dnn_dist.nodes.shell import Shell
from dnn_dist.run.notes import Note
from dnn_dist.run.state import WorkerState
from dnn_dist.run.wire import WireError
from dnn_dist.settings import NAME

ENDING = "/state"
TYPE = "dnn_dist/msg/WorkerState"
LOOK = 0.2
"""Seconds between two looks for topics."""
FORGET = 10.0
"""Seconds without a sender after which a topic is let go. DDS lists a dead process for 20 s more."""


def named_topics(shell: Shell, ending: str, kind: str) -> dict[str, str]:
    """Name -> topic `NAME/ending` of a type, in the node's own namespace; what lies below it is another cluster's."""
    inside = shell.get_namespace().rstrip("/") + "/"
    names = {
        topic.removeprefix(inside).removesuffix(ending): topic
        for topic, types in shell.get_topic_names_and_types()
        if kind in types and topic.endswith(ending) and topic.startswith(inside)
    }
    return {name: topic for name, topic in names.items() if NAME.fullmatch(name)}


@dataclass(frozen=True, slots=True)
class WorkerListener:
    """What one part of a node does about workers."""

    hear: Callable[[WorkerState], None]
    found: Callable[[str], None] = lambda worker: None  # its topic is there; nothing was heard yet
    left: Callable[[str], None] = lambda worker: None  # its topic was let go
    most: Callable[[], int] = lambda: 4096  # workers at once


@dataclass(slots=True)
class _Topic:
    subscription: Any
    seen: float  # when somebody was last seen to send on it, s


class WorkerTopics:
    """All workers' states of the node's own namespace; what lies below it is another cluster's."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._inside = shell.get_namespace().rstrip("/") + "/"
        self._listeners: list[WorkerListener] = []
        self._topics: dict[str, _Topic] = {}  # worker -> its topic
        self._refused: set[str] = set()  # workers that there was no place for at the last look
        shell.soon(self._look)  # after `add`: whoever is known already is met at once
        shell.every(LOOK, self._look)

    def add(self, listener: WorkerListener) -> None:
        """Tell one more of workers, of those that are known at once."""
        self._listeners.append(listener)
        for worker in self._topics:
            listener.found(worker)

    def _look(self) -> None:
        now, senders = self._shell.now(), self._senders()
        for worker, topic in list(self._topics.items()):
            if worker in senders:
                topic.seen = now
            elif now - topic.seen > FORGET:
                self._let_go(worker)
        most = min(listener.most() for listener in self._listeners)
        new = sorted(senders - self._topics.keys())
        place = max(0, most - len(self._topics))
        for worker in new[:place]:
            self._take(worker, now)
        refused = set(new[place:])
        for worker in sorted(refused - self._refused):
            self._shell.note(Note("too many workers", f"worker {worker!r} ignored: {most} are known"))
        self._refused = refused

    def _senders(self) -> set[str]:
        """Names of all who send their state."""
        topics = named_topics(self._shell, ENDING, TYPE)
        return {name for name, topic in topics.items() if self._shell.count_publishers(topic)}

    def _take(self, worker: str, now: float) -> None:
        for listener in self._listeners:
            listener.found(worker)

        def hear(message: msg.WorkerState) -> None:
            state = convert.read_worker(message)
            if state.worker != worker:
                raise WireError(f"state of worker {state.worker!r} came on the topic of {worker!r}")
            for listener in self._listeners:
                listener.hear(state)

        topic = f"{self._inside}{worker}{ENDING}"
        self._topics[worker] = _Topic(self._shell.receive(msg.WorkerState, topic, heartbeats(), hear, worker), now)

    def _let_go(self, worker: str) -> None:
        self._shell.destroy_subscription(self._topics.pop(worker).subscription)
        for listener in self._listeners:
            listener.left(worker)
