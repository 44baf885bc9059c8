# SPDX-License-Identifier: Apache-2.0
"""Two processes of one name: told from one process that was restarted."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

TWIN = 3.0
"""Seconds for which two processes of one name must both be heard until that is said; and then until it is again."""


@dataclass(slots=True)
class Twins:
    """The sessions of one name that ended, and whether one of them goes on speaking."""

    former: deque[int] = field(default_factory=lambda: deque(maxlen=8))  # sessions that ended
    _since: float = float("-inf")  # s; since when another process of this name is heard
    _at: float = float("-inf")  # s; when it was heard last

    def heard(self, now: float) -> bool:
        """Another session than the one believed speaks: are there two of this name? True once in `TWIN` seconds.

        It must have spoken for so long: a late message of a former self is nothing to speak of.
        """
        if now - self._at > TWIN:
            self._since = now
        self._at = now
        if now - self._since < TWIN:
            return False
        self._since = now
        return True
