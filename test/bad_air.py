# SPDX-License-Identifier: Apache-2.0
"""Links that lose, double and delay, and what else goes wrong in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dnn_dist.plan.fleet import Fleet
from dnn_dist.sim.agenda import Agenda
from dnn_dist.sim.air import Air


@dataclass
class Faults:
    """What goes wrong between and in the robots; probabilities a message."""

    loss: float = 0.0
    doubling: float = 0.0
    delay: tuple[float, float] = (0.001, 0.003)  # s, uniform
    failing: float = 0.0  # computations that end in an error
    events: list[tuple[Any, ...]] = field(default_factory=list)  # as Fault has them: (s, kind, worker), or a factor too
    cuts: list[tuple[float, float]] = field(default_factory=list)  # (from, to): no message arrives, all links are cut
    parted: list[tuple[float, float, str, str]] = field(default_factory=list)  # (from, to) of two workers' link
    told: float = 0.0  # share of these of which the two learn
    calm: float = float("inf")  # s; from then on links are perfect, and computations do not fail
    forged: int = 0  # values of random content in the right session, posted into the parts of all processes

    def healed_at(self, now: float) -> float:
        """When links are there again; `now` where they are."""
        return max((end for begin, end in self.cuts if begin <= now < end), default=now)

    def part(self, a: str, b: str, now: float) -> bool:
        """Whether no message goes between two workers."""
        return any(begin <= now < end and {a, b} == {c, d} for begin, end, c, d in self.parted)


@dataclass(eq=False)
class UnderWay:
    """Work that has not arrived."""

    source: str
    worker: str
    bytes: int


class BadAir(Air):
    """Every message, tensors too, is delayed, perhaps lost for good, perhaps doubled. One topic keeps its order.

    When links are cut a tensor is sent again for a lifespan; then it is lost, as any other message is at once.
    """

    def __init__(self, fleet: Fleet, agenda: Agenda, seed: int, faults: Faults, lifespan: float) -> None:
        super().__init__(fleet, agenda, seed)
        self.faults, self.lifespan = faults, lifespan
        self.under_way: list[UnderWay] = []

    def tell(self, a: str, b: str, kind: str, deliver: Callable[..., None], *args: Any) -> float:
        return self._send(a, b, kind, 0.0, deliver, args)

    def _send(
        self, a: str, b: str, kind: str, lifespan: float, deliver: Callable[..., None], args: tuple[Any, ...]
    ) -> float:
        now, healed_at = self._agenda.now, self.faults.healed_at(self._agenda.now)
        if now >= self.faults.calm:
            return self._arrive(a, b, kind, now + self.faults.delay[0], deliver, args)
        too_old = healed_at > now and healed_at + self.faults.delay[1] > now + lifespan
        announced = kind.endswith(" frame")  # reliably: each says what no other says
        lost = self._random.random() < self.faults.loss and not announced
        if lost or too_old or self.faults.part(a, b, now):
            return float("inf")
        time = 0.0
        for _ in range(1 + (self._random.random() < self.faults.doubling)):
            time = self._arrive(a, b, kind, healed_at + self._random.uniform(*self.faults.delay), deliver, args)
        return time

    def carry(self, a: str, b: str, size: int, kind: str, deliver: Callable[..., None], *args: Any) -> float:
        if a == b:  # images, which are no messages between robots
            return super().carry(a, b, size, kind, deliver, *args)
        if not kind.endswith("work"):
            return self._send(a, b, kind, self.lifespan, deliver, args)
        work = UnderWay(kind.removesuffix(" work"), b, size)

        def arrive(*args: Any) -> None:
            if work in self.under_way:
                self.under_way.remove(work)
            deliver(*args)

        time = self._send(a, b, kind, self.lifespan, arrive, args)
        if time < float("inf"):
            self.under_way.append(work)
        return time
