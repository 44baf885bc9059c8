# SPDX-License-Identifier: Apache-2.0
"""What runs of `headline.py` come to: medians and spread, a table in Markdown, a picture of the speed-up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Case = Mapping[str, Any]
Row = dict[str, Any]

CURVES = {
    "local": ("black", "s"), "sharing": ("sky", "v"), "stealing": ("orange", "o"), "modnn": ("red", "^"),
    "direct": ("green", "D"), "pipeline": ("purple", "P"),
}  # fmt: skip
"""Way -> colour and marker."""


def _runs(case: Case) -> list[Mapping[str, Any]]:
    return [run for run in case.get("runs", ()) if "error" not in run]


def _values(runs: Sequence[Mapping[str, Any]], *path: str) -> list[float]:
    found = []
    for run in runs:
        value: Any = run
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            found.append(value)
    return found


def _middle(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def row_of(case: Case) -> Row:
    """One case's medians over its runs; `*_spread`: the least and the most of the runs' medians."""
    runs, sums = _runs(case), case.get("calculated", {})
    latency, interval = _values(runs, "latency", "latency_s"), _values(runs, "throughput", "interval_s")
    spread = runs[0]["latency"]["latencies_s"] if len(runs) == 1 and latency else latency
    idle, each = _middle(_values(runs, "idle_bytes_per_s")), _middle(latency)
    measured = [run[name] for run in runs for name in ("latency", "throughput") if name in run]
    paced = [
        one["worked_s"] / (sums["piece_macs"] / pace)
        for one in measured
        if not one["recomputed"] and (pace := case.get("pace", 0) * 1e6) and sums.get("piece_macs")
    ]
    return {
        **{name: case[name] for name in ("network", "rate", "robots", "way", "cut") if name in case},
        "runs": len(runs),
        "errors": [run["error"] for run in case.get("runs", ()) if "error" in run],
        "work_ratio": sums.get("work_ratio"),
        "bound_s": sums.get("bound_s"),
        "alone_s": sums.get("alone_s"),
        "latency_s": each,
        "latency_spread": (min(spread), max(spread)) if spread else None,
        "interval_s": _middle(interval),
        "interval_spread": (min(interval), max(interval)) if interval else None,
        "air_bytes": _middle(_values(runs, "latency", "air_bytes")),
        "idle_bytes": idle * each if idle is not None and each is not None else None,
        "resent_share": _share(_values(runs, "latency", "resent_bytes"), _values(runs, "latency", "air_bytes")),
        "glue_s": _middle(_values(runs, "latency", "glue_s")),
        "cpu_s": _middle(_values(runs, "latency", "cpu_s")),
        "machine_load": _middle([one["machine_load"] for one in measured]),
        "slower_than_paced": _middle(paced),
        "frames": sum(sum(one["statuses"].values()) for one in measured),
        "complete": sum(one["statuses"].get("complete", 0) for one in measured),
        "recomputed": sum(one["recomputed"] for one in measured),
        "filled": sum(one["filled"] for one in measured),
        "respawns": sum(sum(run["respawns"].values()) for run in runs),
        "same_processes": all(run["same_processes"] for run in runs) if runs else None,
        "slow_s": _middle(_values(runs, "slow", "after", "latency_s")),
        "kill_hit_s": _middle(_values(runs, "kill", "hit_s")),
        "kill_s": _middle(_values(runs, "kill", "after", "latency_s")),
        "kill_lost": sum(_values(runs, "kill", "lost")) if _values(runs, "kill", "lost") else None,
    }


def _share(part: Sequence[float], whole: Sequence[float]) -> float | None:
    return sum(part) / sum(whole) if part and sum(whole) else None


def rows_of(cases: Sequence[Case]) -> list[Row]:
    """Rows with the speed-up against one robot: the one measured with the same network, else the calculated one."""
    rows = [row_of(case) for case in cases]
    alone = {row["network"]: row["latency_s"] for row in rows if row["robots"] == 1 and row["latency_s"]}
    for row in rows:
        one = alone.get(row["network"], row["alone_s"])
        row["speed_up"] = one / row["latency_s"] if row["latency_s"] else None
        row["speed_up_throughput"] = one / row["interval_s"] if row["interval_s"] else None
    return rows


def _number(places: int, factor: float = 1.0) -> Callable[[Any], str]:
    return lambda value: f"{factor * value:.{places}f}"


def _of_spread(row: Row, name: str) -> str:
    value, spread = row[f"{name}_s"], row[f"{name}_spread"]
    return "" if value is None else f"{value:.2f} ({spread[0]:.2f} to {spread[1]:.2f})"


COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("robots", lambda row: str(row["robots"])),
    ("way", lambda row: row["way"]),
    ("latency s", lambda row: _of_spread(row, "latency")),
    ("x one robot", lambda row: _told(row, "speed_up", _number(2))),
    ("bound s", lambda row: _told(row, "bound_s", _number(2))),
    ("s a frame, more in work", lambda row: _of_spread(row, "interval")),
    ("x one robot", lambda row: _told(row, "speed_up_throughput", _number(2))),
    ("MB on the air", lambda row: _told(row, "air_bytes", _number(2, 1e-6))),
    ("of these idle", lambda row: _told(row, "idle_bytes", _number(2, 1e-6))),
    ("sent again", lambda row: _told(row, "resent_share", lambda v: f"{100 * v:.1f} %")),
    ("work ratio", lambda row: _told(row, "work_ratio", _number(3))),
    ("glue s", lambda row: _told(row, "glue_s", _number(2))),
    ("one killed: hit, after s", lambda row: _killed(row)),
    ("one 5 x slower s", lambda row: _told(row, "slow_s", _number(2))),
    ("complete", lambda row: f"{row['complete']} of {row['frames']}"),
    ("computed again, filled", lambda row: f"{row['recomputed']}, {row['filled']}"),
    ("processes", lambda row: "" if row["same_processes"] is None else "same" if row["same_processes"] else "died"),
    ("CPU s a frame", lambda row: _told(row, "cpu_s", _number(2))),
    ("pace kept", lambda row: _told(row, "slower_than_paced", _number(2))),
    ("machine", lambda row: _told(row, "machine_load", lambda v: f"{100 * v:.0f} %")),
)


def _told(row: Row, name: str, show: Callable[[Any], str]) -> str:
    return "" if row[name] is None else show(row[name])


def _killed(row: Row) -> str:
    if row["kill_s"] is None:
        return ""
    lost = f", lost {row['kill_lost']:.0f}" if row["kill_lost"] else ""
    return f"{row['kill_hit_s']:.2f}, {row['kill_s']:.2f}{lost}"


def tables(cases: Sequence[Case]) -> Iterator[str]:
    """Markdown: a table for each network and rate; columns that say nothing anywhere in it are left out."""
    rows = rows_of(cases)
    for network, rate in dict.fromkeys((row["network"], row["rate"]) for row in rows):
        own = [row for row in rows if (row["network"], row["rate"]) == (network, rate) and row["runs"]]
        if not own:
            continue
        cells = [[show(row) for _, show in COLUMNS] for row in own]
        kept = [n for n in range(len(COLUMNS)) if any(line[n] for line in cells)]
        yield f"{network}, {rate:g} Mbit/s, {max(row['runs'] for row in own)} run(s)\n"
        yield from markdown([COLUMNS[n][0] for n in kept], [[line[n] for n in kept] for line in cells])
        yield ""
    for row in rows:
        yield from (f"{row['network']}, {row['robots']} robots, {row['way']}: {why}" for why in row["errors"])


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(row) + " |" for row in rows)


def picture(cases: Sequence[Case], path: Path) -> None:
    """Speed-up by robots for every way, against the bound: above latency, below throughput, a column a network."""
    sys.path.append(str(Path(__file__).parent / "figures"))
    from drawing import COLOURS, save, sheet

    rows = [row for row in rows_of(cases) if row["runs"]]
    groups = list(dict.fromkeys((row["network"], row["rate"]) for row in rows))
    known = (("speed_up", "latency"), ("speed_up_throughput", "throughput"))
    lines = [line for line in known if any(row[line[0]] for row in rows if row["way"] != "local")]
    figure, axes = sheet(len(groups), _caption(cases), height=3.5 * len(lines) + 0.5, rows=len(lines))
    for column, group in enumerate(groups):
        own = [row for row in rows if (row["network"], row["rate"]) == group]
        most = max(row["robots"] for row in own)
        for line, (key, title) in enumerate(lines):
            axis = axes[line * len(groups) + column]
            axis.plot([1, most], [1, most], color=COLOURS["grey"], linestyle="--", linewidth=1.2, label="bound")
            for way, (colour, marker) in CURVES.items():
                points = sorted((row["robots"], row[key]) for row in own if row["way"] == way and row[key])
                if points and way != "local":
                    points = [(1, 1.0), *[point for point in points if point[0] > 1]]
                    axis.plot(*zip(*points, strict=True), color=COLOURS[colour], marker=marker, label=way)
            axis.set(title=f"{group[0]}, {group[1]:g} Mbit/s" if not line else "", xlabel="robots")
            axis.set(ylabel=f"{title}: x one robot" if not column else "", xticks=range(1, most + 1), ylim=(0, None))
    axes[0].legend(loc="upper left", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(figure, path)


def _caption(cases: Sequence[Case]) -> str:
    paces = sorted({case["pace"] for case in cases if "pace" in case})
    runs = max((len(_runs(case)) for case in cases), default=0)
    return (
        f"Emulated fleet: robots of {' and '.join(f'{pace:g}' for pace in paces)} million MACs a second on one air, "
        f"camera and gateway on the first; medians of {runs} run(s). Dashed: as many times as fast as there are robots."
    )
