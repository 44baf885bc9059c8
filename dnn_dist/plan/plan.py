# SPDX-License-Identifier: Apache-2.0
"""A plan: the model, how it is cut into stages, and what fills a lost piece. A YAML text named by its hash.

Pieces are not written down: every robot derives them from the model and the stages, so a plan stays a page that a
person can read, and two robots with the same model and plan have the same pieces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dnn_dist.cut.feeds import Box, chains
from dnn_dist.cut.piece import Piece, Port, Stage, make_port
from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import PlanError
from dnn_dist.graph.network import Network
from dnn_dist.settings import PartitionSettings
from dnn_dist.yamlfile import NotYaml, parse_yaml, quoted

FORMAT = 1
MOST_TEXT = 1 << 16
"""Characters of a plan's text; a cut with a stage for each of 1 000 ops has a third of that."""
FILLS = ("last", "zeros")
MOST_REPLICAS = 4
WIRES = ("float32", "float16", "int8")
_MOST_REAL = 1e30  # of 255 * scale + offset float32 holds more; what real models take is below 1e3


def wire_dtype(dtype: str, wire: str) -> str:
    """What a tensor of the model travels as under a plan's `wire`: only float32 ones change."""
    return wire if dtype == "float32" else dtype


def port_bytes(network: Network, port: Port, wire: str) -> int:
    """Bytes of a piece's input or output as it travels. The model's own inputs do as one byte a value.

    Sums of an int8 model are exact integers in float32, which no other wire would keep.
    """
    sums = port.dtype != network.tensors[port.tensor].dtype
    dtype = "uint8" if port.tensor in network.inputs else port.dtype if sums else wire_dtype(port.dtype, wire)
    return prod(port.shape) * np.dtype(dtype).itemsize


def tensor_bytes(network: Network, tensor: int, wire: str) -> int:
    """Bytes of a whole tensor of the model as it travels."""
    return port_bytes(network, make_port(network, tensor, None), wire)


def piece_bytes(network: Network, piece: Piece, wire: str) -> tuple[int, int]:
    """Bytes of a piece's work as it travels to the worker, and of its result on the way back."""
    given, made = (sum(port_bytes(network, port, wire) for port in ports) for ports in (piece.inputs, piece.outputs))
    return given, made


def box_bytes(box: Box, wire: str) -> int:
    """Bytes of a box of a feed as it travels from worker to worker."""
    return prod(box.shape) * np.dtype(wire_dtype(box.dtype, wire)).itemsize


def check_wire(network: Network, stages: Sequence[Stage], wire: str) -> None:
    """Raises PlanError where float32 tensors would go from robot to robot as int8.

    Each message has a scale of its own, so that values would depend on which robot made them.
    """
    for chain in chains(stages) if wire == "int8" else ():
        made = {tensor for number in chain for tensor in stages[number].outputs}
        for number in chain[1:]:
            if any(t in made and network.tensors[t].dtype == "float32" for t in stages[number].inputs):
                raise PlanError(
                    f"plan: wire int8, but float32 tensors go straight from robot to robot (>) before "
                    f"{stages[number].spec[:60]}; take wire float16, or ';' there (of bands and layers: bands:4g)"
                )
    for stage in stages if wire == "int8" else ():
        if any(port.strip and port.dtype == "float32" for piece in stage.pieces for port in piece.inputs):
            raise PlanError(
                f"plan: wire int8, but float32 strips go from robot to robot in {stage.spec[:60]}; take wire float16, "
                f"or leave out the r"
            )


def takes_part(robot: str, robots: Collection[str]) -> bool:
    """Whether a robot's worker takes part in a plan that names these robots; none named: all do."""
    return not robots or robot in robots


