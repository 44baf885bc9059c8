# SPDX-License-Identifier: Apache-2.0
"""Prints one line of JSON for each report of a source. `air.py` starts it on the source's own robot: over loopback,
what it hears costs no air."""

from __future__ import annotations

import json
import os
import sys
import time

from dnn_dist import msg
from dnn_dist.nodes.qos import OUTPUT
from dnn_dist.nodes.shell import Shell, run


class Listener(Shell):
    """Hears the reports on the topic in the environment's AIR_REPORT."""

    def __init__(self) -> None:
        super().__init__("listener")

    def start(self) -> None:
        self.receive(msg.FrameReport, os.environ["AIR_REPORT"], OUTPUT, self._hear)

    @staticmethod
    def _hear(report: msg.FrameReport) -> None:
        line = {name: getattr(report, name) for name in ("source", "frame", "status", "quality", "latency", "dropped")}
        line |= {"came": report.came, "recomputed": report.recomputed, "filled": report.filled}
        line["bytes"] = {share.worker: share.bytes_in + share.bytes_out for share in report.workers}
        print(json.dumps({"time": time.monotonic(), **line}), flush=True)


if __name__ == "__main__":
    sys.exit(run(Listener, sys.argv))
