# SPDX-License-Identifier: Apache-2.0
"""systemd units: one for each node, and a target that starts all nodes of a robot.

systemd does what `ros2 launch` does elsewhere: it starts a node again 0.05 s after its end, unless that was for good.
It also ends one that hangs, since nodes tell it each second that they live.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dnn_dist.cluster import RESPAWN_DELAY, Process
from dnn_dist.deploy.place import HANGS, START, Place, camera_device
from dnn_dist.errors import PERMANENT

PARAMETERS = "/etc/dnn_dist"


def target_name(robot: str) -> str:
    """Name of the target that is a robot."""
    return f"dnn_dist-{robot}.target"


def systemd(processes: Sequence[Process], limits: Mapping[str, int], place: Place, user: str) -> dict[str, str]:
    """Path from the root folder -> text of a file: units, targets, and a ROS parameter file for each node.

    `limits`: process -> bytes that it may take. `user`: as whom the nodes run.
    """
    files = {}
    for process in processes:
        parameters = f"{PARAMETERS}/{process.name}.yaml"
        files[parameters[1:]] = process.parameter_text()
        files[f"etc/systemd/system/dnn_dist-{process.name}.service"] = _service(
            process, limits.get(process.name), place, parameters, user
        )
    for robot in dict.fromkeys(process.robot for process in processes):
        wants = " ".join(f"dnn_dist-{process.name}.service" for process in processes if process.robot == robot)
        files[f"etc/systemd/system/{target_name(robot)}"] = _lines(
            "[Unit]",
            f"Description=dnn_dist, robot {robot}",
            f"Wants={wants}",
            "",
            "[Install]",
            "WantedBy=multi-user.target",
        )
    return files


def _service(process: Process, limit: int | None, place: Place, parameters: str, user: str) -> str:
    # The environment first, for ROS and the Python with LiteRT.
    command = [f"{place.checkout}/.venv/bin/dnn_dist-env", *place.command(process, parameters)]
    return _lines(
        "[Unit]",
        f"Description=dnn_dist, {process.executable} of robot {process.robot}",
        "Wants=network-online.target",
        "After=network-online.target",
        f"PartOf={target_name(process.robot)}",
        # However often it dies: a robot that comes back is the point.
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        f"User={user}",
        *(["SupplementaryGroups=video"] if camera_device(process) else []),
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in place.environment(process).items()),
        f"ExecStart={' '.join(_quoted(word.replace('$', '$$')) for word in command)}",
        "Restart=always",
        f"RestartSec={RESPAWN_DELAY:g}",
        f"RestartPreventExitStatus={PERMANENT}",
        f"TimeoutStartSec={START}",
        f"WatchdogSec={HANGS}",
        "TimeoutStopSec=10",
        *([f"MemoryMax={limit}"] if limit else []),
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        "PrivateTmp=yes",
        "Environment=ROS_LOG_DIR=/tmp/log",
    )


def _lines(*lines: str) -> str:
    return "\n".join(["# Written by dnn_dist deploy systemd.", *lines, ""])


def _quoted(word: str) -> str:
    """A word as systemd reads it, where it has characters with a meaning (systemd.service(5), command lines)."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{word}"' if not word or any(letter in word for letter in " \t'\";") else word
