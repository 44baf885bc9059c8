# SPDX-License-Identifier: Apache-2.0
"""Makes every figure, with data: `make figures`, or `python bench/figures/all.py [NAME ...]`."""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path

from figure import OUT, make

FIGURES = (
    "deepthings_memory",
    "deepthings_traffic",
    "deepthings_latency",
    "deepthings_sources",
    "cdc_arrivals",
    "cdc_accuracy",
    "cdc_coverage",
    "cdc_stragglers",
    "cdc_failure",
    "nos_model",
    "nos_accuracy",
    "pipeline_throughput",
    "edge_centric",
    "robot_server",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}; all by default")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for data and pictures (build/figures)")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(FIGURES)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; take of {', '.join(FIGURES)}")
    names = arguments.names or FIGURES
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {name} ...", end="", flush=True)
        start = time.monotonic()
        made = make(import_module(name), arguments.out)
        print(f" {time.monotonic() - start:.1f} s: {', '.join(path.name for path in made)}", flush=True)
    print(f"in {arguments.out}; doc/reproduction.md says what they show")


if __name__ == "__main__":
    sys.exit(main())
