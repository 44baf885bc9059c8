# SPDX-License-Identifier: Apache-2.0
"""Counted and named: whatever was late, doubled, foreign or broken. Nothing is dropped in silence.

A `Notebook` counts all notes by kind, and decides which of them the log gets. The rules:

- A note is told from others by its kind and what it is `about`: the second lost worker is news.
- The same once more is said after FIRST seconds, then after twice as long each time, up to LONGEST, with its count.
  After LONGEST without it, it begins anew.
- A kind may write a burst of lines, and so may all kinds together; then room grows slowly. So a log is never flooded,
  whatever a note is about. What found no room is summed up in one line.
- Memory is bounded: of kinds, and of pairs of kind and `about`, the newest are kept.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

FIRST, LONGEST = 1.0, 60.0
"""Seconds from one line to the next with the same kind and `about`."""
OF_A_KIND, OF_ALL = (10.0, 0.2), (40.0, 2.0)
"""(lines at once, lines a second after these)."""
SUM_UP = 10.0
"""Seconds from one line about what was not logged to the next."""


@dataclass(frozen=True, slots=True)
class Note:
    """An action of every machine: something that a person may want to know, in one line."""

    kind: str  # e.g. "late result"; notes are counted by kind
    text: str  # what, got, expected, where
    warn: bool = True  # False: normal in a working cluster, counted without alarm
    about: str = ""  # the worker, source, plan or topic that it is about; never a frame or task, each of which is new


@dataclass(slots=True)
class _Room:
    """A bucket of lines that may be written."""

    most: float  # lines
    rate: float  # lines a second
    lines: float
    at: float  # s; when `lines` was true

    def has(self, now: float) -> bool:
        self.lines = min(self.most, self.lines + self.rate * max(0.0, now - self.at))
        self.at = now
        return self.lines >= 1.0


@dataclass(slots=True)
class _Matter:
    """What is known of one kind about one thing."""

    note: Note  # the newest
    heard: float  # s; when it came
    count: int = 0
    next: float = float("-inf")  # s; not logged again before
    wait: float = FIRST  # s; from the next line to the one after


@dataclass(slots=True)
class Notebook:
    """Counts notes by kind, keeps the last text of each, and says what is to be logged."""

    limit: int = 1024  # kinds, some of which name a topic; and pairs of kind and `about`
    counts: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    _matters: dict[tuple[str, str], _Matter] = field(default_factory=dict)  # the one heard longest ago comes first
    _rooms: dict[str, _Room] = field(default_factory=dict)  # kind -> room for its lines
    _room: _Room = field(default_factory=lambda: _Room(*OF_ALL, lines=OF_ALL[0], at=0.0))  # for all lines
    _unsaid: Counter[str] = field(default_factory=Counter)  # kind -> notes that found no room
    _sum_up_at: float = float("-inf")

    def add(self, note: Note) -> str:
        """Count a note; returns the kind that it was counted as."""
        kind = note.kind if note.kind in self.counts or len(self.counts) < self.limit else "other"
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.texts[kind] = note.text
        return kind

    def say(self, note: Note, now: float) -> str:
        """Count a note; returns the line to log, or nothing where enough was said. `now`: steady clock, s."""
        kind = self.add(note)
        matter = self._matter(note, now)
        if now < matter.next:
            return ""
        room = self._rooms.setdefault(kind, _Room(*OF_A_KIND, lines=OF_A_KIND[0], at=now))
        if not (room.has(now) and self._room.has(now)):
            self._unsaid[kind] += 1
            return ""
        room.lines -= 1
        self._room.lines -= 1
        matter.next = now + matter.wait
        matter.wait = min(2 * matter.wait, LONGEST)
        return f"{note.kind}: {note.text}" + (f" ({matter.count} so far)" if matter.count > 1 else "")

    def sum_up(self, now: float) -> str:
        """A line about the notes that found no room in the log, or nothing. To be asked for now and then."""
        if not self._unsaid or now < self._sum_up_at:
            return ""
        self._sum_up_at = now + SUM_UP
        found = ", ".join(f"{many} x {kind}" for kind, many in self._unsaid.most_common(5))
        more = f" and {len(self._unsaid) - 5} other kinds" if len(self._unsaid) > 5 else ""
        self._unsaid.clear()
        return f"not logged one by one: {found}{more}; /diagnostics has the last of each"

    def warned(self, since: float) -> list[Note]:
        """The last warning of each matter heard after `since` (s), the newest first."""
        recent = []
        for matter in reversed(self._matters.values()):
            if matter.heard <= since:
                break
            if matter.note.warn:
                recent.append(matter.note)
        return recent

    def _matter(self, note: Note, now: float) -> _Matter:
        key = note.kind, note.about
        matter = self._matters.pop(key, None) or _Matter(note, now)
        if now - matter.heard >= LONGEST:
            matter.wait = FIRST
        matter.note, matter.heard, matter.count = note, now, matter.count + 1
        if len(self._matters) >= self.limit:
            del self._matters[next(iter(self._matters))]
        self._matters[key] = matter
        return matter
