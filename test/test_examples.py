# SPDX-License-Identifier: Apache-2.0
"""The examples do what they say: the reader with a real cluster, the launch file with a stand-in for launch."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("ament_index_python", reason="ROS 2 is not here")
pytest.importorskip("dnn_dist.msg", reason="messages are not built")

from live import live, robots
from test_launch import Kept, kind, launch_file  # noqa: F401  (a fixture)

from dnn_dist.cli.supervisor import share
from dnn_dist.cluster import processes, read_cluster

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_reader_prints_what_is_seen(tmp_path: Path, ros_domain: int) -> None:
    settings = {"gateway": {"deadline": 10.0}}
    with live(tmp_path, robots(1, ("camera", "gateway")), settings) as cluster, (tmp_path / "said").open("w") as said:
        command = [sys.executable, EXAMPLES / "read_detections.py"]
        reader = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        try:
            seen = re.compile(r"^(cone|crate|barrel|robot) 0\.\d\d at \d+,\d+.*\(100%\)$", re.MULTILINE)
            cluster.until(lambda: seen.search((tmp_path / "said").read_text()), "it prints an object")
        finally:
            reader.kill()
            reader.wait()
    assert "Traceback" not in (tmp_path / "said").read_text()


def test_the_launch_file_includes_ours_with_a_camera_on_the_topic_that_the_gateway_hears(
    launch_file: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = {
        "launch.actions": ["IncludeLaunchDescription"],
        "launch.conditions": ["LaunchConfigurationEquals"],
        "launch.launch_description_sources": ["PythonLaunchDescriptionSource"],
    }
    for module, classes in more.items():
        if module not in sys.modules:
            monkeypatch.setitem(sys.modules, module, ModuleType(module))
        vars(sys.modules[module]).update({name: kind(name) for name in classes})
    path = share() / "examples" / "my_camera.launch.py"
    spec = importlib.util.spec_from_file_location("my_camera_launch", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (entities,) = module.generate_launch_description().arguments
    robot, camera, included = entities
    assert all(isinstance(entity, Kept) for entity in entities)
    (source,) = included.arguments
    assert Path(source.arguments[0]).read_text() == (share() / "launch" / "cluster.launch.py").read_text()
    arguments = dict(included.options["launch_arguments"])
    assert arguments.keys() <= launch_file.ARGUMENTS.keys() and arguments["robot"].arguments == ("robot",)
    started = processes(read_cluster(arguments["params_file"]), share() / "config" / "network")
    assert [one.name for one in started] == ["gateway_r1", "worker_r1", "worker_r2"]
    assert ("image_raw", "image") in camera.options["remappings"] and not started[0].remappings
    assert camera.options["condition"].arguments == ("robot", robot.options["default_value"])
