# SPDX-License-Identifier: Apache-2.0
"""Loses, doubles and delays the messages that a node receives, and makes some of its computing slow, by seed: for
tests, benches and `dnn_dist demo --chaos`.

Asked for by the environment, DNN_DIST_DISTURB="seed=1,loss=0.05,doubling=0.05,delay=0.02,straggling=0.05,slowdown=10";
never by a parameter, so that no parameter file of a real cluster can hold it by mistake.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from dnn_dist.errors import ConfigError

VARIABLE = "DNN_DIST_DISTURB"


class Disturbance:
    """What happens. Of messages: `loss`, `doubling`, probabilities; `delay`, seconds at the most. Of jobs of a node
    that computes at a pace: `straggling`, the probability that one takes `slowdown` times as long.
    """

    def __init__(self, name: str, text: str) -> None:
        """`name`: of the node, so that each has troubles of its own; ConfigError when the text is not understood."""
        try:
            values = {key: float(value) for key, value in (entry.split("=") for entry in text.split(","))}
            self.seed, self.loss = int(values.pop("seed")), values.pop("loss", 0.0)
            self.doubling, self.delay = values.pop("doubling", 0.0), values.pop("delay", 0.0)
            self.straggling, self.slowdown = values.pop("straggling", 0.0), values.pop("slowdown", 10.0)
        except (ValueError, KeyError):
            values = {"?": 0.0}
        if values:
            raise ConfigError(f"{VARIABLE} is {text!r}, expected e.g. seed=1,loss=0.05,doubling=0.05,delay=0.02")
        self._random = random.Random(f"{self.seed}/{name}")

    @classmethod
    def of(cls, name: str) -> Disturbance | None:
        """The disturbance that the environment asks for; None: none."""
        text = os.environ.get(VARIABLE, "")
        return cls(name, text) if text else None

    def pace(self, pace: float) -> float:
        """The pace of the next job, of which this is the usual one."""
        return pace / self.slowdown if self._random.random() < self.straggling else pace

    def around(
        self,
        handle: Callable[[Any], None],
        now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], None],
    ) -> Callable[[Any], None]:
        """`handle`, disturbed. A topic keeps its order, as DDS does; topics overtake each other.

        `now` is the steady clock, `later(when, call)` has a call made by the executor.
        """
        if not (self.loss or self.doubling or self.delay):
            return handle
        last = 0.0

        def disturbed(message: Any) -> None:
            nonlocal last
            if self._random.random() < self.loss:
                return
            for _ in range(1 + (self._random.random() < self.doubling)):
                last = max(last, now() + self._random.uniform(0.0, self.delay))
                later(last, lambda: handle(message))

        return disturbed
