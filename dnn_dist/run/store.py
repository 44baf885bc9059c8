# SPDX-License-Identifier: Apache-2.0
"""The tensors that belong to a source's frames: cut for work, merged from results, filled in, handed to local stages.

The machines decide by key; this does what they decided. Bounded by the frames that the machines hold open. A partition
and an aggregator in one process share a store: each begins and releases a frame, and its tensors go with the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from dnn_dist.cut.digest import pieces_digest
from dnn_dist.cut.merge import merge, scatter
from dnn_dist.cut.piece import Port, Stage
from dnn_dist.graph.network import Network
from dnn_dist.plan.plan import Plan
from dnn_dist.run.pieces import PieceSet
from dnn_dist.run.saving import NONE, Saving
from dnn_dist.run.shape import PlanShape
from dnn_dist.run.wire import WireError, WireTensor, dequantise

Tensors = dict[int, np.ndarray]
"""Index of a tensor in the network -> its whole array, NHWC without batch."""


class Store(Protocol):
    """The tensors of one plan's open frames. Tensors that travel are the store's own affair."""

    shape: PlanShape
    input_sizes: tuple[tuple[int, int], ...]  # rows and columns of each of the model's inputs
    pieces_digest: str  # of the pieces that were derived from the plan

    @property
    def plan(self) -> Any:
        """A `Plan`, or what has its hash, cut and text."""

    def begin(self, frame: int, pixels: Any = None, saving: Saving = NONE) -> None:
        """Open a frame. `pixels`: the model's input; None where it is not known, or was given already. `saving`: how
        its tensors travel from here.
        """

    def release(self, frame: int) -> None:
        """Close it, for one of those that opened it."""

    def image(self, pixels: Any) -> Any:
        """The model's inputs as they travel to an aggregator elsewhere, as far as local stages take them."""

    def read_image(self, image: Any) -> Any:
        """The same as it came, for `begin`; WireError when it is not what the plan says."""

    def work(self, frame: int, stage: int, piece: int) -> Any:
        """The inputs of a task as they travel, as far as they are here; WireError when they are not made yet."""

    def feed(self, frame: int, stage: int, piece: int) -> Any:
        """What a task takes that was made before its chain, as it travels; WireError when that is nothing, or not made
        yet.
        """

    def probe(self, size: int) -> Any:
        """So many bytes as they travel, that mean nothing."""

    def check(self, stage: int, piece: int, outputs: Any) -> tuple[int, Any]:
        """(bytes, what `keep` takes) of a task's outputs as they came; WireError when the piece gives others."""

    def keep(self, frame: int, stage: int, piece: int, outputs: Any) -> None:
        """Keep a piece's outputs until its stage is settled."""

    def settle(self, frame: int, stage: int, whole: bool) -> None:
        """Make a stage's tensors of what came. `whole`: nothing of the frame was filled in."""

    def run_local(self, frame: int, stage: int) -> None:
        """Compute a local stage. May run on a thread of its own."""

    def macs(self, stage: int) -> int:
        """The work of a local stage."""


