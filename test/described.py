# SPDX-License-Identifier: Apache-2.0
"""Writes metadata into .tflite files as published models have it, by LiteRT's schema and the flatbuffers library.

Slots are numbered here as metadata_schema.fbs (TensorFlow Lite Support) has them, so that nothing is taken from the
reader that is tested.
"""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

flatbuffers = pytest.importorskip("flatbuffers")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

BOXES = (1, 0, 3, 2)  # top, left, bottom, right of left, top, right, bottom
AXIS_LABELS, VALUE_LABELS, CALIBRATION = 2, 3, 4


class Writer:
    """A FlatBuffer bottom up; methods give offsets."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)

    def table(self, slots: int, **fields: Callable[[], None] | None) -> int:
        self.builder.StartObject(slots)
        for put in fields.values():
            if put is not None:
                put()
        return self.builder.EndObject()

    def offset(self, slot: int, target: int | None) -> Callable[[], None] | None:
        return None if target is None else lambda: self.builder.PrependUOffsetTRelativeSlot(slot, target, 0)

    def byte(self, slot: int, value: int) -> Callable[[], None]:
        return lambda: self.builder.PrependInt8Slot(slot, value, 0)

    def text(self, value: str) -> int:
        return self.builder.CreateString(value)

    def offsets(self, targets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(targets), 4)
        for target in reversed(targets):
            self.builder.PrependUOffsetTRelative(target)
        return self.builder.EndVector()

    def numbers(self, values: Sequence[Any], put: Callable[[Any], None]) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            put(value)
        return self.builder.EndVector()


def _file(w: Writer, name: str, kind: int) -> int:
    name_at = w.text(name)
    return w.table(4, name=w.offset(0, name_at), type=w.byte(2, kind))


def _unit(w: Writer, kind: int, options: int) -> int:
    return w.table(2, type=w.byte(0, kind), options=w.offset(1, options))


def _input(w: Writer, mean: Sequence[float], std: Sequence[float]) -> int:
    image = w.table(2, color_space=w.byte(0, 1))
    content = w.table(3, type=w.byte(0, 2), properties=w.offset(1, image))
    put = w.builder.PrependFloat32
    means, stds = w.numbers(mean, put), w.numbers(std, put)
    normal = w.table(2, mean=w.offset(0, means), std=w.offset(1, stds))
    units = w.offsets([_unit(w, 1, normal)] if len(mean) else [])
    name = w.text("image")
    return w.table(7, name=w.offset(0, name), content=w.offset(3, content), units=w.offset(4, units))


def _output(w: Writer, told: Mapping[str, Any]) -> int:
    """`told`: name, files {name: kind}, box (order of the sides), coordinates, threshold."""
    content = None
    if "box" in told:
        index = w.numbers(told["box"], w.builder.PrependUint32)
        boxes = w.table(3, index=w.offset(0, index), type=w.byte(1, 1), unit=w.byte(2, told.get("coordinates", 0)))
        content = w.table(3, type=w.byte(0, 3), properties=w.offset(1, boxes))
    units = []
    if "threshold" in told:
        least = told["threshold"]
        options = w.table(1, least=lambda: w.builder.PrependFloat32Slot(0, least, 0.0))
        units.append(_unit(w, 3, options))
    units_at = w.offsets(units)
    files = w.offsets([_file(w, name, kind) for name, kind in told.get("files", {}).items()])
    name = w.text(told.get("name", ""))
    return w.table(
        7,
        name=w.offset(0, name),
        content=w.offset(3, content),
        units=w.offset(4, units_at),
        files=w.offset(6, files),
    )


def metadata(mean: Sequence[float], std: Sequence[float], outputs: Sequence[Mapping[str, Any]]) -> bytes:
    """A model's metadata: normalisation of its input (no numbers: not said), and what is told of each output."""
    w = Writer()
    inputs = w.offsets([_input(w, mean, std)])
    outputs_at = w.offsets([_output(w, told) for told in outputs])
    graph = w.table(7, inputs=w.offset(2, inputs), outputs=w.offset(3, outputs_at))
    graphs = w.offsets([graph])
    name = w.text("Test")
    root = w.table(8, name=w.offset(0, name), graphs=w.offset(3, graphs))
    w.builder.Finish(root, b"M001")
    return bytes(w.builder.Output())


def describe_in(model: Path, copy: Path, content: bytes, files: Mapping[str, str]) -> Path:
    """A copy of a model with this metadata, and with files packed behind it."""
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model.read_bytes()))
    tree.buffers.append(schema.BufferT())
    tree.buffers[-1].data = list(content)
    entry = schema.MetadataT()
    entry.name, entry.buffer = "TFLITE_METADATA", len(tree.buffers) - 1
    tree.metadata = [*(tree.metadata or []), entry]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(tree.Pack(builder), b"TFL3")
    copy.write_bytes(bytes(builder.Output()))
    with zipfile.ZipFile(copy, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return copy
