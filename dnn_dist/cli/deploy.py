# SPDX-License-Identifier: Apache-2.0
"""`dnn_dist deploy WHAT FILE`: from a cluster's parameter file to what other systems start it by.

compose, kubernetes and sros2 print one text (-o FILE writes it), systemd writes files below a folder (-o FOLDER).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dnn_dist.arguments import ordered
from dnn_dist.cluster import NETWORKS
from dnn_dist.deploy.compose import compose
from dnn_dist.deploy.container import IMAGE
from dnn_dist.deploy.kubernetes import kubernetes
from dnn_dist.deploy.place import CHECKOUT, Place, within
from dnn_dist.deploy.sros2 import sros2
from dnn_dist.deploy.systemd import systemd
from dnn_dist.errors import ConfigError
from dnn_dist.plan.fleet import read_fleet

DOMAINS = range(233)
"""What ROS_DOMAIN_ID may be; those above 101 are safe on some systems only."""

WHAT = {
    "compose": "a compose file: all nodes as containers of one machine",
    "kubernetes": "manifests: a robot is a pod on the machine with its label",
    "systemd": "units and parameter files of a robot, below a folder",
    "sros2": "a policy for SROS2 with the topics of this cluster",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, text in WHAT.items():
        add = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.").add_argument
        add("file", metavar="FILE", type=Path, help="parameter file of the cluster")
        add("--namespace", default="", metavar="NS", help="ROS namespace of all nodes")
        if name == "sros2":
            add("-o", dest="out", type=Path, metavar="FILE", help="write this file; default: print")
            continue
        add("--network", default="", choices=("", *NETWORKS), help="transport profile instead of the file's")
        add("--fleet", type=Path, metavar="FILE", help="fleet file: its robots' `memory` becomes their nodes' limit")
        add("--domain", type=int, default=0, metavar="N", help="ROS_DOMAIN_ID (0)")
        add("--keystore", default="", metavar="FOLDER", help="of SROS2, on every robot; default: no security")
        if name == "systemd":
            add("--robot", default="", metavar="NAME", help="this robot's files only; default: all robots'")
            add("--checkout", default=CHECKOUT, metavar="FOLDER", help=f"where it was built, on robots ({CHECKOUT})")
            add("--user", default="dnn_dist", metavar="NAME", help="as whom the nodes run (dnn_dist)")
            add("-o", dest="out", type=Path, metavar="FOLDER", required=True, help="/, or another root folder")
        else:
            add("--image", default=IMAGE, metavar="NAME", help=f"of the Dockerfile ({IMAGE})")
            add("-o", dest="out", type=Path, metavar="FILE", help="write this file; default: print")


def run(args: argparse.Namespace) -> int:
    """Write or print what was asked for; 0."""
    given = vars(args)
    place = _place(given)
    asked = {name: str(given.get(name) or "") for name in ("robot", "namespace", "network")}
    asked |= {"params_file": str(args.file), "workers": "", "rviz": "false"}
    _, processes = ordered(asked, place.config)
    if args.what == "sros2":
        return _give(sros2(processes), args.out)
    processes, limits = within(processes, read_fleet(args.fleet) if args.fleet else None)
    if args.what == "compose":
        return _give(compose(processes, limits, place, args.image), args.out)
    if args.what == "kubernetes":
        return _give(kubernetes(processes, limits, place, args.image), args.out)
    for path, text in systemd(processes, limits, place, args.user).items():
        _give(text, args.out / path)
        print(args.out / path)
    return 0


def _place(given: dict[str, Any]) -> Place:
    domain = given.get("domain", 0)
    if domain not in DOMAINS:
        raise ConfigError(f"--domain is {domain}, expected {DOMAINS[0]} to {DOMAINS[-1]}, best up to 101")
    for option in ("checkout", "keystore"):
        if (folder := given.get(option)) and not folder.startswith("/"):
            raise ConfigError(f"--{option} is {folder!r}, expected an absolute path, the same on every robot")
    return Place(given.get("checkout", CHECKOUT).rstrip("/"), domain, given.get("keystore", ""))


def _give(text: str, path: Path | None) -> int:
    if path is None:
        sys.stdout.write(text)
        return 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: can't write: {error.strerror}; choose another place with -o") from None
    return 0
