# SPDX-License-Identifier: Apache-2.0
"""Counted and named: whatever was late, doubled, foreign or broken. Nothing is dropped in silence."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Note:
    """An action of every machine: something that a person may want to know, in one line."""

    kind: str  # e.g. "late result"; notes are counted by kind
    text: str  # what, got, expected, where
    warn: bool = True  # False: normal in a working cluster, counted without alarm


@dataclass(slots=True)
class Notebook:
    """Counts notes by kind and keeps the last text of each. Bounded: one entry a kind, at most `limit` kinds."""

    limit: int = 1024  # some kinds name a topic, and there are a few topics for each worker
    counts: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    warned: int = 0  # notes with `warn` so far

    def add(self, note: Note) -> int:
        """Count a note; how many there are of its kind by now."""
        kind = note.kind if note.kind in self.counts or len(self.counts) < self.limit else "other"
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.texts[kind] = note.text
        self.warned += note.warn
        return self.counts[kind]
