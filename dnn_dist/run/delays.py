# SPDX-License-Identifier: Apache-2.0
"""Delays as they are: what the newest messages of a link took, and the newest pieces of a stage.

The newest few alone are kept, so that memory is bounded and what a network was like is forgotten. What a piece would
have taken that nobody waited for any longer is not known, only that it was longer: such times are kept apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from dnn_dist.plan.delay import Measured
from dnn_dist.plan.fleet import Link

KEPT = 128
"""Times of a stage, or of a link."""
QUANTILES = 9
"""Delays in which a link's distribution is written down."""
LEAST = 8
"""Acknowledgements that make a link known."""


@dataclass(slots=True)
class Arrivals:
    """How long pieces of one stage took, from the stage's beginning to the arrival of their results."""

    seen: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=KEPT))
    """(s, whether it came; else it was waited for so long in vain)"""
    count: int = 0  # ever seen

    def note(self, seconds: float, came: bool, pieces: int = 1) -> None:
        """So many pieces came after `seconds`, or were waited for no longer."""
        self.count += pieces
        self.seen.extend([(seconds, came)] * min(pieces, KEPT))

    @property
    def came(self) -> tuple[float, ...]:
        """Seconds of those that came."""
        return tuple(seconds for seconds, came in self.seen if came)

    def delay(self) -> Measured:
        """As a distribution. PlanError while none has come."""
        return Measured(self.came, tuple(seconds for seconds, came in self.seen if not came))

    def __str__(self) -> str:
        came = sorted(self.came)
        if not came:
            return f"0 of {len(self.seen)} pieces came"
        median, p95 = (1e3 * came[int(share * (len(came) - 1))] for share in (0.5, 0.95))
        return f"{len(came)} of {len(self.seen)} pieces came, half in {median:.1f} ms, 95 % in {p95:.1f} ms"


def measured_link(past: Sequence[tuple[float, int]]) -> Link | None:
    """The link over which works were acknowledged, (s, bytes on the way) each; None while too few were. inf s: its QoS
    deadline was missed, and it counts as a loss.

    An acknowledgement takes the latency there and back and the bytes' time, and something on top. Where works of one
    size were sent only, latency and bandwidth cannot be told apart, and all is taken for the bytes' time.
    """
    acknowledged = [one for one in past if one[0] < inf]
    if len(acknowledged) < LEAST:
        return None
    sizes = sorted({size for _, size in acknowledged})
    fastest = {size: min(s for s, other in acknowledged if other == size) for size in sizes}
    small, large = sizes[0], sizes[-1]
    grows = fastest[large] - fastest[small]
    per_byte = grows / (large - small) if large > 2 * small and grows > 0 else fastest[large] / large
    rest = sorted(seconds - size * per_byte for seconds, size in acknowledged)
    round_trip = max(0.0, rest[0])
    places = [round(n * (len(rest) - 1) / (QUANTILES - 1)) for n in range(QUANTILES)]
    delays = tuple(round(max(0.0, rest[place] - round_trip), 6) for place in places)
    bandwidth = round(1 / per_byte) if per_byte > 0 else inf
    loss = round(1 - len(acknowledged) / len(past), 4)
    return Link(bandwidth, latency=round(round_trip / 2, 6), loss=loss, delays=delays if delays[-1] else ())
