# SPDX-License-Identifier: Apache-2.0
"""The .tflite file of a piece before it is written: a small graph, and where the constants beside it come from.

Constants stand after the FlatBuffer (Buffer.offset and size count from the start of the file), so that they go
from the model's file to the piece's without passing through a copy in memory, and the runtime, which maps the
file, reads them in place. A piece of a network of any size is written with a few MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from dnn_dist.errors import CutError
from dnn_dist.graph.flatbuffer import pack
from dnn_dist.graph.modelfile import IDENTIFIER, ModelFile

_ALIGNMENT = 64  # of constants, a line of cache; kernels want 16
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of the model's file."""

    position: int
    size: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """A constant that is worked out a block at a time, while the file is written."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterator[np.ndarray]]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


Content = Span | np.ndarray | Blocks
"""What a buffer holds."""


class PieceFile:
    """The bytes of a .tflite file, made when they are asked for; the same for the same piece."""

    def __init__(self, source: ModelFile, model: dict[str, Any], contents: list[Content | None]) -> None:
        """`model`: the tree of the root table but for `buffers`; `contents`: what each of those holds."""
        self._source = source
        sizes = [0 if c is None else c.size if isinstance(c, Span) else c.nbytes for c in contents]
        self._contents = [c for c, size in zip(contents, sizes, strict=True) if c is not None and size]
        # Only the numbers in it depend on where it ends, not its length
        self._head = self._lay_out(model, sizes, 0)
        self._head = self._lay_out(model, sizes, len(self._head))

    @staticmethod
    def _lay_out(model: dict[str, Any], sizes: list[int], end: int) -> bytes:
        buffers: list[dict[str, int]] = []
        for size in sizes:
            end += -end % _ALIGNMENT
            buffers.append({"offset": end, "size": size} if size else {})
            end += size
        return bytes(pack({**model, "buffers": buffers}, "Model", IDENTIFIER))

    @property
    def size(self) -> int:
        """Bytes of the file: the graph, and nearly all of it the weights."""
        end = len(self._head)
        for content in self._contents:
            end += -end % _ALIGNMENT + (content.size if isinstance(content, Span) else content.nbytes)
        return end

    def content(self) -> bytes:
        """The whole file in memory."""
        out = BytesIO()
        self._put(out)
        return out.getvalue()

    def write(self, path: Path) -> None:
        """Writes the file; raises CutError when there is no room or no right to."""
        try:
            with path.open("wb") as out:
                self._put(out)
        except OSError as error:
            raise CutError(f"{path}: a piece cannot be written: {error.strerror or error}") from None

    def _put(self, out: IO[bytes]) -> None:
        out.write(self._head)
        end = len(self._head)
        for content in self._contents:
            out.write(bytes(-end % _ALIGNMENT))
            end += -end % _ALIGNMENT
            if isinstance(content, Span):
                for start in range(0, content.size, _BLOCK_BYTES):
                    size = min(_BLOCK_BYTES, content.size - start)
                    out.write(self._source.read_at(content.position + start, size))
                end += content.size
            else:
                for block in content.blocks() if isinstance(content, Blocks) else (content,):
                    out.write(np.ascontiguousarray(block).data.cast("B"))
                end += content.nbytes
