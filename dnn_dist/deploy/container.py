# SPDX-License-Identifier: Apache-2.0
"""What compose and Kubernetes have in common: paths within a container, its probes, YAML that people can read."""

from __future__ import annotations

from typing import Any

import yaml

import dnn_dist
from dnn_dist.cluster import Process
from dnn_dist.deploy.place import HANGS

IMAGE = f"dnn_dist:{dnn_dist.__version__}"
PARAMETERS = "/etc/dnn_dist"
"""The folder of ROS parameter files, NODE.yaml."""


def parameter_file(process: Process) -> str:
    """Its path in the container."""
    return f"{PARAMETERS}/{process.name}.yaml"


def sign_of_life(process: Process) -> str:
    """The file that the node writes each second, in the container."""
    return f"/tmp/{process.name}.health"


def lives(process: Process) -> str:
    """Shell text that succeeds while the node gives signs of life."""
    return f"find {sign_of_life(process)} -mmin -{HANGS / 60:g} | grep -q ."


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks; lists within mappings indented; nothing as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dump(*documents: Any) -> str:
    """YAML of one document or several, in the order of their keys."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=10_000, explicit_start=len(documents) > 1)
