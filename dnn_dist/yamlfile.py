# SPDX-License-Identifier: Apache-2.0
"""YAML that people write or messages carry: reading it, and typed look-ups whose errors are one line with the cure.

The text may come from anybody, so reading costs no more than its length: no aliases, which could unfold to
gigabytes, and bounded nesting. What errors quote of it is bounded too.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dnn_dist.errors import ConfigError

_REQUIRED: Any = object()
_DEEPEST = 32  # lists and mappings within one another; what people write has five
_LONGEST_NUMBER = 64  # characters of a whole number; Python itself refuses to print those of thousands of digits
_QUOTED, _LINE = 120, 400  # characters of what was got, and of what the parser says, in an error


class NotYaml(ValueError):
    """The text is no YAML that is read here; the reason is one bounded line."""


class _Loader(yaml.SafeLoader):
    """Plain YAML: without aliases, deep nesting or endless numbers."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        untyped: Any = self
        event = untyped.peek_event()
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(None, None, f"alias *{event.anchor}: write it out instead", mark)
        if self._depth >= _DEEPEST:
            raise yaml.MarkedYAMLError(None, None, f"more than {_DEEPEST} levels of nesting", mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > _LONGEST_NUMBER:
            raise ValueError(f"a number of {len(node.value)} characters")
        number: int = super().construct_yaml_int(node)
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_yaml(text: str) -> Any:
    """What the text says; NotYaml when it is no YAML, or has aliases or more nesting than anybody writes."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # PyYAML lets through what int(), date() and its own look-ups raise on values such as 2020-99-99 or !!bool x
        raise NotYaml(shorten(" ".join(str(error).split()), _LINE)) from None


def shorten(text: str, most: int) -> str:
    """The text, or its beginning where it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def quoted(value: object) -> str:
    """What was got, as errors quote it."""
    return shorten(repr(value), _QUOTED)


def read_yaml(path: str | Path, what: str) -> Any:
    """What the file holds. ConfigError when it can't be read or is no YAML; `what` names its kind in the error."""
    try:
        return parse_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't read the {what}: {' '.join(str(error).split())}") from None
    except NotYaml as error:
        raise ConfigError(f"{path}: the {what} is not YAML: {error}") from None


def near(word: str, known: Iterable[str]) -> str:
    """The words "; did you mean 'x'?" where a known word is like this one, else empty."""
    match = difflib.get_close_matches(word[:_QUOTED], list(known), 1)
    return f"; did you mean {match[0]!r}?" if match else ""


@dataclass(frozen=True, slots=True)
class Keys:
    """A YAML mapping, and look-ups in it whose errors say where, what was got, and what was expected."""

    content: dict[Any, Any]
    where: str  # opens the error messages

    @classmethod
    def of(cls, content: object, where: str, known: Collection[str] | None = None) -> Keys:
        """ConfigError when the content is no mapping, or has a key that is not among the known ones.

        `known` None: any key will do, but there has to be one.
        """
        if not isinstance(content, dict) or (known is None and not content):
            raise ConfigError(f"{where}: expected keys and values, got {quoted(content)}")
        unknown = [key for key in content if known is not None and key not in known]
        if known is not None and unknown:
            cure = near(str(unknown[0]), known) or f", expected {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {quoted(unknown[0])}{cure}")
        return cls(content, where)

    def get(self, key: str, default: Any = _REQUIRED) -> Any:
        value = self.content.get(key, default)
        if value is _REQUIRED:
            found = shorten(", ".join(map(str, self.content)), _LINE) or "nothing"
            raise ConfigError(f"{self.where}: '{key}' is missing (found: {found}); add it")
        return value

    def number(self, key: str, default: Any = _REQUIRED, low: float = -1e9, high: float = 1e9) -> float:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.wrong(key, value, f"a number between {low:g} and {high:g}")
        return float(value)

    def count(self, key: str, default: Any = _REQUIRED, high: int = 10**9) -> int:
        """A whole number of 1 or more."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
            raise self.wrong(key, value, f"a whole number from 1 to {high}")
        return value

    def items(self, key: str, expected: str) -> list[Any]:
        """A list of one entry or more."""
        value = self.get(key)
        if not isinstance(value, list) or not value:
            raise self.wrong(key, value, expected)
        return value

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        value = self.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, value, "a name")
        return value

    def choice(self, key: str, known: Collection[str], default: Any = _REQUIRED) -> str:
        value = self.get(key, default)
        if not isinstance(value, str) or value not in known:
            raise self.wrong(key, value, f"one of {', '.join(known)}{near(str(value), known)}")
        return str(value)

    def truth(self, key: str, default: Any = _REQUIRED) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def wrong(self, key: str, got: object, expected: str) -> ConfigError:
        return ConfigError(f"{self.where}: {key} is {quoted(got)}, expected {expected}")
