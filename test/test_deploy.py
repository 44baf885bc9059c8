# SPDX-License-Identifier: Apache-2.0
"""What `dnn_dist deploy` writes is what its readers take, by their own schemas and linters, and says what the parameter
file says.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from dnn_dist.cli.main import main
from dnn_dist.cluster import parse_cluster, processes
from dnn_dist.deploy.compose import compose
from dnn_dist.deploy.kubernetes import kubernetes
from dnn_dist.deploy.place import NODE_BYTES, Place, within
from dnn_dist.deploy.sros2 import sros2
from dnn_dist.deploy.systemd import systemd
from dnn_dist.errors import PERMANENT, ConfigError
from dnn_dist.plan.fleet import parse_fleet

ROOT = Path(__file__).parents[1]
HOSTILE = {
    "network": "wifi",
    "robots": {
        "front_1": {
            "source": "front",
            "nodes": ["camera", "partition", "worker", "worker"],
            "parameters": {"camera": {"source": "device:2"}},
        },
        "r2": {"source": "front", "nodes": ["aggregator"]},
        "r3": {"source": "rear", "nodes": ["camera", "gateway", "worker"]},
    },
    "parameters": {
        "all": {"model": '/data/my models/100 % $HOME/it\'s "mine".tflite'},
        "camera": {"source": "/data/images"},
        "gateway": {"plan": "/data/plan.yaml", "cut": "tiles:2x2@0..10; local"},
    },
}
"""Every kind of node, and texts that one format or the other takes for its own."""
PLACE = Place(domain=7, keystore="/data/keystore")
FLEET = {
    "dnn_dist_fleet": 1,
    "robots": {"front_1": {"speed": "1 GMAC/s", "memory": "700 MB"}, "r": {"count": 3, "speed": "1 GMAC/s"}},
    "links": [{"robots": "all", "bandwidth": "60 Mbit/s"}],
}


def hostile(fleet: Any = None) -> Any:
    cluster = parse_cluster(HOSTILE, "test")
    return within(processes(cluster, Path(PLACE.config) / "network", namespace="hall"), fleet)


def tool(name: str) -> str:
    """The command of a linter; skips where it is not installed."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    return found or pytest.skip(f"{name} is not installed; requirements/dev.txt names it for this kind of machine")


def test_the_shipped_compose_file_is_that_of_the_shipped_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "compose", str(ROOT / "config/cluster.yaml")]) == 0
    assert (ROOT / "compose.yaml").read_text() == capsys.readouterr().out, "run `dnn_dist deploy compose` again"


