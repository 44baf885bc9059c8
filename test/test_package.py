# SPDX-License-Identifier: Apache-2.0
"""Laws of the package: one version, one direction of imports, one list of executables, installed whole."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

import dnn_dist
from dnn_dist.executables import EXECUTABLES

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "dnn_dist"

# Who may import what of ours, besides itself. Anything may import errors. Only nodes may import ROS.
LAW = {
    "errors": set(),
    "signals": set(),
    "executables": {"signals"},
    "yamlfile": set(),
    "shipped": set(),
    "dds": set(),
    "graph": set(),
    "cut": {"graph"},
    "plan": {"cut", "graph", "yamlfile"},
    "run": {"settings", "plan", "cut", "graph"},
    "sim": {"run", "plan", "cut", "graph"},
    "detect": {"yamlfile"},
    "camera": set(),
    "settings": set(),
    "cluster": {"dds", "settings", "run", "yamlfile"},
    "nodes": {"signals", "shipped", "cluster", "dds", "settings", "run", "plan", "cut", "graph", "detect", "camera"},
    "cli": {
        *("signals", "yamlfile", "shipped", "sim", "nodes", "cluster", "settings"),
        *("run", "plan", "cut", "graph", "detect", "camera"),
    },
}
ROS = re.compile(r"(rclpy|rosidl_\w+|launch\w*|cv_bridge|\w+_(msgs|interfaces)|dnn_dist\.(msg|srv))(\.|$)")
HEAVY = re.compile(r"(tensorflow|keras|torch|scipy|networkx)(\.|$)")


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, wherever in it."""
    package = ["dnn_dist", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    part = part_of(path)
    allowed = LAW[part] | {part, "errors"}
    for name in imports(path):
        ours = re.match(r"dnn_dist\.(\w+)", name)
        if ours and ours[1] in LAW:
            assert ours[1] in allowed, f"{part} may import {sorted(allowed)}, not {name}"
        if part != "nodes":
            assert not ROS.match(name), f"only nodes may import ROS, not {part}: {name}"
        assert not HEAVY.match(name), f"no robot has {name}"


# The runtime is written once, in run/: nodes and the simulator are worlds around it, and never touch a machine.
MACHINES = {f"dnn_dist.run.{name}" for name in ("dispatcher", "gatherer", "worker")}
MOST_LINES = 400  # of a file
