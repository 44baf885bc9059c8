# SPDX-License-Identifier: Apache-2.0
"""The virtual environment .venv.

Where a ROS 2 environment is sourced, .venv sees its packages and gets only what they lack. Elsewhere ROS 2
comes as wheels from the package registry. A stamp in .venv says what it was made from: nothing is done twice.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from entries import write_entries
from machine import ROOT, VENV, interpreter, numpy_of_system, on_system, sourced

REQUIREMENTS = ROOT / "requirements"
STAMP = VENV / "dnn_dist.json"


def make_environment(lean: bool = False) -> None:
    """Makes .venv, or brings it up to date, unless its stamp says that it is. `lean`: without what tests need."""
    wanted, pins = requirements(lean)
    fixed = identity()
    scripts = [path.read_text() for path in sorted(Path(__file__).parent.glob("*.py"))]
    contents = hashlib.sha256("\n".join([*wanted, *pins, *scripts]).encode()).hexdigest()
    made = json.loads(STAMP.read_text()) if STAMP.exists() else {}
    if made == {**fixed, "contents": contents}:
        return
    if not fixed.items() <= made.items():
        for folder in (".venv", "build", "install"):  # builds remember the Python they were made with
            shutil.rmtree(ROOT / folder, ignore_errors=True)
        print(f"making .venv: Python {fixed['version']}, ROS 2 {fixed['ros']}", flush=True)
        system = ["--system-site-packages"] if sourced() else []
        subprocess.run([interpreter(), "-m", "venv", *system, VENV], check=True)
    print(f"installing {len(wanted)} packages and what they need, about a minute", flush=True)
    constraints = VENV / "constraints.txt"
    constraints.write_text("\n".join(pins) + "\n")
    install = [VENV / "bin/python", "-m", "pip", "install", "--quiet", "--use-pep517"]
    subprocess.run([*install, "--disable-pip-version-check", "-c", constraints, *wanted], check=True)
    write_entries()
    STAMP.write_text(json.dumps({**fixed, "contents": contents}))


def identity() -> dict[str, str]:
    """What an environment cannot change: if one of these differs it is made anew."""
    ros = f"{os.environ['ROS_DISTRO']}, sourced" if sourced() else "from wheels"
    return {"folder": str(ROOT), "python": interpreter(), "version": platform.python_version(), "ros": ros}


def requirements(lean: bool) -> tuple[list[str], list[str]]:
    """What is to be installed, and the versions of it."""
    files = ["core.txt", *([] if sourced() else ["ros.txt"]), "build.txt", *([] if lean else ["dev.txt"])]
    wanted = [line for name in files for line in lines(REQUIREMENTS / name)]
    pins = lines(REQUIREMENTS / "constraints.txt")
    if sourced():
        wanted = [line for line in wanted if not on_system(name_in(line))]
        pins = [line for line in pins if not on_system(name_in(line))]
        if version := numpy_of_system():
            # apt's cv_bridge is built for apt's NumPy: a newer one in front of it breaks it. Where OpenCV is
            # missing pip chooses what goes with that, since the pinned one needs NumPy 2.
            pins = [line for line in pins if name_in(line) != "opencv-python-headless"]
            pins.append(f"numpy=={version}")
    return wanted, pins


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def name_in(requirement: str) -> str:
    return re.split(r"[\[<>=;\s]", requirement)[0]
