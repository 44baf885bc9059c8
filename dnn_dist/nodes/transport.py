# SPDX-License-Identifier: Apache-2.0
"""What carries the messages of this process: said at its start, so that nobody has to guess."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

from dnn_dist.run.notes import Note

PROFILE = "FASTDDS_DEFAULT_PROFILES_FILE"
GRANTED = Path("/proc/sys/net/core/rmem_max")


def transport_in_force() -> str:
    """The DDS profile and the range of discovery, as one line."""
    profile = os.environ.get(PROFILE, "")
    range_ = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    return f"DDS profile: {os.path.basename(profile) or 'none, as installed'}; discovery: {range_}"


def small_buffers(granted: Path = GRANTED) -> Note | None:
    """What there is to say when the system grants smaller socket buffers than the profile asks for (bytes)."""
    try:
        most = int(granted.read_text())
        wanted = [
            int(element.text or "0")
            for element in ElementTree.parse(os.environ[PROFILE]).iter()
            if element.tag.endswith("receiveBufferSize")
        ]
    except (OSError, KeyError, ValueError, ElementTree.ParseError):
        return None  # no profile, or not Linux: nothing was asked for
    if most >= max(wanted, default=0):
        return None
    text = f"{most // 1024} kB of {max(wanted) // 1024}: bursts are lost and sent again; as root, sysctl -w"
    return Note("small socket buffers", f"{text} net.core.rmem_max={max(wanted)}")
