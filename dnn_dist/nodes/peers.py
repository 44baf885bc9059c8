# SPDX-License-Identifier: Apache-2.0
"""The ends of those who send feeds, on the topics on which workers hear what their pieces need, `WORKER/feed`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from dnn_dist import msg
from dnn_dist.nodes import convert
from dnn_dist.nodes.qos import tensors
from dnn_dist.nodes.shell import Shell
from dnn_dist.nodes.workertopics import FORGET, LOOK, named_topics
from dnn_dist.run.events import PeersReachable
from dnn_dist.run.notes import Note
from dnn_dist.run.values import Feed

FEED = "/feed"
TYPE = "dnn_dist/msg/Feed"
MOST = 256
"""Workers that feeds are sent to."""


class Feeding(Protocol):
    """A worker, or an aggregator."""

    post: Callable[[Any], None]

    @property
    def wants_peers(self) -> bool:
        """Whether feeds may have to go to workers."""


class Peers:
    """All other workers of the node's own namespace, once a plan has somebody feed them."""

    def __init__(self, shell: Shell, name: str, lifespan: float, part: Feeding) -> None:
        """`name`: this worker's own; empty: it is none. `lifespan` (s): a feed that has not arrived after it is given
        up.
        """
        self._shell, self._name, self._lifespan, self._part = shell, name, lifespan, part
        self._publishers: dict[str, Any] = {}  # worker -> publisher
        self._seen: dict[str, float] = {}  # worker -> when it was last seen to listen, s
        self._reachable: set[str] = set()
        shell.every(LOOK, self._look)

    def send(self, feed: Feed, worker: str) -> None:
        """Send to a worker that was met. To others nothing is sent: the task's source sees that the feed is overdue."""
        if worker in self._publishers:
            self._shell.send(self._publishers[worker], convert.feed_message(feed))
        else:
            self._shell.note(Note("unknown peer", f"feed {feed.key}: worker {worker!r} was not met", about=worker))

    def _look(self) -> None:
        if not self._part.wants_peers:
            return
        now, shell = self._shell.now(), self._shell
        topics = named_topics(shell, FEED, TYPE)
        for worker in sorted(topics.keys() - self._publishers.keys() - {self._name}):
            if len(self._publishers) < MOST:
                self._publishers[worker] = shell.offer(msg.Feed, topics[worker], tensors(self._lifespan), owed=False)
                self._seen[worker] = now
        for worker, publisher in list(self._publishers.items()):
            reachable = publisher.get_subscription_count() > 0
            if reachable:
                self._seen[worker] = now
            elif now - self._seen[worker] > FORGET:
                shell.destroy_publisher(self._publishers.pop(worker))
            if reachable is not (worker in self._reachable):
                (self._reachable.add if reachable else self._reachable.discard)(worker)
                self._part.post(PeersReachable(frozenset(self._reachable)))
