# SPDX-License-Identifier: Apache-2.0
"""Hears images as a gateway does, and prints a line for each: topic, number, and bytes or `broken`. A process."""

import sys
import zlib

from dnn_dist.nodes.imagetopic import ImageReader, image_topic
from dnn_dist.nodes.process import run
from dnn_dist.nodes.shell import Shell


class Listener(Shell):
    def __init__(self) -> None:
        super().__init__("listener")

    def start(self) -> None:
        for compressed in (False, True):
            ImageReader(self, compressed, self.printing(image_topic(compressed)[1]))

    @staticmethod
    def printing(topic):
        def hear(message) -> None:
            whole = message.header.frame_id == str(zlib.crc32(message.data))
            print(topic, message.header.stamp.sec, len(message.data) if whole else "broken", flush=True)

        return hear


sys.exit(run(Listener, sys.argv))
