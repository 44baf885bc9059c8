# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every test may use."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# What is tested is what colcon installed: `python -m pytest` puts the checkout first, here it comes last.
sys.path.sort(key=lambda entry: Path(entry).resolve() == Path(__file__).parents[1])

# Before anything starts DDS, however pytest was started.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

_domains_used = os.getpid()


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A ROS_DOMAIN_ID of this test's own, set for it and for the processes it starts.

    Each test takes the next one, since what an earlier test killed stays in its domain's discovery for some seconds.
    """
    from dnn_dist.cli.domain import DOMAINS, free_domain

    global _domains_used
    with free_domain(DOMAINS[_domains_used % len(DOMAINS)]) as domain:
        _domains_used = domain  # those from 1 on
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        yield domain


@pytest.fixture(scope="session")
def yolov2(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """YOLOv2's first 16 layers at 608 x 608, with random weights: the network of the published figures."""
    from netbuilder import NetBuilder

    from dnn_dist.graph.tflite import read_network

    net = NetBuilder()
    path = tmp_path_factory.mktemp("yolov2") / "first16.tflite"
    path.write_bytes(net.build([net.yolov2_first16()]))
    return read_network(path)
