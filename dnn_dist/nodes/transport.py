# SPDX-License-Identifier: Apache-2.0
"""What carries the messages of this process, and whether the system lets it: said at the start, for nobody to guess."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

from ament_index_python.packages import get_package_share_directory
from rclpy.utilities import get_rmw_implementation_identifier

from dnn_dist.cluster import transport
from dnn_dist.run.notes import Note

PROFILE = "FASTDDS_DEFAULT_PROFILES_FILE"
OLD_PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
WANTED = 4194304
"""Bytes of socket buffer that the shipped profiles ask for."""
GRANTED = Path("/proc/sys/net/core/rmem_max")


def take_profile() -> None:
    """Give a process that was started without a DDS profile, e.g. by `ros2 run`, the shipped one for a LAN.

    Called before rclpy.init, for DDS reads it when it starts. Who has set a profile keeps it.
    """
    if os.environ.get(PROFILE) or os.environ.get(OLD_PROFILE) or not _fast_dds():
        return
    with suppress(LookupError):  # not installed, as when run from a checkout: DDS as it comes
        os.environ.update(transport("local", Path(get_package_share_directory("dnn_dist")) / "config" / "network"))


def transport_asked_for() -> str:
    """The middleware, its profile and the range of discovery, as one line."""
    profile = os.path.basename(os.environ.get(PROFILE, "")) if _fast_dds() else ""
    range_ = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    return f"middleware: {get_rmw_implementation_identifier()}; profile: {profile or 'none'}; discovery: {range_}"


def transport_refused(granted: Path = GRANTED) -> Note | None:
    """What there is to say when the profile is not had, or not all of it. `granted`: a file with a number of bytes."""
    path = os.environ.get(PROFILE, "")
    if not path:
        return None
    if not _fast_dds():
        return Note("no profile", f"{os.path.basename(path)} is for rmw_fastrtps_cpp, set RMW_IMPLEMENTATION to it")
    try:
        elements = ElementTree.parse(path).iter()
        wanted = max((int(one.text or 0) for one in elements if one.tag.endswith("receiveBufferSize")), default=0)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        return Note("no profile", f"{path}: {' '.join(str(error).split())}; the middleware runs as installed")
    try:
        most = int(granted.read_text())
    except (OSError, ValueError):
        return None  # not Linux: nobody knows
    if most >= wanted:
        return None
    text = f"{most // 1024} kB of {wanted // 1024}: bursts are lost and sent again; as root, sysctl -w"
    return Note("small socket buffers", f"{text} net.core.rmem_max={wanted}")


def _fast_dds() -> bool:
    return "fastrtps" in get_rmw_implementation_identifier()
