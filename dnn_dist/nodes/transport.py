# SPDX-License-Identifier: Apache-2.0
"""What carries the messages of this process, and whether the system lets it: said at the start, for nobody to guess."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from xml.etree import ElementTree

from ament_index_python.packages import get_package_share_directory
from rclpy.utilities import get_rmw_implementation_identifier

from dnn_dist.cluster import UNPACED, transport
from dnn_dist.run.notes import Note

PROFILE = "FASTDDS_DEFAULT_PROFILES_FILE"
OLD_PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
WANTED = 4194304
"""Bytes of socket buffer that the shipped profiles ask for."""
GRANTED = Path("/proc/sys/net/core/rmem_max")


def take_profile() -> None:
    """Give a process that was started without a DDS profile, e.g. by `ros2 run`, the shipped one for a LAN.

    Called before rclpy.init, for DDS reads it when it starts. Who has set a profile keeps it, except that writers of
    topics that stay on this robot (UNPACED) get no flow controller.
    """
    if not _fast_dds():
        return
    topics = os.environ.get(UNPACED, "").split()
    if topics and os.environ.get(PROFILE):
        _let_pass(topics)
    elif not os.environ.get(PROFILE) and not os.environ.get(OLD_PROFILE):
        with suppress(LookupError):  # not installed, as when run from a checkout: DDS as it comes
            os.environ.update(transport("local", Path(get_package_share_directory("dnn_dist")) / "config" / "network"))


def unpaced(profile: bytes, topics: Iterable[str]) -> bytes:
    """A DDS profile with a writer more for each topic: as the default one, but without flow controller.

    rmw_fastrtps takes the writer profile of a topic's name before the default one. A flow controller belongs to a
    writer and holds back whatever it sends, also to a reader on the same machine.
    """
    root = ElementTree.fromstring(profile)
    space = root.tag[: root.tag.find("}") + 1]  # "{...}", or nothing
    for profiles in root.iter(f"{space}profiles"):
        for writer in profiles.findall(f"{space}data_writer[@is_default_profile='true']"):
            if writer.find(f"{space}qos/{space}publishMode/{space}flow_controller_name") is None:
                continue
            for topic in topics:
                own = deepcopy(writer)
                own.attrib = {"profile_name": topic}
                qos = own.find(f"{space}qos")
                qos.remove(qos.find(f"{space}publishMode"))
                profiles.append(own)
    if space:
        ElementTree.register_namespace("", space[1:-1])
    return ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)


def _let_pass(topics: Iterable[str]) -> None:
    """Have DDS read the profile with unpaced writers instead."""
    path = os.environ[PROFILE]
    try:
        derived = unpaced(Path(path).read_bytes(), topics)
    except (OSError, ElementTree.ParseError):
        return  # transport_refused tells of it
    file, name = tempfile.mkstemp(".xml", "dnn_dist_")  # DDS opens nothing without a name
    os.write(file, derived)
    os.close(file)
    os.environ[PROFILE] = name
    _written[name] = path


def profile_was_read() -> None:
    """Remove what `take_profile` has written: the first node exists, and DDS reads profiles once."""
    for name in _written:
        with suppress(FileNotFoundError):
            os.unlink(name)


_written: dict[str, str] = {}  # file that DDS reads -> the profile that it was made of


def _profile() -> str:
    """Path of the profile that was asked for; empty: none."""
    path = os.environ.get(PROFILE, "")
    return _written.get(path, path)


def transport_asked_for() -> str:
    """The middleware, its profile and the range of discovery, as one line."""
    profile = os.path.basename(_profile()) if _fast_dds() else ""
    range_ = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    return f"middleware: {get_rmw_implementation_identifier()}; profile: {profile or 'none'}; discovery: {range_}"


def transport_refused(granted: Path = GRANTED) -> Note | None:
    """What there is to say when the profile is not had, or not all of it. `granted`: a file with a number of bytes."""
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
