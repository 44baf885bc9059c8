# SPDX-License-Identifier: Apache-2.0
"""Laws of the pages: what they say of files, make targets and commands is so. What they say to type: test_docs.py."""

import re
from pathlib import Path

import pytest

from dnn_dist.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(f"doc/{page.name}" for page in (ROOT / "doc").glob("*.md"))]
MADE = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()}


def code(page: str) -> str:
    """What stands in code: indented blocks and spans in backquotes, one a line."""
    text = (ROOT / page).read_text()
    return "\n".join([*re.findall(r"(?m)^    .*$", text), *re.findall(r"`([^`\n]+)`", text)])


def targets(text: str) -> set[str]:
    """The make targets that a text of code calls."""
    return set(re.findall(r"(?m)(?<![\w-])make ([a-z0-9]+)", text))


def files(page: str) -> set[str]:
    """What a page names, in links or in code, of files, folders and messages of ours."""
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    linked = {str((ROOT / page).parent.joinpath(link).resolve().relative_to(ROOT)) for link in links}
    named = set(re.findall(r"(?<![\w./-])\w[\w.-]*/[\w./*-]*", code(page)))
    below = {path for path in named if (ROOT / path.split("/")[0]).is_dir()}
    endings = re.compile(r"\.(py|ya?ml|xml|md|rviz|rst|msg|srv|tflite|toml|txt|png)$")
    found = linked | below | {path for path in named if endings.search(path)}
    return {path for path in found if path.split("/")[0] not in MADE}


def exists(path: str) -> bool:
    """A path from the repository's top, or from the Python package's; or the type of a message or service."""
    path = re.sub(r"^dnn_dist/(msg|srv)/(\w+)$", r"\1/\2.\1", path)
    return any(any(top.glob(path)) for top in (ROOT, ROOT / "dnn_dist"))


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page: str) -> None:
    named = files(page)
    assert named or page not in ("README.md", "doc/design.md")
    assert [path for path in sorted(named) if not exists(path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    rules = set(re.findall(r"(?m)^([a-z0-9]+):", (ROOT / "Makefile").read_text()))
    assert targets(code(page)) <= rules


def test_the_two_commands_come_first() -> None:
    first = (ROOT / "README.md").read_text().split("\n## ")[1]
    block = re.findall(r"(?m)^    (.*)$", first)
    assert block == ["make demo", "make test"]


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    named = set(re.findall(r"(?m)(?:^\s*|/)dnn_dist ([a-z][a-z-]*)", code(page)))
    assert named <= set(COMMANDS)


def test_the_picture_is_small() -> None:
    assert 0 < (ROOT / "doc/demo.png").stat().st_size < 300_000
