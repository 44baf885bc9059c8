# SPDX-License-Identifier: Apache-2.0
"""A plan's pieces on one robot: what goes in and out of them, and an interpreter for each form of piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dnn_dist.cut.build import piece_size, write_piece
from dnn_dist.cut.feeds import AGGREGATOR, Box, Boxes, Feeds, Maker, lenders, made_before, put, take
from dnn_dist.cut.forms import extend, serving, shrink
from dnn_dist.cut.piece import Piece, Port, Stage
from dnn_dist.graph.network import Network
from dnn_dist.graph.region import Region
from dnn_dist.plan.plan import WIRES, Plan
from dnn_dist.run.engine import Engine
from dnn_dist.run.events import Role
from dnn_dist.run.mapped import scratch_folder
from dnn_dist.run.saving import narrower
from dnn_dist.run.wire import WireError, WireTensor, decode, decode_pixels, encode

Form = tuple[int, str]
"""Stage, and the form of some of its pieces: what one interpreter serves."""


class Ports:
    """What goes into and comes out of the pieces of a plan: checked, converted, labelled. Computes nothing."""

    def __init__(self, network: Network, plan: Plan, stages: Sequence[Stage]) -> None:
        self.network, self.plan, self.stages = network, plan, stages
        self._feeds = Feeds(network, stages)
        self.seen = self._feeds.seen
        """The stages as their source sees them."""

    def fed(self, stage: int, piece: int) -> Mapping[Maker, Boxes]:
        """What a piece gets from others of its chain; WireError when there is no such piece."""
        self.piece(stage, piece)
        return self._feeds.feeds(stage, piece)

    def piece(self, stage: int, piece: int, alone: bool = False) -> Piece:
        """A piece by its place in the plan, `alone`: as it is without strips; WireError when there is none."""
        if not (0 <= stage < len(self.stages) and 0 <= piece < len(self.stages[stage].pieces)):
            raise WireError(f"plan {self.plan.hash}: there is no piece {piece} of stage {stage}")
        found = self.stages[stage].pieces[piece]
        return found.alone or found if alone else found

    def role(self, stage: int, piece: int, tensors: Sequence[WireTensor]) -> Role:
        """What a piece is in its chain, and what it awaits when these tensors came with its work."""
        awaits, feeding = frozenset(self.fed(stage, piece)), self._feeds.takers(stage, piece)
        awaits |= {AGGREGATOR} if self.lacks(stage, piece, tensors) else set()
        return Role(awaits, frozenset(feeding), bool(self.seen[stage].outputs))

    def merged(self, stage: int, piece: int) -> tuple[Port, ...]:
        """What a piece takes that was made before its chain; WireError when there is no such piece."""
        self.piece(stage, piece)
        return made_before(self.network, self.seen[stage].pieces[piece])

    def lacks(self, stage: int, piece: int, tensors: Sequence[WireTensor]) -> bool:
        """Whether none of that came with the work of a piece: then the aggregator gives it."""
        merged = {port.name for port in self.merged(stage, piece)}
        return bool(merged) and merged.isdisjoint(tensor.name for tensor in tensors)

    def boxes(
        self, taker: Maker, maker: Maker, outputs: Sequence[np.ndarray], wire: str = WIRES[0]
    ) -> list[WireTensor]:
        """What `maker` gives `taker` of its outputs, as it travels; WireError when it gives it nothing."""
        wire = "float16" if wire == "int8" else wire  # see `check_wire`
        found = self.fed(*taker).get(maker)
        if found is None:
            raise WireError(f"plan {self.plan.hash}: piece {taker} takes nothing of {maker}")
        piece = self.piece(*maker)
        return [self._encode(piece.outputs[box.output], take(piece, box, outputs), box.region, wire) for box in found]

    def accept(self, taker: Maker, maker: Maker, tensors: Sequence[WireTensor]) -> list[np.ndarray]:
        """The boxes of a feed as they came; WireError when they are not those that `maker` gives `taker`."""
        if maker == AGGREGATOR:
            return self._arranged(self.merged(*taker), tensors)
        found = self.fed(*taker).get(maker)
        if found is None or len(found) != len(tensors):
            raise WireError(f"plan {self.plan.hash}: {len(tensors)} boxes of {maker} for {taker} are none of this plan")
        ports = self.piece(*taker).inputs
        return [self._boxed(ports[box.port], box, tensor) for box, tensor in zip(found, tensors, strict=True)]

    def _boxed(self, port: Port, box: Box, tensor: WireTensor) -> np.ndarray:
        if (tensor.name, tensor.region) != (port.name, box.region):
            raise WireError(f"feed: {tensor.name[:80]!r} {tensor.region}, expected {port.name!r} {box.region}")
        return decode(tensor, port.dtype, *self._quantisation(port), box.shape)

    def inputs(
        self,
        stage: int,
        piece: int,
        tensors: Sequence[WireTensor],
        fed: Mapping[Maker, Sequence[np.ndarray]],
        alone: bool = False,
    ) -> list[np.ndarray]:
        """All inputs of a piece, in order and as the model wants them: those that came with its work, and those that
        others gave, `alone`: but for strips. WireError when the work has not what the piece takes.
        """
        here, ports = self.piece(stage, piece, alone), self.seen[stage].pieces[piece].inputs
        merged = self.merged(stage, piece) if self.lacks(stage, piece, tensors) else ()
        given = [port for port in ports if port not in merged]
        arrays = dict(zip(given, self._arranged(given, tensors), strict=True))
        arrays |= zip(merged, fed[AGGREGATOR] if merged else (), strict=True)
        inputs = {here.inputs.index(port): array for port, array in arrays.items()}
        makers = self.fed(stage, piece)
        for maker in set(makers) - (lenders((stage, piece), makers) if alone else set()):
            for box, array in zip(makers[maker], fed[maker], strict=True):
                put(here, box, array, inputs)
        return [inputs[number] for number in range(len(here.inputs))]

    def outputs(self, stage: int, piece: int, tensors: Sequence[WireTensor]) -> list[np.ndarray]:
        """The result of a piece as it came from a worker; WireError when it is not what the piece gives."""
        self.piece(stage, piece)
        return self._arranged(self.seen[stage].pieces[piece].outputs, tensors)

    def label(
        self, ports: Sequence[Port], arrays: Sequence[np.ndarray], wire: str = WIRES[0]
    ) -> list[WireTensor]:
        """Arrays as tensors that travel, in the types of this wire or the plan's, and say what they are."""
        return [self._encode(port, array, port.region, wire) for port, array in zip(ports, arrays, strict=True)]

    def _encode(self, port: Port, array: np.ndarray, region: Region | None, wire: str) -> WireTensor:
        return encode(port.name, array, *self._quantisation(port), self._wire(port, wire), region)

    def result(
        self, stage: int, piece: int, outputs: Sequence[np.ndarray], wire: str = WIRES[0]
    ) -> list[WireTensor]:
        """What the aggregator gets of a piece's outputs, as it travels."""
        whole, ports = self.piece(stage, piece).outputs, self.seen[stage].pieces[piece].outputs
        return self.label(ports, [outputs[whole.index(port)] for port in ports], wire)

    def _arranged(self, ports: Sequence[Port], tensors: Sequence[WireTensor]) -> list[np.ndarray]:
        return [self._arrange(port, tensor) for port, tensor in zip(ports, _match(ports, tensors), strict=True)]

    def _arrange(self, port: Port, tensor: WireTensor) -> np.ndarray:
        if tensor.region != port.region:
            raise WireError(f"tensor {port.name!r}: region {tensor.region}, expected {port.region}")
        if port.tensor in self.network.inputs and not tensor.scale and tensor.array.dtype == np.uint8:
            return self.pixels(port, tensor.array)
        return decode(tensor, port.dtype, *self._quantisation(port), port.shape)

    def pixels(self, port: Port, array: np.ndarray) -> np.ndarray:
        """Bytes of the image as the model's input wants them."""
        return decode_pixels(array, self.plan.pixels, port.dtype, *self._quantisation(port), port.shape)

    def _quantisation(self, port: Port) -> tuple[float, int]:
        """Scale and zero point of a port; (0, 0) where its values stand for themselves, as accumulators do."""
        tensor = self.network.tensors[port.tensor]
        return (tensor.scale or 0.0, tensor.zero_point) if port.dtype == tensor.dtype else (0.0, 0)

    def _wire(self, port: Port, wire: str) -> str:
        # Accumulators of an int8 model are exact integers in float32; anything smaller would round them.
        exact = port.dtype != self.network.tensors[port.tensor].dtype
        return WIRES[0] if exact else narrower(self.plan.wire, wire)


