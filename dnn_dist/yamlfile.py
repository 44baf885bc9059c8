# SPDX-License-Identifier: Apache-2.0
"""YAML files that people write: reading them, and typed look-ups whose errors are one line with the cure."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dnn_dist.errors import ConfigError

_REQUIRED: Any = object()


def read_yaml(path: str | Path, what: str) -> Any:
    """What the file holds. ConfigError when it can't be read or is no YAML; `what` names its kind in the error."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't read the {what}: {' '.join(str(error).split())}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: the {what} is not YAML: {' '.join(str(error).split())}") from None


def near(word: str, known: Iterable[str]) -> str:
    """"; did you mean 'x'?" where a known word is like this one, else empty."""
    match = difflib.get_close_matches(word, list(known), 1)
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
            raise ConfigError(f"{where}: expected keys and values, got {content!r}")
        unknown = [key for key in content if known is not None and key not in known]
        if known is not None and unknown:
            cure = near(str(unknown[0]), known) or f", expected {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {unknown[0]!r}{cure}")
        return cls(content, where)

    def get(self, key: str, default: Any = _REQUIRED) -> Any:
        value = self.content.get(key, default)
        if value is _REQUIRED:
            found = ", ".join(map(str, self.content)) or "nothing"
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
        return ConfigError(f"{self.where}: {key} is {got!r}, expected {expected}")
