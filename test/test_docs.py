# SPDX-License-Identifier: Apache-2.0
"""Laws of the pages in doc/: what is generated is up to date, and what stands in code blocks works as it stands there.

In a page, blocks of `sh` are commands that are run here; `console` ones need robots, root or other programs.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from dnn_dist.cluster import parse_cluster
from dnn_dist.detect.card import parse_card
from dnn_dist.detect.head import Head, make_head
from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.shipped import find_model

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "doc"))
import generate  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "doc").glob("*.md"))]
STANDS_FOR = {"MODEL": "warehouse_int8.tflite", "PLAN": "tiles:3x3"}
"""Words in commands -> what a test takes."""
LIVE = {"set-plan", "fleet"}
"""Commands that need a cluster that runs: `test_setplan.py` and `test_fleet_live.py` have one."""
FRAMES = 8  # of a demo that does not say how many


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"(?ms)^ *```{language}\n(.*?)^ *```", page.read_text())


def commands(page: Path) -> list[list[str]]:
    """The commands of a page: of its blocks of sh, and what is indented and begins with dnn_dist."""
    text = "\n".join(blocks(page, "sh"))
    if page.name == "README.md":
        text += "\n" + "\n".join(re.findall(r"(?m)^ {4}(dnn_dist (?:[^\n]*\\\n)*[^\n]*)", page.read_text()))
    lines = [shlex.split(line) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [line for line in lines if line[1] not in LIVE]


def as_run(words: list[str]) -> list[str]:
    """A command as a test runs it."""
    if words[:2] == ["make", "demo"]:  # as the Makefile has it
        given = dict(word.split("=") for word in words[2:])
        killed = ["--kill"] if given.get("KILL") == "1" else []
        words = ["dnn_dist", "demo", "--frames", given.get("FRAMES", str(FRAMES)), *killed]
    if "-o" in words and words[words.index("-o") + 1].endswith(".png") and not importlib.util.find_spec("matplotlib"):
        place = words.index("-o")
        words = words[:place] + words[place + 2 :]
    assert words[0] == "dnn_dist", f"nobody runs {words[0]!r} here; is it `console`?"
    return [sys.executable, "-m", "dnn_dist.cli.main", *(STANDS_FOR.get(word, word) for word in words[1:])]


def folder(path: Path) -> Path:
    """Where commands run: in a copy of what a clone has, as far as they name it."""
    shutil.copytree(ROOT / "config", path / "config")
    for name, example in {"cluster.yaml": "cluster.yaml", "fleet.yaml": "fleets/six_pi3.yaml"}.items():
        shutil.copy(ROOT / "config" / example, path / name)
    return path


def plan_first(words: list[list[str]]) -> list[list[str]]:
    """A page may take the plan that another page has made."""
    makes = ["dnn_dist", "plan", "MODEL", "--fleet", "config/fleets/six_pi3.yaml", "-o", "plan.yaml"]
    return [makes, *words] if any("plan.yaml" in line for line in words) else words


def by_page() -> dict[str, list[list[str]]]:
    """Of each page the commands that no page before it has: each is run once."""
    seen: list[list[str]] = []
    found: dict[str, list[list[str]]] = {}
    for page in PAGES:
        if new := [line for line in commands(page) if line not in seen]:
            found[page.stem] = new
            seen += new
    return found


@pytest.mark.parametrize("page", by_page())
def test_commands_run_as_they_are_typed(page: str, tmp_path: Path, ros_domain: int) -> None:
    folder(tmp_path)
    for words in plan_first(by_page()[page]):
        ran = subprocess.run(as_run(words), cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ)
        may_lack = {"plan", "card"} & set(words)
        assert ran.returncode in ({0, 1} if may_lack else {0}), f"{shlex.join(words)}\n{ran.stdout}{ran.stderr}"
        assert "error" not in ran.stderr, f"{shlex.join(words)}\n{ran.stderr}"


def test_there_are_commands_to_run() -> None:
    found = {page.stem: len(commands(page)) for page in PAGES}
    assert found["quickstart"] >= 7 and found["planning"] >= 6 and found["deployment"] >= 3, found


@pytest.mark.parametrize("name", generate.PAGES)
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (ROOT / "doc" / name).read_text() == generate.text_of(name), "run `python doc/generate.py`"


def test_parameter_files_and_cards_of_pages_are_read() -> None:
    seen = set()
    for page in PAGES:
        for block in blocks(page, "yaml"):
            tree = yaml.safe_load(block)
            kind = "cluster" if {"robots", "parameters"} & set(tree) else "card"
            seen.add(kind)
            whole = {"robots": {"r1": {"source": "front", "nodes": ["gateway"]}}, **tree}  # a page may show a part
            parse_cluster(whole, page.name) if kind == "cluster" else parse_card(tree, page.name)
    assert seen == {"cluster", "card"}


def test_the_head_of_the_page_is_a_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = blocks(ROOT / "doc/your_model.md", "python")
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    tree = yaml.safe_load(find_model("warehouse_int8.tflite").with_name("warehouse.yaml").read_text())
    tree["output"] = {"head": "mine:Brightest", "score_threshold": 0.5}
    head = make_head(parse_card(tree, "card"))
    assert isinstance(head, Head)
    letterbox = Letterbox(512, 640, 256, 320)
    outputs = np.zeros((16, 20, 3), np.float32)
    assert head([outputs], letterbox) == []
    outputs[4, 10, 2] = 0.75
    (found,) = head([outputs], letterbox)
    assert (found.y0, found.x0, found.y1, found.x1, found.score) == (128, 320, 160, 352, 0.75)
    assert head([np.full((16, 20, 3), np.nan, np.float32)], letterbox) == []


def test_pages_are_built_without_a_warning(tmp_path: Path) -> None:
    """Without a picture of the pages' look: `make docs` makes HTML."""
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module, reason="requirements/docs.txt is not installed; `make docs` does")
    command = [sys.executable, "-m", "sphinx", "-b", "dummy", "-W", "--keep-going", "-q", ROOT / "doc", tmp_path]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
