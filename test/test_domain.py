# SPDX-License-Identifier: Apache-2.0
"""A cluster of one's own gets a ROS domain that nobody uses, unless the user chose one."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import ExitStack

import pytest

from dnn_dist.cli.domain import DOMAINS, free_domain, own_domain, used_domains
from dnn_dist.cli.supervisor import executables
from dnn_dist.errors import ConfigError

PATIENCE = 30.0  # s


def bound(domain: int) -> socket.socket:
    """A socket on the last port of a domain, which DDS takes last."""
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind(("127.0.0.1", 7400 + 250 * domain + 249))
    return taken


def test_a_domain_with_a_port_in_use_is_passed_over() -> None:
    with free_domain(DOMAINS[20]) as free:
        pass
    with bound(free), free_domain(free) as domain:
        assert domain != free and free in used_domains()
    with free_domain(free) as domain:
        assert domain == free


def test_a_domain_that_is_held_is_passed_over_and_given_back() -> None:
    with ExitStack() as first, free_domain(DOMAINS[40]) as one:
        two = first.enter_context(free_domain(one))
        assert one != two
        with pytest.raises(ConfigError, match="set ROS_DOMAIN_ID"), free_domain(one, [one, two]):
            pass
        first.close()
        with free_domain(two, [one, two]) as again:
            assert again == two


def test_the_users_domain_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    with bound(7), own_domain() as environment:
        assert environment == {"ROS_DOMAIN_ID": "7"}
    monkeypatch.delenv("ROS_DOMAIN_ID")
    with own_domain() as environment:
        assert int(environment["ROS_DOMAIN_ID"]) not in used_domains()


@pytest.mark.install
def test_a_node_of_somebody_else_is_seen(ros_domain: int) -> None:
    node = subprocess.Popen(
        [executables() / "worker"], env={**os.environ, "ROS_DOMAIN_ID": str(ros_domain)}, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + PATIENCE
        while ros_domain not in used_domains():
            assert time.monotonic() < end and node.poll() is None, "the node holds no port of its domain"
            time.sleep(0.05)
    finally:
        node.terminate()
        node.wait(PATIENCE)
