# SPDX-License-Identifier: Apache-2.0
"""Prints a line of JSON for each report of a source. `air.py`, `headline.py` and `midchain.py` start it on the source's
own robot: over loopback, what it hears costs no air.

A line of JSON on standard input, {"node": "/worker_r3", "name": "pace", "value": 200.0}, sets a parameter of a node;
{"set": "/worker_r3 pace"} is printed when that has been done, with "error" when it was refused.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from dnn_dist import msg
from dnn_dist.nodes.process import run
from dnn_dist.nodes.qos import OUTPUT
from dnn_dist.nodes.shell import Shell

TOLD = ("source", "session", "frame", "plan", "status", "quality", "latency", "budget", "dropped", "pieces", "came",
        "decoded", "recomputed", "filled", "computed", "local", "waited")  # fmt: skip
OF_WORKER = ("tasks", "stolen", "recomputed", "bytes_in", "bytes_out", "computed")
AGAIN = 0.05  # s until a node that is not found yet is looked for again


class Listener(Shell):
    """Hears the reports on the topic in the environment's AIR_REPORT."""

    def __init__(self) -> None:
        super().__init__("listener")

    def start(self) -> None:
        self.receive(msg.FrameReport, os.environ["AIR_REPORT"], OUTPUT, self._hear)
        threading.Thread(target=self._read, daemon=True).start()

    @staticmethod
    def _hear(report: msg.FrameReport) -> None:
        line: dict[str, Any] = {name: getattr(report, name) for name in TOLD}
        line["bytes"] = {share.worker: share.bytes_in + share.bytes_out for share in report.workers}
        line["workers"] = {share.worker: {name: getattr(share, name) for name in OF_WORKER} for share in report.workers}
        _print({"time": time.monotonic(), **line})

    def _read(self) -> None:
        for line in sys.stdin:
            order = json.loads(line)
            self.soon(lambda order=order: self._set(order))

    def _set(self, order: dict[str, Any]) -> None:
        """Set the parameter as soon as its node's service is known."""
        client = self.create_client(SetParameters, f"{order['node']}/set_parameters")

        def ask() -> None:
            if not client.service_is_ready():
                self.later(self.now() + AGAIN, ask)
                return
            value = Parameter(order["name"], value=order["value"]).to_parameter_msg()
            client.call_async(SetParameters.Request(parameters=[value])).add_done_callback(answered)

        def answered(future: Any) -> None:
            told: dict[str, Any] = {"set": f"{order['node']} {order['name']}"}
            refused = [result.reason for result in future.result().results if not result.successful]
            _print({**told, "error": refused[0]} if refused else told)
            self.soon(lambda: self.destroy_client(client))

        ask()


def _print(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(run(Listener, sys.argv))
