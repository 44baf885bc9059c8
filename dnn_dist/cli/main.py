# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist COMMAND ...`.

Exit codes: 0 what was asked for holds, 1 it does not, 2 wrong use. An error is one line on stderr that names
the cure. A closed pipe (`| head`) and Ctrl-C end a command quietly.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import dnn_dist
from dnn_dist.errors import DnnDistError
from dnn_dist.shipped import find_model
from dnn_dist.signals import restore

# command -> (module with add_arguments and run, what it does)
COMMANDS = {
    "inspect": ("dnn_dist.cli.inspect", "what a model is made of, what of it can be tiled, and if not why"),
    "check": ("dnn_dist.cli.check", "cut a model, run every piece, merge, compare with the whole model"),
    "card": ("dnn_dist.cli.card", "write a model's card from what its file tells, and mark what is guessed"),
    "simulate": ("dnn_dist.cli.simulate", "a plan on a fleet in virtual time, with faults; a Gantt chart"),
    "profile": ("dnn_dist.cli.profile", "measure this robot op by op, for a fleet file"),
    "plan": ("dnn_dist.cli.plan", "choose how a model is cut for a fleet of robots, and say why"),
    "fleet": ("dnn_dist.cli.fleet", "write the fleet file of a cluster that runs: robots, speeds, links as they are"),
    "set-plan": ("dnn_dist.cli.setplan", "have the sources that run take another plan, without a pause"),
    "demo": (
        "dnn_dist.cli.demo",
        "a cluster on this machine: synthetic camera, workers, live table, a picture",
    ),
    "deploy": (
        "dnn_dist.cli.deploy",
        "a cluster for containers, Kubernetes, systemd, and a policy for SROS2",
    ),
    "parameters": ("dnn_dist.cli.parameters", "every parameter of every node, with its default and range"),
}
_WRONG_USE, _CLOSED_PIPE, _INTERRUPTED = 2, 128 + 13, 128 + 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_WRONG_USE, f"dnn_dist: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` (default: the process's) names; returns the exit code."""
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except DnnDistError as error:
        return _fail(str(error))
    except MemoryError:
        return _fail("out of memory; the model or its tensors are too large for this machine")
    except BrokenPipeError:
        # The interpreter flushes stdout once more as it ends, which would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except SystemExit as end:  # argparse, after --help or an error
        return end.code if isinstance(end.code, int) else 0


def _run(words: list[str]) -> int:
    if not words:
        return _fail(f"name a command: {', '.join(COMMANDS)} (see dnn_dist --help)")
    name, *rest = words
    if name in ("-h", "--help"):
        print("usage: dnn_dist COMMAND ...\n")
        for command, (_, text) in COMMANDS.items():
            print(f"  {command:12}{text}")
        print("\ndnn_dist COMMAND --help tells more.")
        return 0
    if name == "--version":
        print(f"dnn_dist {dnn_dist.__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        return _fail(
            f"unknown command '{name}'; {f'did you mean {near[0]}?' if near else 'see dnn_dist --help'}"
        )
    module_name, text = COMMANDS[name]
    module = import_module(module_name)
    restore()  # our executables take signals while they import
    parser = _Parser(
        prog=f"dnn_dist {name}", description=text[0].upper() + text[1:] + ".", allow_abbrev=False
    )
    module.add_arguments(parser)
    args = parser.parse_args(rest)
    if getattr(args, "model", None):  # one rule for all commands, and that of the nodes' parameters
        args.model = str(find_model(args.model))
    return int(module.run(args))


def _fail(message: str) -> int:
    print(f"dnn_dist: error: {' '.join(message.split())}", file=sys.stderr)
    return _WRONG_USE


if __name__ == "__main__":
    sys.exit(main())
