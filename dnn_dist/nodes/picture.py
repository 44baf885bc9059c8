# SPDX-License-Identifier: Apache-2.0
"""An image on its way through a source: as the camera sent it, and as the pixels of the model's input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.nodes.images import to_rgb


@dataclass(slots=True)
class Picture:
    """What a frame is made of, and what its outputs need."""

    header: Header  # passed on unchanged
    message: Image | CompressedImage | None = None
    image: np.ndarray | None = None  # RGB; None where only another process has it
    letterbox: Letterbox | None = None  # from the image to the model's input; None: it is no image

    @classmethod
    def of(cls, message: Image | CompressedImage) -> Picture:
        """An image that came; it is read when a frame is made of it."""
        return cls(message.header, message)

    def pixels(self, height: int, width: int) -> np.ndarray:
        """As the model's input, uint8 height x width x 3; ImageError in one line when it is no image."""
        message, self.message = self.message, None
        self.image = to_rgb(message)
        self.letterbox = Letterbox(self.image.shape[0], self.image.shape[1], height, width)
        return self.letterbox.apply(self.image)
