# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says of a node: well or not, and the most important trouble in words.

Two things make a node unwell. *Troubles* are conditions, e.g. "no image for 7 s": the node names those that hold now,
the most important first, so that it stays unwell while the trouble stays. *Warnings* are events, e.g. a lost worker:
they count for HOLD seconds, so that whoever looks every few seconds sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dnn_dist.run.notes import Note

HOLD = 10.0
"""Seconds for which a warning counts."""
MOST_TROUBLES, MOST_LETTERS = 16, 300


@dataclass(frozen=True, slots=True)
class Health:
    """A node's state in words."""

    well: bool
    message: str
    troubles: tuple[str, ...]  # those that hold now, the most important first


def judge(troubles: Sequence[str], warnings: Sequence[Note]) -> Health:
    """What follows from the troubles that hold now, and from the warnings of the last HOLD seconds, newest first."""
    held = tuple(_cut(trouble) for trouble in troubles[:MOST_TROUBLES])
    if held:
        more = f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else ""
        return Health(False, held[0] + more, held)
    if warnings:
        more = f" (and {len(warnings) - 1} more in the last {HOLD:g} s)" if len(warnings) > 1 else ""
        return Health(False, _cut(f"{warnings[0].kind}: {warnings[0].text}") + more, held)
    return Health(True, "running", held)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 3]}..."
