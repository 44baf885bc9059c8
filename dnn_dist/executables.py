# SPDX-License-Identifier: Apache-2.0
"""The one list of executables: CMake makes lib/dnn_dist/* of it by running this file, setup.py a script."""

import sys
from importlib import import_module
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


def run(name: str) -> int:
    """Run an executable; what is missing to run it is one line, with the cure."""
    module, function = EXECUTABLES[name].split(":")
    try:
        if module.startswith("dnn_dist.nodes."):
            import_module("dnn_dist.nodes.joining").join(sys.argv)  # others are met while the rest is imported
        main = getattr(import_module(module), function)
    except ImportError as error:
        print(
            f"dnn_dist: error: {name} needs {error.name or 'ROS 2'}, which is not here ({error}); "
            "nodes need ROS 2 and this package's messages: build it with colcon or `make build`, and source the result",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 0  # told to stop while it was still starting
    return int(main())


def script(name: str) -> str:
    """The text of an executable. `env` finds the interpreter, so that an environment with LiteRT wins."""
    return f"#!/usr/bin/env python3\nimport sys\n\nfrom dnn_dist.executables import run\n\nsys.exit(run({name!r}))\n"


def write_scripts(folder: Path) -> None:
    """Writes all executables into `folder`, with their mode: a symlinked install links to these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in set(folder.iterdir()) - {folder / name for name in EXECUTABLES}:
        stale.unlink()
    for name in EXECUTABLES:
        (folder / name).write_text(script(name))
        (folder / name).chmod(0o755)


if __name__ == "__main__":
    write_scripts(Path(sys.argv[1]))
