# SPDX-License-Identifier: Apache-2.0
"""Where a process is to run, and what it needs from there: folders, a camera, memory, its environment."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from dnn_dist.cluster import Process
from dnn_dist.errors import ConfigError
from dnn_dist.plan.fleet import Fleet

CHECKOUT = "/opt/dnn_dist"
"""Where the image has this package, built; the example of a robot that systemd looks after too."""

NODE_BYTES = 250_000_000
"""Memory of a node beside the weights and tensors of its model: Python, ROS, the runtime, OpenCV. About twice what a
worker of the shipped model has resident at most (130 MB), weights and tensors included."""

HANGS = 30
"""Seconds without a sign of life after which a node is started again. Nodes give one each second, but the runtime packs
the weights of a large model without letting Python go on."""

START = 120
"""Seconds that a node may take until its first sign of life: imports and a model on a slow card."""

DEVICE = re.compile(r"device:(\d+)")
NO_FILE = re.compile(r"(scene(:\d+)?|device:\d+)?")


@dataclass(frozen=True, slots=True)
class Place:
    """What processes find where they run."""

    checkout: str = CHECKOUT  # folder of this package, built
    domain: int = 0  # ROS_DOMAIN_ID
    keystore: str = ""  # folder of SROS2; empty: whoever is in the domain may take part

    @property
    def prefix(self) -> str:
        """The folder that colcon installs to."""
        return f"{self.checkout}/install/dnn_dist"

    @property
    def config(self) -> str:
        """The folder of the shipped configuration."""
        return f"{self.prefix}/share/dnn_dist/config"

    def command(self, process: Process, parameters: str) -> list[str]:
        """What starts a process; `parameters` is the path of its ROS parameter file."""
        return [f"{self.prefix}/lib/dnn_dist/{process.executable}", *process.arguments(parameters)]

    def environment(self, process: Process) -> dict[str, str]:
        """What a process finds in its environment beside what the machine gives it."""
        secured = {
            "ROS_SECURITY_ENABLE": "true",
            "ROS_SECURITY_STRATEGY": "Enforce",
            "ROS_SECURITY_KEYSTORE": self.keystore,
            "ROS_SECURITY_ENCLAVE_OVERRIDE": enclave(process.robot),
        }
        return {
            "ROS_DOMAIN_ID": str(self.domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
            **process.environment,
            **(secured if self.keystore else {}),
        }

    def folders(self, process: Process) -> list[str]:
        """Folders of the robot that a process reads: those of its model with the card beside it, of plan and images."""
        return [*read_folders(process), *([self.keystore] if self.keystore else [])]


def enclave(robot: str) -> str:
    """The SROS2 enclave of a robot; all its nodes share it."""
    return f"/dnn_dist/{robot}"


def read_folders(process: Process) -> list[str]:
    """Folders that a process reads, by its parameters. ConfigError for a path that is not absolute: a service has no
    working folder from which a relative one could start.
    """
    found = []
    for name in ("model", "plan", "source"):
        value = str(process.parameters.get(name, ""))
        if name == "source" and (process.executable != "camera" or NO_FILE.fullmatch(value)):
            continue
        if not value or (name == "model" and "/" not in value):
            continue  # a bare name is that of a shipped model
        path = PurePosixPath(value)
        if not path.is_absolute() or ".." in path.parts:
            raise ConfigError(
                f"{process.name}: {name} is {value!r}, expected an absolute path, the same on every robot, e.g. "
                f"/var/lib/dnn_dist/{path.name}"
            )
        found.append(str(path if name == "source" and not path.suffix else path.parent))
    return list(dict.fromkeys(found))


def camera_device(process: Process) -> str:
    """The device file of a camera; empty where a process has none."""
    match = DEVICE.fullmatch(str(process.parameters.get("source", ""))) if process.executable == "camera" else None
    return f"/dev/video{match[1]}" if match else ""


def within(processes: Iterable[Process], fleet: Fleet | None) -> tuple[tuple[Process, ...], dict[str, int]]:
    """Processes that keep to the memory of their robots, and the bytes that each may take, by name.

    A robot of the fleet file without `memory` has no limit. A worker would take half of what the machine has free, and
    in a container that is not what it may have: so it is told. ConfigError when the fleet lacks a robot.
    """
    kept, limits = [], {}
    for process in processes:
        memory = fleet.robot(process.robot).memory if fleet else None
        if memory is not None and process.executable != "camera":
            limits[process.name] = memory + NODE_BYTES
        if memory is not None and process.executable == "worker" and not process.parameters.get("memory"):
            told = {**process.parameters, "memory": max(1, memory // 1_000_000)}
            process = replace(process, parameters=told)
        kept.append(process)
    return tuple(kept), limits
