# SPDX-License-Identifier: Apache-2.0
"""One look for all figures: ours filled and solid, what a paper published hollow and dotted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Okabe and Ito's colours, which the colour-blind can tell apart
COLOURS = {
    "grey": "#6e6e6e", "orange": "#d98200", "sky": "#3f9fd1", "green": "#00805c",
    "blue": "#005c99", "red": "#c44a00", "purple": "#a8527f", "black": "#202020",
}  # fmt: skip
DPI = 110
_STYLE: dict[str, Any] = {
    "font.size": 9.5, "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": "#e3e3e3", "grid.linewidth": 0.8, "axes.edgecolor": "#808080", "legend.frameon": False,
    "lines.linewidth": 1.8, "lines.markersize": 6.0, "svg.hashsalt": "dnn_dist",
}  # fmt: skip


def sheet(
    columns: int = 1, caption: str = "", height: float = 4.2, rows: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of axes, row by row, and a caption below that says what is seen. `height` in inches."""
    matplotlib.rcParams.update(_STYLE)
    width = 5.6 if columns == 1 else 4.6 * columns
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    if caption:
        text = fill(" ".join(caption.split()), round(width * 16.5))
        figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color="#404040", linespacing=1.3)
    return figure, list(axes)


def ours(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, label: str, marker: str = "o") -> None:
    """A curve that this project computed."""
    axes.plot(x, y, marker=marker, color=COLOURS[colour], label=label)


def theirs(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    colour: str,
    marker: str = "o",
    line: bool = True,
    label: str = "",
) -> None:
    """A published curve: same colour as ours, hollow."""
    style = {"linestyle": ":" if line else "none", "linewidth": 1.2}
    hollow = {"marker": marker, "markerfacecolor": "white", "markersize": 9.5, "zorder": 1.9}
    axes.plot(x, y, color=COLOURS[colour], label=label or "_", **hollow, **style)


def implied(axes: Axes, x: Sequence[float], y: Sequence[float], label: str) -> None:
    """What a published figure that is no curve comes to, beside ours: a dotted line."""
    axes.plot(x, y, color=COLOURS["black"], linestyle=":", linewidth=1.6, label=label)


def legend(axes: Axes, published: bool = True, **options: Any) -> None:
    """The curves' names, and what hollow means."""
    handles, labels = axes.get_legend_handles_labels()
    if published:
        hollow = {"marker": "o", "markerfacecolor": "white", "markersize": 9.5, "linestyle": ":", "linewidth": 1.2}
        handles.append(Line2D([], [], color=COLOURS["grey"], **hollow))
        labels.append("hollow: published")
    axes.legend(handles, labels, **options)


def save(figure: Figure, path: Path) -> None:
    """As PNG, the same bytes for the same figure."""
    figure.savefig(path, metadata={"Software": None})
