# SPDX-License-Identifier: Apache-2.0
"""How long something about the stages of plans took of late."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(slots=True)
class StageTimes:
    """The newest times of each stage of each plan."""

    history: int  # times that are remembered of a stage
    _seconds: dict[tuple[str, int], deque[float]] = field(default_factory=dict)  # (plan, stage) -> s
    _quantiles: dict[tuple[str, int, float], float] = field(default_factory=dict)  # of these, as far as asked for

    def note(self, plan: str, stage: int, seconds: float) -> None:
        """It took so long."""
        self._seconds.setdefault((plan, stage), deque(maxlen=self.history)).append(seconds)
        self._quantiles = {which: known for which, known in self._quantiles.items() if which[:2] != (plan, stage)}

    def quantile(self, plan: str, stage: int, share: float) -> float:
        """What this share of the times did not exceed, in seconds; 0 while none is known."""
        known = self._quantiles.get((plan, stage, share))
        if known is None:
            times = sorted(self._seconds.get((plan, stage), ()))
            known = times[min(len(times) - 1, int(share * len(times)))] if times else 0.0
            self._quantiles[plan, stage, share] = known
        return known

    def keep(self, plans: Collection[str]) -> None:
        """Forget what is known of other plans."""
        self._seconds = {stage: times for stage, times in self._seconds.items() if stage[0] in plans}
        self._quantiles.clear()
