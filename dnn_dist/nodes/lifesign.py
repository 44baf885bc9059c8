# SPDX-License-Identifier: Apache-2.0
"""Tells whoever started the process, outside ROS, that its node lives and whether it is well.

A container's probe looks at the file that DNN_DIST_HEALTH names: its age is the sign of life, its first word is OK or
WARN. systemd listens on NOTIFY_SOCKET, see sd_notify(3): for units of type notify, their watchdog and their status.
Where neither is set nothing is done. It is said by the executor that does all else, so a node that hangs falls silent.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from dnn_dist.run.health import Health

FILE, SOCKET = "DNN_DIST_HEALTH", "NOTIFY_SOCKET"


class LifeSign:
    """Says a node's health to whom the environment names."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._file = Path(environment[FILE]) if environment.get(FILE) else None
        name = environment.get(SOCKET, "")
        self._address = f"\0{name[1:]}" if name.startswith("@") else name  # of the abstract namespace

    def say(self, health: Health) -> None:
        """To be called each second. OSError when it can't be said."""
        word = f"{'OK' if health.well else 'WARN'} {health.message}"
        if self._file is not None:
            unfinished = self._file.with_name(f"{self._file.name}.new")
            unfinished.write_text(f"{word}\n")
            os.replace(unfinished, self._file)  # whoever reads finds a whole one
        if self._address:
            line = word.replace("\n", " ")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
                notified.setblocking(False)
                notified.sendto(f"READY=1\nWATCHDOG=1\nSTATUS={line}".encode(), self._address)
