# SPDX-License-Identifier: Apache-2.0
"""A half-open box of rows and columns, the unit in which tensors are cut."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Region:
    """Rows [y0, y1) and columns [x0, x1) of a tensor; all of its channels."""

    y0: int
    y1: int
    x0: int
    x1: int

    @staticmethod
    def whole(height: int, width: int) -> Region:
        return Region(0, height, 0, width)

    @property
    def height(self) -> int:
        return max(0, self.y1 - self.y0)

    @property
    def width(self) -> int:
        return max(0, self.x1 - self.x0)

    @property
    def size(self) -> int:
        """Rows times columns."""
        return self.height * self.width

    @property
    def empty(self) -> bool:
        return self.y1 <= self.y0 or self.x1 <= self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Indexes the box in an array of H x W x ..."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def __and__(self, other: Region) -> Region:
        """What both hold; may be empty."""
        return Region(max(self.y0, other.y0), min(self.y1, other.y1), max(self.x0, other.x0), min(self.x1, other.x1))

    def __or__(self, other: Region) -> Region:
        """The smallest box around both."""
        return Region(min(self.y0, other.y0), max(self.y1, other.y1), min(self.x0, other.x0), max(self.x1, other.x1))

    def contains(self, other: Region) -> bool:
        """Whether every pixel of `other` is here."""
        return self & other == other

    def shift(self, dy: int, dx: int) -> Region:
        return Region(self.y0 + dy, self.y1 + dy, self.x0 + dx, self.x1 + dx)

    def __str__(self) -> str:
        return f"[{self.y0}:{self.y1}, {self.x0}:{self.x1}]"
