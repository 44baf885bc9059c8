# SPDX-License-Identifier: Apache-2.0
"""Single failures that cost no request, against the number of extra devices: CDC, Fig. 3.

Duplicates alone (2MR), or a parity for each group of devices that share a layer and duplicates for the others. All by
calculation, in `dnn_dist/plan/coverage.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import published
from figure import Row, Tables, main

from dnn_dist.plan.coverage import Division, curve, extras_needed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("2MR", "CDC + 2MR")


def curves() -> list[Row]:
    """% of single failures survived; `published` as the paper rounds."""
    return [
        {
            "network": name,
            "devices": devices,
            "method": method,
            "extras": k,
            "coverage": 100 * share,
            "published": theirs,
        }
        for (name, devices, groups), printed in published.COVERAGE.items()
        for method, coded, values in zip(METHODS, (False, True), printed, strict=True)
        for k, (share, theirs) in enumerate(zip(curve(Division(devices, groups), coded), values, strict=True), 1)
    ]


def full_coverage() -> list[Row]:
    """Extra devices with which any one device may fail."""
    rows: list[Row] = []
    printed = {key: (len(plain), len(coded)) for key, (plain, coded) in published.COVERAGE.items()}
    for (name, devices, groups), counts in {**printed, **published.FULL_COVERAGE_AT}.items():
        for method, coded, theirs in zip(METHODS, (False, True), counts, strict=True):
            needed = extras_needed(Division(devices, groups), coded=coded)
            rows.append({"network": name, "devices": devices, "method": method, "extras": needed, "published": theirs})
    return rows


def tables() -> Tables:
    return {"": curves(), "full": full_coverage()}


def draw(tables: Tables) -> Figure:
    from drawing import legend, ours, sheet, theirs

    vgg16 = {row["method"]: row["extras"] for row in tables["full"] if row["network"] == "VGG16"}
    figure, axes = sheet(
        2,
        f"""One parity on a group of g devices covers g + 1, a duplicate covers two. The paper's last panel, VGG16, is
        not drawn: its caption says 8 devices, the numbers of extra devices at hand, {vgg16["CDC + 2MR"]} and
        {vgg16["2MR"]}, are those of 9 in two groups of three. Published: as printed.""",
        rows=2,
        height=6.2,
        sharex=True,
        sharey=True,
    )
    for ax, (name, devices, groups) in zip(axes, published.COVERAGE, strict=True):
        for method, colour, marker in zip(METHODS, ("red", "green"), "so", strict=True):
            of = (name, devices, method)
            rows = [row for row in tables[""] if (row["network"], row["devices"], row["method"]) == of]
            x = [row["extras"] for row in rows]
            theirs(ax, x, [row["published"] for row in rows], colour, marker)
            ours(ax, x, [row["coverage"] for row in rows], colour, method, marker)
        ax.set(title=f"{name} on {devices}, groups of {' and '.join(map(str, groups))}", ylim=(0, 105))
        ax.set_xticks(range(1, 10))
    for ax in axes[::2]:
        ax.set_ylabel("% of single failures covered")
    for ax in axes[2:]:
        ax.set_xlabel("extra devices")
    legend(axes[0], loc="lower right")
    return figure


if __name__ == "__main__":
    main(Path(__file__).stem)
