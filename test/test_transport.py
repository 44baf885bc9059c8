# SPDX-License-Identifier: Apache-2.0
"""What a node says of its transport at its start: whatever is asked for and not to be had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from dnn_dist.dds import OLD_PROFILE, PROFILE, UNPACED
from dnn_dist.nodes.transport import profile_was_read, take_profile, transport_asked_for, transport_refused

SHIPPED = Path(__file__).parents[1] / "config" / "network"


@pytest.fixture(params=sorted(path.name for path in SHIPPED.glob("*.xml")))
def profile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(PROFILE, str(SHIPPED / request.param))
    return request.param


def granting(folder: Path, most: int) -> Path:
    (folder / "rmem_max").write_text(f"{most}\n")
    return folder / "rmem_max"


def test_small_buffers_are_named_with_what_to_do(profile: str, tmp_path: Path) -> None:
    said = transport_refused(granting(tmp_path, 212992))
    assert said is not None and said.kind == "small socket buffers"
    assert "208 kB of 4096" in said.text and "net.core.rmem_max=4194304" in said.text


def test_nothing_is_said_where_all_is_to_be_had(profile: str, tmp_path: Path) -> None:
    assert transport_refused(granting(tmp_path, 4194304)) is None
    assert transport_refused(tmp_path / "not Linux") is None
    assert profile in transport_asked_for() and "LOCALHOST" in transport_asked_for()


@pytest.mark.parametrize("text", [None, "", "<dds>", "<dds><receiveBufferSize>much</receiveBufferSize></dds>"])
def test_a_profile_that_cannot_be_read_is_named(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.xml"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv(PROFILE, str(path))
    said = transport_refused(granting(tmp_path, 4194304))
    assert said is not None and said.kind == "no profile" and "mine.xml" in said.text and "\n" not in said.text


def test_another_middleware_does_not_read_the_profile(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnn_dist.nodes.transport.get_rmw_implementation_identifier", lambda: "rmw_cyclonedds_cpp")
    said = transport_refused()
    assert said is not None and "rmw_fastrtps_cpp" in said.text
    assert profile not in transport_asked_for()


def test_without_a_profile_nothing_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (PROFILE, OLD_PROFILE):
        monkeypatch.delenv(variable, raising=False)
    assert transport_refused() is None
    assert "profile: none" in transport_asked_for()


@pytest.mark.parametrize(("distro", "variable"), [("kilted", PROFILE), ("jazzy", OLD_PROFILE)])
def test_dds_is_told_of_a_derived_profile_by_its_own_variable(
    profile: str, distro: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DISTRO", distro)
    monkeypatch.setenv(OLD_PROFILE, "/somewhere/else.xml")
    monkeypatch.setenv(UNPACED, "/image")
    take_profile()
    written = Path(os.environ[variable])
    assert {PROFILE, OLD_PROFILE} & set(os.environ) == {variable}
    text = written.read_text()
    assert ("heartbeatPeriod" in text) is (distro == "jazzy") is not ("heartbeat_period" in text)
    assert ('profile_name="/image"' in text) is (profile == "wifi.xml")
    assert f"profile: {profile};" in transport_asked_for() and transport_refused(Path("not Linux")) is None
    profile_was_read()
    assert not written.exists()