class PieceSet(Ports):
    """Pieces of one plan on one robot. Each interpreter serves one caller at a time."""

    def __init__(
        self,
        network: Network,
        plan: Plan,
        stages: Sequence[Stage],
        local: bool,
        threads: int = 1,
        few: bool = False,
    ) -> None:
        """The pieces of the local stages, or those of the distributed ones. None is ready yet.

        `few`: larger tiles compute smaller ones (cut/forms.py), so that there are fewer forms, for a little more work.
        """
        super().__init__(network, plan, stages)
        self._threads = threads
        own = [(index, stage) for index, stage in enumerate(stages) if (stage.kind == "local") is local]
        self._serving = {
            index: serving(network, stage) if few else tuple(piece.index for piece in stage.pieces)
            for index, stage in own
        }
        self._forms: dict[Form, tuple[Stage, Piece]] = {}
        for index, stage in own:
            for piece in (stage.pieces[number] for number in self._serving[index]):
                self._forms[index, piece.form] = stage, piece
        self._spare = {
            (index, piece.alone.form): (stage, piece.alone)
            for (index, _), (stage, piece) in self._forms.items()
            if piece.alone is not None
        }
        """Those of tiles that lack strips: made ready when they are needed."""
        self.sizes = {form: piece_size(network, *found) for form, found in (self._spare | self._forms).items()}
        """Form -> bytes of its file: what its weights take in memory."""
        self.size = sum(self.sizes[form] for form in self._forms)
        """Bytes of all that is made ready at once."""
        self._engines: dict[Form, Engine] = {}

    def prepare(self, form: Form | None = None) -> None:
        """Make a form ready, or all of them."""
        for one in self._forms if form is None else (form,):
            if one not in self._engines:
                self._build(one)

    def spare(self, form: Form) -> bool:
        """Whether only tiles that lack strips have this form."""
        return form in self._spare and form not in self._forms

    def drop(self, form: Form) -> None:
        """Free a form."""
        self._engines.pop(form, None)

    def ready(self, form: Form) -> bool:
        """Whether a form would be computed without reading weights first."""
        return form in self._engines

    def run(self, stage: int, piece: int, inputs: Sequence[np.ndarray], alone: bool = False) -> list[np.ndarray]:
        """Compute a piece: arrays of its input ports' shapes in, arrays of its output ports' shapes out."""
        form = self.form(stage, piece, alone)
        engine = self._engines.get(form)
        if engine is None:  # never made ready, or dropped since
            self._build(form)
            engine = self._engines[form]
        here, large = self.piece(stage, piece), self._serves(stage, piece)
        if alone or large.form == here.form:
            return engine.run(list(inputs))
        return shrink(here.outputs, engine.run(extend(large.inputs, inputs)))

    def form(self, stage: int, piece: int, alone: bool = False) -> Form:
        """What serves a piece, `alone`: without strips; WireError when it is none of this robot's."""
        here = self.piece(stage, piece, alone)
        if stage not in self._serving:
            raise WireError(f"plan {self.plan.hash}: piece {piece} of stage {stage} is not for this robot to compute")
        spare = stage, here.form
        return spare if alone and spare in self._spare else (stage, self._serves(stage, piece).form)

    def _serves(self, stage: int, piece: int) -> Piece:
        """The piece whose file computes a piece that has all its strips."""
        return self.stages[stage].pieces[self._serving[stage][piece]]

    def _build(self, form: Form) -> None:
        stage, piece = self._forms.get(form) or self._spare[form]
        # An engine keeps its file mapped, not named
        with TemporaryDirectory(prefix="dnn_dist-", dir=scratch_folder()) as folder:
            path = write_piece(self.network, stage, piece, Path(folder, "piece.tflite"))
            self._engines[form] = Engine(path, self._threads)


def _match(ports: Sequence[Port], tensors: Sequence[WireTensor]) -> list[WireTensor]:
    named = {tensor.name: tensor for tensor in tensors}
    missing = [port.name for port in ports if port.name not in named]
    if missing or len(tensors) != len(ports):
        raise WireError(f"tensors {sorted(named)}, expected {[port.name for port in ports]}")
    return [named[port.name] for port in ports]
