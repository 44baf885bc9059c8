# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every test may use."""

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

# What is tested is what colcon installed: `python -m pytest` puts the checkout first, here it comes last.
sys.path.sort(key=lambda entry: Path(entry).resolve() == Path(__file__).parents[1])

# Before anything starts DDS, however pytest was started.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

DOMAINS = range(1, 102)  # Linux keeps the ports of higher ones for outgoing connections
_next_domain = os.getpid() % len(DOMAINS)


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A ROS_DOMAIN_ID of this test's own, set for it and for the processes it starts.

    A lock holds it against other runs on this machine. Each test takes the next one, since what an earlier
    test killed stays in its domain's discovery for some seconds.
    """
    global _next_domain
    for domain in chain(DOMAINS[_next_domain:], DOMAINS[:_next_domain]):
        path = Path(tempfile.gettempdir(), f"dnn_dist-domain-{domain}.lock")
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT)
        except PermissionError:  # another user's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        _next_domain = domain % len(DOMAINS)
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        try:
            yield domain
        finally:
            os.close(lock)
        return
    pytest.fail("every ROS domain is taken by a test that runs; wait for those")


@pytest.fixture(scope="session")
def yolov2(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """YOLOv2's first 16 layers at 608 x 608, with random weights: the network of the published figures."""
    from netbuilder import NetBuilder

    from dnn_dist.graph.tflite import read_network

    net = NetBuilder()
    path = tmp_path_factory.mktemp("yolov2") / "first16.tflite"
    path.write_bytes(net.build([net.yolov2_first16()]))
    return read_network(path)
