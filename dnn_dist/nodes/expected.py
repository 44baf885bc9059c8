# SPDX-License-Identifier: Apache-2.0
"""A subscription to a pair's tensors that asks for a QoS deadline, which changes with its source's rate.

rclpy cannot change the QoS of a subscription. So a second one is made, and the first let go when the second has met
its publisher: nothing is lost, and what both bring is taken once. Publishers offer one short deadline for good
(run/due.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from dnn_dist.nodes.qos import tensors
from dnn_dist.nodes.shell import Shell
from dnn_dist.run.due import OFFERED
from dnn_dist.run.notes import Note

REMEMBERED = 256
"""Messages that are known again while there are two subscriptions: as many as DDS keeps."""


SURELY = 3.0
"""Deadlines without a message after which DDS should have said so."""


class Expected:
    """See the module."""

    def __init__(
        self,
        shell: Shell,
        type_: type,
        topic: str,
        handle: Callable[[Any], None],
        identity: Callable[[Any], Hashable],
        missed: Callable[[float], None],
    ) -> None:
        """`identity` tells messages from each other; `missed(deadline)`: nothing came for so long (s)."""
        self._shell, self._type, self._topic = shell, type_, topic
        self._handle, self._identity, self._missed = handle, identity, missed
        self._asked = 0.0  # s; the deadline that the newest subscription asks for, 0: none
        self._former: Any = None  # a subscription that goes when the newest has met somebody
        self._seen: deque[Hashable] = deque(maxlen=REMEMBERED)  # while there are two
        self._heard: float | None = None  # s; the newest message, since the deadline was asked for
        self._told = True  # of the gap after it
        self._newest = self._subscribe(0.0)

    @property
    def met(self) -> bool:
        """Whether somebody sends on the topic."""
        return any(one.get_publisher_count() > 0 for one in (self._newest, self._former) if one is not None)

    def follow(self, deadline: float) -> None:
        """Ask for this deadline, s; 0: the source rests, and what was asked for stays. To be called now and then."""
        silent = self._shell.now() - self._heard if self._heard is not None else 0.0
        if self._asked and silent > SURELY * self._asked and not self._told:
            self._told = True
            text = f"{self._topic}: this middleware tells of no missed deadlines"
            self._shell.note(Note("no QoS events", text, warn=False))
        if self._former is not None:
            if self._newest.get_publisher_count() > 0:
                self._shell.destroy_subscription(self._former)
                self._former = None
        elif deadline and (wanted := max(deadline, OFFERED)) != self._asked:
            self._seen.clear()
            self._former, self._asked, self._heard = self._newest, wanted, None
            self._newest = self._subscribe(wanted)

    def destroy(self) -> None:
        """Let go of the topic."""
        for one in (self._newest, self._former):
            if one is not None:
                self._shell.destroy_subscription(one)

    def _subscribe(self, deadline: float) -> Any:
        def missed() -> None:
            self._told = True
            if deadline == self._asked:
                self._missed(deadline)

        qos = tensors(deadline=deadline)
        return self._shell.receive(self._type, self._topic, qos, self._take, missed=missed)

    def _take(self, message: Any) -> None:
        self._heard, self._told = self._shell.now(), False
        if self._former is not None:
            identity = self._identity(message)
            if identity in self._seen:
                return
            self._seen.append(identity)
        self._handle(message)
