# SPDX-License-Identifier: Apache-2.0
"""Topics of one sender each, `SENDER/state`, received as their senders come and go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dnn_dist.run.notes import Note
from dnn_dist.run.wire import NAME

if TYPE_CHECKING:
    from dnn_dist.nodes.shell import Shell

FORGET = 10.0
"""Seconds without a sender after which a topic is let go."""


@dataclass(frozen=True, slots=True)
class Follower:
    """What one part of a node does about senders."""

    hear: Callable[[str, Any], None]  # (sender, message)
    found: Callable[[str], None] = lambda sender: None  # its topic is there; nothing was heard yet
    left: Callable[[str], None] = lambda sender: None  # its topic was let go
    most: Callable[[], int] = lambda: 4096  # senders at once


@dataclass(slots=True)
class _Topic:
    subscription: Any
    seen: float  # when somebody was last seen to send on it, s


class Following:
    """All topics of one type and one ending, in the node's own namespace: what lies below it is another cluster's."""

    def __init__(self, shell: Shell, type_: type, ending: str, qos: Any) -> None:
        self.followers: list[Follower] = []
        self._shell, self._type, self._ending, self._qos = shell, type_, ending, qos
        self._inside = shell.get_namespace().rstrip("/") + "/"
        self._topics: dict[str, _Topic] = {}  # sender -> its topic

    def look(self) -> None:
        """Bring the topics up to date."""
        now = self._shell.now()
        senders = self._senders()
        for sender in sorted(senders - self._topics.keys()):
            self._take(sender, now)
        for sender, topic in list(self._topics.items()):
            if sender in senders:
                topic.seen = now
            elif now - topic.seen > FORGET:
                self._let_go(sender)

    def _senders(self) -> set[str]:
        shell, inside, ending = self._shell, self._inside, self._ending
        wanted = f"{self._type.__module__.split('.')[0]}/msg/{self._type.__name__}"
        return {
            topic.removeprefix(inside).removesuffix(ending)
            for topic, types in shell.get_topic_names_and_types()
            if wanted in types and topic.endswith(ending) and topic.startswith(inside) and shell.count_publishers(topic)
        }

    def _take(self, sender: str, now: float) -> None:
        if not NAME.fullmatch(sender):
            return
        if len(self._topics) >= min(follower.most() for follower in self.followers):
            self._shell.note(Note("too many senders", f"{sender}{self._ending} ignored: {len(self._topics)} are known"))
            return
        for follower in self.followers:
            follower.found(sender)

        def hear(message: Any) -> None:
            for follower in self.followers:
                follower.hear(sender, message)

        topic = f"{self._inside}{sender}{self._ending}"
        subscription = self._shell.receive(self._type, topic, self._qos, hear, sender)
        self._topics[sender] = _Topic(subscription, now)

    def _let_go(self, sender: str) -> None:
        self._shell.destroy_subscription(self._topics.pop(sender).subscription)
        for follower in self.followers:
            follower.left(sender)
