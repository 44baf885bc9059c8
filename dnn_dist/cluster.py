# SPDX-License-Identifier: Apache-2.0
"""From a cluster's parameter file to the processes that a robot starts, with their environment. A pure function.

The launch file and the demo are two thin mappings of `processes`. DDS reads its transports when it starts, so they are
part of a process's environment and not of its parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from dnn_dist.dds import profile_environment
from dnn_dist.errors import ConfigError
from dnn_dist.settings import NAME, NODES, Meaning, meanings
from dnn_dist.yamlfile import Keys, near, read_yaml

NETWORKS = {"local": "lan.xml", "wired": "lan.xml", "wifi": "wifi.xml"}
"""Network -> the shipped DDS profile."""

PACED: dict[str, dict[str, Any]] = {"wifi": {"window": 200_000}}
"""Network -> parameters that belong to it, unless the file says otherwise. On the air a source keeps about two messages
on the way: the profile paces each robot by itself, and several at once would be more than the air takes."""

SHIPPED = {"wifi": "wifi.yaml"}
"""Network -> the shipped parameter file for it, where that is not `cluster.yaml`."""

RESPAWN_DELAY = 0.05
"""Seconds from a process's death to its next start, by whoever starts it. A robot is without its node for so long; one
that dies at once spends half a second on its start, so that it is not started more often than twice a second."""

GIVEN = {"robot", "source", "worker"}
"""Parameters that follow from who stands where in the file, and are not set by hand (but a camera's own source is)."""

QOS_OVERRIDES = "qos_overrides."
"""What the names of parameters begin with by which rclpy lets users override the QoS of a topic (nodes/qos.py)."""

IMAGES = ("image", "image/compressed")
OUTPUTS = ("detections", "detections_2d", "overlay", "report")
"""Topics of a source that carry its name when the cluster has several, beside those of its images."""

PAIR = {"work": {"gateway", "partition"}, "result": {"gateway", "aggregator"}}
"""Topics of a source and a worker -> the nodes of the source at their other end."""

STATES = ("source_state", "progress")
"""Topics of small states of a source, said again ten times a second."""

SOURCE_NODES = {"gateway", "partition", "aggregator"}
"""Without these nodes of its robot a source has no results."""

@dataclass(frozen=True, slots=True)
class Robot:
    """One robot of the cluster."""

    name: str
    nodes: tuple[str, ...]  # executables
    source: str = ""  # whose camera, partition, aggregator or gateway is here
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # node -> its own values


@dataclass(frozen=True, slots=True)
class Cluster:
    """A parameter file, checked."""

    robots: tuple[Robot, ...]
    network: str = "local"
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # node, or "all" -> values

    @property
    def sources(self) -> list[str]:
        """Names of all sources, in the order of the file."""
        return list(dict.fromkeys(robot.source for robot in self.robots if robot.source))


@dataclass(frozen=True, slots=True)
class Process:
    """One node to start."""

    executable: str
    name: str  # of the node
    robot: str
    namespace: str
    parameters: Mapping[str, Any]
    remappings: Mapping[str, str]
    environment: Mapping[str, str]  # to be added

    def parameter_text(self) -> str:
        """Its parameters as a ROS parameter file."""
        return str(yaml.safe_dump({"/**": {"ros__parameters": dict(self.parameters)}}))

    def arguments(self, parameter_file: str | Path) -> list[str]:
        """What follows its executable on a command line."""
        words = ["--ros-args", "-r", f"__node:={self.name}", "--params-file", str(parameter_file)]
        renamed = {"__ns": f"/{space}"} if (space := self.namespace.strip("/")) else {}
        for old, new in {**renamed, **self.remappings}.items():
            words += ["-r", f"{old}:={new}"]
        return words


def shipped_file(network: str = "") -> str:
    """Name of the parameter file in `config` that is taken when the user names none."""
    return SHIPPED.get(network, "cluster.yaml")


def read_cluster(path: str | Path) -> Cluster:
    """Read a parameter file. ConfigError in one line, with the cure, when it is missing or wrong."""
    return parse_cluster(read_yaml(path, "parameter file"), str(path))


def parse_cluster(tree: Any, where: str) -> Cluster:
    """The cluster in a parsed YAML document; `where` opens the error messages."""
    _no_ros_parameters(tree, where)
    top = Keys.of(tree, where, ("network", "robots", "parameters"))
    network = top.choice("network", NETWORKS, "local")
    entries = Keys.of(top.get("robots"), f"{where}: robots").content
    robots = tuple(_robot(name, entry, where) for name, entry in entries.items())
    _whole_sources(robots, where)
    _no_doubled_workers(robots, where)
    parameters = _parameters(top.get("parameters", None) or {}, f"{where}: parameters", ("all", *NODES))
    return Cluster(robots, network, parameters)


def with_workers(cluster: Cluster, workers: int) -> Cluster:
    """The cluster with this many workers: the first ones of the file, and robots r1, r2, ... beyond."""
    if workers < 1:
        raise ConfigError(f"workers is {workers}, expected 1 or more")
    robots, kept = [], 0
    for robot in cluster.robots:
        here = min(robot.nodes.count("worker"), workers - kept)
        kept += here
        others = tuple(node for node in robot.nodes if node != "worker")
        if others or here:
            robots.append(replace(robot, nodes=(*others, *["worker"] * here)))
    names = {robot.name for robot in robots}
    spare = (name for name in (f"r{number}" for number in range(1, 10**6)) if name not in names)
    robots += [Robot(next(spare), ("worker",)) for _ in range(workers - kept)]
    return replace(cluster, robots=tuple(robots))


def processes(
    cluster: Cluster,
    profiles: str | Path,
    robot: str = "",
    namespace: str = "",
    network: str = "",
    watched: bool = False,
) -> tuple[Process, ...]:
    """The processes of one robot, or of all of them.

    `profiles`: the folder of the shipped network profiles. `network` overrides the file's. `watched`: overlays are
    looked at on the source's own robot, and need not be paced. Everything that a robot is told is the same wherever
    this runs, so that one file serves them all.
    """
    names = [entry.name for entry in cluster.robots]
    if robot and robot not in names:
        raise ConfigError(f"robot is {robot!r}, the parameter file has {', '.join(names)}{near(robot, names)}")
    network = network or cluster.network
    if network not in NETWORKS:
        raise ConfigError(f"network is {network!r}, expected one of {', '.join(NETWORKS)}")
    # Workers of a stage end, answer and feed each other at about the same time.
    together = (1 + sum(entry.nodes.count("worker") for entry in cluster.robots)) // 2
    several = len(cluster.sources) > 1
    started = []
    for entry in cluster.robots:
        workers = iter(worker_names(entry))
        unpaced = _unpaced(cluster, entry, namespace, several, watched)
        for node in entry.nodes:
            if robot and entry.name != robot:
                continue
            name = f"{node}_{entry.name}"
            own: dict[str, Any] = {"robot": entry.name, "source": entry.source}
            if node == "worker":
                own["worker"] = next(workers)
                name = f"worker_{own['worker']}"
            if node == "camera":
                del own["source"]  # of a camera, that is what it sees
            known = meanings(NODES[node])
            values = {
                **PACED.get(network, {}),
                **cluster.parameters.get("all", {}),
                **own,
                **cluster.parameters.get(node, {}),
            }
            values |= {**entry.parameters.get("all", {}), **entry.parameters.get(node, {})}
            named = several and node != "worker"
            topics = [*IMAGES, *_named_images(values), *OUTPUTS] if named else []
            remappings = {topic: f"{entry.source}/{topic}" for topic in topics if not topic.startswith("/")}
            its_own = {key: one for key, one in values.items() if key in known or key.startswith(QOS_OVERRIDES)}
            started.append(
                Process(
                    executable=node,
                    name=name,
                    robot=entry.name,
                    namespace=namespace,
                    parameters=its_own,
                    remappings=remappings,
                    environment=transport(network, profiles, unpaced, together if node == "worker" else 1),
                )
            )
    return tuple(started)


def hopeless(cluster: Cluster, started: Collection[Process], ended: Collection[str]) -> str:
    """Why no result can come any more when the processes of these names have ended for good; empty while one can.

    A robot without a source of its own serves those of others. So its workers go on as long as there may be one.
    """
    if all(process.name in ended for process in started):
        return "all nodes have ended for good"
    of_robot = {robot.name: robot.source for robot in cluster.robots if SOURCE_NODES & set(robot.nodes)}
    lost = {of_robot[one.robot]: one.name for one in started if one.executable in SOURCE_NODES and one.name in ended}
    if of_robot and set(of_robot.values()) == lost.keys():
        return f"{', '.join(lost.values())} ended for good, and the cluster has no other"
    return ""


def transport(network: str, profiles: str | Path, unpaced: Sequence[str] = (), senders: int = 1) -> dict[str, str]:
    """The environment in which DDS takes up a network profile. `unpaced`: topics that stay on the robot; `senders`:
    processes like this one that send at the same time.
    """
    profile = Path(profiles) / NETWORKS[network]
    return profile_environment(profile, unpaced, senders) if network in PACED else profile_environment(profile)


def _unpaced(cluster: Cluster, robot: Robot, namespace: str, several: bool, watched: bool) -> list[str]:
    """Full names of the topics of a robot that nothing is to hold back: what its own nodes read, and small states,
    which would be old behind large messages.
    """
    topics = [f"{worker}/state" for worker in worker_names(robot)]
    topics += [*STATES, *_stays(cluster, robot, several, watched)] if robot.source else []
    above = f"/{namespace.strip('/')}/" if namespace.strip("/") else "/"
    return [above + topic for topic in topics]


def _stays(cluster: Cluster, robot: Robot, several: bool, watched: bool) -> list[str]:
    """The topics with large messages, or such that wait behind them, whose readers are on this robot."""
    alone = all(other.source != robot.source for other in cluster.robots if other is not robot)
    leaving = {"overlay"} if not watched else set[str]()
    staying = [*(IMAGES if alone else ()), *(topic for topic in OUTPUTS if topic not in leaving)]
    topics = [f"{robot.source}/{topic}" if several else topic for topic in staying]
    ways = [way for way, nodes in PAIR.items() if nodes & set(robot.nodes)]
    return topics + [f"{robot.source}/{worker}/{way}" for worker in worker_names(robot) for way in ways]


def _named_images(values: Mapping[str, Any]) -> list[str]:
    """The topics of images that a node's parameters name."""
    return [topic + way for topic in values.get("images", "").split() for way in ("", "/compressed")]


def worker_names(robot: Robot) -> list[str]:
    """Of a robot's workers: its own name, and numbered from the second on."""
    count = robot.nodes.count("worker")
    return [robot.name if number == 1 else f"{robot.name}_{number}" for number in range(1, count + 1)]


def _whole_sources(robots: tuple[Robot, ...], where: str) -> None:
    """A source has one camera, and one gateway or one partition and one aggregator, on whichever robots."""
    for source in dict.fromkeys(robot.source for robot in robots if robot.source):
        at = {
            node: [robot.name for robot in robots if robot.source == source and node in robot.nodes]
            for node in ("camera", "gateway", "partition", "aggregator")
        }
        for node, names in at.items():
            if len(names) > 1:
                raise ConfigError(
                    f"{where}: source {source!r} has {_a(node)} at {names[0]} and at {names[1]}; a source has one of "
                    f"each, so take one away or name another source there"
                )
        apart = [node for node in ("partition", "aggregator") if at[node]]
        if at["gateway"] and apart:
            raise ConfigError(
                f"{where}: source {source!r} has a gateway at {at['gateway'][0]} and {_a(apart[0])} at "
                f"{at[apart[0]][0]}; a gateway is both partition and aggregator, so take one of the two away"
            )
        if len(apart) == 1:
            (lacking,) = {"partition", "aggregator"} - set(apart)
            raise ConfigError(
                f"{where}: source {source!r} has {_a(apart[0])} at {at[apart[0]][0]} and no {lacking}; add "
                f"{lacking} to the nodes of a robot with 'source: {source}', or take a gateway for both"
            )


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _no_doubled_workers(robots: tuple[Robot, ...], where: str) -> None:
    """Topics carry workers' names: two workers of one name would take each other's work."""
    taken: dict[str, str] = {}  # worker -> its robot
    for robot in robots:
        for worker in worker_names(robot):
            if worker in taken:
                raise ConfigError(
                    f"{where}: robots {taken[worker]} and {robot.name} both have a worker named {worker!r}; "
                    "rename one of the robots"
                )
            taken[worker] = robot.name


def _no_ros_parameters(tree: Any, where: str) -> None:
    """A ROS parameter file names nodes, perhaps below a namespace, and their `ros__parameters`."""
    for node, values in tree.items() if isinstance(tree, dict) else ():
        inner = values if isinstance(values, dict) else {}
        below = (one for one in inner.values() if isinstance(one, dict))
        if any("ros__parameters" in one for one in (inner, *below)):
            raise ConfigError(
                f"{where}: this is a ROS parameter file (it has {str(node)!r} with 'ros__parameters'), expected "
                "'robots: {r1: {source: front, nodes: [camera, gateway, worker]}}' and values by node, "
                "'parameters: {gateway: {deadline: 0.35}}'; see config/cluster.yaml"
            )


def _robot(name: Any, entry: Any, where: str) -> Robot:
    here = f"{where}: robots: {name}"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"{here}: expected a name of a to z, 0 to 9 and _, e.g. r1")
    keys = Keys.of(entry, here, ("nodes", "source", "parameters"))
    nodes = keys.get("nodes")
    if not isinstance(nodes, list) or not nodes:
        raise ConfigError(f"{here}: nodes is {nodes!r}, expected a list of {', '.join(NODES)}")
    for node in nodes:
        if not isinstance(node, str) or node not in NODES:
            raise ConfigError(f"{here}: nodes has {node!r}, expected {', '.join(NODES)}{near(str(node), NODES)}")
        if node != "worker" and nodes.count(node) > 1:
            raise ConfigError(f"{here}: nodes has {node} twice; only workers may stand several times")
    source = keys.get("source", "")
    if source and not (isinstance(source, str) and NAME.fullmatch(source)):
        raise ConfigError(f"{here}: source is {source!r}, expected a name of a to z, 0 to 9 and _, e.g. front")
    if not source and set(nodes) - {"worker"}:
        raise ConfigError(f"{here}: has a {nodes[0]} but no source; add a name for its camera, e.g. source: front")
    return Robot(name, tuple(nodes), source, _parameters(keys.get("parameters", None) or {}, here, ("all", *NODES)))


