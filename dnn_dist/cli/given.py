# SPDX-License-Identifier: Apache-2.0
"""What a command's PLAN argument may be: a plan file, or the text of a cut."""

from __future__ import annotations

from pathlib import Path

from dnn_dist.errors import PlanError
from dnn_dist.plan.plan import Plan


def plan_file(text: str) -> Plan | None:
    """The plan in a file; None when the text names no file and so is a cut. PlanError when the file holds no plan."""
    path = Path(text)
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        return None
    try:
        return Plan.read(path)
    except PlanError as error:
        raise PlanError(f"{error}; give a plan file or a cut") from None
