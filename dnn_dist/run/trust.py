# SPDX-License-Identifier: Apache-2.0
"""Who may take part: workers name the sources that they compute for, sources the workers that compute for them.

A list of names is a rule of good order in a network that several teams share, no protection: anybody may speak under
any name. Who must keep others out uses ROS 2's security (SROS2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dnn_dist.run.notes import Note
from dnn_dist.run.state import Progress, SourceState, WorkerState
from dnn_dist.run.values import Feed, PlanText, Result, Work

Speakers = Mapping[type, Callable[[Any], str]]
"""Type of what is heard -> the name of who is to be trusted for it."""

SOURCES: Speakers = {
    SourceState: lambda state: state.source,
    Progress: lambda progress: progress.source,
    PlanText: lambda plan: plan.source,
    Work: lambda work: work.key.source,
    Feed: lambda feed: feed.key.source,
}
"""What a worker hears of sources, also by way of other workers."""
WORKERS: Speakers = {WorkerState: lambda state: state.worker, Result: lambda result: result.worker}
"""What a source hears of workers."""


def names_in(trusted: str) -> frozenset[str]:
    """The names of a parameter `trusted`; none: everybody is trusted."""
    return frozenset(trusted.split())


def refusal(what: Any, speakers: Speakers, trusted: frozenset[str]) -> Note | None:
    """Why something that was heard is not taken; None: it is. States come all the time and alarm nobody."""
    speaker = speakers.get(type(what))
    name = speaker(what) if speaker is not None else ""
    if speaker is None or name in trusted:
        return None
    if isinstance(what, (Work, Feed, Result)):
        kind = type(what).__name__.lower()
        role = "worker" if isinstance(what, Result) else "source"
        return Note(f"{kind} refused", f"{kind} {what.key}: {role} {name[:64]!r} is not trusted", about=name)
    if isinstance(what, WorkerState):
        text = f"worker {name[:64]!r} is not trusted: it gets no work, and its results are refused"
        return Note("untrusted worker", text, warn=False, about=name)
    text = f"source {name[:64]!r} is not trusted: its plans and its work are refused"
    return Note("untrusted source", text, warn=False, about=name)
