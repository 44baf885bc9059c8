# SPDX-License-Identifier: Apache-2.0
"""Making a subscription or a publisher: its QoS events become notes, parameters may override its QoS; and its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rclpy.event_handler import UnsupportedEventTypeError
from rclpy.exceptions import ParameterException
from rclpy.qos import QoSPolicyKind
from rclpy.qos_overriding_options import QoSOverridingOptions

from dnn_dist.errors import ConfigError
from dnn_dist.run.notes import Note

try:
    from rclpy._rclpy_pybind11 import RCLError
except ImportError:  # another rclpy hides it elsewhere; then no publish() of ours can raise it by this name
    RCLError = RuntimeError

__all__ = ["RCLError", "make_endpoint", "quieten"]


def make_endpoint(
    create: Callable[..., Any],
    callbacks: type,
    note: Callable[[Note], None],
    late: Callable[[Any], None] | None,
    topic: str,
    *arguments: Any,
    overrides: Sequence[QoSPolicyKind] = (),
) -> Any:
    """What `create` makes of `arguments`. `callbacks`: rclpy's class of callbacks for its QoS events; `late` takes
    missed deadlines. `overrides`: what parameters may override; ConfigError when these are wrong.
    """
    options = QoSOverridingOptions(overrides)

    def incompatible(event: Any) -> None:
        note(Note(f"incompatible QoS on {topic}", f"the other end wants another {event.last_policy_kind}"))

    try:
        events = callbacks(incompatible_qos=incompatible, deadline=late)
        return create(*arguments, event_callbacks=events, qos_overriding_options=options)
    except UnsupportedEventTypeError:
        # The clock of the aggregator decides anyway.
        note(Note("no QoS events", f"{topic}: this middleware tells of no missed deadlines", warn=False))
        return create(*arguments, qos_overriding_options=options)
    except (ParameterException, RuntimeError) as error:
        if overrides and not isinstance(error, RCLError):
            raise ConfigError(f"qos_overrides of {topic}: {' '.join(str(error).split())}") from None
        raise


def quieten(endpoint: Any) -> None:
    """To be called before a subscription or publisher is destroyed.

    A QoS event that waits in the events executor's queue is looked at afterwards. Then rclpy raises InvalidHandle out
    of spin_once (github.com/ros2/rclpy/issues/1491), which would end the process.
    """
    for handler in endpoint.event_handlers:
        handler.add_to_wait_set = lambda wait_set: None
        handler.is_ready = lambda wait_set: False
