# SPDX-License-Identifier: Apache-2.0
"""The ways into the environment, written into .venv. They hold this checkout's place, as all of .venv does.

    .venv/env.sh              the environment, to be sourced
    .venv/bin/dnn_dist-env    runs a command in it
    .venv/bin/dnn_dist        the command line, in it, from any folder

DNN_DIST_PREFIX chooses another install folder than install/dnn_dist; empty: only what lies below our package.
"""

import os
import shlex
from pathlib import Path

from machine import ROOT, VENV, outside, sourced


def write_entries() -> None:
    enter = f". {quoted(VENV / 'env.sh')}"
    write(VENV / "env.sh", *below(), *ours(), mode=0o644)
    write(VENV / "bin/dnn_dist-env", enter, 'exec "$@"')
    write(VENV / "bin/dnn_dist", enter, 'exec "$DNN_DIST_PREFIX/lib/dnn_dist/dnn_dist" "$@"')
    # colcon warns of a prefix without one, and the wheels bring none.
    write(VENV / "local_setup.sh", mode=0o644)


def write(path: Path, *text: str, mode: int = 0o755) -> None:
    path.write_text("\n".join(["#!/bin/sh", "# Written by deploy/entries.py.", *text, ""]))
    path.chmod(mode)


def quoted(path: Path) -> str:
    return shlex.quote(str(path))


def below() -> list[str]:
    """Shell text: Python and ROS 2, without our package."""
    python = [f"export VIRTUAL_ENV={quoted(VENV)}", f'export PATH={quoted(VENV / "bin")}:"$PATH"']
    if sourced():
        # As it is now, so that the command line also runs from a shell where nothing is sourced; behind it
        # comes what that shell has sourced by then.
        names = ["AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "LD_LIBRARY_PATH", "PYTHONPATH"]
        paths = {name: shlex.quote(os.pathsep.join(outside(name))) for name in names if outside(name)}
        kept = [f'export {name}={path}"${{{name}:+:${name}}}"' for name, path in paths.items()]
        return [*python, f"export ROS_DISTRO={shlex.quote(os.environ['ROS_DISTRO'])}", *kept]
    libraries = [VENV / "lib", *sorted(VENV.glob("lib/python*/site-packages/ros_*.libs"))]
    return [
        *python,
        f"export AMENT_PREFIX_PATH={quoted(VENV)} CMAKE_PREFIX_PATH={quoted(VENV)}",
        f"export LD_LIBRARY_PATH={':'.join(map(quoted, libraries))}",
        # A ROS installation that was sourced since then is another one; modules of the user's own are welcome.
        '[ -z "${ROS_DISTRO:-}" ] || unset PYTHONPATH',
        # The wheels start each Python twice to set the library path, which is set here.
        "export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1",
    ]


def ours() -> list[str]:
    """Shell text: our package on top, by the script that colcon made for it."""
    return [
        f"DNN_DIST_PREFIX=${{DNN_DIST_PREFIX-{quoted(ROOT / 'install/dnn_dist')}}}",
        'if [ -e "$DNN_DIST_PREFIX/share/dnn_dist/package.sh" ]; then',
        '    COLCON_CURRENT_PREFIX="$DNN_DIST_PREFIX"',
        '    . "$DNN_DIST_PREFIX/share/dnn_dist/package.sh"',
        "fi",
    ]
