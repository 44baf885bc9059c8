# SPDX-License-Identifier: Apache-2.0
"""Takes a process into the ROS network before the modules of its node are imported, which takes longer than all else.

DDS finds other processes in threads of its own. Their topics are known when those of the node are made; a gateway that
was killed then hears its camera and its workers at once. rmw makes the DDS participant with the first node, hence one
that does nothing else.
"""

from __future__ import annotations

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from dnn_dist.errors import ConfigError
from dnn_dist.nodes.transport import profile_was_read, take_profile

_first: list[Node] = []


def join(arguments: list[str] | None = None) -> None:
    """Initialise ROS, unless that is done, and make the participant. Signals stay with the caller.

    ConfigError when `arguments` are wrong, e.g. a parameter file that is missing.
    """
    if rclpy.ok():
        return
    take_profile()
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except (RuntimeError, ValueError) as error:  # RCLError and several like it, by the version of rclpy
        raise ConfigError(f"the ROS arguments are wrong: {' '.join(str(error).split())}") from None
    # Hidden, and none of the node's own arguments: neither its name nor its parameters.
    _first.append(
        Node("_joining", use_global_arguments=False, enable_rosout=False, start_parameter_services=False)
    )
    profile_was_read()


def joined() -> None:
    """Destroy the first node, now that the real one is there; the DDS participant stays."""
    while _first:
        _first.pop().destroy_node()
