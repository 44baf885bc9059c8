# SPDX-License-Identifier: Apache-2.0
"""Starts a cluster, or one robot's part of it: `ros2 launch dnn_dist cluster.launch.py [robot:=r2]`.

Which processes, with which parameters and environment, is decided in dnn_dist/cluster.py; here they become actions.
Exit code: 0 after Ctrl-C; 1 when an argument is wrong, or when what ended for good leaves nothing that could give a
result. A node that ends for good (PERMANENT) is not started again, the others go on.
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler, TimerAction
from launch.event_handlers import OnProcessStart, OnShutdown
from launch.events import matches_action
from launch.events.process import ShutdownProcess, SignalProcess
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from dnn_dist.arguments import SWITCHES, TRUTH, ordered
from dnn_dist.cluster import RESPAWN_DELAY, Cluster, Process, hopeless
from dnn_dist.errors import PERMANENT, ConfigError, DnnDistError
from dnn_dist.yamlfile import near
from launch import Action, LaunchContext, LaunchDescription

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
    "rviz": ("false", "start RViz with the overlay and the cluster: true or false"),
    "use_sim_time": ("false", "stamps by the clock of a simulator; deadlines always go by the steady clock"),
    "log_level": ("", "debug, info, warn, error or fatal, of all nodes; empty: as ROS has it"),
    "respawn": ("true", "start a node again that died: true or false"),
}

OF_LAUNCH = ("launch-prefix", "launch-prefix-filter", "emulate_tty", "sigterm_timeout", "sigkill_timeout")
"""Arguments that launch itself understands."""


def start(context: LaunchContext) -> list[Action]:
    """The actions that the arguments ask for."""
    asked = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    try:
        check_names(sys.argv)
        cluster, started = ordered(asked, SHARE / "config")
    except DnnDistError as error:
        return [fail(str(error))]
    ended: set[str] = set()
    on = {name: TRUTH[asked[name].lower()] for name in SWITCHES}
    nodes = []
    for process in started:
        handle = on_exit(process, cluster, started, ended, on["respawn"])
        nodes.append(node(process, handle, on["respawn"], on["use_sim_time"], asked["log_level"]))
    actions: list[Action] = [no_keyboard_interrupt(), *map(stop_late_comer, nodes), *nodes]
    if on["rviz"]:
        actions += rviz(asked["namespace"])
    return actions


def check_names(command: list[str]) -> None:
    """Launch takes arguments of any name; those on a command line that names this file are meant for it."""
    if Path(__file__).name not in [Path(word).name for word in command]:
        return  # included by another launch file, which has arguments of its own
    known = [*ARGUMENTS, *OF_LAUNCH]
    for name, assigned, _ in (word.partition(":=") for word in command):
        if assigned and name not in known:
            raise ConfigError(f"unknown argument {name!r}{near(name, known) or ', expected ' + ', '.join(ARGUMENTS)}")


def node(
    process: Process, ended: Callable[..., list[Action]], respawn: bool, use_sim_time: bool, log_level: str
) -> Node:
    """One process of ours."""
    simulated = {"use_sim_time": True} if use_sim_time else {}
    return Node(
        package="dnn_dist",
        executable=process.executable,
        name=process.name,
        namespace=process.namespace,
        parameters=[{**process.parameters, **simulated}],
        remappings=list(process.remappings.items()),
        additional_env=dict(process.environment),
        ros_arguments=["--log-level", log_level] if log_level else [],
        output="screen",
        on_exit=ended,
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY,
    )


def no_keyboard_interrupt() -> Action:
    """Python must not raise KeyboardInterrupt: launch learns of Ctrl-C from a file descriptor.

    When it is raised while launch starts a process, launch loses that process and never ends.
    """
    usual = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *_: None)

    def restore(event, context: LaunchContext) -> None:
        signal.signal(signal.SIGINT, usual)

    return RegisterEventHandler(OnShutdown(on_shutdown=restore))


def stop_late_comer(node: Node) -> Action:
    """A process that starts after Ctrl-C has not heard of it, and launch would wait for it in vain."""

    def started(event, context: LaunchContext) -> list[Action]:
        stop = SignalProcess(signal_number=signal.SIGINT, process_matcher=matches_action(node))
        return [EmitEvent(event=stop)] if context.is_shutdown else []

    return RegisterEventHandler(OnProcessStart(target_action=node, on_start=started))


def on_exit(
    process: Process, cluster: Cluster, started: tuple[Process, ...], ended: set[str], respawn: bool
) -> Callable[..., list[Action]]:
    """The handler for the end of this process. `ended` collects the names of processes that ended for good; without
    `respawn` every end is for good.
    """

    def handle(event, context: LaunchContext) -> list[Action]:
        if process.name in ended or context.is_shutdown or (respawn and event.returncode != PERMANENT):
            return []
        ended.add(process.name)
        get_logger("dnn_dist").error(f"{process.name} ended for good, see above; it is not started again")
        # `respawn` knows no exit codes. While it waits for its delay, a process can still be told to shut down.
        waits = [EmitEvent(event=ShutdownProcess(process_matcher=matches_action(event.action)))]
        actions: list[Action] = waits if respawn else []
        if reason := hopeless(cluster, started, ended):
            actions.append(fail(reason))
        return actions

    return handle


def rviz(namespace: str) -> list[Action]:
    """RViz where it is installed. The cluster does not depend on it."""
    try:
        there = Path(get_package_prefix("rviz2"), "lib", "rviz2", "rviz2").exists()
    except PackageNotFoundError:
        there = False
    if not there:
        get_logger("dnn_dist").warning("rviz:=true, but rviz2 is not installed; the cluster runs without it")
        return []
    config = str(SHARE / "rviz" / "cluster.rviz")
    return [Node(package="rviz2", executable="rviz2", namespace=namespace, arguments=["-d", config])]


def fail(reason: str) -> Action:
    """Ends launch with one line and exit code 1, by an exception, since launch has no other way to that exit code.

    In an event of its own: when handling an event raises, launch forgets the processes that it started in it.
    """

    def raise_(context: LaunchContext) -> None:
        raise RuntimeError(f"dnn_dist: error: {reason}")

    return TimerAction(period=0.0, actions=[OpaqueFunction(function=raise_)])


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` calls."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])
