# SPDX-License-Identifier: Apache-2.0
"""DeepThings' testbed in the simulator: six Raspberry Pi 3 (pi1 to pi6), a gateway, one Wi-Fi channel.

What is simulated are this project's own dispatcher, gatherer and workers; bytes and MACs are those of the network
cut as in the paper, in float32. Three ways to run YOLOv2's first 16 layers:

MoDNN    the camera's frame goes to the gateway; row bands layer by layer; after each layer the bands push the rows
         that others need and pull those that they lack. Every robot keeps its band, so a piece always goes to the
         same robot (sharing).
sharing  the frame goes to the gateway, which hands the tiles out by a fixed division.
stealing the camera's robot keeps the frame and works on its tiles; the others take tiles from it. Results go to the
         gateway. With reuse (3x3r) strips go from robot to robot.

As on the testbed a robot takes its next tile when it has answered the last (no prefetch). deepthings.yaml
has the robots and the channel, fitted by fit_deepthings.py. Its overhead is that of each layer (convolution or pool)
of a piece, since Darknet runs them one by one: a fused tile has it 16 times, a band of MoDNN once or twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from networks import yolov2_first16

from dnn_dist.cut.bands import band_of, exchanges
from dnn_dist.cut.piece import Stage
from dnn_dist.cut.spec import cut_network
from dnn_dist.graph.geometry import Pointwise
from dnn_dist.graph.network import Network
from dnn_dist.plan.fleet import Fleet, Robot, read_fleet
from dnn_dist.run.shape import PieceShape, PlanShape, StageShape
from dnn_dist.run.sourceviews import WorkerSettings
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.sim import Load, Outcome, Scenario, Source, simulate

GATEWAY = "gateway"
MOST = 6  # devices
CURVES = {
    "MoDNN": ("MoDNN", "3x3"),
    "sharing 3x3": ("sharing", "3x3"),
    "stealing 3x3": ("stealing", "3x3"),
    "stealing and reuse 3x3": ("stealing", "3x3r"),
    "stealing and reuse 5x5": ("stealing", "5x5r"),
}
"""Published curve of Fig. 13 -> our method and grid; a curve that is not here is the paper's alone."""
FITTED = "stealing 3x3"
"""The curve to which deepthings.yaml is fitted; the others are held out."""
_LOCAL = StageShape(True, ())


@cache
def testbed() -> Fleet:
    """The fitted one."""
    return read_fleet(Path(__file__).with_name("deepthings.yaml"))


@cache
def frame_bytes() -> int:
    """One frame as the paper sends it: float32."""
    network = yolov2_first16()
    return network.tensors[network.inputs[0]].bytes


@cache
def output_bytes() -> int:
    """What the fused layers give."""
    network = yolov2_first16()
    return network.tensors[network.outputs[0]].bytes


@cache
def tiles(grid: str) -> Load:
    """A grid of fused tiles ("3x3r": that reuse each other's overlap), float32 on the wire, pixels too."""
    network = yolov2_first16()
    (stage,) = stages = cut_network(network, f"tiles:{grid}")
    shape = PlanShape.of(network, stages, "float32").stages[0]
    given = [sum(port.bytes for port in piece.inputs if not port.strip) for piece in stage.pieces]
    pieces = tuple(replace(piece, bytes_in=size) for piece, size in zip(shape.pieces, given, strict=True))
    return _load(PlanShape((replace(shape, pieces=pieces), _LOCAL)), stages)


@cache
def bands(count: int) -> Load:
    """MoDNN for so many devices: of each layer what a band pulls before and pushes after it."""
    network = yolov2_first16()
    speeds = (1.0,) * count
    layers = exchanges(network, speeds, 0, len(network.ops) - 1)
    stages = cut_network(network, f"bands:{count}")
    taken = [_band_bytes(network, network.inputs[0], count), *(layer.pulled for layer in layers[1:])]
    given = [*(layer.pushed for layer in layers[1:]), _band_bytes(network, network.outputs[0], count)]
    shapes = [
        StageShape(False, tuple(PieceShape(taken[n][p.index], given[n][p.index], p.macs) for p in stage.pieces))
        for n, stage in enumerate(stages)
    ]
    return _load(PlanShape((*shapes, _LOCAL)), stages)


def _load(shape: PlanShape, stages: Sequence[Stage]) -> Load:
    """With a robot's overhead for each layer."""
    ops = yolov2_first16().ops
    layers = [
        sum(not isinstance(op.geometry, Pointwise) for op in ops[stage.first : stage.last + 1]) for stage in stages
    ]

    def seconds(robot: Robot, stage: int, piece: int) -> float:
        return robot.overhead * layers[stage] + shape.stages[stage].pieces[piece].macs / robot.speed

    return Load(shape, seconds)


def _band_bytes(network: Network, tensor: int, count: int) -> tuple[int, ...]:
    """Bytes of each band of a tensor, without the rows at its border that others have too."""
    whole = network.tensors[tensor]
    speeds = (1.0,) * count
    return tuple(whole.bytes // whole.height * band_of(network, tensor, speeds, band).height for band in range(count))


def source(method: str, grid: str, devices: int, camera: str = "pi1", frames: int = 3) -> Source:
    """A camera and how its frames are computed by pi1 to pi`devices`."""
    workers = tuple(f"pi{n}" for n in range(1, devices + 1))
    stealing = method == "stealing"
    mode, shares = ("stealing", ()) if stealing else ("sharing", tuple((name, 1.0) for name in workers))
    dispatcher = DispatcherSettings(mode=mode, shares=shares, window=10**12)  # the paper knows no window
    load = replace(bands(devices) if method == "MoDNN" else tiles(grid), plan=f"{method} {grid}")
    kept = Source(camera, load, frames=frames, workers=workers, name=camera, dispatcher=dispatcher, aggregator=GATEWAY)
    return kept if stealing else replace(kept, robot=GATEWAY, camera=camera, image_bytes=frame_bytes())


def run(fleet: Fleet, sources: Iterable[Source], seed: int = 0) -> Outcome:
    """Frames of these sources through a fleet like the testbed."""
    sources = tuple(sources)
    used = tuple(name for name in fleet.names if any(name in (each.workers or ()) for each in sources))
    return simulate(Scenario(fleet, sources, workers=used, seed=seed, worker=WorkerSettings(prefetch=0), limit=1e9))


def latency(fleet: Fleet, method: str, grid: str, devices: int, frames: int = 3) -> float:
    """Mean seconds from image to result, one frame at a time."""
    outcome = run(fleet, [source(method, grid, devices, frames=frames)])
    assert len(outcome.latencies) == frames, f"{method} on {devices}: {outcome.statuses}, {dict(outcome.notes)}"
    return sum(outcome.latencies) / frames
