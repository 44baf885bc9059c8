# SPDX-License-Identifier: Apache-2.0
"""Messages between robots in virtual time.

Two kinds travel, as on the robots. *Tensors* (work, results, images) take their bytes' time on a wire or a shared
medium, one after the other, first come first served. *Control messages* are a few hundred bytes: they take a link's
latency and delay, and no time on the medium. Both are reliable, as DDS topics of that kind are: what a link loses is
sent again, which costs a tensor its time on the medium once more and every message `RESEND` seconds.
Messages of one topic (sender, receiver, kind) keep their order.
A link may carry less for a while, or be cut: what is on its way goes on when there is a link again, and states, which
are best effort, are lost.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dnn_dist.plan.fleet import Fleet, Link
from dnn_dist.sim.agenda import Agenda
from dnn_dist.sim.changes import Changes

STATES = ("state", "progress")
"""How the kinds of control messages end that are said again anyway."""
RESEND = 0.02
"""Seconds after which a lost message is noticed; as the DDS profiles have it."""
MOST_SENDS = 20
"""Times that a message is sent on the worst of links."""


@dataclass(slots=True)
class Carried:
    """What went over one link, in one direction."""

    messages: int = 0  # tensor messages
    bytes: int = 0  # of tensors, each counted once
    sent: int = 0  # bytes with what was sent again
    busy: float = 0.0  # s on the wire or medium


class Air:
    """The links of a fleet. See the module's rules."""

    def __init__(self, fleet: Fleet, agenda: Agenda, seed: object, changes: Changes | None = None) -> None:
        self._fleet, self._agenda = fleet, agenda
        self._changes = changes or Changes()
        self._random = random.Random(f"{seed}/air")
        self._links: dict[tuple[str, str], Link | None] = {}
        self._varies: dict[tuple[str, str], bool] = {}  # whether what a control message takes does
        self._means: dict[tuple[str, str], float] = {}  # s that a control message takes on average
        self._free_at: dict[object, float] = {}  # medium, or (from, to) -> s
        self._arrived: dict[tuple[str, str, str], float] = {}  # topic -> when its newest message arrives, s
        self.carried: dict[tuple[str, str], Carried] = {}

    def link(self, a: str, b: str) -> Link | None:
        """The link from `a` to `b`; None on one robot."""
        try:
            return self._links[a, b]
        except KeyError:
            return self._links.setdefault((a, b), None if a == b else self._fleet.link(a, b))

    def mean_delay(self, a: str, b: str) -> float:
        """What a control message takes on average, without what is lost, in seconds."""
        try:
            return self._means[a, b]
        except KeyError:
            link = self.link(a, b)
            return self._means.setdefault((a, b), 0.0 if link is None else link.latency + link.mean_delay)

    def cut(self, a: str, b: str) -> bool:
        """Whether nothing gets from `a` to `b` now."""
        return bool(self._changes) and self._changes.factor(a, b, self._agenda.now) == 0

    def last_open(self, a: str, b: str) -> float:
        """When something could last be sent from `a` to `b`: now, or when the link was cut, s."""
        return self._changes.since(a, b, self._agenda.now) if self.cut(a, b) else self._agenda.now

    def carry(self, a: str, b: str, size: int, kind: str, deliver: Callable[..., None], *args: Any) -> float:
        """A tensor message of `size` bytes; when it arrives, in seconds. On one robot it is handed over."""
        link, now = self.link(a, b), self._agenda.now
        if link is None:
            self._agenda.at(now, deliver, *args)
            return now
        sends = self._sends(link)
        wire: object = link.medium or (a, b)
        begin = max(now, self._free_at.get(wire, 0.0))
        seconds = sends * size / link.bandwidth
        end = self._free_at[wire] = self._changes.done(a, b, begin, seconds)
        carried = self.carried.get((a, b)) or self.carried.setdefault((a, b), Carried())
        carried.messages += 1
        carried.bytes += size
        carried.sent += sends * size
        carried.busy += seconds
        return self._arrive(a, b, kind, end + self._delay(link, sends), deliver, args)

    def tell(self, a: str, b: str, kind: str, deliver: Callable[..., None], *args: Any) -> float:
        """A control message; when it arrives, in seconds."""
        now = self._agenda.now
        if self.cut(a, b):
            healed = self._changes.done(a, b, now, RESEND)
            return float("inf") if kind.endswith(STATES) else self._arrive(a, b, kind, healed, deliver, args)
        link = self.link(a, b)
        if link is None or not self.varies(a, b):  # nobody overtakes
            at = now + (0.0 if link is None else link.latency)
            self._agenda.at(at, deliver, *args)
            return at
        return self._arrive(a, b, kind, now + self._delay(link, self._sends(link)), deliver, args)

    def varies(self, a: str, b: str) -> bool:
        """Whether control messages take now longer and now shorter."""
        try:
            return self._varies[a, b]
        except KeyError:
            link = self.link(a, b)
            varies = link is not None and bool(link.loss or link.delays or link.gamma)
            return self._varies.setdefault((a, b), varies)

    def _arrive(
        self, a: str, b: str, kind: str, time: float, deliver: Callable[..., None], args: tuple[Any, ...]
    ) -> float:
        topic = (a, b, kind)
        time = max(time, self._arrived.get(topic, time))
        self._arrived[topic] = time
        self._agenda.at(time, deliver, *args)
        return time

    def _sends(self, link: Link) -> int:
        sends = 1
        while link.loss and sends < MOST_SENDS and self._random.random() < link.loss:
            sends += 1
        return sends

    def _delay(self, link: Link, sends: int) -> float:
        delay = link.latency + (sends - 1) * RESEND
        if link.delays:
            delay += self._random.choice(link.delays)
        if link.gamma is not None:
            delay += self._random.gammavariate(*link.gamma)
        return delay
