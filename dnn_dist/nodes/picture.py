# SPDX-License-Identifier: Apache-2.0
"""An image on its way through a source: as the camera sent it, and as the pixels of the model's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.nodes.images import to_rgb


@dataclass(slots=True)
class Picture:
    """What a frame is made of, and what its outputs need. Of several images the first is what a person is shown."""

    header: Header  # passed on unchanged
    messages: tuple[Image | CompressedImage, ...] = ()
    image: np.ndarray | None = None  # RGB; None where only another process has it
    letterbox: Letterbox | None = None  # from the image to the model's input; None: it is no image

    @classmethod
    def of(cls, messages: tuple[Image | CompressedImage, ...]) -> Picture:
        """Images that came, one for each of the model's inputs or one for all; read when a frame is made of them."""
        return cls(messages[0].header, messages)

    def pixels(self, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """As the model's inputs of these rows and columns, each uint8 rows x columns x 3; ImageError in one line when
        one is no image.
        """
        messages, self.messages = self.messages, ()
        images = [to_rgb(message) for message in messages]
        images *= len(sizes) // len(images)
        boxes = [Letterbox(image.shape[0], image.shape[1], *size) for image, size in zip(images, sizes, strict=True)]
        self.image, self.letterbox = images[0], boxes[0]
        return [box.apply(image) for box, image in zip(boxes, images, strict=True)]
