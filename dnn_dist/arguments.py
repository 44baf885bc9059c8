# SPDX-License-Identifier: Apache-2.0
"""What the arguments of the launch file ask for: checked, and a cluster with its processes. As pure as cluster.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from dnn_dist.cluster import Cluster, Process, processes, read_cluster, shipped_file, with_workers
from dnn_dist.errors import ConfigError
from dnn_dist.yamlfile import near

LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")

SWITCHES = ("rviz", "use_sim_time", "respawn")
"""Launch arguments that are true or false."""

TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
"""What a launch argument that is a switch may be."""


def ordered(arguments: Mapping[str, str], folder: str | Path) -> tuple[Cluster, tuple[Process, ...]]:
    """The cluster and its processes that the launch arguments of these names ask for: params_file, robot, workers,
    namespace, network, log_level and the SWITCHES. `folder`: of the shipped configuration. ConfigError in one line
    when one is wrong.
    """
    folder, network = Path(folder), arguments["network"]
    cluster = read_cluster(arguments["params_file"] or folder / shipped_file(network))
    if workers := arguments["workers"]:
        if not workers.isdecimal():
            raise ConfigError(f"workers is {workers!r}, expected a whole number, e.g. 4")
        cluster = with_workers(cluster, int(workers))
    namespace, level = arguments["namespace"], arguments.get("log_level", "")
    if namespace and not re.fullmatch(r"/?([A-Za-z_]\w*/)*[A-Za-z_]\w*/?", namespace, re.ASCII):
        raise ConfigError(f"namespace is {namespace!r}, expected names of letters, digits and _, e.g. fleet or /site/a")
    if level and level not in LOG_LEVELS:
        raise ConfigError(f"log_level is {level!r}, expected one of {', '.join(LOG_LEVELS)}{near(level, LOG_LEVELS)}")
    for name in SWITCHES:
        if (said := arguments.get(name, "false")).lower() not in TRUTH:
            raise ConfigError(f"{name} is {said!r}, expected true or false")
    where = (arguments["robot"], namespace, network)
    return cluster, processes(cluster, folder / "network", *where, watched=TRUTH[arguments["rviz"].lower()])
