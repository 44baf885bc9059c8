# SPDX-License-Identifier: Apache-2.0
"""Starts a cluster's processes on this machine, starts again what dies, stops them all: what launch does on a robot."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dnn_dist.cluster import RESPAWN_DELAY, Process
from dnn_dist.errors import PERMANENT, ConfigError
from dnn_dist.signals import STOPPING


def executables() -> Path:
    """The folder of the installed nodes; ConfigError in one line when the package is not built."""
    try:
        from ament_index_python.packages import get_package_prefix

        folder = Path(get_package_prefix("dnn_dist")) / "lib" / "dnn_dist"
    except (ImportError, LookupError):
        folder = Path()
    if not (folder / "worker").is_file():
        raise ConfigError("the nodes are not built, or their environment is not sourced; run `make build` first")
    return folder


def share() -> Path:
    """The installed package's folder of configuration."""
    return executables().parents[1] / "share" / "dnn_dist"


class Supervisor:
    """The processes of a cluster. A context manager: at its end nothing is left running."""

    def __init__(
        self,
        logs: Path,
        environment: Mapping[str, str],
        respawn_delay: float = RESPAWN_DELAY,
        stop_timeout: float = 5.0,
        prefix: Callable[[Process], Sequence[str]] = lambda process: (),
    ) -> None:
        """`environment` is added to each process's own; what a process prints goes to `logs`/NAME.log.

        `prefix`: what stands before a process's command, e.g. to start it in another network namespace.
        """
        self._logs, self._environment = logs, environment
        self._respawn_delay, self._stop_timeout = respawn_delay, stop_timeout
        self._prefix = prefix
        self._folder = executables()
        self._wanted: dict[str, Process] = {}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._due: dict[str, float] = {}  # name -> when to start it again, s
        self.respawns: dict[str, int] = {}
        self.ended: dict[str, str] = {}  # name -> why it ended for good
        self._parameters = tempfile.TemporaryDirectory(prefix="dnn_dist_")

    def __enter__(self) -> Supervisor:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._parameters.cleanup()

    def start(self, processes: Iterable[Process]) -> None:
        """Start processes and keep them running."""
        for process in processes:
            self._wanted[process.name] = process
            self._start(process)

    def look(self) -> None:
        """Start again what has died, unless it would die in the same way; call this often."""
        now = time.monotonic()
        for name, child in list(self.running.items()):
            if child.poll() is None:
                continue
            del self.running[name]
            if child.returncode == PERMANENT:
                self.ended[name] = self.last_word(name)
            else:
                self._due[name] = now + self._respawn_delay
        for name, due in list(self._due.items()):
            if now >= due:
                del self._due[name]
                self.respawns[name] = self.respawns.get(name, 0) + 1
                self._start(self._wanted[name])

    def kill(self, name: str) -> None:
        """End a process as a power cut would: SIGKILL."""
        self.running[name].kill()

    def stop(self) -> dict[str, int]:
        """Ask all to end (SIGINT), as Ctrl-C does; kill what does not. Returns exit codes by name."""
        self._due.clear()
        for child in self.running.values():
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGINT)
        end = time.monotonic() + self._stop_timeout
        codes = {}
        for name, child in self.running.items():
            try:
                codes[name] = child.wait(timeout=max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                codes[name] = child.wait()
        self.running.clear()
        return codes

    def log(self, name: str) -> str:
        """What a process has printed so far."""
        with suppress(OSError):
            return (self._logs / f"{name}.log").read_text(errors="replace")
        return ""

    def last_word(self, name: str) -> str:
        """The last line that a process has printed, without what the logger puts before it."""
        lines = self.log(name).strip().splitlines()
        return re.sub(r"^(\[\w+\] \[[\d.]+\] \[[\w.]+\]|dnn_dist: error): ", "", lines[-1]) if lines else "no word"

    def _start(self, process: Process) -> None:
        settings = Path(self._parameters.name) / f"{process.name}.yaml"
        settings.write_text(process.parameter_text())
        with (self._logs / f"{process.name}.log").open("ab") as log:
            self.running[process.name] = subprocess.Popen(
                [*self._prefix(process), str(self._folder / process.executable), *process.arguments(settings)],
                env={**os.environ, **self._environment, **process.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process, which then stops its children itself
                preexec_fn=_before_exec,
            )


def _before_exec() -> None:
    """Linux: have the kernel end this process when its parent is gone, however that went.

    Signals wait until the node takes them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
