# SPDX-License-Identifier: Apache-2.0
"""What a worker's tasks are in their chains: which feeds they lack, and what was computed and is kept for others.

A piece waits for its feeds, and lets other tasks pass. Feeds may overtake its work. What was computed is kept until the
chain is settled or its frame has expired: a piece that is lost elsewhere is computed anew from what others still have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from dnn_dist.cut.feeds import Maker
from dnn_dist.run.events import Role
from dnn_dist.run.wire import TaskKey

ALONE = Role()


@dataclass(slots=True)
class _Kept:
    """A piece that was computed for others."""

    expires: float  # s; its frame's deadline
    bytes: int  # of its result


class Early(NamedTuple):
    """A feed that overtook its work."""

    plan: str
    until: float  # s; then no work for it will come


@dataclass(slots=True)
class Residence:
    """See the module."""

    waiting: dict[TaskKey, set[Maker]] = field(default_factory=dict)  # held tasks -> what they lack feeds of
    early: dict[tuple[TaskKey, Maker], Early] = field(default_factory=dict)  # feeds that overtook their work
    kept: dict[TaskKey, _Kept] = field(default_factory=dict)
    _roles: dict[TaskKey, Role] = field(default_factory=dict)  # of held tasks that are in a chain

    def hold(self, key: TaskKey, plan: str, role: Role) -> None:
        """A task has come."""
        if role == ALONE:
            return
        self._roles[key] = role
        came = {maker: early for maker in role.awaits if (early := self.early.pop((key, maker), None)) is not None}
        lacks = {maker for maker in role.awaits if maker not in came or came[maker].plan != plan}
        if lacks:
            self.waiting[key] = lacks

    def feed(self, key: TaskKey, maker: Maker, plan: str, most: int, until: float) -> None:
        """What `maker` gives to a task has come. Of those that overtook their work at most so many are kept, each
        until then (s).
        """
        lacks = self.waiting.get(key)
        if lacks is None:
            if len(self.early) >= most:
                dropped, _ = next(iter(self.early))
                self.early = {feed: early for feed, early in self.early.items() if feed[0] != dropped}
            self.early[key, maker] = Early(plan, until)
            return
        lacks.discard(maker)
        if not lacks:
            del self.waiting[key]

    def narrow(self, key: TaskKey, awaits: Collection[Maker]) -> None:
        """A held task waits for nobody but these."""
        lacks = self.waiting.get(key)
        if lacks is not None:
            lacks &= set(awaits)
            if not lacks:
                del self.waiting[key]

    def release(self, key: TaskKey) -> Role:
        """A task is held no longer; what it was."""
        self.waiting.pop(key, None)
        return self._roles.pop(key, ALONE)

    def role(self, key: TaskKey) -> Role:
        """Of a held task."""
        return self._roles.get(key, ALONE)

    def keep(self, key: TaskKey, expires: float, size: int, most: int) -> None:
        """A task was computed that others get something of. At most so many are kept."""
        while len(self.kept) >= most:
            del self.kept[next(iter(self.kept))]
        self.kept[key] = _Kept(expires, size)

    def drop(self, unwanted: Callable[..., bool], now: float) -> float:
        """Let go of what nobody needs any more, and say when more of it expires (s). `unwanted`: see
        run/sourceviews.py.
        """
        for key in [key for key, kept in self.kept.items() if now >= kept.expires or unwanted(key, whole=True)]:
            del self.kept[key]
        if self.early:
            self.early = {
                feed: early for feed, early in self.early.items() if now < early.until and not unwanted(feed[0])
            }
        kept, early = self.kept.values(), self.early.values()
        return min([one.expires for one in kept] + [one.until for one in early], default=float("inf"))

    def ready(self, held: Collection[TaskKey], unready: Collection[TaskKey]) -> TaskKey | None:
        """The first of these tasks that has its feeds and its weights."""
        return next((key for key in held if key not in unready and key not in self.waiting), None)
