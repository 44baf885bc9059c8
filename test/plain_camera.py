# SPDX-License-Identifier: Apache-2.0
"""A camera driver as others write them: plain rclpy, nothing of dnn_dist, no DDS profile. A process of its own.

    python plain_camera.py reliable|best_effort RATE SIZE...

Raw images of SIZE bytes on `image`, compressed ones half a period later on `image/compressed`, each size in turn, until
it is ended. A topic is begun when a subscription as reliable as its publisher is there. The stamp's seconds count from
1; `frame_id` is the checksum of the bytes. Prints a line for each image.
"""

import os
import sys
import time
import zlib

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

ROW = 1000  # bytes


def raw(content: bytes) -> Image:
    rows = len(content) // ROW
    image = Image(height=rows, width=ROW, step=ROW, encoding="mono8")
    image.data.frombytes(content[: rows * ROW])
    return image


def compressed(content: bytes) -> CompressedImage:
    image = CompressedImage(format="jpeg")
    image.data.frombytes(content)
    return image


def main() -> None:
    reliability = ReliabilityPolicy[sys.argv[1].upper()]
    period, sizes = 1 / float(sys.argv[2]), [int(size) for size in sys.argv[3:]]
    rclpy.init()
    node = rclpy.create_node("someones_camera")
    qos = QoSProfile(depth=5, reliability=reliability)
    topics = {"image": (Image, raw), "image/compressed": (CompressedImage, compressed)}
    publishers = {topic: node.create_publisher(type_, topic, qos) for topic, (type_, _) in topics.items()}

    def heard_by(topic: str) -> bool:
        readers = node.get_subscriptions_info_by_topic(publishers[topic].topic_name)
        alike = any(reader.qos_profile.reliability is reliability for reader in readers)
        return alike and publishers[topic].get_subscription_count() > 0

    heard: set[str] = set()
    while not heard:
        rclpy.spin_once(node, timeout_sec=0.05)
        heard = {topic for topic in topics if heard_by(topic)}
    due = time.monotonic()
    for number in range(1, 1_000_000):
        content = os.urandom(sizes[number % len(sizes)])
        for topic, (_, make) in topics.items():
            heard |= {topic} if heard_by(topic) else set()
            if topic in heard:
                image = make(content)
                image.header.stamp.sec = number
                image.header.frame_id = str(zlib.crc32(image.data))
                publishers[topic].publish(image)
                print(topic, number, len(image.data), flush=True)
            due += period / 2
            rclpy.spin_once(node, timeout_sec=0)
            time.sleep(max(0.0, due - time.monotonic()))


main()
