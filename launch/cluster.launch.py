# SPDX-License-Identifier: Apache-2.0
"""Starts a cluster, or one robot's part of it: `ros2 launch dnn_dist cluster.launch.py [robot:=r2]`.

Which processes, with which parameters and environment, is decided in dnn_dist/cluster.py; here they become actions.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from dnn_dist.cluster import RESPAWN_DELAY, processes, read_cluster, shipped_file, with_workers
from dnn_dist.errors import DnnDistError
from launch import LaunchContext, LaunchDescription

SHARE = Path(get_package_share_directory("dnn_dist"))

ARGUMENTS = {
    "params_file": (
        "",
        "parameter file of the cluster, the same for every robot; empty: the one that is shipped for the network",
    ),
    "robot": (
        "",
        "start only what the parameter file lists for this robot; empty: everything on this machine",
    ),
    "workers": ("", "number of workers, instead of those in the parameter file"),
    "namespace": ("", "namespace of all nodes, the same for every robot"),
    "network": ("", "transport profile instead of the parameter file's: local, wired or wifi"),
    "rviz": ("false", "start RViz with the overlay and the cluster"),
}


def start(context: LaunchContext) -> list:
    """The actions that the arguments ask for."""
    asked = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    try:
        cluster = read_cluster(asked["params_file"] or SHARE / "config" / shipped_file(asked["network"]))
        if asked["workers"]:
            cluster = with_workers(cluster, int(asked["workers"]))
        where = (asked["robot"], asked["namespace"], asked["network"])
        watched = asked["rviz"].lower() in ("true", "1", "yes")
        started = processes(cluster, SHARE / "config" / "network", *where, watched=watched)
    except (DnnDistError, ValueError) as error:
        return [LogInfo(msg=f"dnn_dist: error: {error}"), Shutdown(reason="the parameters are wrong")]
    actions = [
        Node(
            package="dnn_dist",
            executable=process.executable,
            name=process.name,
            namespace=process.namespace,
            parameters=[dict(process.parameters)],
            remappings=list(process.remappings.items()),
            additional_env=dict(process.environment),
            output="screen",
            respawn=True,
            respawn_delay=RESPAWN_DELAY,
        )
        for process in started
    ]
    if watched:
        rviz = ["-d", str(SHARE / "rviz" / "cluster.rviz")]
        actions.append(Node(package="rviz2", executable="rviz2", namespace=asked["namespace"], arguments=rviz))
    return actions


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` calls."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])
