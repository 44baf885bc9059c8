# SPDX-License-Identifier: Apache-2.0
"""How many devices may fail, one at a time, without the loss of a request, and what that costs in extra devices.

After Hadidi et al., "Robustly Executing DNNs in IoT Systems Using Coded Distributed Computing" (DAC 2019), figure 3. A
network runs on N devices. Some of them hold slices of one layer each: a group, which one parity device covers as a
whole, itself included. Any other device is covered by a duplicate (2MR, double modular redundancy), which covers both.
The coverage of a number of extra devices is the share of all devices, extras included, of which any one may fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from dnn_dist.errors import PlanError


@dataclass(frozen=True, slots=True)
class Division:
    """A network on so many devices; `groups` are the sizes of those sets of devices that parity can cover."""

    devices: int
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.devices < 1 or min(self.groups, default=2) < 2 or sum(self.groups) > self.devices:
            raise PlanError(
                f"coverage: groups {list(self.groups)} among {self.devices} devices; expected groups of two devices or "
                "more that no two share"
            )

    @property
    def single(self) -> int:
        """Devices that no parity can cover."""
        return self.devices - sum(self.groups)


STUDIED: dict[str, Division] = {
    "AlexNet": Division(5, (2,)),
    "action recognition": Division(8, (2, 2)),
    "C3D on 7": Division(7, (2, 2)),
    "C3D on 9": Division(9, (3, 3)),
    "VGG16": Division(9, (3, 3)),
}
"""The networks of the paper's figure 3."""


def covered(division: Division, coded: bool = True) -> Iterator[int]:
    """Devices, extras included, that may fail after the first, second, ... extra device is added, where each extra
    covers the most that is left: parities for the largest groups first (only if `coded`), then duplicates.
    """
    groups = sorted(division.groups, reverse=True) if coded else []
    count = 0
    for gain in [*(size + 1 for size in groups), *[2] * (division.devices - sum(groups))]:
        count += gain
        yield count


def coverage(division: Division, extras: int, coded: bool = True) -> float:
    """Share of all devices, extras included, of which any one may fail; parities and duplicates, or those alone."""
    tolerated = [0, *islice(covered(division, coded), extras)]
    return tolerated[-1] / (division.devices + extras)


def curve(division: Division, coded: bool = True) -> tuple[float, ...]:
    """Coverage with 1, 2, ... extra devices, up to full coverage."""
    return tuple(coverage(division, extras, coded) for extras in range(1, extras_needed(division, 1, coded) + 1))


def extras_needed(division: Division, failures: int = 1, coded: bool = True) -> int:
    """The least number of extra devices with which any `failures` devices may fail at once.

    So many parities for each group, so many further copies of each other device: a device that fails may be any, and
    whatever covers one group or device covers no other.
    """
    places = len(division.groups) + division.single if coded else division.devices
    return failures * places
