# SPDX-License-Identifier: Apache-2.0
"""A mapped .tflite file: its tables, and its constants by where they lie. Nothing is copied or unpacked."""

from __future__ import annotations

import mmap
import os
import weakref
from functools import cached_property
from pathlib import Path

import numpy as np

from dnn_dist.errors import ModelError
from dnn_dist.graph.digest import cached_sha256
from dnn_dist.graph.flatbuffer import BrokenBuffer, Table

IDENTIFIER = b"TFL3"
_MAX_ENTRIES = 1 << 17  # of tensors, ops, buffers; a vector of offsets to one table could claim millions


class ModelFile:
    """The file at `path`, mapped read-only for as long as somebody holds this object or a view of a constant.

    Raises ModelError when there is no such file or it does not look like a .tflite file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._descriptor)
            head = os.pread(self._descriptor, 8, 0)
            if not head:
                raise ModelError(f"{path}: the file is empty")
            if head[4:8] != IDENTIFIER:
                raise ModelError(f"{path}: this is no .tflite file (bytes 4 to 7 are not 'TFL3')")
            self._map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise ModelError(f"{path}: no such file") from None
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
        try:
            model = Table.root(self._map, "Model")
            graphs = self._entries(model, "subgraphs")
            if not graphs:
                raise BrokenBuffer("it holds no graph")
            self.graph = graphs[0]
            self.tensors = self._entries(self.graph, "tensors")
            self.operators = self._entries(self.graph, "operators")
            self.operator_codes = self._entries(model, "operator_codes")
            self.buffers = self._entries(model, "buffers")
            self.metadata = self._entries(model, "metadata")
        except BrokenBuffer as error:
            raise self.broken(error) from None

    @staticmethod
    def _entries(table: Table, name: str) -> list[Table]:
        if table.count(name) > _MAX_ENTRIES:
            raise BrokenBuffer(f"{table.name} claims {table.count(name)} {name}")
        return table[name] or []

    def broken(self, error: Exception) -> ModelError:
        return ModelError(f"{self.path}: the file is damaged or cut short: {error}")

    @cached_property
    def sha256(self) -> str:
        """Hash of the file's bytes; takes about a second per GB the first time, see `digest`."""
        return cached_sha256(self.path, self._descriptor)

    def __len__(self) -> int:
        return len(self._map)

    def read(self) -> bytes:
        """A copy of the whole file."""
        return self._map[:]

    def read_at(self, position: int, size: int) -> bytes:
        """A copy of some bytes, without mapping them; fewer at the end of the file."""
        return os.pread(self._descriptor, size, position)

    def buffer_span(self, buffer: int) -> tuple[int, int]:
        """(position in the file, bytes) of a buffer's content; (0, 0) when it has none."""
        if not 0 <= buffer < len(self.buffers):
            raise BrokenBuffer(f"buffer {buffer} of {len(self.buffers)} is asked for")
        table = self.buffers[buffer]
        position, size = int(table["offset"]), int(table["size"])
        if position > 1:  # outside the FlatBuffer, after its end: files beyond 2 GB
            if position + size > len(self._map):
                raise BrokenBuffer(f"buffer {buffer} ends past the file")
            return position, size
        return table.span("data")

    def buffer_bytes(self, buffer: int) -> np.ndarray:
        """A buffer's content as a read-only view of the mapped file, uint8."""
        position, size = self.buffer_span(buffer)
        return np.frombuffer(self._map, np.uint8, size, position)
