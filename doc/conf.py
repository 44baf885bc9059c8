# SPDX-License-Identifier: Apache-2.0
"""Sphinx's settings: `make docs`. Pages are Markdown (MyST); pages of the API are made here from docstrings."""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import dnn_dist  # the one that is installed: with messages

HERE = Path(__file__).parent

project, author = "dnn_dist", "dnn_dist maintainers"
release = version = dnn_dist.__version__
project_copyright = "dnn_dist maintainers, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["topics.md"]  # a part of messages.md
html_theme = "furo"
html_static_path, html_css_files = ["_static"], ["wide.css"]
html_title = f"dnn_dist {release}"
html_show_sphinx = False
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
suppress_warnings = ["ref.python"]  # that `bytes` in an annotation may be ours: several classes have such a property

API = {
    "graph": "The network: regions, tensors and ops, which input an op needs, reading and writing .tflite",
    "cut": "From a network and a text to stages and pieces, and pieces to .tflite",
    "plan": "The plan as a value, and which plan to choose",
    "run": "What partition, aggregator and worker do, over a small port; three state machines",
    "sim": "Virtual time as a world",
    "detect": "Letterbox, model card, detection heads, drawing",
    "camera": "Scenes, folders, videos, devices",
    "deploy": "Compose, Kubernetes, systemd, SROS2",
    "nodes": "ROS 2 as a world",
}
"""Package -> what it is, in the order in which they may import each other."""


LICENCE = "<!-- SPDX-License-Identifier: Apache-2.0 -->"
PAGES = {"../README.md": "index.md", "../bench/README.md": "bench.md", "../models/README.md": "detector.md"}
"""Pages elsewhere in the repository -> who includes them here, or stands for them."""


def write_api(_: Any) -> None:
    """A page for each package, with all its modules."""
    folder = HERE / "api"
    folder.mkdir(exist_ok=True)
    for package, text in API.items():
        found = pkgutil.iter_modules(import_module(f"dnn_dist.{package}").__path__)
        modules = [f"dnn_dist.{package}", *(f"dnn_dist.{package}.{one.name}" for one in found)]
        blocks = [f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```\n" for module in modules]
        page = "\n".join([f"{LICENCE}\n# dnn_dist.{package}\n\n{text}.\n", *blocks])
        target = folder / f"{package}.md"
        if not target.exists() or target.read_text() != page:
            target.write_text(page)


def as_rst(lines: list[str]) -> list[str]:
    """A docstring of ours, which is plain text with `code`, lists and indented blocks, as reStructuredText."""
    made: list[str] = []
    literal = code = False
    item = 0  # columns by which the text of the list's item at hand is indented
    for line in lines:
        indent = len(line) - len(line.lstrip())
        bullet = re.match(r"\s*(-|\d+\.) +", line)
        if not line.strip():
            made.append("")
            continue
        if literal and indent <= item:
            literal = False
            made.append("")
        if not literal and not bullet and indent > item:
            made += ["", f"{' ' * item}::", ""]
            literal = True
        if literal:
            made.append(line)
            continue
        if bullet and not item:
            made.append("")
        if item and not bullet and indent < item:
            made.append("")
        item = len(bullet[0]) if bullet else item if indent else 0
        parts = line.split("`")
        for number, part in enumerate(parts):
            parts[number] = part if code else re.sub(r"([\\*|]|(?<=\w)_(?!\w))", r"\\\1", part)
            code ^= number < len(parts) - 1  # a span of code may go on in the next line
        made.append("``".join(parts))
    return made


def included(app: Any, name: str, content: list[str]) -> None:
    """Links that lead out of this folder, to pages that are included here."""
    for page, included_page in PAGES.items():
        content[0] = content[0].replace(f"({page}", f"({included_page}")


def docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_rst(lines)


def setup(app: Any) -> None:
    app.connect("builder-inited", write_api)
    app.connect("source-read", included)
    app.connect("autodoc-process-docstring", docstring)
