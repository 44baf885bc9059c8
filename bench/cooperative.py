# SPDX-License-Identifier: Apache-2.0
"""A robot and a server over the air: alone, all given away, and front and rest, each predicted and measured.

    sudo .venv/bin/dnn_dist-env python bench/cooperative.py --out cooperative.json
    .venv/bin/dnn_dist-env python bench/cooperative.py --dry

Two networks with several inputs, streams like AlexNet's at a quarter of its work: Siamese (two) and multi-stream
(three); random weights, one camera's image for all inputs. Robot and server are paced, 200 and 2 000 million MACs a
second, and joined by the air of `medium.py` at the rates of 3G, 4G and Wi-Fi as the Extended Johnson paper has them.
Robot and gateway stand on one side, the server's worker on the other.

For each network and rate: LO (`front`, all on the robot), RO (`rest`, all on the server), and the cut that the planner
makes of it (`plan/between.py`). The cost model is told the paces, and of the air what the profile lets a process send:
eight tenths of its rate, of which headers take an eighth. Bars: measured within 15 % of predicted; front and rest never
above the better of LO and RO, both measured, by more than 5 %; every frame complete. A quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from air import EXACT, listening
from headline_run import PATIENCE, SOURCE, Flight, frame_line, settle
from medium import CALM, Weather
from namespaces import Air
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))
from netbuilder import VALID, NetBuilder

from dnn_dist.cli.supervisor import Supervisor, share
from dnn_dist.cluster import Cluster, parse_cluster, processes
from dnn_dist.cut.spec import cut_network
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.between import between
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.plan.predict import Circumstances, Predictor

RATES = {"3G": 1.1e6, "4G": 5.85e6, "Wi-Fi": 18.88e6}  # bit/s
WAYS = ("LO", "RO", "front and rest")
ROBOT, SERVER = "pi", "server"
SIDE = 224  # pixels
OVERHEAD = 0.002  # s that a piece costs beside its MACs
PACKET = 1400  # bytes that DDS puts into one packet at most, as config/network/wifi.xml has it
PERIOD = 0.05  # s, at least, in which a process sends its share, in whole packets
PAYLOAD = 0.87  # of a packet's bytes are a tensor's, by what the air was seen to carry
SHARE = 0.8  # of the rate that a process may send; the rest is for headers, states, and what is asked for again
ASKED = 30e-3 * 20e6  # bits on the air between two times that a writer says what it has: 30 ms of the shipped profile's
BARS = 0.15, 1.05
FIELD = r"(<{0}>)\d+(</{0}>)"


def stream(net: NetBuilder) -> int:
    """AlexNet with half of its filters, from an input of its own to the second fully connected layer."""
    x = net.conv(net.input(SIDE, SIDE, 3), 48, (11, 11), stride=(4, 4))
    x = net.conv(net.pool("MAX", x, (3, 3), (2, 2), VALID), 128, (5, 5))
    x = net.conv(net.pool("MAX", x, (3, 3), (2, 2), VALID), 192, (3, 3))
    x = net.conv(net.conv(x, 192, (3, 3)), 128, (3, 3))
    return net.dense(net.dense(net.pool("MAX", x, (3, 3), (2, 2), VALID), 512), 512)


def siamese(net: NetBuilder) -> int:
    return net.dense(net.unary("ABS", net.binary("SUB", stream(net), stream(net))), 1)


def multi_stream(net: NetBuilder) -> int:
    both = net.binary("ADD", stream(net), stream(net))
    return net.dense(net.binary("ADD", both, stream(net)), 10)


NETWORKS: dict[str, Callable[[NetBuilder], int]] = {"siamese": siamese, "multi-stream": multi_stream}


def network_file(name: str, folder: Path) -> Path:
    """The .tflite of a network, written once, with a card that detects nothing."""
    path = folder / f"{name}.tflite"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        net = NetBuilder(seed=1)
        path.write_bytes(net.build([NETWORKS[name](net)]))
    shape = {"shape": [1, SIDE, SIDE, 3]}
    card = {"classes": ["none"], "input": shape, "output": {"head": "nohead:NoHead"}}
    path.with_suffix(".yaml").write_text(json.dumps(card) + "\n")  # JSON is YAML
    return path.resolve()


@dataclass(frozen=True)
class Setting:
    """A network on a link."""

    name: str
    network: Network
    link: str
    paces: tuple[float, float]  # million MACs a second of robot and server

    @property
    def weather(self) -> Weather:
        return Weather(rate=RATES[self.link], delay=0.002)

    @property
    def fleet(self) -> Fleet:
        """As the cost model sees it."""
        robots = (Robot(name, 1e6 * p, OVERHEAD) for name, p in zip((ROBOT, SERVER), self.paces, strict=True))
        link = Link(PAYLOAD * SHARE * self.weather.rate / 8, self.weather.delay)
        return Fleet(tuple(robots), (LinkRule((), link),))

    def ways(self) -> dict[str, str]:
        """Way -> cut."""
        robot, server = self.fleet.robots
        found = between(self.network, robot, server, self.fleet.link(ROBOT, SERVER), "float32")
        return dict(zip(WAYS, ("front", "rest", found.cut), strict=True))

    def predicted(self, cut: str) -> float:
        """Seconds of a frame."""
        given = Circumstances(self.fleet, ROBOT)
        return Predictor(self.network, given)(cut_network(self.network, cut), (SERVER, ROBOT)).latency


def profiles_for(rate: float, folder: Path, slowest: float) -> Path:
    """The shipped DDS profiles, for this rate (bit/s): a process sends SHARE of it. At the `slowest` rate of the air
    nothing is asked for again that is still on its way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packets = math.ceil(PERIOD * SHARE * rate / 8 / PACKET)
    period = round(1000 * packets * PACKET / (SHARE * rate / 8))
    for path in (share() / "config" / "network").glob("*.xml"):
        text = path.read_text()
        values = {"max_bytes_per_period": packets * PACKET + PACKET // 10, "period_ms": period}
        for name, value in values.items():
            text = re.sub(FIELD.format(name), rf"\g<1>{value}\g<2>", text)
        text = text.replace("<nanosec>30000000<", f"<nanosec>{round(min(0.99, ASKED / slowest) * 1e9)}<")
        (folder / path.name).write_text(text)
    return folder.resolve()


def cluster_of(setting: Setting, cut: str) -> Cluster:
    """Camera, gateway and a worker on the robot, a worker on the server."""
    robot, server = ({"worker": {"pace": float(pace)}} for pace in setting.paces)
    patient = {"lifespan": 30.0, "window": 100_000_000, "worker_timeout": 5.0, "transit": 5.0, "lease_min": 2.0}
    parameters = {
        "all": {"model": str(setting.network.path)},
        "gateway": {"cut": cut, "deadline": 60.0, "pace": float(setting.paces[0]), **patient},
        "worker": {"lifespan": 30.0, "heartbeat": 0.5},
        "camera": {"height": SIDE, "width": SIDE, "rate": 2.0},
    }
    robots = {
        ROBOT: {"source": SOURCE, "nodes": ["camera", "gateway", "worker"], "parameters": robot},
        SERVER: {"nodes": ["worker"], "parameters": server},
    }
    return parse_cluster({"network": "wifi", "robots": robots, "parameters": parameters}, "bench")


@contextmanager
def flying(setting: Setting, cluster: Cluster, folder: Path, slowest: float = 1.0) -> Iterator[Flight]:
    """Robot and server at work in calm air, that may fall to `slowest` of its rate later. What `folder` had is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rate = setting.weather.rate
    started = processes(cluster, profiles_for(rate, folder / "network", slowest * rate))
    environment = {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",  # by multicast, in namespaces that nothing leaves
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    with ExitStack() as stack:
        air = stack.enter_context(Air([ROBOT, SERVER], CALM))
        log = folder / "log"
        supervisor = stack.enter_context(Supervisor(log, environment, prefix=lambda process: air.enter(process.robot)))
        camera = next(process for process in started if process.executable == "camera")
        listener = stack.enter_context(listening(air, camera, "report", environment, folder / "reports.jsonl"))
        supervisor.start(process for process in started if process is not camera)
        flight = Flight(air, supervisor, listener, folder / "reports.jsonl")
        ready = "plan ready"
        workers = [f"worker_{name}" for name in (ROBOT, SERVER)]
        flight.until(lambda: all(ready in supervisor.log(name) for name in workers), "workers are ready", PATIENCE)
        supervisor.start([camera])
        yield flight


def measure(setting: Setting, cut: str, frames: int, folder: Path, told: Callable[[str], None]) -> dict[str, Any]:
    """Frames of a cut; seconds."""
    with flying(setting, cluster_of(setting, cut), folder) as flight:
        flight.until(lambda: any(one["status"] in EXACT for one in flight.reports), "a complete frame", PATIENCE + 60)
        flight.air.set(setting.weather)
        settled = settle(flight, 30.0, 6)
        flight.frames(1, 30.0)
        before = flight.air.counters()
        reports = flight.frames(frames, 30.0)
        after = flight.air.counters()
    for one in reports:
        told(f"  {frame_line(one)}")
    return {
        "settled": settled,
        "latencies_s": [one["latency"] for one in reports],
        "measured_s": median(one["latency"] for one in reports),
        "whole": all(one["status"] in EXACT for one in reports),
        "air_bytes": (after["sent_bytes"] - before["sent_bytes"]) / frames,
        "air_frames": (after["sent"] - before["sent"]) / frames,
        "resent_bytes": (after["resent_bytes"] - before["resent_bytes"]) / frames,
        "air_share": (after["airtime"] - before["airtime"]) / (after["seconds"] - before["seconds"]),
    }


def options(description: str, paces: tuple[float, float], folder: Path) -> argparse.ArgumentParser:
    """What every bench of a robot and a server takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paces", type=float, nargs=2, default=paces, metavar=("ROBOT", "SERVER"))
    parser.add_argument("--folder", type=Path, default=folder)
    parser.add_argument("--dry", action="store_true", help="say what would be run, run nothing")
    parser.add_argument("--quiet", action="store_true", help="no line for each frame")
    parser.add_argument("--out", type=Path, help="write a JSON file")
    return parser


def main() -> int:
    parser = options(__doc__, (200.0, 2000.0), Path("build/bench/cooperative"))
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--link", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--way", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--frames", type=int, default=6, help="that are measured of each case")
    given = parser.parse_args()
    console = Console(soft_wrap=True)
    table = Table("network", "link", "way", "predicted s", "measured s", "measured / predicted", "/ best alone", "cut")
    rows: list[dict[str, Any]] = []
    for name in given.network:
        network = read_network(network_file(name, given.folder))
        for link in given.link:
            setting, alone = Setting(name, network, link, tuple(given.paces)), []
            for way, cut in setting.ways().items():
                if way not in given.way:
                    continue
                row = {"network": name, "link": link, "way": way, "cut": cut, "predicted_s": setting.predicted(cut)}
                if not given.dry:
                    console.print(f"{name}, {link}, {way}: {cut}; predicted {row['predicted_s']:.3f} s")
                    told = (lambda line: None) if given.quiet else console.print
                    row |= measure(setting, cut, given.frames, given.folder / f"{name}-{link}-{way}", told)
                    row["to_predicted"] = row["measured_s"] / row["predicted_s"]
                    alone.append(row["measured_s"])
                    row["to_alone"] = row["measured_s"] / min(alone[: len({*given.way} - {WAYS[-1]}) or 1])
                rows.append(row)
                figures = [f"{row.get(key, float('nan')):.3f}" for key in ("predicted_s", "measured_s")]
                ratios = [f"{row.get(key, float('nan')):.2f}" for key in ("to_predicted", "to_alone")]
                table.add_row(name, link, way, *figures, *ratios, cut)
    console.print(table)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(rows, indent=1) + "\n")
    if given.dry:
        return 0
    off, most = BARS
    missed = [r for r in rows if abs(r["to_predicted"] - 1) > off or not r["whole"] or not r["settled"]]
    missed += [r for r in rows if r["way"] == "front and rest" and r["to_alone"] > most]
    for row in missed:
        console.print(f"bar missed: {row['network']}, {row['link']}, {row['way']}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
