# SPDX-License-Identifier: Apache-2.0
"""The topic of a source's images: its type and name, and a subscription that suits whoever publishes there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.qos import QoSPolicyKind, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from dnn_dist.errors import ConfigError
from dnn_dist.nodes.qos import OVERRIDES, images
from dnn_dist.nodes.shell import Shell
from dnn_dist.nodes.transport import WANTED
from dnn_dist.run.notes import Note

LOOK = 0.25
"""Seconds between two looks at who publishes."""
SILENCE = 5.0
"""Seconds without an image, while somebody publishes there, after which that is a warning; not before three of the
camera's own periods."""


def image_topic(compressed: bool, name: str = "image") -> tuple[type, str]:
    """Type and name of a topic of images."""
    return (CompressedImage, f"{name}/compressed") if compressed else (Image, name)


class ImageReader:
    """Receives images as reliably as they are offered.

    Many cameras publish best effort, and a reliable subscription would get nothing from them. But of a best-effort
    image one lost datagram loses all, and with the socket buffers that most systems grant (208 kB) more than half of
    the images of a megabyte are lost even within a machine. So it begins with best effort, which gets on with
    everybody, unless the publishers that are known already are all reliable, and changes when they do. The parameter
    `qos_overrides.TOPIC.subscription.reliability` has the last word.
    """

    def __init__(
        self, shell: Shell, compressed: bool, handle: Callable[[Any], None], name: str = "image"
    ) -> None:
        self._shell, self._handle = shell, handle
        self._type, self._topic = image_topic(compressed, name)
        self._since = shell.now()  # s; the newest image, or when somebody began to publish
        self._gap = 0.0  # s between the two newest images
        self._silent = ""  # why it may be that images are published and none comes
        self._overridden = self._override()
        self._subscribe(reliable=bool(_all_reliable(self._publishers())))
        shell.every(LOOK, self._look)

    def _override(self) -> bool:
        """Whether a parameter says how reliable the subscription is. ConfigError when it says something else."""
        name = f"qos_overrides.{self._shell.resolve_topic_name(self._topic)}.subscription.reliability"
        known = ("system_default", "best_effort", "reliable")
        descriptor = ParameterDescriptor(description="system_default: as images are offered", read_only=True)
        value = self._shell.declare_parameter(name, known[0], descriptor).value
        if value not in known:
            raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(known)}")
        return bool(value != known[0])

    def _subscribe(self, reliable: bool) -> None:
        self._reliable = reliable
        overrides = [kind for kind in OVERRIDES if self._overridden or kind is not QoSPolicyKind.RELIABILITY]
        self._subscription = self._shell.receive(
            self._type, self._topic, images(reliable), self._hear, overrides=overrides
        )

    def _hear(self, message: Any) -> None:
        now = self._shell.now()
        self._gap, self._since = now - self._since, now
        self._handle(message)

    def _publishers(self) -> list[Any]:
        return list(self._shell.get_publishers_info_by_topic(self._topic))

    def _look(self) -> None:
        publishers = self._publishers()
        reliable = _all_reliable(publishers)
        if reliable not in (None, self._reliable) and not self._overridden:
            self._shell.destroy_subscription(self._subscription)
            self._subscribe(reliable)
        now = self._shell.now()
        if not publishers:
            self._since, self._gap = now, 0.0
        silent = now - self._since > max(SILENCE, 3 * self._gap)
        if silent and not self._silent:
            self._shell.note(Note(f"no images on {self._subscription.topic_name}", self._why(publishers)))
        self._silent = self._why(publishers) if silent else ""

    def trouble(self) -> list[str]:
        """That images are published and none comes; empty while all is well."""
        return [f"no images on {self._subscription.topic_name}: {self._silent}"] if self._silent else []

    def _why(self, publishers: list[Any]) -> str:
        topic, seconds = self._subscription.topic_name, self._shell.now() - self._since
        names = sorted({f"{one.node_namespace.rstrip('/')}/{one.node_name}" for one in publishers})
        return (
            f"published by {', '.join(names)}, none came for {seconds:.0f} s; does it send (ros2 topic hz {topic})? "
            f"then sysctl -w net.core.rmem_max={WANTED} on this robot, and look for a DDS profile that cuts datagrams"
        )


def _all_reliable(publishers: list[Any]) -> bool | None:
    """Whether all publish reliably; None: nobody does."""
    offered = [one.qos_profile.reliability for one in publishers]
    return all(one is ReliabilityPolicy.RELIABLE for one in offered) if offered else None
