# SPDX-License-Identifier: Apache-2.0
"""From the parameter file to processes: one file serves every robot; mistakes are one line with the cure."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from dnn_dist.cluster import NETWORKS, parse_cluster, processes, read_cluster, shipped_file, with_workers
from dnn_dist.dds import UNPACED
from dnn_dist.errors import ConfigError
from dnn_dist.settings import NODES

SHIPPED = Path(__file__).parents[1] / "config"
TWO = {
    "robots": {
        "r1": {"source": "front", "nodes": ["camera", "gateway", "worker"]},
        "r2": {"nodes": ["worker", "worker"], "parameters": {"worker": {"pace": 500}}},
    },
    "parameters": {"all": {"model": "m.tflite", "pace": 100}, "camera": {"rate": 2}},
}


def test_the_robots_parts_are_the_whole() -> None:
    cluster = parse_cluster(TWO, "test")
    whole = processes(cluster, SHIPPED)
    parts = [processes(cluster, SHIPPED, robot=name) for name in ("r1", "r2")]
    assert tuple(process for part in parts for process in part) == whole
    assert [p.name for p in whole] == ["camera_r1", "gateway_r1", "worker_r1", "worker_r2", "worker_r2_2"]


def test_parameters_go_where_they_are_known_and_the_nearest_wins() -> None:
    by_name = {process.name: process.parameters for process in processes(parse_cluster(TWO, "test"), SHIPPED)}
    assert by_name["camera_r1"] == {"rate": 2.0}
    assert by_name["gateway_r1"] == {"model": "m.tflite", "pace": 100.0, "robot": "r1", "source": "front"}
    assert by_name["worker_r1"]["pace"] == 100.0
    assert by_name["worker_r2_2"] == {"model": "m.tflite", "pace": 500.0, "robot": "r2", "worker": "r2_2"}


def test_the_air_has_a_small_window_unless_the_file_says_otherwise() -> None:
    def windows(network: str, **gateway: int) -> list[int | None]:
        cluster = parse_cluster({**TWO, "parameters": {"gateway": gateway}}, "test")
        return [process.parameters.get("window") for process in processes(cluster, SHIPPED, network=network)]

    assert windows("local") == [None] * 5
    assert windows("wifi") == [None, 200_000, None, None, None]
    assert windows("wifi", window=90_000)[1] == 90_000


def test_one_source_has_plain_topics_and_several_carry_their_names() -> None:
    one = parse_cluster(TWO, "test")
    assert all(not process.remappings for process in processes(one, SHIPPED))
    robots = {**TWO["robots"], "r2": {"source": "rear", "nodes": ["camera", "gateway"]}}
    several = processes(parse_cluster({**TWO, "robots": robots}, "test"), SHIPPED)
    by_name = {process.name: process.remappings for process in several}
    assert by_name["gateway_r1"]["detections"] == "front/detections"
    assert by_name["camera_r2"]["image"] == "rear/image"
    assert not by_name["worker_r1"]


APART = {
    "robots": {
        "r1": {"source": "front", "nodes": ["camera", "partition", "worker"]},
        "r2": {"source": "front", "nodes": ["aggregator", "worker"]},
        "r3": {"nodes": ["worker"]},
    },
    "parameters": {"partition": {"deadline": 2.0}},
}


def test_a_source_may_stand_at_two_robots() -> None:
    cluster = parse_cluster(APART, "test")
    assert cluster.sources == ["front"]
    by_name = {process.name: process for process in processes(cluster, SHIPPED, network="wifi")}
    assert by_name.keys() == {
        "camera_r1", "partition_r1", "worker_r1", "aggregator_r2", "worker_r2", "worker_r3"
    }  # fmt: skip
    assert all(not process.remappings for process in by_name.values()), "it is one source"
    for name, robot in (("partition_r1", "r1"), ("aggregator_r2", "r2")):
        given = by_name[name].parameters
        assert (given["source"], given["robot"]) == ("front", robot)
    assert [process.name for process in processes(cluster, SHIPPED, robot="r2")] == ["aggregator_r2", "worker_r2"]


def test_of_a_source_at_two_robots_images_leave_theirs() -> None:
    """The aggregator needs them for the overlay; its own worker's results stay, the partition's own works too."""
    started = processes(parse_cluster(APART, "test"), SHIPPED, network="wifi")
    unpaced = {process.name: set(process.environment.get(UNPACED, "").split()) for process in started}
    assert not {topic for topics in unpaced.values() for topic in topics if "image" in topic}
    assert "/front/r1/work" in unpaced["partition_r1"] and "/front/r1/result" not in unpaced["worker_r1"]
    assert "/front/r2/result" in unpaced["worker_r2"] and "/front/r2/work" not in unpaced["aggregator_r2"]
    assert unpaced["worker_r3"] == {"/r3/state"}


def at(**nodes: list[str]) -> dict[str, object]:
    """A file whose robots all have nodes of one source."""
    return {"robots": {robot: {"source": "front", "nodes": here} for robot, here in nodes.items()}}


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 9])
def test_the_number_of_workers_is_what_was_asked_for(workers: int) -> None:
    cluster = with_workers(parse_cluster(TWO, "test"), workers)
    started = processes(cluster, SHIPPED)
    names = [process.name for process in started]
    assert sum(name.startswith("worker") for name in names) == workers
    assert len(set(names)) == len(names)
    assert {"camera_r1", "gateway_r1"} < set(names)


@pytest.mark.parametrize("profile", sorted(set(NETWORKS.values())))
def test_static_peers_find_all_processes_of_a_robot(profile: str) -> None:
    """ROS names a peer without a port; DDS then asks as many of its processes as the profile says."""
    tree = ElementTree.parse(SHIPPED / "network" / profile)
    (found,) = [int(one.text) for one in tree.iter() if one.tag.endswith("maxInitialPeersRange")]
    assert found >= 2 * len(NODES), "twice what may run there, and tools"


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_is_an_environment_with_a_shipped_profile(network: str) -> None:
    for process in processes(parse_cluster(TWO, "test"), SHIPPED / "network", network=network):
        assert Path(process.environment["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()


def test_what_stays_on_a_robot_is_not_paced() -> None:
    """Topics that only its own nodes read: images, and the pair of its own source and its own workers; and states."""

    def unpaced(tree: dict, network: str = "wifi", **more: str | bool) -> dict[str, set[str]]:
        started = processes(parse_cluster(tree, "test"), SHIPPED, network=network, **more)
        return {process.name: set(process.environment.get(UNPACED, "").split()) for process in started}

    one = unpaced(TWO)
    assert {"/image", "/image/compressed", "/front/r1/work", "/front/r1/result"} <= one["gateway_r1"]
    assert one["gateway_r1"] == one["camera_r1"] == one["worker_r1"]
    assert one["worker_r2"] == {"/r2/state", "/r2_2/state"}, "all that is large goes on the air"
    assert {"/progress", "/source_state", "/r1/state"} <= one["gateway_r1"], "states are old behind large messages"
    assert not any("r2" in topic or "overlay" in topic for topic in one["gateway_r1"])
    assert "/overlay" in unpaced(TWO, watched=True)["gateway_r1"]
    assert not any(unpaced(TWO, "wired").values()), "nothing is paced there"
    two = {"r1": {"source": "front", "nodes": ["gateway", "worker", "worker"]}, "r2": TWO["robots"]["r1"]}
    two["r2"] = {**two["r2"], "source": "rear"}
    several = unpaced({**TWO, "robots": two}, namespace="/fleet/")
    assert {"/fleet/front/image", "/fleet/front/r1_2/work"} <= several["worker_r1_2"]
    assert "/fleet/rear/r2/result" in several["worker_r2"]
    assert not any("/front/r2/" in topic for topics in several.values() for topic in topics)


@pytest.mark.parametrize("network", ["", *NETWORKS])
def test_the_shipped_files_are_right(network: str) -> None:
    cluster = read_cluster(SHIPPED / shipped_file(network))
    assert {p.executable for p in processes(cluster, SHIPPED)} == {"camera", "gateway", "worker"}
    assert NETWORKS[cluster.network] == NETWORKS[network or "local"]


@pytest.mark.parametrize(
    ("tree", "cure"),
    [
        (None, "expected keys and values"),
        ({"robots": {}}, "expected keys and values"),
        ({**TWO, "netwrok": "wifi"}, "did you mean 'network'"),
        ({**TWO, "network": "5g"}, "expected one of local, wired, wifi"),
        ({"robots": {"r1": {"nodes": ["wroker"]}}}, "did you mean 'worker'"),
        ({"robots": {"R 1": {"nodes": ["worker"]}}}, "expected a name"),
        ({"robots": {"r1": {"nodes": ["camera"]}}}, "add a name for its camera"),
        ({"robots": {"r1": {"nodes": []}}}, "expected a list"),
        ({**TWO, "parameters": {"gateway": {"dedline": 0.2}}}, "did you mean 'deadline'"),
        ({**TWO, "parameters": {"gateway": {"deadline": "fast"}}}, "expected a number"),
        ({**TWO, "parameters": {"gateway": {"deadline": -1}}}, "expected 0.01 to 60"),
        ({**TWO, "parameters": {"gateway": {"mode": "buying"}}}, "expected one of stealing, sharing"),
        ({**TWO, "parameters": {"worker": {"prefetch": 1.5}}}, "expected a whole number"),
        ({**TWO, "parameters": {"robot": {"prefetch": 1}}}, "unknown key 'robot'"),
        ({**TWO, "parameters": {"camera": {"loop": 1}}}, "expected true or false"),
        ({"robots": {"r1": {"nodes": [{"worker": 2}]}}}, "nodes has {'worker': 2}, expected camera,"),
        ({"robots": {"r1": {"nodes": [["worker"]]}}}, "nodes has \\['worker'\\], expected camera,"),
        ({**TWO, "network": ["wifi"]}, "network is \\['wifi'\\], expected one of local"),
        ({**TWO, "network": {"wifi": {}}}, "expected one of local"),
        ({**TWO, "network": None}, "expected one of local"),
        (
            {"robots": {"r1": {"nodes": ["worker", "worker"]}, "r1_2": {"nodes": ["worker"]}}},
            "robots r1 and r1_2 both have a worker named 'r1_2'; rename",
        ),
        (at(r1=["gateway"], r2=["gateway"]), "'front' has a gateway at r1 and at r2; a source has one of each"),
        (at(r1=["camera", "gateway"], r2=["camera"]), "has a camera at r1 and at r2"),
        (at(r1=["partition", "aggregator"], r2=["partition"]), "has a partition at r1 and at r2"),
        (at(r1=["partition"], r2=["worker"]), "has a partition at r1 and no aggregator; add aggregator to the nodes"),
        (at(r1=["aggregator"]), "has an aggregator at r1 and no partition"),
        (at(r1=["gateway"], r2=["aggregator"]), "has a gateway at r1 and an aggregator at r2; a gateway is both"),
        ({"/**": {"ros__parameters": {"deadline": 0.5}}}, "ROS parameter file .*'parameters: {gateway:"),
        ({"gateway_r1": {"ros__parameters": {"deadline": 0.5}}}, "ROS parameter file .*'robots: {r1"),
        ({"/ns": {"gateway": {"ros__parameters": {"deadline": 0.5}}}}, "ROS parameter file"),
    ],
)
def test_a_mistake_is_one_line_with_the_cure(tree: object, cure: str) -> None:
    with pytest.raises(ConfigError, match=cure) as error:
        parse_cluster(tree, "cluster.yaml")
    assert str(error.value).startswith("cluster.yaml: ")
    assert "\n" not in str(error.value)


def test_wrong_arguments_are_one_line() -> None:
    cluster = parse_cluster(TWO, "test")
    for wrong in ({"robot": "r3"}, {"network": "4g"}):
        with pytest.raises(ConfigError, match=r"expected|has r1"):
            processes(cluster, SHIPPED, **wrong)
    with pytest.raises(ConfigError, match="expected 1 or more"):
        with_workers(cluster, 0)
    for broken in ("/nonexistent.yaml", "/dev/null"):
        with pytest.raises(ConfigError):
            read_cluster(broken)
