# SPDX-License-Identifier: Apache-2.0
"""Images of several cameras that belong together: those whose stamps are near enough, one of each topic."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Image = TypeVar("Image")

KEPT = 8
"""Images of a topic that wait for the others."""


class Pairing(Generic[Image]):
    """Takes images as they come; gives each set once. With one topic that is every image."""

    def __init__(self, topics: int, within: float = 0.0) -> None:
        """`within`: largest difference of stamps of one set, in seconds."""
        self.within = within
        self._waiting: tuple[deque[tuple[float, Image]], ...] = tuple(deque(maxlen=KEPT) for _ in range(topics))

    def add(self, topic: int, stamp: float, image: Image) -> tuple[Image, ...] | None:
        """An image of a topic with its stamp (s). The set that is whole by it, one of each topic, or None.

        Of several that would do, of each topic the nearest. What is older than a set will have no other.
        """
        self._waiting[topic].append((stamp, image))
        chosen = [min(one, key=lambda entry: abs(entry[0] - stamp), default=None) for one in self._waiting]
        found = [entry for entry in chosen if entry is not None and abs(entry[0] - stamp) <= self.within]
        stamps = [entry[0] for entry in found]
        if len(found) < len(self._waiting) or max(stamps) - min(stamps) > self.within:
            return None
        for waiting, (taken, _) in zip(self._waiting, found, strict=True):
            left = [entry for entry in waiting if entry[0] > taken]
            waiting.clear()
            waiting.extend(left)
        return tuple(image for _, image in found)
