# SPDX-License-Identifier: Apache-2.0
"""What carries the messages of this process, and whether the system lets it: said at the start, for nobody to guess."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

from ament_index_python.packages import get_package_share_directory
from rclpy.utilities import get_rmw_implementation_identifier

from dnn_dist.dds import FAST_DDS_2, OLD_PROFILE, PROFILE, SENDERS, UNPACED, derived, profile_environment
from dnn_dist.run.notes import Note

WANTED = 4194304
"""Bytes of socket buffer that the shipped profiles ask for."""
GRANTED = Path("/proc/sys/net/core/rmem_max")


def take_profile() -> None:
    """Say which profile DDS is to read. Called before rclpy.init.

    A process without a profile, e.g. one of `ros2 run`, gets the shipped one for a LAN. Otherwise DDS reads a copy of
    the given one, in which topics that stay on this robot (UNPACED) have no flow controller, processes that send at
    the same time (SENDERS) share its rate, and elements have the names of Fast DDS 2 where that is installed.
    """
    if not _fast_dds():
        return
    if not _profile():
        with suppress(LookupError):  # not installed, as when run from a checkout: DDS as it comes
            share = Path(get_package_share_directory("dnn_dist"))
            os.environ.update(profile_environment(share / "config" / "network" / "lan.xml"))
    topics, path = os.environ.get(UNPACED, "").split(), _profile()
    old = os.environ.get("ROS_DISTRO") in FAST_DDS_2
    try:
        senders = int(os.environ.get(SENDERS, "1"))
        if not path or not (topics or old or senders > 1):
            return
        text = derived(Path(path).read_bytes(), topics, old, senders)
        file, name = tempfile.mkstemp(".xml", "dnn_dist_")  # DDS opens nothing without a name
    except (OSError, ValueError, ElementTree.ParseError):
        return  # transport_refused tells of it
    os.write(file, text)
    os.close(file)
    for variable in (PROFILE, OLD_PROFILE):
        os.environ.pop(variable, None)
    os.environ[OLD_PROFILE if old else PROFILE] = name
    _written[name] = path


def profile_was_read() -> None:
    """Remove what `take_profile` has written: the first node exists, and DDS reads profiles once."""
    for name in _written:
        with suppress(FileNotFoundError):
            os.unlink(name)


_written: dict[str, str] = {}  # file that DDS reads -> the profile that it was made of


def _profile() -> str:
    """Path of the profile that was asked for; empty: none."""
    path = os.environ.get(PROFILE, "") or os.environ.get(OLD_PROFILE, "")
    return _written.get(path, path)


def transport_asked_for() -> str:
    """The middleware, its profile and the range of discovery, as one line."""
    profile = os.path.basename(_profile()) if _fast_dds() else ""
    range_ = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    return f"middleware: {get_rmw_implementation_identifier()}; profile: {profile or 'none'}; discovery: {range_}"


def transport_refused(granted: Path = GRANTED) -> Note | None:
    """A note when the DDS profile is not in use, or only in part. `granted`: a file with a number of bytes."""
    path = _profile()
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