@pytest.mark.parametrize("written", ["shipped", "hostile"])
def test_compose_file_keeps_to_the_compose_specification(written: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("check_jsonschema") is None:
        pytest.skip("check-jsonschema is not installed; requirements/dev.txt names it")
    path = ROOT / "compose.yaml"
    if written == "hostile":
        path = tmp_path / "compose.yaml"
        path.write_text(compose(*hostile(), PLACE))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_dockerfile_passes_its_linter() -> None:
    linted = subprocess.run([tool("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


def test_the_image_has_what_the_package_asks_for() -> None:
    """Of package.xml's keys those that ros-base (REP 2001) has not, by the names of the distribution's packages."""
    base = {"diagnostic_msgs", "launch", "launch_ros", "rclpy", "rosidl_default_runtime", "sensor_msgs", "std_msgs"}
    asked = ElementTree.parse(ROOT / "package.xml").iter()
    keys = {str(one.text) for one in asked if one.tag in ("depend", "exec_depend")}
    installed = set(re.findall(r'^ {8}"?([\w${}-]+)"? \\$', (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    wanted = {
        key if key.startswith("python3-") else f"ros-${{ROS_DISTRO}}-{key.replace('_', '-')}" for key in keys - base
    }
    assert installed == wanted


def test_the_image_gets_every_folder_that_is_installed() -> None:
    kept = {line[1:].split("/")[0] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    used = re.findall(r"DIRECTORY (\w+)/|GLOB \w+ .*?\"(\w+)/\*", (ROOT / "CMakeLists.txt").read_text())
    assert {name for name in chain(*used) if name} | {"launch", "config", "rviz", "deploy", "requirements"} <= kept
    assert all((ROOT / name).exists() for name in kept)


@pytest.mark.parametrize("version", ["1.27", "1.31", "1.33"])
@pytest.mark.parametrize("file", ["config/cluster.yaml", "config/wifi.yaml", "hostile"])
def test_manifests_keep_to_the_schemas_of_kubernetes(file: str, version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is in requirements/dev.txt")
    given = hostile(parse_fleet(FLEET, "fleet")) if file == "hostile" else (shipped(file), {})
    documents = list(yaml.safe_load_all(kubernetes(*given, PLACE)))
    assert [document["kind"] for document in documents][:2] == ["ConfigMap", "Deployment"]
    for document in documents:
        validator.validate(document, version, strict=True)


def shipped(file: str) -> Any:
    from dnn_dist.cluster import read_cluster

    return processes(read_cluster(ROOT / file), Path(PLACE.config) / "network")


def test_a_pod_is_a_robot_and_a_container_is_a_node() -> None:
    nodes, limits = hostile(parse_fleet(FLEET, "fleet"))
    parameters, *deployments = yaml.safe_load_all(kubernetes(nodes, limits, PLACE))
    pods = {one["spec"]["template"]["spec"]["nodeSelector"]["dnn-dist/robot"]: one for one in deployments}
    assert set(pods) == set(HOSTILE["robots"])
    for robot, deployment in pods.items():
        pod = deployment["spec"]["template"]["spec"]
        assert [one["name"] for one in pod["containers"]] == [
            node.name.replace("_", "-") for node in nodes if node.robot == robot
        ]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            # The file that the node writes is the one that its probes look at, and lies in a volume.
            (health,) = (one["value"] for one in container["env"] if one["name"] == "DNN_DIST_HEALTH")
            assert health.startswith("/tmp/")
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert health in " ".join(container[probe]["exec"]["command"])
            # Its parameters are in the map under the name that its command has.
            path = Path(container["args"][container["args"].index("--params-file") + 1])
            assert yaml.safe_load(parameters["data"][path.name])["/**"]["ros__parameters"]


def test_limits_are_those_of_the_fleet_file() -> None:
    nodes, limits = hostile(parse_fleet(FLEET, "fleet"))
    assert limits == {
        name: 700_000_000 + NODE_BYTES for name in ("partition_front_1", "worker_front_1", "worker_front_1_2")
    }
    told = {node.name: node.parameters.get("memory") for node in nodes if node.executable == "worker"}
    assert told == {"worker_front_1": 700, "worker_front_1_2": 700, "worker_r3": None}
    written = list(yaml.safe_load_all(kubernetes(nodes, limits, PLACE)))
    pods = chain(*(one["spec"]["template"]["spec"]["containers"] for one in written[1:]))
    found = {pod["name"]: pod["resources"].get("limits", {}).get("memory") for pod in pods}
    assert found["worker-front-1"] == str(700_000_000 + NODE_BYTES)
    assert found["worker-r3"] is None


def test_only_a_camera_that_has_a_device_is_privileged() -> None:
    documents = list(yaml.safe_load_all(kubernetes(*hostile(), PLACE)))[1:]
    pods = [document["spec"]["template"]["spec"] for document in documents]
    containers = {container["name"]: container for pod in pods for container in pod["containers"]}
    assert [name for name, one in containers.items() if one["securityContext"].get("privileged")] == ["camera-front-1"]
    devices = [volume["hostPath"]["path"] for pod in pods for volume in pod["volumes"] if "video" in volume["name"]]
    assert devices == ["/dev/video2"]
    services = yaml.safe_load(compose(*hostile(), PLACE))["services"]
    assert [name for name, one in services.items() if one.get("devices")] == ["camera_front_1"]


def test_every_text_arrives_as_it_was(tmp_path: Path) -> None:
    """Through YAML, through compose's variables, through ConfigMaps: the model's path keeps every letter."""
    nodes, limits = hostile()
    model = HOSTILE["parameters"]["all"]["model"]
    undoubled = json.loads(json.dumps(yaml.safe_load(compose(nodes, limits, PLACE))).replace("$$", "$"))
    texts = {name: one["content"] for name, one in undoubled["configs"].items()}
    data = next(yaml.safe_load_all(kubernetes(nodes, limits, PLACE)))["data"]
    files = systemd(nodes, limits, PLACE, "robot")
    for node in nodes:
        for text in (texts[node.name], data[f"{node.name}.yaml"], files[f"etc/dnn_dist/{node.name}.yaml"]):
            assert yaml.safe_load(text) == {"/**": {"ros__parameters": dict(node.parameters)}}
    assert any(node.parameters.get("model") == model for node in nodes)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"model": "models/mine.tflite"}, "model is 'models/mine.tflite', expected an absolute path"),
        ({"model": "/data/../etc/mine.tflite"}, "expected an absolute path"),
    ],
)
def test_a_path_that_means_nothing_elsewhere_is_refused(values: dict[str, Any], word: str) -> None:
    nodes = processes(parse_cluster({**HOSTILE, "parameters": {"all": values}}, "test"), "/profiles")
    for write in (compose, kubernetes):
        with pytest.raises(ConfigError, match=re.escape(word)):
            write(nodes, {}, PLACE)


@pytest.mark.parametrize("name", ["r_", "r" * 62])
def test_a_name_that_kubernetes_refuses_is_one_line(name: str) -> None:
    nodes = processes(parse_cluster({"robots": {name: {"nodes": ["worker"]}}}, "test"), "/profiles")
    with pytest.raises(ConfigError, match="rename"):
        kubernetes(nodes, {}, PLACE)


def test_units_are_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By systemd's own reader; it wants executables to be there, so some are."""
    analyze = tool("systemd-analyze")
    checkout = tmp_path / "a folder with 100 %"
    nodes, limits = hostile(parse_fleet(FLEET, "fleet"))
    enter = checkout / ".venv/bin/dnn_dist-env"
    enter.parent.mkdir(parents=True)
    enter.write_text("#!/bin/sh\n")
    enter.chmod(0o755)
    files = systemd(nodes, limits, Place(str(checkout), 7, "/data/key store"), "root")
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    units = sorted((tmp_path / "etc/systemd/system").iterdir())
    assert len(units) == len(nodes) + len(HOSTILE["robots"])
    verified = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, check=False)
    said = [line for line in verified.stderr.splitlines() if "dnn_dist" in line]
    assert verified.returncode == 0 and not said, verified.stderr


def test_units_keep_the_rules_of_launch() -> None:
    nodes, limits = hostile()
    files = systemd(nodes, limits, PLACE, "robot")
    unit = files["etc/systemd/system/dnn_dist-worker_r3.service"].splitlines()
    for line in (f"RestartPreventExitStatus={PERMANENT}", "Restart=always", "StartLimitIntervalSec=0", "Type=notify"):
        assert line in unit
    assert "dnn_dist-worker_r3.service" in files["etc/systemd/system/dnn_dist-r3.target"]
    assert "dnn_dist-worker_r3.service" not in files["etc/systemd/system/dnn_dist-r2.target"]


def test_a_policy_names_every_node_once_and_its_console() -> None:
    nodes, _ = hostile()
    policy = ElementTree.fromstring(sros2(nodes).encode())
    enclaves = {one.get("path"): [p.get("node") for p in one.iter("profile")] for one in policy.iter("enclave")}
    expected = {f"/dnn_dist/{name}": [node.name for node in nodes if node.robot == name] for name in HOSTILE["robots"]}
    assert enclaves == {**expected, "/dnn_dist/console": ["console"]}
    assert {profile.get("ns") for profile in policy.iter("profile")} == {"/hall"}


def test_a_worker_may_not_say_what_a_source_says() -> None:
    nodes, _ = hostile()
    policy = ElementTree.fromstring(sros2(nodes).encode())
    may = {
        profile.get("node"): {t.text for listed in profile.findall("topics[@publish]") for t in listed}
        for profile in policy.iter("profile")
    }
    said = {"plan", "progress", "front/detections", "front/image", "front/front_1/work", "front_1/state"}
    assert not may["worker_r3"] & said
    assert {"r3/state", "front/r3/result", "rear/r3/result", "front_1/feed"} <= may["worker_r3"]
    assert "*" not in sros2(nodes)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["kubernetes", "absent.yaml"], "can't read the parameter file"),
        (["compose", "cluster.yaml", "--domain", "233"], "--domain is 233, expected 0 to 232"),
        (["compose", "cluster.yaml", "--keystore", "keys"], "--keystore is 'keys', expected an absolute path"),
        (["kubernetes", "cluster.yaml", "--fleet", "fleets/six_pi3.yaml"], "no robot 'r1', there are pi1"),
        (["systemd", "cluster.yaml", "--robot", "r9", "-o", "/tmp"], "robot is 'r9'"),
        (["systemd", "cluster.yaml", "-o", "/dev/null/units"], "can't write"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], error: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT / "config")
    assert main(["deploy", *words]) == 2
    said = capsys.readouterr().err
    assert error in said and said.count("\n") == 1


def test_the_policy_keeps_to_the_schema_of_sros2() -> None:
    """By the schema that sros2 brings, on a robot that has it."""
    pytest.importorskip("sros2.policy", reason="sros2 is not in the package registries; a ROS installation has it")
    from lxml import etree
    from sros2.policy import get_policy_schema

    nodes, _ = hostile()
    etree.XMLSchema(etree.parse(get_policy_schema("policy.xsd"))).assertValid(etree.fromstring(sros2(nodes).encode()))
