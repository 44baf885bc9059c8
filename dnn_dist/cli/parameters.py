# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist parameters [NODE]`: every parameter of every node, as `settings.py` declares it.

`--markdown` prints the tables of doc/parameters.md. Needs no ROS.
"""

from __future__ import annotations

import argparse
import inspect
import json
from dataclasses import dataclass
from typing import Any

from dnn_dist.settings import NODES, Meaning, meanings

COLUMNS = ("parameter", "type", "default", "allowed", "live", "meaning")


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter in words."""

    name: str
    type: str
    default: str
    allowed: str
    live: str  # "yes", or empty: read when the node starts
    text: str

    @classmethod
    def of(cls, name: str, default: Any, meaning: Meaning) -> Row:
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        live = "yes" if meaning.live else ""
        return cls(name, type(default).__name__, shown, _allowed(meaning), live, meaning.text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    one_of = f"one of {', '.join(NODES)}; default: all"
    parser.add_argument("node", nargs="?", choices=tuple(NODES), metavar="NODE", help=one_of)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print the tables of doc/parameters.md")
    form.add_argument("--json", action="store_true", help="print one JSON object, node -> parameter -> facts")


def run(args: argparse.Namespace) -> int:
    """Print what was asked for; always 0."""
    nodes = {args.node: NODES[args.node]} if args.node else NODES
    if args.json:
        print(json.dumps({node: facts(settings) for node, settings in nodes.items()}, indent=1))
    elif args.markdown:
        print(markdown(nodes))
    else:
        _print(nodes)
    return 0


def facts(settings: type) -> dict[str, dict[str, Any]]:
    """A node's parameters as JSON has them; `low`, `high` and `choices` are null where anything goes."""
    return {
        name: {
            "type": type(default).__name__,
            "default": default,
            "low": meaning.low,
            "high": meaning.high,
            "choices": list(meaning.choices) or None,
            "live": meaning.live,
            "meaning": meaning.text,
        }
        for name, (default, meaning) in meanings(settings).items()
    }


def markdown(nodes: dict[str, type]) -> str:
    """A table for each node; without the line break at the end."""
    return "\n\n".join(_markdown_table(node, settings) for node, settings in nodes.items())


def _markdown_table(node: str, settings: type) -> str:
    lines = [f"### {node}", "", _summary(settings), "", _line(COLUMNS), _line(["---"] * len(COLUMNS))]
    for row in _rows(settings):
        # An empty code span would show its own backquotes.
        default = f"`{row.default}`" if row.default else ""
        lines.append(_line((f"`{row.name}`", row.type, default, row.allowed, row.live, row.text)))
    return "\n".join(lines)


def _line(cells: Any) -> str:
    # A bar ends a cell wherever it stands, in code spans too.
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _print(nodes: dict[str, type]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140
    for node, settings in nodes.items():
        console.print(f"[bold]{node}[/bold]: {escape(_summary(settings))}")
        table = Table(box=SIMPLE_HEAD)
        for name in COLUMNS:
            table.add_column(name, justify="right" if name == "default" else "left", overflow="fold")
        for row in _rows(settings):
            table.add_row(*map(escape, (row.name, row.type, row.default, row.allowed, row.live, row.text)))
        console.print(table)


def _rows(settings: type) -> list[Row]:
    return [Row.of(name, *entry) for name, entry in meanings(settings).items()]


def _summary(settings: type) -> str:
    """The first sentence of the settings class: what the node does."""
    return (inspect.getdoc(settings) or "").split("\n\n")[0].replace("\n", " ")


def _allowed(meaning: Meaning) -> str:
    if meaning.choices:
        return ", ".join(meaning.choices)
    if meaning.names:
        return "names"
    if meaning.low is None or meaning.high is None:
        return ""
    return f"{_number(meaning.low)} to {_number(meaning.high)}"


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"
