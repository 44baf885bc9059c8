# SPDX-License-Identifier: Apache-2.0
"""What diagnostics say of a source's links: distributions for a fleet file, rates now, and the plan by them."""

from __future__ import annotations

from collections.abc import Mapping

from dnn_dist.plan.fleet import link_text
from dnn_dist.run.bylink import ByLink, megabits
from dnn_dist.run.delays import measured_link
from dnn_dist.run.fleetview import WorkerView


def links_told(workers: Mapping[str, WorkerView], robot: str, by_link: ByLink, now: float) -> dict[str, str]:
    """Of the links from this robot to those of the workers, as far as they are measured; what stays on it has none."""
    told: dict[str, str] = {}
    for view in workers.values():
        there = view.state.robot
        if there == robot:
            continue
        if link := measured_link(view.pace.past):
            told[f"link {robot} {there}"] = link_text(link)
        if view.meter.rate and not view.silent:
            told[f"rate {robot} {there}"] = f"{megabits(view.meter.rate)}, {now - view.meter.at:.1f} s ago"
    if (place := by_link.place) is not None:
        rate = by_link.rungs[place].rate
        told["plan by link"] = f"for {megabits(rate)} or more" if rate else "for no link"
        told["plan by link since"] = f"{now - by_link.since:.0f} s: {by_link.why}" if by_link.why else "the start"
    return told
