# SPDX-License-Identifier: Apache-2.0
"""The launch file: read with a small stand-in for launch, and run by the real `ros2 launch` where that is installed."""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ament_index_python", reason="ROS 2 is not here")
pytest.importorskip("dnn_dist.msg", reason="messages are not built")

from live import PATIENCE, children_of

from dnn_dist.cli.supervisor import share
from dnn_dist.cluster import Process, hopeless, parse_cluster, processes, read_cluster
from dnn_dist.errors import PERMANENT, TEMPORARY, UNEXPECTED

WRONG = [
    ("robot:=r9", "robot is 'r9', the parameter file has r1, r2, r3, r4"),
    ("workers:=x", "workers is 'x', expected a whole number"),
    ("workers:=0", "workers is 0, expected 1 or more"),
    ("params_file:=/nonexistent.yaml", "/nonexistent.yaml: can't read the parameter file"),
    ("network:=foo", "network is 'foo', expected one of local"),
    ("namespace:=a-b", "namespace is 'a-b', expected names of letters"),
    ("rviz:=maybe", "rviz is 'maybe', expected true or false"),
    ("respawn:=maybe", "respawn is 'maybe', expected true or false"),
    ("use_sim_time:=2", "use_sim_time is '2', expected true or false"),
    ("log_level:=debugg", "expected one of debug, info, warn, error, fatal; did you mean 'debug'"),
    ("workres:=2", "unknown argument 'workres'; did you mean 'workers'?"),
]

# Read with a stand-in


