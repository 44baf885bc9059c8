# SPDX-License-Identifier: Apache-2.0
"""A ROS domain that nobody uses on this machine, for a cluster of one's own.

A domain is in use where some process holds a UDP port of it: every DDS middleware has the ports 7400 + 250 x domain to
the next domain's. A lock on a file holds it against another cluster that starts at the same moment.
"""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dnn_dist.errors import ConfigError

DOMAINS = range(1, 102)
"""Linux keeps the ports of higher ones for outgoing connections; 0 is what everybody has who chose none."""
_FIRST_PORT, _PORTS = 7400, 250
_TABLES = ("/proc/net/udp", "/proc/net/udp6")


@contextmanager
def own_domain() -> Iterator[dict[str, str]]:
    """The environment of a cluster of one's own: a free domain, or the one that the user has set."""
    if chosen := os.environ.get("ROS_DOMAIN_ID"):
        yield {"ROS_DOMAIN_ID": chosen}
        return
    with free_domain(random.choice(DOMAINS)) as domain:
        yield {"ROS_DOMAIN_ID": str(domain)}


@contextmanager
def free_domain(first: int, domains: Sequence[int] = DOMAINS) -> Iterator[int]:
    """Hold a domain that is free: `first`, or the next one after it that is. ConfigError when none is."""
    start = domains.index(first)
    for domain in (*domains[start:], *domains[:start]):
        lock = _lock(domain)
        if lock is None:
            continue
        try:
            if domain not in used_domains():
                yield domain
                return
        finally:
            os.close(lock)
    raise ConfigError(
        f"every ROS domain from {domains[0]} to {domains[-1]} is in use on this machine; "
        "end what runs there, or set ROS_DOMAIN_ID to the one that you want"
    )


def used_domains() -> set[int]:
    """Domains of which a process on this machine holds a UDP port; none where the system does not tell."""
    ports = set()
    for table in _TABLES:
        with suppress(OSError):
            ports |= {_local_port(line) for line in Path(table).read_text(encoding="ascii").splitlines()[1:]}
    return {(port - _FIRST_PORT) // _PORTS for port in ports if port >= _FIRST_PORT}


def _local_port(line: str) -> int:
    return int(line.split()[1].rpartition(":")[2], 16)


def _lock(domain: int) -> int | None:
    """The open file that locks a domain until it is closed; None: somebody else has it."""
    path = Path(tempfile.gettempdir(), f"dnn_dist-domain-{domain}.lock")
    try:
        # Another user's file is not to be created, but may be read, and what can be read can be locked.
        lock = os.open(path, os.O_RDONLY if path.exists() else os.O_RDONLY | os.O_CREAT, 0o644)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock
