# SPDX-License-Identifier: Apache-2.0
"""How fast a worker computes: measured for each stage, since layers of different kinds take different times per MAC."""

from __future__ import annotations

from dataclasses import dataclass, field

StageName = tuple[str, int]
"""Plan, stage."""
ODD = 2.0
"""A speed so many times above or below what was known is odd."""


@dataclass(slots=True)
class Speeds:
    """In MAC/s, smoothed."""

    overall: float = 0.0  # 0 while nothing was computed
    of_stage: dict[StageName, float] = field(default_factory=dict)  # newest last; replaced, never changed
    _odd: int = 0  # 1: the last speed measured was much above what was known, -1: below

    def note(self, stage: StageName, speed: float, most: int) -> None:
        """A piece of a stage was computed at this speed. At most so many stages are remembered."""
        before = self.of_stage.get(stage, speed)
        odd = (speed > ODD * before) - (ODD * speed < before)
        known = dict(self.of_stage)
        if odd and odd == self._odd:  # twice the same way is no chance: the robot itself has become faster, or slower
            self.overall *= speed / before
            known = {name: one * speed / before for name, one in known.items()}
        self._odd = odd
        self.overall = _smoothed(self.overall, speed)
        known[stage] = _smoothed(known.pop(stage, 0.0), speed)
        while len(known) > most:
            del known[next(iter(known))]
        self.of_stage = known

    def forget(self, plan: str) -> None:
        """The plan is served no longer."""
        self.of_stage = {stage: speed for stage, speed in self.of_stage.items() if stage[0] != plan}


def _smoothed(before: float, newest: float) -> float:
    """A moving average; `before` is 0 while there is none."""
    return 0.8 * before + 0.2 * newest if before else newest
