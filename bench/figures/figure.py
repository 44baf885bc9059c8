# SPDX-License-Identifier: Apache-2.0
"""What every figure has: tables of numbers, a picture; and how they are written.

A figure is a module with `tables()`, which needs NumPy alone and may take some seconds, and `draw(tables)`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

Row = Mapping[str, Any]
Tables = dict[str, list[Row]]
"""Name of a table -> its rows; a figure that has one only calls it ""."""
OUT = Path(__file__).resolve().parents[2] / "build" / "figures"


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """As CSV, with every column that any row has; numbers to six digits."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})


def make(module: ModuleType, folder: Path) -> list[Path]:
    """Computes a figure's tables and draws them: NAME[_TABLE].csv and NAME.png in `folder`."""
    from drawing import save  # the numbers can be had without matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    tables: Tables = module.tables()
    made = []
    for name, rows in tables.items():
        made.append(folder / f"{module.__name__}{name and '_'}{name}.csv")
        write_rows(made[-1], rows)
    made.append(folder / f"{module.__name__}.png")
    save(module.draw(tables), made[-1])
    return made


def main(name: str) -> None:
    """A figure's own command line: `python bench/figures/NAME.py [--out FOLDER]`."""
    from importlib import import_module

    module = import_module(name)
    parser = argparse.ArgumentParser(description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder for data and picture (build/figures)")
    for path in make(module, parser.parse_args().out):
        print(path)
