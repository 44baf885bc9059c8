# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist set-plan CUT_OR_FILE`: has the sources that run take another plan for new frames.

A frame in work keeps its plan. Each source answers when the plan is in force, or says why it cannot be; then nothing
has changed there. Exit code 1: a source refused or did not answer, or there is none.
"""

from __future__ import annotations

import argparse
import math
import sys

from dnn_dist.cli.given import plan_file
from dnn_dist.cut.spec import parse_cut
from dnn_dist.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("plan", metavar="CUT_OR_FILE", help="a cut, e.g. tiles:3x3@0..10, or a plan file as `dnn_dist plan -o` writes")
    add("--source", metavar="NAME", help="this source only; default: all that are found")
    add("--namespace", metavar="NS", help="sources in this ROS namespace only, e.g. /hall; default: in all")
    add("--timeout", type=float, default=60.0, metavar="S", help="seconds for sources to be found, and to answer (60)")


def run(args: argparse.Namespace) -> int:
    """Find, ask, print a line for each source. 0 when all have taken the plan."""
    if not (args.timeout > 0 and math.isfinite(args.timeout)):
        raise ConfigError(f"--timeout is {args.timeout}, expected a number above 0")
    plan = plan_file(args.plan)
    if plan is None:
        parse_cut(args.plan)  # what is no cut for anybody need not be asked for
    text = args.plan if plan is None else plan.to_yaml()
    # Imported here: the command line must work on a machine without ROS.
    try:
        from dnn_dist.nodes.plancalls import plan_caller
    except ImportError as error:
        raise ConfigError(f"set-plan needs ROS 2 and the built messages, source their setup file: {error}") from None
    with plan_caller() as caller:
        found = caller.sources(args.timeout)
        wanted = [source for source in found if _is_meant(source, args.source, args.namespace)]
        good = bool(wanted)
        for answer in caller.call(wanted, text, args.timeout):
            said = answer.message or ("in force" if answer.success else "no reason given")
            print(f"{_short(answer.source)}: {said if answer.success else f'refused: {said}'}", flush=True)
            good = good and answer.success
    if not wanted:
        there = f"there are {', '.join(map(_short, found))}" if found else "is a gateway running in this ROS_DOMAIN_ID?"
        which = "".join(f" {key} {value!r}" for key, value in (("named", args.source), ("in", args.namespace)) if value)
        print(f"dnn_dist: error: no source{which} was found; {there}", file=sys.stderr)
    return 0 if good else 1


def _is_meant(source: str, name: str | None, namespace: str | None) -> bool:
    """Whether the full name of a source, e.g. /hall/front, is one that was asked for."""
    its_namespace, _, its_name = source.rpartition("/")
    return (not name or name == its_name) and (namespace is None or namespace.strip("/") == its_namespace.strip("/"))


def _short(source: str) -> str:
    """As a person names it: without the slash of the top namespace."""
    return source.removeprefix("/") if source.count("/") == 1 else source
