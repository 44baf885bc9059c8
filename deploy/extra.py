#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Installs requirements/NAME.txt into .venv, for targets that need more than the environment: extra.py NAME.

Versions are those of requirements/constraints.txt. A stamp says what was installed: nothing is done twice.
"""

import subprocess
import sys

from environment import REQUIREMENTS, lines
from machine import VENV


def install(name: str) -> None:
    """pip takes its time even if everything is there, hence the stamp."""
    constraints, stamp = VENV / "constraints.txt", VENV / f"{name}.stamp"
    wanted = lines(REQUIREMENTS / f"{name}.txt")
    contents = "\n".join([*wanted, constraints.read_text()])
    if stamp.exists() and stamp.read_text() == contents:
        return
    print(f"installing {', '.join(wanted)}", flush=True)
    pip = [VENV / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", constraints, *wanted], check=True)
    stamp.write_text(contents)


if __name__ == "__main__":
    try:
        install(sys.argv[1])
    except subprocess.CalledProcessError as error:
        sys.exit(f"requirements/{sys.argv[1]}.txt could not be installed, see above: {error}")
