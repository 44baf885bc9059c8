# SPDX-License-Identifier: Apache-2.0
"""From parameters to what a node works with: the model file, its card, and the plan in force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dnn_dist.detect.card import ModelCard
from dnn_dist.detect.head import Head, make_head
from dnn_dist.errors import ConfigError
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.modelcard import card_of
from dnn_dist.plan.plan import Pixels, Plan
from dnn_dist.settings import PartitionSettings
from dnn_dist.shipped import find_model


def load_network(model: str) -> Network:
    """Read a model that takes one image. ModelError or ConfigError in one line when it does not."""
    network = read_network(find_model(model))
    shapes = [network.tensors[index].array_shape for index in network.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][2] != 3:
        raise ConfigError(f"{network.path}: takes {shapes}, expected one image of height x width x 3")
    return network


def load_head(network: Network, card: ModelCard) -> Head:
    """The detection head that the card names, checked against the model's outputs."""
    return make_head(card, [network.tensors[index].array_shape for index in network.outputs])


def plan_in_force(network: Network, settings: PartitionSettings) -> Plan:
    """The plan of a source's parameters: that of a plan file, or one of cut, fill, wire and replicas."""
    if settings.plan:
        return Plan.read(Path(settings.plan).expanduser())
    return make_plan(
        network,
        card_of(network),
        settings.cut,
        fill=settings.fill,
        wire=settings.wire,
        replicas=settings.replicas,
    )


def plan_of_text(network: Network, text: str, settings: PartitionSettings) -> Plan:
    """A plan as somebody asks for it: its text, or a cut that takes the rest from the source's parameters."""
    if "dnn_dist_plan" in text:
        plan = Plan.from_yaml(text)
    else:
        options = {"fill": settings.fill, "wire": settings.wire, "replicas": settings.replicas}
        plan = make_plan(network, card_of(network), text.strip(), **options)
    plan.stages(network)
    return plan


def make_plan(network: Network, card: ModelCard, cut: str, **options: Any) -> Plan:
    """A plan for a model with its card; `options` are the plan's own."""
    return Plan(model=network.sha256, cut=cut, pixels=Pixels(card.scale, card.offset), **options)
