# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist card MODEL`: writes the card of a model from what its file tells, and marks what is guessed or missing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from dnn_dist.detect.card import card_path
from dnn_dist.detect.head import HEADS
from dnn_dist.errors import ConfigError
from dnn_dist.graph.tflite import read_network
from dnn_dist.modelcard import Described, describe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a .tflite file")
    add("-o", "--output", metavar="FILE", help="where to write it; default: MODEL with .yaml; -: print it")


def run(args: argparse.Namespace) -> int:
    """Describe and write. 0 when the card is complete, guesses included; 1 when something is missing."""
    network = read_network(args.model)
    found = describe(network)
    text = card_text(found, network.path.name)
    if args.output == "-":
        print(text, end="")
        return 1 if found.missing else 0
    path = Path(args.output or card_path(network.path) or network.path.with_suffix(".yaml"))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path}: there is one already; name another by -o, or print it by -o -") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't write the card: {error.strerror or error}") from None
    head = found.content.get("output", {}).get("head", "no head")
    print(f"{path} written: {head}, {len(found.content['classes'])} classes")
    for key, why in found.guessed.items():
        print(f"guessed {key}: {why}")
    if found.missing:
        print(f"missing: {found.missing}; fill it in")
    return 1 if found.missing else 0


def card_text(found: Described, model: str) -> str:
    """The card as a YAML text with a remark at each key: where its value is from, or that it is a guess."""
    lines = [f"# Model card of {model}, made by `dnn_dist card`. Check what is marked as guessed."]
    if found.missing:
        lines.append(f"# MISSING: {found.missing}.")
    for key, value in found.content.items():
        if isinstance(value, dict):
            lines.append(f"{key}:")
            lines += [f"  {_line(found, f'{key}.{name}', name, one)}" for name, one in value.items()]
        else:
            lines.append(f"{key}:{_remark(found, key)}")
            lines += [f"  - {_scalar(one)}" for one in value]
    if "output" not in found.content:
        lines += ["output:", f"  head:  # MISSING: one of {', '.join(HEADS)}, or your own as package.module:Class"]
    return "\n".join(lines) + "\n"


def _line(found: Described, key: str, name: str, value: Any) -> str:
    return f"{name}: {_scalar(value)}{_remark(found, key)}"


def _remark(found: Described, key: str) -> str:
    if key in found.guessed:
        return f"  # GUESSED: {found.guessed[key]}"
    return f"  # {found.sources[key]}" if found.sources.get(key) else ""


def _scalar(value: Any) -> str:
    """A value on one line; texts that YAML would take for something else in quotes."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("...\n").strip()
