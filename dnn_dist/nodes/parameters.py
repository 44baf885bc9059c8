# SPDX-License-Identifier: Apache-2.0
"""Settings classes as ROS parameters: declared with description and range, checked when set, kept up to date."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from dnn_dist.settings import Meaning, meanings

T = TypeVar("T", covariant=True)


class Parameters(Generic[T]):
    """The parameters of a node as one frozen settings object, `now`, replaced when one changes."""

    def __init__(self, node: Node, settings: type[T], changed: Callable[[], None] | None = None) -> None:
        self._settings, self._changed = settings, changed
        self._meanings = meanings(settings)
        values = {
            name: node.declare_parameter(name, default, _descriptor(default, meaning)).value
            for name, (default, meaning) in self._meanings.items()
        }
        refusal = next(filter(None, (self._refusal(name, value) for name, value in values.items())), "")
        if refusal:
            raise ValueError(refusal)
        self.now: T = settings(**values)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._apply)

    def _refusal(self, name: str, value: Any) -> str:
        if name not in self._meanings:
            return ""
        expected = self._meanings[name][1].expects(value)
        return f"{name} is {value!r}, expected {expected}" if expected else ""

    def _check(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        refusals = [self._refusal(parameter.name, parameter.value) for parameter in parameters]
        reason = "; ".join(filter(None, refusals))
        return SetParametersResult(successful=not reason, reason=reason)

    def _apply(self, parameters: Sequence[Parameter]) -> None:
        values = {p.name: p.value for p in parameters if p.name in self._meanings}
        self.now = self._settings(**{**vars(self.now), **values})
        if values and self._changed is not None:
            self._changed()


def _descriptor(default: Any, meaning: Meaning) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=meaning.text, read_only=not meaning.live)
    if meaning.choices:
        descriptor.additional_constraints = "one of " + ", ".join(meaning.choices)
    if meaning.low is None or meaning.high is None:
        return descriptor
    if isinstance(default, int):
        descriptor.integer_range = [IntegerRange(from_value=int(meaning.low), to_value=int(meaning.high), step=0)]
    else:
        bounds = FloatingPointRange(from_value=float(meaning.low), to_value=float(meaning.high), step=0.0)
        descriptor.floating_point_range = [bounds]
    return descriptor
