# SPDX-License-Identifier: Apache-2.0
"""A compose file: all nodes of a cluster as containers of one machine, on a network of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dnn_dist.cluster import Process
from dnn_dist.deploy.container import IMAGE, dump, lives, parameter_file, sign_of_life
from dnn_dist.deploy.place import START, Place, camera_device


def compose(processes: Sequence[Process], limits: Mapping[str, int], place: Place, image: str = IMAGE) -> str:
    """The text of a compose file. `limits`: process -> bytes that it may take."""
    services = {process.name: _service(process, limits.get(process.name), place, image) for process in processes}
    # Within the file, so that one file is all there is to give; needs Docker Compose 2.23.1.
    configs = {process.name: {"content": process.parameter_text()} for process in processes}
    return dump(_literal({"name": "dnn_dist", "services": services, "configs": configs}))


def _service(process: Process, limit: int | None, place: Place, image: str) -> dict[str, Any]:
    device = camera_device(process)
    folders = [f"{folder}:{folder}:ro" for folder in place.folders(process)]
    return {
        "image": image,
        "build": ".",
        "command": place.command(process, parameter_file(process)),
        "environment": {**place.environment(process), "DNN_DIST_HEALTH": sign_of_life(process)},
        "configs": [{"source": process.name, "target": parameter_file(process)}],
        **({"volumes": folders} if folders else {}),
        **({"devices": [f"{device}:{device}"], "group_add": ["video"]} if device else {}),
        **({"mem_limit": limit} if limit else {}),
        "restart": "unless-stopped",
        "healthcheck": {
            "test": ["CMD-SHELL", lives(process)],
            "interval": "10s",
            "timeout": "5s",
            "retries": 2,
            "start_period": f"{START}s",
        },
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": "10s",
    }


def _literal(tree: Any) -> Any:
    """The tree with each dollar sign doubled, since compose would put variables there."""
    if isinstance(tree, dict):
        return {key: _literal(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_literal(value) for value in tree]
    return tree.replace("$", "$$") if isinstance(tree, str) else tree
