# SPDX-License-Identifier: Apache-2.0
"""Camera node: publishes frames of a device, a video, a folder or a synthetic scene, at a rate."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from std_msgs.msg import Header

from dnn_dist.camera.sources import open_source
from dnn_dist.nodes.alarms import next_turn
from dnn_dist.nodes.images import rgb_to_compressed, rgb_to_image
from dnn_dist.nodes.imagetopic import image_topic
from dnn_dist.nodes.lane import Lane, one_line
from dnn_dist.nodes.parameters import Parameters
from dnn_dist.nodes.process import run
from dnn_dist.nodes.qos import OVERRIDES, images
from dnn_dist.nodes.shell import Shell
from dnn_dist.run.notes import Note
from dnn_dist.settings import CameraSettings


class Camera(Shell):
    """Reads on a thread, so that a slow source drops frames instead of delaying them."""

    def __init__(self) -> None:
        super().__init__("camera")
        self._settings = Parameters(self, CameraSettings, self._retime)
        self._taken = 0
        self._dropped = 0
        self._ended = False

    def configure(self) -> None:
        settings = self._settings.now
        self._source = open_source(
            settings.source, settings.height, settings.width, loop=settings.loop, warn=self._left_out
        )

    def start(self) -> None:
        type_, topic = image_topic(self._settings.now.compressed)
        self._publisher = self.offer(type_, topic, images(reliable=True), OVERRIDES)
        self._reading = Lane(self, "camera")
        self._due = self.now()
        self._retime()

    def stop(self) -> None:
        if hasattr(self, "_reading"):
            self._reading.stop()
        if hasattr(self, "_source"):
            self._source.close()

    def health(self) -> dict[str, Any]:
        return {"frames published": self._taken, "frames dropped": self._dropped}

    def _left_out(self, file: str, why: str) -> None:
        # On the thread that reads.
        self.soon(lambda: self.note(Note("file left out", f"{file}: {why}", about=file)))

    def _retime(self) -> None:
        """The rate has changed: the next frame comes one new period after the last."""
        self._due = min(self._due, self.now()) + 1.0 / self._settings.now.rate
        self.wake_at(self._due, self._beat)

    def _beat(self) -> None:
        self._due = next_turn(self._due, 1.0 / self._settings.now.rate, self.now())
        self.wake_at(self._due, self._beat)
        self._tick()

    def _tick(self) -> None:
        if self._ended or (
            self._taken == 0 and self._settings.now.wait_for_subscriber and not self._publisher.get_subscription_count()
        ):
            return
        if self._reading.busy:
            self._dropped += 1
            self.note(Note("frame dropped", "the source is slower than the rate asked for", warn=False))
            return
        self._reading.submit(self._source.read, self._publish)

    def _publish(self, image: np.ndarray | None, error: Exception | None) -> None:
        if error is not None:
            self.note(Note("camera failed", one_line(error)))
            return
        if image is None:
            self._ended = True
            self.get_logger().info(f"the source has ended after {self._taken} frames")
            return
        settings = self._settings.now
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=settings.frame_id)
        if settings.compressed:
            message = rgb_to_compressed(image, header, "jpeg", settings.jpeg_quality)
        else:
            message = rgb_to_image(image, header)
        self.send(self._publisher, message)
        self._taken += 1


def main() -> int:
    return run(Camera, sys.argv)
