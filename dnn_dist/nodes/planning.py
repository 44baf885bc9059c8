# SPDX-License-Identifier: Apache-2.0
"""From parameters to what a node works with: the model file, its card, and the plan in force."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from dnn_dist.detect.card import ModelCard
from dnn_dist.detect.head import Head, make_head
from dnn_dist.errors import ConfigError
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.modelcard import card_of
from dnn_dist.plan.bylink import parse_by_link, read_by_link
from dnn_dist.plan.plan import Pixels, Plan
from dnn_dist.settings import PartitionSettings, image_topics
from dnn_dist.shipped import find_model


def load_network(model: str, images: str = "") -> Network:
    """Read a model that takes images, from as many topics as it has inputs or from one. ModelError or ConfigError in
    one line when it does not.
    """
    network = read_network(find_model(model))
    shapes = [network.tensors[index].array_shape for index in network.inputs]
    if not shapes or any(len(shape) != 3 or shape[2] != 3 for shape in shapes):
        raise ConfigError(f"{network.path}: takes {shapes}, expected images of height x width x 3")
    topics = image_topics(images)
    if len(topics) not in (1, len(shapes)):
        raise ConfigError(
            f"images names {len(topics)} topics, {network.path.name} takes {len(shapes)} images; name one topic for "
            f"{'each, or one for all' if len(shapes) > 1 else 'it'}"
        )
    for topic in topics:
        if not re.fullmatch(r"/?[A-Za-z]\w*(/[A-Za-z]\w*)*", topic, re.ASCII):
            raise ConfigError(f"images names the topic {topic[:80]!r}, expected one like left or left/image_raw")
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


def plans_by_link(plan: Plan, settings: PartitionSettings) -> list[tuple[float, Plan]]:
    """What `plan` gives way to when the link to a server is good: from which rate on (bytes/s), and the plan."""
    path = settings.plan
    steps = read_by_link(Path(path).expanduser()) if path else parse_by_link(settings.by_link)
    return [(step.rate, replace(plan, cut=step.cut)) for step in steps]


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
