# SPDX-License-Identifier: Apache-2.0
"""What a node says of its transport at its start: whatever is asked for and not to be had."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from dnn_dist.dds import PROFILE
from dnn_dist.nodes.transport import transport_asked_for, transport_refused

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
    monkeypatch.delenv(PROFILE, raising=False)
    assert transport_refused() is None
    assert "profile: none" in transport_asked_for()
