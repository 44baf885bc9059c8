# SPDX-License-Identifier: Apache-2.0
"""What a .tflite file says about itself: its metadata, and the files packed into it.

The metadata is a FlatBuffer of its own in a buffer named TFLITE_METADATA. Files, mostly labels, stand behind the
model as a zip archive: readers of zip files look for its directory at the end, those of .tflite files begin in front.
Both may be missing, or say something that is not so: callers hold it against the graph.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from dnn_dist.errors import ModelError
from dnn_dist.graph.flatbuffer import BrokenBuffer, Table
from dnn_dist.graph.metadataschema import AXIS_LABELS, BOUNDARIES, CALIBRATION, IDENTIFIER, RATIO, VALUE_LABELS
from dnn_dist.graph.modelfile import ModelFile

NAME = "TFLITE_METADATA"
_MOST_METADATA = 1 << 20  # bytes; published ones have 1 kB
_MOST_LABELS = 1 << 22  # bytes of a file of labels; the 21 000 names of ImageNet have 0.8 MB
_MOST_ENTRIES = 64  # outputs, their files and their process units


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """What is said of one output."""

    name: str
    axis_labels: str  # the file that names its places, as of a classifier's scores; empty: none
    value_labels: str  # the file that names its values, as of a detector's classes; empty: none
    box_order: tuple[int, ...]  # where left, top, right, bottom stand in a box, in parts of the input; empty: no boxes
    threshold: float | None  # least score that is worth anything
    calibrated: bool  # scores are to be calibrated by a file of parameters


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is said of the model: of its first input, and of each output in the graph's order."""

    name: str
    mean: tuple[float, ...]  # the model sees (pixel - mean) / std, by channel or one for all; empty: not said
    std: tuple[float, ...]
    outputs: tuple[OutputFacts, ...]


def read_metadata(file: ModelFile) -> ModelFacts | None:
    """The metadata in the file; None when it has none. ModelError when it is damaged."""
    try:
        number = next((entry["buffer"] for entry in file.metadata if entry["name"] == NAME), None)
        if number is None:
            return None
        held = file.buffer_bytes(number)[:_MOST_METADATA].tobytes()
        if held[4:8] != IDENTIFIER:
            raise BrokenBuffer(f"its metadata is not of version {IDENTIFIER.decode()}")
        return _facts(Table.root(held, "ModelMetadata"))
    except (BrokenBuffer, UnicodeError, OverflowError, MemoryError) as error:
        raise file.broken(error) from None


def packed_files(file: ModelFile) -> tuple[str, ...]:
    """Names of the files that are packed into it; none where nothing is packed."""
    try:
        with zipfile.ZipFile(file.path) as archive:
            return tuple(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return ()


def read_labels(file: ModelFile, name: str) -> tuple[str, ...]:
    """The lines of a packed file, without empty ones at its end. ModelError when it can't be read."""
    try:
        with zipfile.ZipFile(file.path) as archive:
            entry = archive.getinfo(name)
            if entry.file_size > _MOST_LABELS:
                raise ValueError(f"{entry.file_size} bytes, expected {_MOST_LABELS} at most")
            text = archive.read(entry).decode("utf-8", "replace")
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{file.path}: the labels {name[:64]!r} inside it cannot be read: {reason}") from None
    return tuple(line.strip() for line in text.rstrip().splitlines())


def _facts(model: Table) -> ModelFacts:
    graph = next(_entries(model, "subgraph_metadata"), None)
    inputs, outputs = (
        list(_entries(graph, f"{end}_tensor_metadata")) if graph is not None else [] for end in ("input", "output")
    )
    normal = next((unit for unit in _units(inputs[:1]) if unit.name == "NormalizationOptions"), None)
    mean, std = (_numbers(normal, key) if normal is not None else () for key in ("mean", "std"))
    return ModelFacts(model["name"] or "", mean, std, tuple(_output(table) for table in outputs))


def _output(table: Table) -> OutputFacts:
    files = {entry["type"]: entry["name"] or "" for entry in reversed(list(_entries(table, "associated_files")))}
    limits = [unit["global_score_threshold"] for unit in _units([table]) if unit.name == "ScoreThresholdingOptions"]
    return OutputFacts(
        name=table["name"] or "",
        axis_labels=files.get(AXIS_LABELS, ""),
        value_labels=files.get(VALUE_LABELS, ""),
        box_order=_box_order(table["content"]),
        threshold=limits[0] if limits else None,
        calibrated=CALIBRATION in files,
    )


def _box_order(content: Table | None) -> tuple[int, ...]:
    boxes = content["content_properties"] if content is not None else None
    if boxes is None or boxes.name != "BoundingBoxProperties":
        return ()
    if (boxes["type"], boxes["coordinate_type"]) != (BOUNDARIES, RATIO):
        return ()
    index = boxes["index"]
    return tuple(index[:8].tolist()) if index is not None and index.size else (0, 1, 2, 3)


def _units(tensors: Sequence[Table]) -> Iterator[Table]:
    """Options of the process units of tensors, of those kinds that are known here."""
    for tensor in tensors:
        for unit in _entries(tensor, "process_units"):
            options = unit["options"]
            if options is not None:
                yield options


def _entries(table: Table, name: str) -> Iterator[Table]:
    return islice(table[name] or [], _MOST_ENTRIES)


def _numbers(table: Table, name: str) -> tuple[float, ...]:
    values = table[name]
    return tuple(values[:_MOST_ENTRIES].tolist()) if values is not None else ()
