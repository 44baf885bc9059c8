# SPDX-License-Identifier: Apache-2.0
"""Frames over robots as a picture, by matplotlib (extra `figures`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dnn_dist.errors import DnnDistError
from dnn_dist.run.report import Status
from dnn_dist.sim.faults import Fault
from dnn_dist.sim.outcome import FrameRun, Outcome, Span

COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#b07aa1", "#9c755f", "#edc948", "#ff9da7", "#79706e")
"""Of frames, one after the other; chosen to be told apart by the colour-blind as well as ten can be."""
MOST_ROBOTS = 40
LANE = 0.76  # of a row's height that is drawn on
_BAD = {Status.RECOMPUTED: "R", Status.FILLED: "F", Status.NO_RESULT: "\u2715", Status.DECODED: "D"}


def draw_gantt(
    outcome: Outcome, path: str | Path, title: str = "", begin: float = 0.0, end: float | None = None
) -> None:
    """Draw the run from `begin` to `end` (s; None: to its end) into `path`, whose ending says the format.

    A lane for each source shows its frames from announcement to report; a lane for each robot what it computed, local
    stages hatched, and when its worker was dead, stopped or slow. Raises DnnDistError in one line when matplotlib is
    not there or the file can't be written.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        text = "matplotlib is not installed; pip install 'dnn_dist[figures]', or leave out the picture"
        raise DnnDistError(text) from None

    end = max(outcome.seconds, begin + 1e-3) if end is None else end
    frames = [run for run in outcome.frames if run.announced < end and run.reported > begin]
    spans = [span for span in outcome.trace if span.begin < end and span.end > begin]
    sources = _sources(outcome)
    used = {span.robot for span in spans} | {fault.robot for fault in outcome.faults}
    robots = [name for name in outcome.robots if name in used][:MOST_ROBOTS]
    lanes = [*(("source", name) for name in sources[:MOST_ROBOTS]), *(("robot", name) for name in robots)]
    rows = {lane: len(lanes) - 1 - place for place, lane in enumerate(lanes)}

    figure, axes = pyplot.subplots(figsize=(12, 1.9 + 0.42 * len(lanes)), layout="constrained")
    try:
        most = _sublanes(frames)
        for run in frames:
            _draw_frame(axes, run, rows.get(("source", run.source)), most, (begin, end))
        for span in spans:
            _draw_span(axes, span, rows.get(("robot", span.robot)), sources)
        for kind, robot, since, until in _troubles(outcome.faults, outcome.seconds):
            _draw_trouble(axes, kind, rows.get(("robot", robot)), since, until)
        axes.set_yticks([rows[lane] for lane in lanes], [_label(outcome, *lane) for lane in lanes])
        axes.set_ylim(-0.6, len(lanes) - 0.4)
        axes.set_xlim(begin, end)
        axes.set_xlabel("seconds after the first image")
        if sources and robots:
            axes.axhline(len(robots) - 0.5, color="#333333", linewidth=0.8)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_title(title or _title(outcome), loc="left", fontsize=11)
        handles = _legend(outcome, frames, spans)
        columns = min(6, len(handles))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
        try:
            figure.savefig(path, dpi=130)
        except (OSError, ValueError) as error:
            raise DnnDistError(f"the picture cannot be written to {path}: {' '.join(str(error).split())}") from None
    finally:
        pyplot.close(figure)


def _sources(outcome: Outcome) -> list[str]:
    """Names of the sources, those that began first in front."""
    began = {run.source: run.announced for run in sorted(outcome.frames, key=lambda run: -run.announced)}
    return sorted(began, key=lambda name: (began[name], name))


def _title(outcome: Outcome) -> str:
    latency = f"median {outcome.percentile(50) * 1000:.0f} ms" if outcome.latencies else "no result"
    return f"{len(outcome.frames)} frames, {latency}, {outcome.throughput:.2f} frames/s"


def _label(outcome: Outcome, kind: str, name: str) -> str:
    if kind == "source":
        return f"frames of {name}"
    share = outcome.robots[name].busy / outcome.seconds if outcome.seconds else 0.0
    return f"{name}  {share:4.0%}"


def _colour(frame: int) -> str:
    return COLOURS[frame % len(COLOURS)]


def _sublanes(frames: Sequence[FrameRun]) -> int:
    """How many frames of one source were in work at once, at most."""
    edges = sorted(
        [(run.announced, 1, run.source) for run in frames] + [(run.reported, -1, run.source) for run in frames],
        key=lambda edge: (edge[0], edge[1]),
    )
    open_now: dict[str, int] = {}
    most = 1
    for _, change, source in edges:
        open_now[source] = open_now.get(source, 0) + change
        most = max(most, open_now[source])
    return most


