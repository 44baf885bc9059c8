# SPDX-License-Identifier: Apache-2.0
"""What Fast DDS reads when it starts: the variables that name a profile, and a profile with unpaced writers.

Knows nothing of ROS and imports little, for a node needs it before all else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from xml.etree import ElementTree

PROFILE = "FASTDDS_DEFAULT_PROFILES_FILE"
OLD_PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
"""The same for Fast DDS 2, which does not know the newer name. With version 3 ROS still reads it, and warns."""

FAST_DDS_2 = ("humble", "iron", "jazzy")
"""Values of ROS_DISTRO: these releases of ROS come with it."""

OLD_NAMES = {
    "heartbeat_period": "heartbeatPeriod",
    "nack_response_delay": "nackResponseDelay",
    "heartbeat_response_delay": "heartbeatResponseDelay",
}
"""Elements of the shipped profiles that have another name in Fast DDS 2, which refuses what it does not know."""

UNPACED = "DNN_DIST_UNPACED"
"""Topics, with blanks between, that a profile's flow controller is not to hold back."""

SENDERS = "DNN_DIST_SENDERS"
"""Processes like this one that send at the same time: each has that share of what a profile's flow controller lets
pass, for it knows nothing of the others."""

LEAST = 3000
"""Bytes that a flow controller lets pass in each of its periods at least, two packets."""


def profile_environment(profile: str | Path, unpaced: Sequence[str] = (), senders: int = 1) -> dict[str, str]:
    """The environment in which DDS takes up a profile. `unpaced`: full names of topics that do not leave the robot.
    `senders`: processes like this one that send at the same time.
    """
    return {
        PROFILE: str(profile),
        "RMW_FASTRTPS_USE_QOS_FROM_XML": "1",
        "RMW_FASTRTPS_PUBLICATION_MODE": "AUTO",
        **({UNPACED: " ".join(unpaced)} if unpaced else {}),
        **({SENDERS: str(senders)} if senders > 1 else {}),
    }


def derived(profile: bytes, unpaced: Iterable[str], fast_dds_2: bool = False, senders: int = 1) -> bytes:
    """The profile with one more writer for each topic of `unpaced`: the default writer without its flow controller. The
    flow controller of the others lets pass one of `senders` shares.

    rmw_fastrtps takes the writer profile of a topic's name before the default one. A flow controller belongs to a
    writer and holds back whatever that sends, also to a reader on the same machine. `fast_dds_2`: in that one's words.
    Raises ElementTree.ParseError; ValueError where a number is none.
    """
    root = ElementTree.fromstring(profile)
    space = root.tag[: root.tag.find("}") + 1]  # "{...}", or nothing
    for profiles in root.iter(f"{space}profiles"):
        for writer in profiles.findall(f"{space}data_writer[@is_default_profile='true']"):
            if writer.find(f"{space}qos/{space}publishMode/{space}flow_controller_name") is not None:
                profiles.extend(_unpaced(writer, topic, space) for topic in unpaced)
    for passing in root.iter(f"{space}max_bytes_per_period") if senders > 1 else ():
        passing.text = str(max(LEAST, int(passing.text or 0) // senders))
    for element in root.iter() if fast_dds_2 else ():
        name = element.tag.removeprefix(space)
        element.tag = space + OLD_NAMES.get(name, name)
    if space:
        ElementTree.register_namespace("", space[1:-1])
    return bytes(ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True))


def _unpaced(writer: ElementTree.Element, topic: str, space: str) -> ElementTree.Element:
    own = deepcopy(writer)
    own.attrib = {"profile_name": topic}
    for qos in own.iter(f"{space}qos"):
        for mode in qos.findall(f"{space}publishMode"):
            qos.remove(mode)
    return own