class TensorStore:
    """All tensors of one plan's open frames at a source."""

    def __init__(
        self, network: Network, plan: Plan, threads: int = 1, images: bool = True, merges: bool = True
    ) -> None:
        """`images`: the model's inputs are here: of an aggregator's store elsewhere not.

        `merges`: results are merged here and local stages are computed; of a partition's store elsewhere not.
        """
        self.network, self.plan = network, plan
        whole = plan.stages(network)
        self.shape = PlanShape.of(network, whole, plan.wire, plan.replicas, plan.robots)
        self.pieces_digest = pieces_digest(network, whole)
        self._whole = whole
        inputs = [network.tensors[tensor] for tensor in network.inputs]
        self.input_sizes = tuple((tensor.array_shape[0], tensor.array_shape[1]) for tensor in inputs)
        self._pieces = PieceSet(network, plan, whole, local=True, threads=threads)
        self.stages: tuple[Stage, ...] = self._pieces.seen
        if merges:
            self._pieces.prepare()
        self._images, self._merges = images, merges
        local = {tensor for stage in self.stages if not stage.distributed for tensor in stage.inputs}
        self._local_images = tuple(tensor for tensor in network.inputs if tensor in local)
        self._begun: dict[int, int] = {}  # frame -> by how many
        self._pixels: dict[int, Tensors] = {}  # frame -> the model's inputs as bytes
        self._savings: dict[int, Saving] = {}  # frame -> how its tensors travel, where that is not as usual
        self._frames: dict[int, Tensors] = {}
        self._received: dict[tuple[int, int], dict[int, list[np.ndarray]]] = {}  # (frame, stage) -> piece -> outputs
        self._last: dict[int, Tensors] = {}  # stage -> its outputs for the newest frame that had them all

    def begin(self, frame: int, pixels: Sequence[np.ndarray] | None = None, saving: Saving = NONE) -> None:
        """`pixels`: the images as the model's inputs, uint8 H x W x 3; of an aggregator's, those of `read_image`."""
        if saving != NONE:
            self._savings[frame] = saving
        self._begun[frame] = self._begun.get(frame, 0) + 1
        self._frames.setdefault(frame, {})
        if pixels is not None:
            inputs = self.network.inputs if self._images else self._local_images
            self._pixels[frame] = dict(zip(inputs, pixels, strict=True))

    def release(self, frame: int) -> None:
        self._begun[frame] -= 1
        if self._begun[frame]:
            return
        del self._begun[frame], self._frames[frame]
        self._pixels.pop(frame, None)
        self._savings.pop(frame, None)
        for key in [key for key in self._received if key[0] == frame]:
            del self._received[key]

    def image(self, pixels: Sequence[np.ndarray]) -> list[WireTensor]:
        if self._merges:
            return []
        tensors = self.network.tensors
        inputs = zip(self.network.inputs, pixels, strict=True)
        return [WireTensor(tensors[t].name, array) for t, array in inputs if t in self._local_images]

    def read_image(self, image: Sequence[WireTensor]) -> list[np.ndarray] | None:
        if self._images or not self._local_images:
            return None
        tensors = [self.network.tensors[index] for index in self._local_images]
        expected = [(tensor.name, tensor.array_shape, "uint8") for tensor in tensors]
        said = [(one.name[:80], one.array.shape, str(one.array.dtype)) for one in image[: len(expected)]]
        if len(image) != len(expected) or said != expected:
            raise WireError(f"plan {self.plan.hash}: a frame came with {said or 'no image'}, expected {expected}")
        return [one.array for one in image]

    def work(self, frame: int, stage: int, piece: int) -> list[WireTensor]:
        """Boxes of pixels as bytes, of other tensors as they are."""
        ports = self.stages[stage].pieces[piece].inputs
        merged = self._pieces.merged(stage, piece)
        return self._travelling(frame, stage, piece, [p for p in ports if self._merges or p not in merged])

    def feed(self, frame: int, stage: int, piece: int) -> list[WireTensor]:
        merged = self._pieces.merged(stage, piece)
        if not merged:
            raise WireError(f"plan {self.plan.hash}: piece {piece} of stage {stage} takes nothing that is merged")
        return self._travelling(frame, stage, piece, merged)

    def probe(self, size: int) -> list[WireTensor]:
        return [WireTensor("probe", np.zeros(size, np.uint8))] if size else []

    def _travelling(self, frame: int, stage: int, piece: int, ports: Sequence[Port]) -> list[WireTensor]:
        tensors = dict(self._tensors(frame))
        tensors.update(self._pixels.get(frame, {}))
        if missing := [port.name for port in ports if port.tensor not in tensors]:
            raise WireError(f"frame {frame}: {missing[0]!r} for piece {piece} of stage {stage} is not made yet")
        here, saving = self.stages[stage], self._savings.get(frame, NONE)
        arrays = scatter(here, replace(here.pieces[piece], inputs=tuple(ports)), tensors)
        return [
            WireTensor(tensor.name, tensor.array, region=tensor.region, jpeg=saving.jpeg)
            if port.tensor in self.network.inputs
            else tensor
            for port, tensor in zip(ports, self._pieces.label(ports, arrays, saving.wire), strict=True)
        ]

    def check(self, stage: int, piece: int, outputs: Sequence[WireTensor]) -> tuple[int, list[np.ndarray]]:
        arrays = self._pieces.outputs(stage, piece, outputs)
        return sum(tensor.bytes for tensor in outputs), arrays

    def keep(self, frame: int, stage: int, piece: int, outputs: list[np.ndarray]) -> None:
        """Keep a piece's outputs until its stage is settled."""
        self._received.setdefault((frame, stage), {})[piece] = outputs

    def settle(self, frame: int, stage: int, whole: bool) -> None:
        """Make a stage's tensors of what came: merged, decoded where parity came instead, filled in where nothing did.

        `whole` ones stand in for what later frames lack; without such, zeros do, if the plan says so or none was.
        """
        if stage >= len(self.stages) or not self.stages[stage].distributed:
            return
        here = self.stages[stage]
        last = self._last.get(stage) if self.plan.fill == "last" else None
        tensors = merge(self.network, here, self._received.pop((frame, stage), {}), last or self._zeros(here))
        self._frames[frame].update(tensors)
        if whole:
            self._last[stage] = tensors

    def _zeros(self, stage: Stage) -> Tensors:
        network = self.network
        return {
            index: np.full(tensor.array_shape, tensor.zero_point, tensor.dtype)
            for index in stage.outputs
            for tensor in (network.tensors[index],)
        }

    def run_local(self, frame: int, stage: int) -> None:
        """Compute a local stage into the frame's tensors. May run on a thread of its own."""
        if stage >= len(self.stages):
            return  # everything was distributed: only the detection head is left
        ports = self.stages[stage].pieces[0]
        pixels = self._pixels.get(frame, {})
        tensors = self._tensors(frame)
        inputs = [
            self._pieces.pixels(port, pixels[port.tensor]) if port.tensor in pixels else tensors[port.tensor]
            for port in ports.inputs
        ]
        outputs = self._pieces.run(stage, 0, inputs)
        tensors.update({port.tensor: array for port, array in zip(ports.outputs, outputs, strict=True)})

    def _tensors(self, frame: int) -> Tensors:
        """For a thread that may come too late."""
        tensors = self._frames.get(frame)
        if tensors is None:
            raise WireError(f"frame {frame} is closed")
        return tensors

    def macs(self, stage: int) -> int:
        """The work of a local stage."""
        return sum(piece.macs for piece in self.stages[stage].pieces) if stage < len(self.stages) else 0

    def results(self, frame: int) -> list[np.ndarray]:
        """The model's outputs in its order, float32 real values, NHWC without batch."""
        tensors = self._tensors(frame)
        return [
            dequantise(tensors[index], tensor.scale or 0.0, tensor.zero_point)
            for index in self.network.outputs
            for tensor in (self.network.tensors[index],)
        ]

    def extent(self, stage: int, piece: int) -> tuple[int, int, int, int] | None:
        """Where in the model's input a tile's own output lies: y0, x0, y1, x1 in pixels, without its halo.

        None for pieces that are no part of the picture: slices of channels, or whole tensors.
        """
        port = self._whole[stage].pieces[piece].outputs[0]
        if port.region is None:
            return None
        region, whole = port.region, self.network.tensors[port.tensor]
        image = self.network.tensors[self.network.inputs[0]]
        dy, dx = image.height / whole.height, image.width / whole.width
        return round(region.y0 * dy), round(region.x0 * dx), round(region.y1 * dy), round(region.x1 * dx)
