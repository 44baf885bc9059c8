# SPDX-License-Identifier: Apache-2.0
"""The one list of executables: CMake makes lib/dnn_dist/* of it by running this file, setup.py a script."""

import sys
from pathlib import Path

# name of the executable -> module:function that returns its exit code
EXECUTABLES = {
    "camera": "dnn_dist.nodes.camera:main",
    "partition": "dnn_dist.nodes.partition:main",
    "worker": "dnn_dist.nodes.worker:main",
    "aggregator": "dnn_dist.nodes.aggregator:main",
    "gateway": "dnn_dist.nodes.gateway:main",
    "dnn_dist": "dnn_dist.cli.main:main",
}


def script(target: str) -> str:
    """The text of an executable; `env` finds the Python of the environment, the one that has LiteRT."""
    module, function = target.split(":")
    return f"#!/usr/bin/env python3\nimport sys\n\nfrom {module} import {function}\nsys.exit({function}())\n"


def write_scripts(folder: Path) -> None:
    """Writes all executables into `folder`, with their mode: a symlinked install links to these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in set(folder.iterdir()) - {folder / name for name in EXECUTABLES}:
        stale.unlink()
    for name, target in EXECUTABLES.items():
        (folder / name).write_text(script(target))
        (folder / name).chmod(0o755)


if __name__ == "__main__":
    write_scripts(Path(sys.argv[1]))