def _parameters(tree: Any, where: str, nodes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    checked: dict[str, dict[str, Any]] = {}
    everything: dict[str, tuple[Any, Meaning]] = {}
    for settings in NODES.values():
        everything |= meanings(settings)
    for node, values in Keys.of(tree, where, nodes).content.items():
        known = everything if node == "all" else meanings(NODES[node])
        given = GIVEN if node != "camera" else GIVEN - {"source"}
        known = {name: entry for name, entry in known.items() if name not in given}
        here = f"{where}: {node}"
        entries = Keys.of(values, here).content if values else {}
        own = {name: value for name, value in entries.items() if not str(name).startswith(QOS_OVERRIDES)}
        Keys.of(own, here, tuple(known))
        checked[node] = {name: _value(f"{here}: {name}", value, *known[name]) for name, value in own.items()}
        checked[node] |= {name: _override(f"{here}: {name}", entries[name]) for name in entries.keys() - own.keys()}
    return checked


def _value(where: str, value: Any, default: Any, meaning: Meaning) -> Any:
    """The value as its parameter's type; ConfigError when it is not one."""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)  # 5 for 5.0 is what people write; ROS would refuse it
    if type(value) is not type(default):
        raise ConfigError(f"{where} is {value!r}, expected {_kind(default)}, e.g. {default!r}; it is {meaning.text}")
    if expected := meaning.expects(value):
        raise ConfigError(f"{where} is {value!r}, expected {expected}")
    too_low = meaning.low is not None and value < meaning.low
    if too_low or (meaning.high is not None and value > meaning.high):
        raise ConfigError(f"{where} is {value!r}, expected {meaning.low:g} to {meaning.high:g}; it is {meaning.text}")
    return value


def _override(where: str, value: Any) -> Any:
    if type(value) not in (int, str):
        raise ConfigError(f"{where} is {value!r}, expected a number or a word of QoS, e.g. 5 or best_effort")
    return value


def _kind(default: Any) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[type(default)]
