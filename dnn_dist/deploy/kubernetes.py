# SPDX-License-Identifier: Apache-2.0
"""Kubernetes manifests: a robot is a Deployment of one pod on the machine with its label, a node is a container of it.

    kubectl label node MACHINE dnn-dist/robot=r2

Pods use the network of their machine, since DDS finds its peers by multicast and the networks of clusters carry none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from dnn_dist.cluster import Process
from dnn_dist.deploy.container import IMAGE, PARAMETERS, dump, lives, parameter_file, sign_of_life
from dnn_dist.deploy.place import NODE_BYTES, START, Place, camera_device
from dnn_dist.errors import ConfigError

LABEL = "dnn-dist/robot"
"""Of machines and of pods: the robot's name in the parameter file."""
CONFIG_MAP = "dnn-dist-parameters"
_LONGEST = 63  # letters of a name in Kubernetes


def kubernetes(processes: Sequence[Process], limits: Mapping[str, int], place: Place, image: str = IMAGE) -> str:
    """The text of all manifests. `limits`: process -> bytes that it may take; ConfigError where a name will not do."""
    parameters = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "labels": _labels()},
        "data": {f"{process.name}.yaml": process.parameter_text() for process in processes},
    }
    robots = [(robot, list(nodes)) for robot, nodes in groupby(processes, key=lambda process: process.robot)]
    return dump(parameters, *(_deployment(robot, nodes, limits, place, image) for robot, nodes in robots))


def _deployment(
    robot: str, nodes: list[Process], limits: Mapping[str, int], place: Place, image: str
) -> dict[str, Any]:
    labels = {**_labels(), LABEL: _label(robot)}
    folders = list(dict.fromkeys(folder for node in nodes for folder in place.folders(node)))
    devices = list(dict.fromkeys(device for node in nodes if (device := camera_device(node))))
    volumes = [
        {"name": "parameters", "configMap": {"name": CONFIG_MAP}},
        {"name": "tmp", "emptyDir": {"medium": "Memory"}},
        *({"name": _volume(folder, folders), "hostPath": {"path": folder, "type": "Directory"}} for folder in folders),
        *({"name": device[5:], "hostPath": {"path": device, "type": "CharDevice"}} for device in devices),
    ]
    pod = {
        "nodeSelector": {LABEL: _label(robot)},
        "hostNetwork": True,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 10,
        "containers": [_container(node, limits.get(node.name), place, image, folders) for node in nodes],
        "volumes": volumes,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": _name("dnn-dist", robot), "labels": labels},
        "spec": {
            "replicas": 1,
            # Never two of one name: workers and sources are told apart by it.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {LABEL: _label(robot)}},
            "template": {
                # Pods are made anew when their parameters change.
                "metadata": {"labels": labels, "annotations": {"dnn-dist/parameters": _digest(nodes)}},
                "spec": pod,
            },
        },
    }


def _container(node: Process, limit: int | None, place: Place, image: str, folders: list[str]) -> dict[str, Any]:
    device = camera_device(node)
    environment = {**place.environment(node), "DNN_DIST_HEALTH": sign_of_life(node)}
    mounts = [
        {"name": "parameters", "mountPath": PARAMETERS, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
        *({"name": _volume(f, folders), "mountPath": f, "readOnly": True} for f in place.folders(node)),
        *([{"name": device[5:], "mountPath": device}] if device else []),
    ]
    # The kernel refuses a device to a container that is not privileged, whatever is mounted. Only the camera is.
    security: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    if device:
        security = {"privileged": True, "runAsUser": 0, "readOnlyRootFilesystem": True}
    memory = {"requests": {"memory": str(NODE_BYTES)}, **({"limits": {"memory": str(limit)}} if limit else {})}
    return {
        "name": _name(node.name),
        "image": image,
        "args": place.command(node, parameter_file(node)),
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "resources": memory,
        "volumeMounts": mounts,
        "securityContext": security,
        "startupProbe": _probe(["test", "-e", sign_of_life(node)], 1, START),
        "livenessProbe": _probe(["sh", "-c", lives(node)], 10, 2),
        "readinessProbe": _probe(["grep", "-q", "^OK", sign_of_life(node)], 5, 1),
    }


def _probe(command: list[str], period: int, failures: int) -> dict[str, Any]:
    return {
        "exec": {"command": command},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _labels() -> dict[str, str]:
    return {"app.kubernetes.io/name": "dnn-dist"}


def _label(robot: str) -> str:
    """A label's value has underscores within, and neither begins nor ends with one."""
    if robot.endswith("_"):
        raise ConfigError(f"robot {robot!r}: no label of Kubernetes ends with '_'; rename it in the parameter file")
    return robot


def _name(*words: str) -> str:
    """A name for Kubernetes, which has '-' where ROS has '_'; no two become the same, for ours have no '-'."""
    name = "-".join(words).replace("_", "-")
    if len(name) > _LONGEST or name.endswith("-"):
        raise ConfigError(
            f"{words[-1]!r}: {name!r} is no name for Kubernetes, which has {_LONGEST} letters at most and ends with a "
            "letter or digit; rename the robot in the parameter file"
        )
    return name


def _volume(folder: str, folders: list[str]) -> str:
    return f"folder-{folders.index(folder) + 1}"


def _digest(nodes: Sequence[Process]) -> str:
    return hashlib.sha256("\n".join(node.parameter_text() for node in nodes).encode()).hexdigest()[:16]
