# SPDX-License-Identifier: Apache-2.0
"""What this machine has: a ROS 2 environment that is sourced or none, a Python, compilers, packages."""

import importlib.machinery
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"

# What a system may have without metadata that pip sees: as a module (Debian's OpenCV), as a command.
MODULES = {"opencv-python-headless": "cv2"}
COMMANDS = {"cmake": "cmake", "ninja": "ninja"}


@cache
def sourced() -> bool:
    """Whether a ROS 2 environment is sourced that this Python can use."""
    distro = os.environ.get("ROS_DISTRO")
    if not (distro and os.environ.get("AMENT_PREFIX_PATH")):
        return False
    if ask_python("import rclpy") is None:
        print(
            f"ROS 2 {distro} is sourced, but {interpreter()} cannot import its rclpy: not used",
            file=sys.stderr,
        )
        return False
    return True


def check_machine() -> None:
    """Ends with one line that names the cure if this machine cannot build."""
    if not sourced() and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        sys.exit(
            "no ROS 2 is sourced, and its wheels are for Linux on x86-64 only, "
            f"this is {sys.platform} on {platform.machine()}: "
            "install ROS 2 (docs.ros.org; ros-base and ros-dev-tools), source its setup.bash, run make again"
        )
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        sys.exit("this Python has no venv: install it (Debian, Ubuntu: apt install python3-venv)")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        sys.exit("this Python has no C headers: install them (Debian, Ubuntu: apt install python3-dev)")
    if not (shutil.which(os.environ.get("CC", "cc")) and shutil.which(os.environ.get("CXX", "c++"))):
        sys.exit("no C and C++ compiler: install one (Debian, Ubuntu: apt install build-essential)")


def interpreter() -> str:
    """The Python below any virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def outside(name: str) -> list[str]:
    """The entries of a path variable that are not this checkout's own."""
    entries = os.environ.get(name, "").split(os.pathsep)
    return [entry for entry in entries if entry and not Path(entry).is_relative_to(ROOT)]


def on_system(package: str) -> bool:
    """Whether a package is there below .venv."""
    path = [entry for entry in sys.path if not Path(entry).is_relative_to(ROOT)]
    if package in COMMANDS:
        return shutil.which(COMMANDS[package], path=os.pathsep.join(outside("PATH"))) is not None
    if package in MODULES:
        return importlib.machinery.PathFinder.find_spec(MODULES[package], path) is not None
    return any(importlib.metadata.distributions(name=package, path=path))


def numpy_of_system() -> str | None:
    """Version of the NumPy that the sourced ROS 2 works with."""
    return ask_python("import numpy; print(numpy.__version__)")


def ask_python(code: str) -> str | None:
    """What the Python below prints, None if it fails."""
    answer = subprocess.run([interpreter(), "-c", code], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None
