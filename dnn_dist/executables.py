# SPDX-License-Identifier: Apache-2.0
"""The one list of executables: CMake makes lib/dnn_dist/* of it by running this file, setup.py a script."""

import subprocess
import sys
from contextlib import suppress
from functools import cache
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
    """Run an executable, and take care of signals to stop from here to the interpreter's end; see signals.py."""
    # Not at the top: CMake and setup.py read this file where the package is not yet to be found.
    from dnn_dist.signals import ignore, leave_at_once

    leave_at_once(130 if name == "dnn_dist" else 0)  # a command that was interrupted, as shells say it; an orderly end
    try:
        return _run(name)
    finally:
        ignore()


def _run(name: str) -> int:
    from dnn_dist.errors import PERMANENT, DnnDistError

    module, function = EXECUTABLES[name].split(":")
    node = module.startswith("dnn_dist.nodes.")
    try:
        if node:
            import_module("dnn_dist.nodes.joining").join(sys.argv)  # others are met while the rest is imported
        main = getattr(import_module(module), function)
    except DnnDistError as error:
        text = str(error)
    except ImportError as error:
        text = (
            f"{name} needs {error.name or 'ROS 2'}, which is not here ({error}); "
            "nodes need ROS 2 and this package's messages: build it with colcon or `make build`, and source the result"
        )
    else:
        return int(main())
    print(f"dnn_dist: error: {text}", file=sys.stderr)
    return PERMANENT if node else 1


def script(name: str) -> str:
    """The text of an executable. `env` finds the interpreter, so that an environment with LiteRT wins."""
    return f"{_shebang()}\nimport sys\n\nfrom dnn_dist.executables import run\n\nsys.exit(run({name!r}))\n"


@cache
def _shebang() -> str:
    """Signals to stop wait until `run` takes them, where this system's `env` can block them (coreutils 8.31).

    Python starts for a good tenth of a second before its first line, on a busy robot for longer; a signal in that time
    ends it with code -2 or a traceback.
    """
    options = "-S --block-signal=INT,TERM"
    with suppress(OSError):
        if subprocess.run(["/usr/bin/env", f"{options} true"], capture_output=True, check=False).returncode == 0:
            return f"#!/usr/bin/env {options} python3"
    return "#!/usr/bin/env python3"


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
