# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist fleet`: the fleet file of a cluster that runs, for `dnn_dist plan` and `dnn_dist simulate`.

Robots have the speed that their workers measured over all that they computed; `dnn_dist profile` measures op by op.
Links have the bandwidth, latency and delays that works to the workers showed of late.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from dnn_dist.errors import ConfigError
from dnn_dist.plan.observed import observed_fleet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", help="where the fleet is written; default: printed")
    add("--seconds", type=float, default=4.0, metavar="S", help="how long to listen (4)")
    add("--namespace", default="/", metavar="NS", help="ROS namespace of the cluster, e.g. /hall; default: the top")


def run(args: argparse.Namespace) -> int:
    """Listen and write. 0 when there is a fleet."""
    if not (args.seconds > 0 and math.isfinite(args.seconds)):
        raise ConfigError(f"--seconds is {args.seconds}, expected a number above 0")
    # Imported here: the command line must work on a machine without ROS.
    try:
        from dnn_dist.nodes.observing import observer
    except ImportError as error:
        raise ConfigError(f"fleet needs ROS 2 and the built messages, source their setup file: {error}") from None
    with observer(args.namespace) as found:
        found.listen(args.seconds)
    if not found.speeds:
        print("dnn_dist: error: no worker was heard; is a cluster running in this ROS_DOMAIN_ID?", file=sys.stderr)
        return 1
    fleet, said = observed_fleet(found.speeds, found.links, found.sources - found.speeds.keys())
    for line in said:
        print(f"dnn_dist: {line}", file=sys.stderr)
    if args.output:
        Path(args.output).write_text(fleet.to_yaml())
    else:
        print(fleet.to_yaml(), end="")
    return 0
