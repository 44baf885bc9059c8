#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints what is seen, and how complete it is. With several cameras: --ros-args -r detections:=front/detections."""

import rclpy
from dnn_dist.msg import Detections
from rclpy.node import Node

rclpy.init()
node = Node("reader")


def hear(seen: Detections) -> None:
    objects = ", ".join(f"{one.label} {one.score:.2f} at {one.x0:.0f},{one.y0:.0f}" for one in seen.detections)
    found = "no result" if seen.status == Detections.NO_RESULT else objects or "nothing"
    print(found, f"({seen.quality:.0%})", flush=True)


node.create_subscription(Detections, "detections", hear, 10)
rclpy.spin(node)
