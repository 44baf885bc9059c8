#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the environment in .venv, then builds with colcon. Needs only Python, a compiler and make."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 (the one file that older Pythons read)
    sys.exit("dnn_dist needs Python 3.10 or newer: run make PYTHON=python3.12, or what you have")

import argparse
import fcntl
import os
import shlex
import subprocess

from environment import make_environment
from machine import ROOT, VENV, check_machine

SYMLINKED = ROOT / "build/symlink"  # a folder of its own, for colcon cannot mix the two ways to install


def build(symlinked: bool) -> None:
    """Builds what has changed. Without --base-paths colcon would build what it finds in .venv."""
    base = SYMLINKED if symlinked else ROOT
    subprocess.run(
        [
            *(VENV / "bin/dnn_dist-env", "colcon", "--log-base", ROOT / "build/log", "build"),
            *("--base-paths", ROOT, "--build-base", base / "build", "--install-base", base / "install"),
            *(["--symlink-install"] if symlinked else []),
            *("--cmake-args", "-GNinja", f"-DPython3_EXECUTABLE={VENV / 'bin/python'}"),
        ],
        # Unless told how many jobs, colcon has ninja wait for a load below their number too: one job if others run.
        env={"MAKEFLAGS": f"-j{os.cpu_count()}"} | os.environ | {"DNN_DIST_PREFIX": ""},
        check=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symlink-install", action="store_true", help="make the second, symlinked install")
    parser.add_argument("--lean", action="store_true", help="without what only tests and linters need")
    arguments = parser.parse_args()
    check_machine()
    checkout = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(checkout, fcntl.LOCK_EX)  # two builds of one checkout take turns
    try:
        make_environment(arguments.lean)
        build(arguments.symlink_install)
    except subprocess.CalledProcessError as error:
        sys.exit(f"this failed, see above: {shlex.join(map(str, error.cmd))}")


if __name__ == "__main__":
    main()
