# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist set-plan` as a process, against services of the sources' type over DDS."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dnn_dist.srv", reason="messages are not built")

import rclpy
from rclpy.task import Future

from dnn_dist import srv
from dnn_dist.cli.supervisor import executables
from dnn_dist.nodes.process import make_executor
from dnn_dist.plan.plan import Plan

pytestmark = pytest.mark.usefixtures("ros_domain")
PATIENCE = 60.0  # s


class Sources:
    """Services as sources offer them; they take what begins with "tiles" or is a plan, and note who was asked what."""

    def __init__(self, *names: str, silent: str = "") -> None:
        self.asked: dict[str, list[str]] = {name: [] for name in names}
        self._node = rclpy.create_node("sources")
        for name in names:
            answer = self._never if name == silent else self._answer(name)
            self._node.create_service(srv.SetPlan, f"{name}/set_plan", answer)
        self._executor = make_executor()
        self._executor.add_node(self._node)

    def _answer(self, name: str) -> Callable[[Any, Any], Any]:
        def answer(request: Any, response: Any) -> Any:
            self.asked[name].append(request.plan)
            response.success = not (name.endswith("rear") and request.plan.startswith("bands"))
            response.message = "in force" if response.success else "op 3 cannot be cut into bands"
            return response

        return answer

    async def _never(self, request: Any, response: Any) -> Any:
        await Future()

    def run(self, *words: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of the command, while the services run."""
        command = [str(executables() / "dnn_dist"), "set-plan", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            end = time.monotonic() + PATIENCE
            while process.poll() is None:
                self._executor.spin_once(timeout_sec=0.1)
                if time.monotonic() > end:
                    process.kill()
            out, err = process.communicate()
        return process.returncode, out, err


@pytest.fixture
def ros(ros_domain: int) -> Iterator[None]:
    rclpy.init()
    try:
        yield
    finally:
        rclpy.try_shutdown()


@pytest.mark.usefixtures("ros")
def test_all_sources_are_asked_and_one_refusal_is_exit_code_1() -> None:
    sources = Sources("front", "hall/rear")
    code, out, err = sources.run("tiles:2x2@0..10")
    assert (code, sorted(out.splitlines()), err) == (0, ["/hall/rear: in force", "front: in force"], "")
    assert sources.asked == {"front": ["tiles:2x2@0..10"], "hall/rear": ["tiles:2x2@0..10"]}
    code, out, err = sources.run("bands:2")
    assert (code, err) == (1, "")
    assert sorted(out.splitlines()) == ["/hall/rear: refused: op 3 cannot be cut into bands", "front: in force"]


@pytest.mark.usefixtures("ros")
@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--source", "front"], ["front", "hall/front"]),
        (["--namespace", "/hall"], ["hall/front", "hall/rear"]),
        (["--source", "front", "--namespace", "/"], ["front"]),
        (["--source", "left"], []),
    ],
    ids=" ".join,
)
def test_only_those_named_are_asked(words: list[str], asked: list[str]) -> None:
    sources = Sources("front", "hall/front", "hall/rear")
    code, out, err = sources.run("tiles:2x2", *words, "--timeout", "20")
    assert sorted(name for name, plans in sources.asked.items() if plans) == asked
    assert len(out.splitlines()) == len(asked) and code == (0 if asked else 1)
    assert asked or ("named 'left'" in err and "/hall/rear" in err and err.count("\n") == 1)


@pytest.mark.usefixtures("ros")
def test_a_plan_file_is_sent_as_the_text_of_its_plan(tmp_path: Path) -> None:
    plan = Plan("00" * 32, "tiles:2x2", wire="float16")
    (tmp_path / "mine.yaml").write_text(f"# with a comment\n{plan.to_yaml()}")
    sources = Sources("front")
    assert sources.run(str(tmp_path / "mine.yaml"))[0] == 0
    (text,) = sources.asked["front"]
    assert Plan.from_yaml(text) == plan


@pytest.mark.usefixtures("ros")
def test_a_source_that_does_not_answer_is_named() -> None:
    sources = Sources("front", "rear", silent="front")
    code, out, _ = sources.run("tiles:2x2", "--timeout", "5")
    assert code == 1 and sorted(out.splitlines()) == [
        "front: refused: no answer within 5 s; see its log",
        "rear: in force",
    ]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["three by three"], 2, "three by three"),
        (["missing.yaml"], 2, "can't read the plan"),
        (["tiles:2x2", "--timeout", "0"], 2, "above 0"),
        (["tiles:2x2", "--timeout", "1"], 1, "no source was found"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_asked_is_one_line(words: list[str], code: int, says: str) -> None:
    command = [str(executables() / "dnn_dist"), "set-plan", *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == code and not ended.stdout
    assert ended.stderr.count("\n") == 1 and says in ended.stderr, ended.stderr