class Kept:
    """An action, event or description: keeps what it was made of."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments, self.options = arguments, options

    def perform(self, context: Any) -> str:
        return context.launch_configurations[self.arguments[0]]


def kind(name: str) -> type[Kept]:
    return type(name, (Kept,), {})


@pytest.fixture
def launch_file(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The launch file as a module, with a stand-in for what it imports of launch."""
    names = {
        "launch": ["Action", "LaunchContext", "LaunchDescription"],
        "launch.actions": [
            *("DeclareLaunchArgument", "EmitEvent", "OpaqueFunction", "RegisterEventHandler", "TimerAction"),
        ],
        "launch.event_handlers": ["OnProcessStart", "OnShutdown"],
        "launch.events": ["matches_action"],
        "launch.events.process": ["ShutdownProcess", "SignalProcess"],
        "launch.logging": [],
        "launch.substitutions": ["LaunchConfiguration"],
        "launch_ros": [],
        "launch_ros.actions": ["Node"],
    }
    for module, classes in names.items():
        stand_in = ModuleType(module)
        vars(stand_in).update({name: kind(name) for name in classes})
        monkeypatch.setitem(sys.modules, module, stand_in)
    sys.modules["launch.logging"].get_logger = logging.getLogger  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("cluster_launch", share() / "launch" / "cluster.launch.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    usual = signal.getsignal(signal.SIGINT)
    yield module
    signal.signal(signal.SIGINT, usual)


def read(launch_file: Any, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[Kept]:
    """The actions for these words on the command line."""
    monkeypatch.setattr(sys, "argv", ["ros2", "launch", "dnn_dist", "cluster.launch.py", *words])
    (entities,) = launch_file.generate_launch_description().arguments
    *declared, opaque = entities
    configuration = {one.arguments[0]: one.options["default_value"] for one in declared}
    configuration |= dict(word.split(":=") for word in words)
    return opaque.options["function"](SimpleNamespace(launch_configurations=configuration))


def nodes_in(actions: list[Kept]) -> list[Kept]:
    return [action for action in actions if type(action).__name__ == "Node"]


def names(actions: list[Kept]) -> list[str]:
    return [type(action).__name__ for action in actions]


def failure(action: Kept) -> str:
    """The line with which this action ends launch."""
    (raises,) = action.options["actions"]
    with pytest.raises(RuntimeError, match=r"^dnn_dist: error: ") as error:
        raises.options["function"](SimpleNamespace())
    return str(error.value)


@pytest.mark.parametrize("robot", ["", "r1", "r3"])
def test_it_starts_what_the_parameter_file_says(launch_file: Any, monkeypatch: pytest.MonkeyPatch, robot: str) -> None:
    words = [f"robot:={robot}"] if robot else []
    nodes = [node.options for node in nodes_in(read(launch_file, monkeypatch, "namespace:=fleet", *words))]
    shipped = read_cluster(share() / "config" / "cluster.yaml")
    wanted = processes(shipped, share() / "config" / "network", robot=robot, namespace="fleet")
    assert wanted == tuple(
        Process(
            executable=node["executable"],
            name=node["name"],
            robot=node["name"].partition("_")[2],
            namespace=node["namespace"],
            parameters=node["parameters"][0],
            remappings=dict(node["remappings"]),
            environment=node["additional_env"],
        )
        for node in nodes
    )
    assert all(node["respawn"] is True and node["respawn_delay"] > 0 for node in nodes)


def test_every_node_gets_simulated_time_and_a_log_level_when_they_are_asked_for(
    launch_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, asked = (
        nodes_in(read(launch_file, monkeypatch, *words)) for words in ([], ["use_sim_time:=true", "log_level:=debug"])
    )
    assert len(plain) == len(asked) > 4
    for before, after in zip(plain, asked, strict=True):
        (parameters,) = before.options["parameters"]
        assert "use_sim_time" not in parameters and before.options["ros_arguments"] == []
        assert after.options["parameters"] == [{**parameters, "use_sim_time": True}]
        assert after.options["ros_arguments"] == ["--log-level", "debug"]


def test_without_respawn_a_node_that_ends_stays_away_and_launch_ends_with_its_last_gateway(
    launch_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = nodes_in(read(launch_file, monkeypatch, "respawn:=false"))
    assert {node.options["respawn"] for node in nodes} == {False}
    running = SimpleNamespace(is_shutdown=False)

    def ends(name: str, code: int) -> list[Kept]:
        (node,) = [one for one in nodes if one.options["name"] == name]
        return node.options["on_exit"](SimpleNamespace(returncode=code, action=node), running)

    assert not ends("worker_r1", -9)
    (end,) = ends("gateway_r1", UNEXPECTED)
    assert "gateway_r1 ended for good, and the cluster has no other" in failure(end)


@pytest.mark.parametrize(("word", "says"), WRONG)
def test_a_wrong_argument_is_an_exception_in_launch(
    launch_file: Any, monkeypatch: pytest.MonkeyPatch, word: str, says: str
) -> None:
    (action,) = read(launch_file, monkeypatch, word)
    assert says in failure(action)


def test_another_launch_file_may_have_arguments_of_its_own(launch_file: Any) -> None:
    launch_file.check_names(["ros2", "launch", "their_robot", "all.launch.py", "camera_height:=2"])


def test_a_node_that_ends_for_good_is_told_to_shut_down_and_the_others_go_on(
    launch_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = nodes_in(read(launch_file, monkeypatch))
    running = SimpleNamespace(is_shutdown=False)

    def ends(name: str, code: int) -> list[Kept]:
        (node,) = [one for one in nodes if one.options["name"] == name]
        return node.options["on_exit"](SimpleNamespace(returncode=code, action=node), running)

    for code in (0, 1, -9, UNEXPECTED, TEMPORARY):
        assert not ends("worker_r1", code), "respawned"
    assert names(ends("worker_r1", PERMANENT)) == ["EmitEvent"]
    assert not ends("worker_r1", PERMANENT), "said once"
    assert names(ends("camera_r1", PERMANENT)) == ["EmitEvent"]
    event, end = ends("gateway_r1", PERMANENT)
    assert names([event, event.options["event"]]) == ["EmitEvent", "ShutdownProcess"]
    assert "gateway_r1 ended for good, and the cluster has no other" in failure(end)


def test_ctrl_c_while_processes_start_is_no_exception_in_launch_and_reaches_those_that_start_after_it(
    launch_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = signal.getsignal(signal.SIGINT)
    shutdown, *starts = [
        action.arguments[0]
        for action in read(launch_file, monkeypatch)
        if type(action).__name__ == "RegisterEventHandler"
    ]
    signal.raise_signal(signal.SIGINT)  # no KeyboardInterrupt
    nodes = [start.options["target_action"].options["name"] for start in starts]
    assert nodes == ["camera_r1", "gateway_r1", "worker_r1", "worker_r2", "worker_r3", "worker_r4"]
    for start in starts:
        assert not start.options["on_start"](None, SimpleNamespace(is_shutdown=False))
        (stop,) = start.options["on_start"](None, SimpleNamespace(is_shutdown=True))
        assert stop.options["event"].options["signal_number"] is signal.SIGINT
    shutdown.options["on_shutdown"](None, None)
    assert signal.getsignal(signal.SIGINT) is usual


def test_launch_ends_when_nothing_can_come_any_more() -> None:
    cluster = parse_cluster(
        {
            "robots": {
                "r1": {"source": "front", "nodes": ["gateway", "worker"]},
                "r2": {"source": "rear", "nodes": ["aggregator"]},
                "r3": {"source": "rear", "nodes": ["partition", "worker"]},
            }
        },
        "test",
    )
    whole = processes(cluster, share())
    assert not hopeless(cluster, whole, {"gateway_r1", "worker_r1", "worker_r3"})
    assert not hopeless(cluster, whole, {"aggregator_r2"})
    assert "gateway_r1, aggregator_r2" in hopeless(cluster, whole, {"gateway_r1", "aggregator_r2"})
    assert "gateway_r1, partition_r3" in hopeless(cluster, whole, {"gateway_r1", "partition_r3"})
    here = processes(cluster, share(), robot="r1")
    assert not hopeless(cluster, here, {"gateway_r1"}), "its worker serves the other source"
    assert "all nodes" in hopeless(cluster, here, {"gateway_r1", "worker_r1"})


def test_a_cluster_runs_without_rviz(
    launch_file: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if importlib.util.find_spec("rviz2") or any(
        Path(prefix, "lib/rviz2/rviz2").exists() for prefix in os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)
    ):
        pytest.skip("RViz is installed")
    assert len(nodes_in(read(launch_file, monkeypatch, "rviz:=true"))) == 6
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "rviz2 is not installed" in caplog.text


# Run by the real one

real = pytest.mark.skipif(importlib.util.find_spec("ros2launch") is None, reason="`ros2 launch` is not installed")
ROS2 = [sys.executable, "-c", "import sys; from ros2cli.cli import main; sys.exit(main())"]


class Launched:
    """A `ros2 launch` in a process group of its own, as a shell makes it, and what it has printed."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._log = folder / "launch.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*ROS2, "launch", "dnn_dist", "cluster.launch.py", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"ROS_LOG_DIR": str(folder)},
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < end, f"this did not happen within {PATIENCE:g} s: {what}\n{self.said}"
            time.sleep(0.02)
        return value

    def ended(self) -> int:
        """Its exit code; what it started must be gone."""
        self.until(lambda: self.process.poll() is not None, "launch ends")
        self.until(lambda: not in_session(self.process.pid), "nothing is left of it")
        return self.process.returncode

    def ctrl_c(self) -> int:
        os.killpg(self.process.pid, signal.SIGINT)
        return self.ended()


def in_session(session: int) -> list[int]:
    """Processes of a session that are no zombies."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = status.read_text().rsplit(")", 1)[1].split()[:4]
        except (OSError, IndexError, ValueError):
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(status.parent.name))
    return found


@contextmanager
def launched(folder: Path, *words: str) -> Iterator[Launched]:
    one = Launched(folder, *words)
    try:
        yield one
    finally:
        for pid in in_session(one.process.pid):
            os.kill(pid, signal.SIGKILL)
        one.process.wait()


def write(folder: Path, parameters: str) -> str:
    """Launch's words for a small cluster with these parameters."""
    file = folder / "cluster.yaml"
    file.write_text(f"robots: {{r1: {{source: front, nodes: [gateway, worker]}}}}\nparameters: {parameters}\n")
    return f"params_file:={file}"


@real
@pytest.mark.parametrize(("word", "says"), WRONG)
def test_wrong_arguments_end_ros2_launch(ros_domain: int, tmp_path: Path, word: str, says: str) -> None:
    with launched(tmp_path, word) as launch:
        assert launch.ended() == 1
        (line,) = [line for line in launch.said.splitlines() if "INFO" not in line]
        assert says in line


@real
def test_a_permanent_error_ends_a_node_a_death_does_not_and_ctrl_c_ends_all(ros_domain: int, tmp_path: Path) -> None:
    words = write(tmp_path, "{worker: {model: missing.tflite}}")
    with launched(tmp_path, words, "rviz:=true") as launch:
        launch.until(lambda: "worker_r1 ended for good" in launch.said, "the worker ends for good")
        launch.until(lambda: "[gateway_r1]: started" in launch.said, "the gateway starts")
        (gateway,) = children_of(launch.process.pid)
        os.kill(gateway, signal.SIGKILL)
        launch.until(lambda: launch.said.count("[gateway_r1]: started") == 2, "the gateway is started again")
        assert launch.ctrl_c() == 0
    assert launch.said.count("no file 'missing.tflite'") == 1, "neither said twice nor started again"
    assert launch.said.count("worker_r1 ended for good") == 1
    assert "Traceback" not in launch.said


@real
def test_ros2_launch_ends_with_its_last_gateway(ros_domain: int, tmp_path: Path) -> None:
    with launched(tmp_path, write(tmp_path, "{gateway: {cut: nonsense}}")) as launch:
        assert launch.ended() == 1
    assert "gateway_r1 ended for good, and the cluster has no other" in launch.said
    assert launch.said.count("the cut 'nonsense' is not understood") == 1


@real
@pytest.mark.parametrize("seed", range(6))
def test_ctrl_c_at_any_moment_leaves_nothing(ros_domain: int, tmp_path: Path, seed: int) -> None:
    """From when launch has begun: what it does with Ctrl-C while it is imported is not ours. The first three
    moments are those in which it starts its processes.
    """
    with launched(tmp_path) as launch:
        if seed < 3:
            launch.until(lambda: launch.said.count("process started") > 2 * seed, "launch starts processes")
        else:
            launch.until(lambda: "Default logging verbosity" in launch.said, "launch begins")
            time.sleep(random.Random(seed).uniform(0.0, 3.0))  # any moment
        assert launch.ctrl_c() == 0, launch.said
    assert "Traceback" not in launch.said and "failed to terminate" not in launch.said