def _draw_frame(axes: Any, run: FrameRun, row: int | None, most: int, shown: tuple[float, float]) -> None:
    if row is None:
        return
    height = LANE / most
    bottom = row + LANE / 2 - height * (run.report.frame % most + 1)
    lost = run.report.status is Status.NO_RESULT
    width = run.reported - run.announced
    axes.broken_barh(
        [(run.announced, width)],
        (bottom, height * 0.92),
        facecolors="white" if lost else _colour(run.report.frame),
        edgecolors="#c00000" if lost else "white",
        linewidth=1.2 if lost else 0.5,
    )
    mark = _BAD.get(run.report.status, "")
    text = f"{run.report.frame}{mark and ' ' + mark}"
    middle = (max(run.announced, shown[0]) + min(run.reported, shown[1])) / 2
    if width > 0.011 * (shown[1] - shown[0]) * len(text):
        colour = "#c00000" if lost else "white"
        size = 8 if most < 3 else 6
        axes.text(
            middle, bottom + height * 0.44, text, ha="center", va="center", fontsize=size, color=colour, clip_on=True
        )


def _draw_span(axes: Any, span: Span, row: int | None, sources: Sequence[str]) -> None:
    if row is None:
        return
    local, lost = span.kind == "local", span.kind == "lost"
    axes.broken_barh(
        [(span.begin, span.end - span.begin)],
        (row - LANE / 2, LANE / 3 if local else LANE),
        facecolors="white" if lost else _colour(span.frame),
        edgecolors="black" if local else _colour(span.frame) if lost else "white",
        hatch="////" if local else "xxx" if lost else _hatch(span, sources),
        linewidth=0.4,
        zorder=3 if local else 2,
    )


def _hatch(span: Span, sources: Sequence[str]) -> str | None:
    """Of several sources the frames of the second, third, ... are told by a pattern."""
    return (None, "..", "xx", "oo", "--", "**")[sources.index(span.source) % 6] if span.source in sources else None


def _troubles(faults: Iterable[Fault], last: float) -> list[tuple[str, str, float, float]]:
    """Spans in which a robot was dead, stopped or slow: (kind, robot, from, to)."""
    open_since: dict[tuple[str, str], float] = {}
    spans = []

    def close(kind: str, robot: str, at: float) -> None:
        since = open_since.pop((kind, robot), None)
        if since is not None:
            spans.append((kind, robot, since, at))

    for fault in sorted(faults, key=lambda fault: fault.at):
        match fault.kind:
            case "kill":
                close("stop", fault.robot, fault.at)
                open_since.setdefault(("kill", fault.robot), fault.at)
            case "restart":
                close("stop", fault.robot, fault.at)
                open_since.setdefault(("kill", fault.robot), fault.at)
                close("kill", fault.robot, fault.at)
            case "stop":
                open_since.setdefault(("stop", fault.robot), fault.at)
            case "go":
                close("stop", fault.robot, fault.at)
            case "slow":
                close("slow", fault.robot, fault.at)
                if fault.factor != 1:
                    open_since["slow", fault.robot] = fault.at
    spans += [(kind, robot, since, max(last, since)) for (kind, robot), since in open_since.items()]
    return spans


_TROUBLE = {
    "kill": ("#c00000", "worker dead"),
    "stop": ("#7f7f7f", "worker stopped"),
    "slow": ("#f5b041", "robot slow"),
}


def _draw_trouble(axes: Any, kind: str, row: int | None, since: float, until: float) -> None:
    if row is None:
        return
    colour, _ = _TROUBLE[kind]
    axes.broken_barh([(since, until - since)], (row - 0.5, 1.0), facecolors=colour, alpha=0.22, zorder=1)
    axes.plot([since, since], [row - 0.5, row + 0.5], color=colour, linewidth=1.6, zorder=4)
    if kind != "slow":
        axes.plot([since], [row + 0.38], marker="v" if kind == "stop" else "X", color=colour, markersize=7, zorder=5)
        if until > since:
            axes.plot([until, until], [row - 0.5, row + 0.5], color=colour, linewidth=1.0, linestyle=":", zorder=4)


def _legend(outcome: Outcome, frames: Sequence[FrameRun], spans: Sequence[Span]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    first = next((_colour(run.report.frame) for run in frames), COLOURS[0])
    handles: list[Any] = [Patch(facecolor=first, edgecolor="white", label="piece (colour: its frame)")]
    sources = _sources(outcome)
    for source in sources[1:6]:
        hatch = _hatch(Span("", source, 0, 0, 0, 0.0, 0.0, "task"), sources)
        handles.append(Patch(facecolor="#bbbbbb", edgecolor="white", hatch=hatch, label=f"piece of {source}"))
    if any(span.kind == "local" for span in spans):
        handles.append(Patch(facecolor=first, edgecolor="black", hatch="////", label="local stage"))
    if any(span.kind == "lost" for span in spans):
        handles.append(Patch(facecolor="white", edgecolor=first, hatch="xxx", label="piece lost"))
    seen = {run.report.status for run in frames}
    words = {
        Status.DECODED: "D decoded",
        Status.RECOMPUTED: "R recomputed",
        Status.FILLED: "F filled in",
        Status.NO_RESULT: "\u2715 no result",
    }
    handles += [
        Line2D([], [], linestyle="", label=words[status]) for status in sorted(seen) if status is not Status.COMPLETE
    ]
    kinds = {kind for kind, *_ in _troubles(outcome.faults, outcome.seconds)}
    markers = {"kill": "X", "stop": "v", "slow": "s"}
    handles += [
        Line2D([], [], linestyle="", marker=markers[kind], color=_TROUBLE[kind][0], label=_TROUBLE[kind][1])
        for kind in _TROUBLE
        if kind in kinds
    ]
    return handles
