# SPDX-License-Identifier: Apache-2.0
"""What `headline.py` compares: networks, ways to divide them, and what a cut comes to by calculation.

The one place that says which cut a way has for a network and so many robots: `plan_of`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from full_size import write_card
from medium import Weather

from dnn_dist.cli.cost import cost
from dnn_dist.cut.build import write_piece
from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import ConfigError
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.plan.plan import Plan
from dnn_dist.plan.predict import Circumstances, Predictor
from dnn_dist.plan.rules import Goal
from dnn_dist.plan.search import Choice, search

PACKET = 1400  # bytes of payload of a frame on the air, as config/network/wifi.xml has them
HEADERS = 100  # bytes around those
OVERHEAD = 0.002  # s that a piece costs a robot beside its MACs


@dataclass(frozen=True)
class Model:
    """A network of the bench."""

    file: str  # of make_full_models.py
    side: int  # pixels of the image
    tiled: int  # last op that tiles and bands are made of
    fused: int  # last op of one group of 5x5 fused tiles, of which deeper ones would compute too much twice
    last: int | None = None  # the network ends after this op; None: it is whole


MODELS = {
    "yolov2_front": Model("yolov2_608", 608, 27, 27, last=27),
    "yolov2": Model("yolov2_608", 608, 51, 27),
    "mobilenet_v2": Model("mobilenet_v2", 224, 61, 20),
    "vgg16": Model("vgg16", 224, 17, 9),
}


@dataclass(frozen=True)
class Division:
    """How a network is divided among robots."""

    cut: str
    workers: tuple[str, ...] = ()  # those that take part; none named: all
    mode: str = "stealing"


@dataclass(frozen=True)
class Setting:
    """What a case is measured in."""

    network: Network
    model: Model
    robots: int
    pace: float  # million MACs a second, of each robot
    weather: Weather


def fleet_of(setting: Setting) -> Fleet:
    """The robots and their air, as the cost model sees them."""
    share = PACKET / setting.weather.airtime(PACKET + HEADERS)  # bytes of payload a second
    members = tuple(Robot(f"r{number}", 1e6 * setting.pace, OVERHEAD) for number in range(1, setting.robots + 1))
    return Fleet(members, (LinkRule((), Link(share, setting.weather.delay, medium="air")),))


def planned(setting: Setting, frames: int = 1) -> Choice:
    """What the planner says for the lowest latency."""
    return search(setting.network, Circumstances(fleet_of(setting), "r1", max_frames=frames), Goal())


def is_direct(cut: str) -> bool:
    """Whether some tensor goes from robot to robot: a boundary `>`, or bands and layers without a `g`."""
    stages = cut.replace(">", ";").split(";")
    inner = any(s.startswith(("bands:", "layers:")) and not s.partition("@")[0].endswith("g") for s in stages)
    return ">" in cut or inner


def _local(setting: Setting) -> Division:
    return Division("local")


def _sharing(setting: Setting) -> Division:
    return Division(f"tiles:5x5@0..{setting.model.fused}", mode="sharing")


def _stealing(setting: Setting) -> Division:
    choice = planned(setting)
    best = next(c for c in choice.alternatives if not is_direct(c.cut) or c.cut == "local")
    return Division(best.cut, _some(best.workers, setting))


def _direct(setting: Setting) -> Division:
    best = planned(setting).best
    return Division(best.cut, _some(best.workers, setting))


def _some(workers: tuple[str, ...], setting: Setting) -> tuple[str, ...]:
    return workers if len(workers) < setting.robots else ()


def _modnn(setting: Setting) -> Division:
    return Division(f"bands:{setting.robots}@0..{setting.model.tiled}")


def _pipeline(setting: Setting) -> Division:
    return Division(f"layers:{setting.robots}")


WAYS: dict[str, tuple[str, Callable[[Setting], Division]]] = {
    "local": ("one robot", _local),
    "sharing": ("5x5 fused tiles in a fixed division, gathered", _sharing),
    "stealing": ("the planner's best gathered plan, workers pull", _stealing),
    "modnn": ("MoDNN: bands of rows, layer by layer", _modnn),
    "direct": ("what the planner chooses: straight from robot to robot", _direct),
    "pipeline": ("a run of layers each, straight from one to the next", _pipeline),
}
"""Way -> what it is, and its division for a setting."""


def plan_of(way: str, setting: Setting, cut: str = "") -> Division:
    """How a way divides the network; `cut` replaces that of the way. One robot does all by itself in any way."""
    if cut:
        return Division(cut, mode="sharing" if way == "sharing" else "stealing")
    return WAYS["local" if setting.robots == 1 else way][1](setting)


def plan_text(network: Network, division: Division) -> str:
    """The plan file of a division that names its robots."""
    return Plan(network.sha256, division.cut, robots=division.workers).to_yaml()


def calculated(setting: Setting, division: Division) -> dict[str, float]:
    """What a division comes to without running it: MACs, bytes of pieces, the bound, the cost model's latency."""
    stages = cut_network(setting.network, division.cut)
    found = cost(setting.network, stages)
    fleet = fleet_of(setting)
    workers = division.workers or fleet.names
    predicted = Predictor(setting.network, Circumstances(fleet, "r1", max_frames=1))(stages, workers)
    two = Predictor(setting.network, Circumstances(fleet, "r1", max_frames=2))(stages, workers)
    pieces = [piece.macs for stage in stages if stage.distributed for piece in stage.pieces]
    return {
        "macs": setting.network.macs,
        "piece_macs": sum(pieces),
        "stages": len(stages),
        "pieces": len(pieces),
        "work_ratio": found["work_ratio"],
        "piece_bytes": found["bytes_in"] + found["bytes_out"],
        "bound_s": setting.network.macs / (setting.robots * setting.pace * 1e6),
        "alone_s": setting.network.macs / (setting.pace * 1e6),
        "predicted_s": predicted.latency,
        "predicted_interval_s": 1 / two.throughput,
        "predicted_bytes": predicted.traffic,
    }


def model_file(name: str, models: Path, made: Path) -> Path:
    """The .tflite of a network of the bench with its card; that of a front is written to `made`."""
    model = MODELS[name]
    whole = models / f"{model.file}.tflite"
    if not whole.is_file():
        raise ConfigError(f"there is no {whole}; python bench/make_full_models.py {models} {model.file}")
    if model.last is None:
        if not whole.with_suffix(".yaml").is_file():
            write_card(whole)
        return whole.resolve()
    made.mkdir(parents=True, exist_ok=True)
    front = made / f"{name}.tflite"
    if not front.is_file() or front.stat().st_mtime < whole.stat().st_mtime:
        network = read_network(whole)
        (stage, *_) = cut_network(network, f"layers:1@0..{model.last}")
        write_piece(network, stage, stage.pieces[0], front)
    _write_front_card(front, model.side)
    return front.resolve()


def _write_front_card(front: Path, side: int) -> None:
    card = {
        "classes": ["none"],
        "input": {"shape": [1, side, side, 3]},
        "output": {"head": "nohead:NoHead"},
    }
    front.with_suffix(".yaml").write_text(json.dumps(card) + "\n")  # JSON is YAML


def named(names: Sequence[str], known: Sequence[str], what: str) -> None:
    """ConfigError when one is not known."""
    for name in names:
        if name not in known:
            raise ConfigError(f"{what} {name!r}: expected {', '.join(known)}")
