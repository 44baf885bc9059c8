# SPDX-License-Identifier: Apache-2.0
"""Quantities as people write them, with their unit: "60 Mbit/s", "2 ms", "700 MB", "0.6 GMAC/s", "1 %".

A bare number is refused: whoever reads the file later should not have to know whether a bandwidth was in bits or bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dnn_dist.errors import ConfigError
from dnn_dist.yamlfile import near

_QUANTITY = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([a-zA-Z%/]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Unit:
    """One kind of quantity."""

    kind: str  # "a bandwidth"
    scales: Mapping[str, float]  # unit as written -> in base units (bytes/s, s, bytes, W, MAC/s, 1)
    example: str
    high: float = math.inf  # largest value, in base units

    def read(self, text: object, where: str, positive: bool = False) -> float:
        """The quantity in base units; ConfigError, opened by `where`, when the text is none.

        It may not be negative, nor, if `positive`, zero.
        """
        match = _QUANTITY.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None or match[2] not in self.scales:
            expected = f"expected {self.kind} with its unit, e.g. {self.example}"
            raise ConfigError(f"{where} is {text!r}, {expected}{self._cure(text)}")
        value = float(match[1]) * self.scales[match[2]]
        if value < 0 or (positive and not value) or not value <= self.high or math.isinf(value):
            least = "above 0" if positive else "of 0 or more"
            most = "" if math.isinf(self.high) else f" and up to {self.write(self.high)}"
            raise ConfigError(f"{where} is {text!r}, expected {self.kind} {least}{most}, e.g. {self.example}")
        return value

    def write(self, value: float) -> str:
        """The shortest text that `read` gives `value` back for, up to rounding in the last digit where none does."""
        texts = [
            f"{_plain(value / scale)} {name}"
            for name, scale in self.scales.items()
            if float(_plain(value / scale)) * scale == value
        ]
        name, scale = next(iter(self.scales.items()))
        return min(texts, key=len) if texts else f"{value / scale!r} {name}"

    def _cure(self, text: object) -> str:
        if isinstance(text, (int, float)) and not isinstance(text, bool):
            return f"; did you forget the unit ({', '.join(self.scales)})?"
        word = re.sub(r"^[-+\d.\s]+", "", str(text))
        by_case = {name.lower(): name for name in self.scales}
        if word.lower() in by_case:
            return f"; did you mean {by_case[word.lower()]!r}?"
        return near(word, self.scales) if word else ""


def brief(seconds: float) -> str:
    """A duration for people, in three digits: "171 ms", "20.2 s"."""
    value, unit = (seconds, "s") if seconds >= 0.9995 else (1000 * seconds, "ms")
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"


def _plain(number: float) -> str:
    return repr(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)


BANDWIDTH = Unit(
    "a bandwidth",
    {
        **{"B/s": 1.0, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9},
        **{"bit/s": 1 / 8, "kbit/s": 125.0, "Mbit/s": 125e3, "Gbit/s": 125e6},
    },
    "60 Mbit/s",
)
DURATION = Unit("a time", {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0}, "2 ms")
SIZE = Unit(
    "a size", {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1024.0, "MiB": 1024.0**2, "GiB": 1024.0**3}, "700 MB"
)
POWER = Unit("a power", {"W": 1.0, "mW": 1e-3, "kW": 1e3}, "6.5 W")
SPEED = Unit("a speed", {"MAC/s": 1.0, "kMAC/s": 1e3, "MMAC/s": 1e6, "GMAC/s": 1e9, "TMAC/s": 1e12}, "0.6 GMAC/s")
SHARE = Unit("a share", {"%": 0.01}, "1 %", high=1.0)
