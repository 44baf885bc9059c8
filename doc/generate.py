# SPDX-License-Identifier: Apache-2.0
"""Writes doc/parameters.md from the settings, and doc/messages.md from msg/ and srv/: `make docs` does so first."""

from __future__ import annotations

import re
from pathlib import Path

from dnn_dist.cli.parameters import markdown
from dnn_dist.settings import NODES

ROOT = Path(__file__).resolve().parents[1]
LICENCE = "<!-- SPDX-License-Identifier: Apache-2.0 -->"
MADE = "<!-- Made by doc/generate.py. -->"


def parameters() -> str:
    """The page of parameters."""
    return f"""# Parameters

{MADE}

In the parameter file, below `parameters` and the node's name, or `all`. Parameters marked *live* may change while the
node runs (`ros2 param set`); the others are read when it starts. Durations are in seconds. `dnn_dist parameters` prints
the same.

{markdown(NODES)}
""".replace("\n### ", "\n## ")


def messages() -> str:
    """The page of messages: topics from the text beside this file, fields from the definitions."""
    topics = (Path(__file__).parent / "topics.md").read_text().removeprefix(LICENCE).strip()
    files = [*sorted((ROOT / "msg").glob("*.msg")), *sorted((ROOT / "srv").glob("*.srv"))]
    return f"# Messages\n\n{MADE}\n\n{topics}\n\n" + "\n".join(map(definition, files))


def definition(path: Path) -> str:
    """One message or service: what it is, and its fields with what their comments say."""
    head, fields = [], []
    for line in path.read_text().splitlines():
        text, _, comment = (part.strip() for part in line.partition("#"))
        if text == "---":
            fields.append(("---", "", "answer"))
        elif text:
            kind, name = text.split(maxsplit=1)
            fields.append((name, kind, comment))
        elif comment and fields:
            last = fields[-1]
            fields[-1] = (last[0], last[1], f"{last[2]} {comment}".strip())
        elif comment and not comment.startswith("SPDX"):
            head.append(comment)
    rows = [f"| {cell(name)} | {cell(kind)} | {escaped(comment)} |" for name, kind, comment in fields]
    table = "\n".join(["| field | type | meaning |", "| --- | --- | --- |", *rows])
    return f"## {path.parent.name}/{path.stem}\n\n{' '.join(head)}\n\n{table}\n"


def cell(text: str) -> str:
    return f"`{text}`" if text and text != "---" else ""


def escaped(text: str) -> str:
    return re.sub(r"([|<])", r"\\\1", text)


PAGES = {"parameters.md": parameters, "messages.md": messages}


def text_of(name: str) -> str:
    """What a page's file holds."""
    return f"{LICENCE}\n{PAGES[name]()}"


if __name__ == "__main__":
    for name in PAGES:
        (Path(__file__).parent / name).write_text(text_of(name))