@dataclass(frozen=True, slots=True)
class Pixels:
    """How a byte of the image becomes the model's input: real value = scale * byte + offset."""

    scale: float = 1.0 / 255.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale <= _MOST_REAL:
            raise PlanError(f"plan: pixels.scale is {self.scale}, expected a number above 0, e.g. 0.00392157")
        if not abs(self.offset) <= _MOST_REAL:
            raise PlanError(f"plan: pixels.offset is {self.offset}, expected a number, e.g. -1.0")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a cluster does with a frame. Immutable: a frame keeps its plan for life."""

    model: str  # SHA-256 of the .tflite file, hexadecimal
    cut: str  # as on the command line, e.g. "tiles:3x3@0..15"; what it leaves over is a local stage
    fill: str = PartitionSettings.fill  # a piece lost for good: "last" frame's piece, or "zeros"
    wire: str = PartitionSettings.wire  # what float32 tensors travel as; others do as the model has them
    replicas: int = PartitionSettings.replicas  # workers of each piece without parity; the first answer counts
    robots: tuple[str, ...] = ()  # those whose workers take part; none named: all
    pixels: Pixels = field(default_factory=Pixels)

    def __post_init__(self) -> None:
        for key, value, known in (("fill", self.fill, FILLS), ("wire", self.wire, WIRES)):
            if value not in known:
                raise PlanError(f"plan: {key} is {quoted(value)}, expected one of {', '.join(known)}")
        if not 1 <= self.replicas <= MOST_REPLICAS:
            raise PlanError(f"plan: replicas is {self.replicas}, expected 1 to {MOST_REPLICAS}")

    @property
    def hash(self) -> str:
        """The plan's name: 16 hexadecimal digits of the SHA-256 of its text."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """The plan as text; the same plan always gives the same text."""
        return yaml.safe_dump({"dnn_dist_plan": FORMAT, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_yaml(cls, text: str) -> Plan:
        """Read a plan's text. Raises PlanError in one line when it is not a plan."""
        if len(text) > MOST_TEXT:
            raise PlanError(f"plan: {len(text)} characters, expected at most {MOST_TEXT}: this is no plan")
        try:
            tree = parse_yaml(text)
        except NotYaml as error:
            raise PlanError(f"plan: not YAML: {error}") from None
        if not isinstance(tree, dict) or tree.get("dnn_dist_plan") != FORMAT:
            raise PlanError(
                f"plan: expected a YAML mapping with 'dnn_dist_plan: {FORMAT}' and the keys of a plan"
            )
        return cls(
            model=_typed(tree, "model", str),
            cut=_typed(tree, "cut", str),
            fill=_typed(tree, "fill", str),
            wire=_typed(tree, "wire", str),
            replicas=_typed(tree, "replicas", int),
            robots=_robots(tree.get("robots", [])),
            pixels=_pixels(tree.get("pixels", {})),
        )

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read a plan file. Raises PlanError in one line when it is missing or is no plan."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(f"{path}: can't read the plan: {' '.join(str(error).split())}") from None
        try:
            return cls.from_yaml(text)
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from None

    def stages(self, network: Network) -> tuple[Stage, ...]:
        """The stages with all their pieces; raises PlanError when the plan is for another model, or
        its wire does not suit its cut.
        """
        if network.sha256 != self.model:
            raise PlanError(
                f"plan {self.hash}: made for model {self.model[:12]}, {network.path} is {network.sha256[:12]}; "
                "give every robot the same model file"
            )
        stages = cut_network(network, self.cut)
        check_wire(network, stages, self.wire)
        return stages


_EXPECTED = {str: "a text of ASCII letters", int: "a whole number"}


def _typed(tree: dict[str, Any], key: str, kind: type) -> Any:
    value = tree.get(key)
    # true is an int as well
    if type(value) is not kind or (isinstance(value, str) and not value.isascii()):
        raise PlanError(f"plan: {key} is {quoted(value)}, expected {_EXPECTED[kind]}")
    return value


def _robots(tree: Any) -> tuple[str, ...]:
    if not isinstance(tree, list) or not all(isinstance(name, str) and name.isascii() and name for name in tree):
        raise PlanError(f"plan: robots is {quoted(tree)}, expected a list of names, e.g. [r1, r2]; empty: all")
    return tuple(tree)


def _pixels(tree: Any) -> Pixels:
    try:
        return Pixels(scale=float(tree["scale"]), offset=float(tree["offset"]))
    except (TypeError, KeyError, ValueError, OverflowError):
        raise PlanError(f"plan: pixels is {quoted(tree)}, expected {{scale: NUMBER, offset: NUMBER}}") from None
