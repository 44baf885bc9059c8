# SPDX-License-Identifier: Apache-2.0
"""A policy for SROS2 with the topics and services of a cluster, and no others: who may send and hear what.

An enclave for each robot, and one for whoever looks at the cluster (`ros2 security create_permission KEYSTORE ENCLAVE
POLICY`). What each node needs stands in `uses`; a live test holds it to what the nodes really have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.etree import ElementTree

from dnn_dist.cluster import IMAGES, OUTPUTS, Process
from dnn_dist.deploy.place import enclave

CONSOLE = "console"
"""Name of the enclave, and of the node, of whoever looks at the cluster and changes plans and parameters."""

PARAMETER_SERVICES = (
    *("describe_parameters", "get_parameter_types", "get_parameters"),
    *("list_parameters", "set_parameters", "set_parameters_atomically"),
)
EVERY_NODE = ("/diagnostics", "/rosout", "/parameter_events")


@dataclass(frozen=True, slots=True)
class Uses:
    """Topics and services of one node, by names relative to its namespace, or absolute ones."""

    publishes: frozenset[str]
    hears: frozenset[str]
    serves: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()


def uses(process: Process, processes: Sequence[Process]) -> Uses:
    """What a node of ours needs in a cluster of these processes."""
    sources = {str(other.parameters["source"]) for other in processes if other.executable in ("gateway", "partition")}
    workers = {str(other.parameters["worker"]) for other in processes if other.executable == "worker"}
    own = str(process.parameters.get("worker", process.parameters.get("source", "")))
    publishes, hears, serves = set[str](), set[str](), set[str]()
    match process.executable:
        case "camera":
            publishes |= _renamed(process, IMAGES)
        case "worker":
            publishes |= {f"{own}/state", *(f"{source}/{own}/result" for source in sources)}
            publishes |= {f"{worker}/feed" for worker in workers - {own}}
            hears |= {"plan", "source_state", "progress", f"{own}/feed"}
            hears |= {f"{source}/{own}/work" for source in sources}
    if process.executable in ("gateway", "partition"):
        publishes |= {"plan", "source_state", *(f"{own}/{worker}/work" for worker in workers)}
        hears |= {"source_state", *_renamed(process, IMAGES), *(f"{worker}/state" for worker in workers)}
        serves |= {f"{own}/set_plan"}
    if process.executable in ("gateway", "aggregator"):
        publishes |= {"progress", *_renamed(process, set(OUTPUTS) - set(IMAGES))}
        hears |= {f"{worker}/state" for worker in workers} | {f"{own}/{worker}/result" for worker in workers}
    if process.executable == "partition":
        publishes |= {f"{own}/frame", f"{own}/scatter"}
        hears |= {"progress"}
    if process.executable == "aggregator":
        publishes |= {f"{worker}/feed" for worker in workers}
        hears |= {"plan", f"{own}/frame", f"{own}/scatter", *_renamed(process, IMAGES)}
    return Uses(
        frozenset(publishes | set(EVERY_NODE)),
        frozenset(hears | {"/clock"}),  # where `use_sim_time` is set
        frozenset(serves | {f"{process.name}/{service}" for service in PARAMETER_SERVICES}),
    )


def sros2(processes: Sequence[Process]) -> str:
    """The text of the policy, as sros2's policy.xsd has it."""
    policy = ElementTree.Element("policy", version="0.2.0")
    enclaves = ElementTree.SubElement(policy, "enclaves")
    for robot, nodes in groupby(processes, key=lambda process: process.robot):
        profiles = _enclave(enclaves, enclave(robot))
        for node in nodes:
            _profile(profiles, node.namespace, node.name, uses(node, processes))
    namespace = processes[0].namespace if processes else ""
    _profile(_enclave(enclaves, enclave(CONSOLE)), namespace, CONSOLE, _console(processes))
    ElementTree.indent(policy)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(policy, encoding="unicode") + "\n"


def _console(processes: Sequence[Process]) -> Uses:
    all_uses = [uses(process, processes) for process in processes]
    outputs = [_renamed(process, OUTPUTS) for process in processes if process.executable in ("gateway", "aggregator")]
    return Uses(
        publishes=frozenset({"/rosout", "/parameter_events"}),
        hears=frozenset({*EVERY_NODE, "/clock"}.union(*outputs)),
        calls=frozenset[str]().union(*(one.serves for one in all_uses)),
    )


def _renamed(process: Process, topics: Iterable[str]) -> set[str]:
    return {process.remappings.get(topic, topic) for topic in topics}


def _enclave(enclaves: ElementTree.Element, path: str) -> ElementTree.Element:
    return ElementTree.SubElement(ElementTree.SubElement(enclaves, "enclave", path=path), "profiles")


def _profile(profiles: ElementTree.Element, namespace: str, node: str, used: Uses) -> None:
    profile = ElementTree.SubElement(profiles, "profile", ns=f"/{namespace.strip('/')}", node=node)
    for kind, right, names in (
        ("topic", "publish", used.publishes),
        ("topic", "subscribe", used.hears),
        ("service", "reply", used.serves),
        ("service", "request", used.calls),
    ):
        if names:
            listed = ElementTree.SubElement(profile, f"{kind}s", {right: "ALLOW"})
            for name in sorted(names):
                ElementTree.SubElement(listed, kind).text = name
