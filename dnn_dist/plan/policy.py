# SPDX-License-Identifier: Apache-2.0
"""The dispatch policy, for the dispatcher that runs (run/assignment.py) and for the schedule that predicts it."""

from __future__ import annotations

import math
from typing import TypeVar

Tie = TypeVar("Tie", str, int)


def rank(of_stage: int, load: int, speed: float, tie: Tie) -> tuple[int, int, float, Tie]:
    """Orders the workers that offer room for a piece: the one of the least rank gets it.

    First the fewest pieces of the same stage, so that one death costs as few as can be; then the least loaded; then the
    fastest at the stage. A speed of 0 is not known, and goes first, or nobody would learn that the worker is faster.
    `tie` makes the order strict.
    """
    return of_stage, load, -(speed or math.inf), tie


def window_takes(size: int, in_flight: int, window: int) -> bool:
    """Whether a piece of `size` bytes, work and result, may travel beside `in_flight` bytes; one always may."""
    return in_flight == 0 or in_flight + size <= window
