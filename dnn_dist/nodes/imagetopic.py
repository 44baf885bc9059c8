# SPDX-License-Identifier: Apache-2.0
"""The topic of a source's images: its type and name, and a subscription that suits whoever publishes there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from dnn_dist.nodes.qos import images
from dnn_dist.nodes.shell import Shell

LOOK = 0.25
"""Seconds between two looks at who publishes."""


def image_topic(compressed: bool) -> tuple[type, str]:
    """Type and name of the topic."""
    return (CompressedImage, "image/compressed") if compressed else (Image, "image")


class ImageReader:
    """Receives images as reliably as they are offered.

    Many cameras publish best effort, and a reliable subscription would get nothing from them. But of a best-effort
    image one lost datagram loses all, and with the socket buffers that most systems grant (208 kB) more than half of
    the images of a megabyte are lost even within a machine. So it begins with best effort, which gets on with
    everybody, unless the publishers that are known already are all reliable, and changes when they do.
    """

    def __init__(self, shell: Shell, compressed: bool, handle: Callable[[Any], None]) -> None:
        self._shell, self._handle = shell, handle
        self._type, self._topic = image_topic(compressed)
        self._subscribe(reliable=bool(self._offered_reliably()))
        shell.every(LOOK, self._look)

    def _subscribe(self, reliable: bool) -> None:
        self._reliable = reliable
        self._subscription = self._shell.receive(self._type, self._topic, images(reliable), self._handle)

    def _offered_reliably(self) -> bool | None:
        """Whether all that are known to publish here do so reliably; None: nobody is known."""
        offered = [one.qos_profile.reliability for one in self._shell.get_publishers_info_by_topic(self._topic)]
        return all(one is ReliabilityPolicy.RELIABLE for one in offered) if offered else None

    def _look(self) -> None:
        reliable = self._offered_reliably()
        if reliable not in (None, self._reliable):
            self._shell.destroy_subscription(self._subscription)
            self._subscribe(reliable)
