# SPDX-License-Identifier: Apache-2.0
"""FlatBuffers, both ways, after schemas given as data (`schema.py`, `metadataschema.py`). Every access is checked.

Reading: a `Table` is a lazy view; nothing is touched but what is asked for, so a mapped file of 500 MB costs
a few pages. Whatever a broken or hostile file holds, an access gives a value or raises `BrokenBuffer`:
FlatBuffers' offsets point forward only and every position, length and count is held against the end of the
buffer.

Writing: `pack` lays a tree of dicts out front to back, parents before children, so that each offset is known
to point forward; vectors of bytes are aligned to 16, as kernels like their weights.

Layout (FlatBuffers' internals page): a table starts with an int32 distance back to its vtable; the vtable
holds u16 [own size, table size, offset of field 0, ...], 0 for an absent field; strings, vectors and tables
are reached by a u32 distance from where it stands.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from dnn_dist.graph import metadataschema, schema
from dnn_dist.graph.schema import Field

TABLES = {**schema.TABLES, **metadataschema.TABLES}
UNIONS = {**schema.UNIONS, **metadataschema.UNIONS}
_MAX_STRING_BYTES = 1 << 16  # a name longer than this is an attack: many tensors can share one string
_NUMPY = {
    **{"?": "?", "b": "i1", "B": "u1", "h": "<i2", "H": "<u2", "i": "<i4", "I": "<u4"},
    **{"q": "<i8", "Q": "<u8", "f": "<f4", "d": "<f8"},
}
_SLOTS = {
    name: {field.name: (slot, field) for slot, field in enumerate(fields) if field} for name, fields in TABLES.items()
}


class BrokenBuffer(ValueError):
    """The bytes are no FlatBuffer of this schema."""


class Table:
    """A lazy view of one table. `view[field]` gives a scalar, str, Table, NumPy array or list of Tables.

    Absent scalars give their default, absent strings, tables and vectors give None.
    """

    __slots__ = ("_buffer", "_fields", "_position", "_vtable", "name")

    def __init__(self, buffer: Any, position: int, name: str) -> None:
        self._buffer, self._position, self.name = buffer, position, name
        (back,) = self._read("<i", position)
        start = position - back
        if start < 0:
            raise BrokenBuffer(f"{name} at byte {position} has its vtable before the file")
        (size,) = self._read("<H", start)
        if size < 4 or size % 2:
            raise BrokenBuffer(f"{name} at byte {position} has a vtable of {size} bytes")
        known = min(size // 2, len(TABLES[name]) + 2)  # a newer schema may have more fields
        self._vtable: tuple[int, ...] = self._read(f"<{known}H", start)
        self._fields = _SLOTS[name]

    @staticmethod
    def root(buffer: Any, name: str) -> Table:
        """The root table of a whole buffer (bytes, mmap)."""
        try:
            (position,) = struct.unpack_from("<I", buffer, 0)
        except struct.error as error:
            raise BrokenBuffer("shorter than four bytes") from error
        return Table(buffer, position, name)

    def _read(self, layout: str, position: int) -> tuple[Any, ...]:
        # struct counts a negative position from the end, silently; unsigned offsets never give one
        try:
            return struct.unpack_from(layout, self._buffer, position)
        except struct.error as error:
            raise BrokenBuffer(f"{self.name} points to byte {position}, past the end") from error

    def _place(self, slot: int) -> int:
        """Absolute position of the field in `slot`; 0 when absent."""
        offset = self._vtable[slot + 2] if slot + 2 < len(self._vtable) else 0
        return self._position + offset if offset else 0

    def _follow(self, place: int) -> int:
        return place + int(self._read("<I", place)[0])

    def _vector(self, place: int, item_bytes: int) -> tuple[int, int]:
        """(position of the first item, count), the whole of it within the buffer."""
        start = self._follow(place)
        (count,) = self._read("<I", start)
        if start + 4 + count * item_bytes > len(self._buffer):
            raise BrokenBuffer(f"{self.name} has a vector of {count} items that ends past the file")
        return start + 4, count

    def __getitem__(self, name: str) -> Any:
        slot, field = self._fields[name]
        place = self._place(slot)
        kind = field.type
        if kind in _NUMPY:
            return self._read("<" + kind, place)[0] if place else field.default
        if kind.startswith("|"):
            member = UNIONS[kind[1:]].get(self._union_type(slot))
            return Table(self._buffer, self._follow(place), member) if place and member else None
        if not place:
            return None
        if kind == "s":
            start, count = self._vector(place, 1)
            if count > _MAX_STRING_BYTES:
                raise BrokenBuffer(f"{self.name}.{name} is a text of {count} bytes")
            return bytes(self._buffer[start : start + count]).decode("utf-8", "replace")
        if kind.startswith("@"):
            return Table(self._buffer, self._follow(place), kind[1:])
        if kind.startswith("[@"):
            start, count = self._vector(place, 4)
            return [Table(self._buffer, self._follow(start + 4 * i), kind[2:-1]) for i in range(count)]
        dtype = np.dtype(_NUMPY[kind[1:-1]])
        start, count = self._vector(place, dtype.itemsize)
        return np.frombuffer(self._buffer, dtype, count, start)

    def _union_type(self, slot: int) -> int:
        place = self._place(slot - 1)
        return int(self._read("<B", place)[0]) if place else 0

    def count(self, name: str) -> int:
        """Length of a vector of tables, without looking at them."""
        place = self._place(self._fields[name][0])
        return self._vector(place, 4)[1] if place else 0

    def span(self, name: str) -> tuple[int, int]:
        """(position, bytes) of a vector of bytes, without touching them; (0, 0) when absent."""
        place = self._place(self._fields[name][0])
        return self._vector(place, 1) if place else (0, 0)

    def unpack(self) -> dict[str, Any]:
        """The table and all below it as a dict that `pack` takes; absent fields are left out."""
        tree: dict[str, Any] = {}
        for name, (slot, _field) in self._fields.items():
            if self._place(slot):
                value = self[name]
                if isinstance(value, Table):
                    value = value.unpack()
                elif isinstance(value, list):
                    value = [item.unpack() for item in value]
                tree[name] = value
        return tree


def pack(tree: dict[str, Any], table: str, identifier: bytes) -> bytearray:
    """`tree` (field -> scalar, str, array, dict, list of dicts) as a FlatBuffer with root `table`."""
    out = bytearray(4) + identifier
    _patch(out, 0, _put_table(out, tree, table))
    return out


def _align(out: bytearray, alignment: int, ahead: int = 0) -> None:
    """Pads so that the byte `ahead` of the end falls on a multiple of `alignment`, from the start."""
    out.extend(bytes(-(len(out) + ahead) % alignment))


def _patch(out: bytearray, place: int, target: int) -> None:
    struct.pack_into("<I", out, place, target - place)


def _put_table(out: bytearray, tree: dict[str, Any], table: str) -> int:
    slots = TABLES[table]
    unknown = set(tree) - {field.name for field in slots if field}
    if unknown:
        raise KeyError(f"{table} has no field {sorted(unknown)}")
    present = [(slot, field) for slot, field in enumerate(slots) if field and tree.get(field.name) is not None]
    present.sort(key=lambda entry: -_inline_bytes(entry[1]))  # widest first leaves no holes
    offsets: dict[int, int] = {}
    size = 4
    for slot, field in present:
        width = _inline_bytes(field)
        size += -size % width
        offsets[slot] = size
        size += width
    last = max(offsets, default=-1)
    _align(out, 2)
    vtable = len(out)
    out += struct.pack(f"<{last + 3}H", 2 * (last + 3), size, *(offsets.get(slot, 0) for slot in range(last + 1)))
    _align(out, 8)
    start = len(out)
    out += bytes(size)
    struct.pack_into("<i", out, start, start - vtable)
    for slot, field in sorted(present, key=lambda entry: entry[0]):
        place = start + offsets[slot]
        value = tree[field.name]
        if field.type in _NUMPY:
            struct.pack_into("<" + field.type, out, place, value)
        elif field.type.startswith("|"):
            _patch(out, place, _put_table(out, value, UNIONS[field.type[1:]][tree[slots[slot - 1].name]]))  # type: ignore[union-attr]
        else:
            _patch(out, place, _put_child(out, value, field.type))
    return start


def _inline_bytes(field: Field) -> int:
    return struct.calcsize("<" + field.type) if field.type in _NUMPY else 4


def _put_child(out: bytearray, value: Any, kind: str) -> int:
    """Appends what stands outside its parent; returns its position."""
    if kind.startswith("@"):
        return _put_table(out, value, kind[1:])
    if kind == "s":
        text = value.encode()
        _align(out, 4)
        start = len(out)
        out += struct.pack("<I", len(text)) + text + b"\0"
        return start
    if kind.startswith("[@"):
        _align(out, 4)
        start = len(out)
        out += struct.pack("<I", len(value)) + bytes(4 * len(value))
        for i, item in enumerate(value):
            _patch(out, start + 4 + 4 * i, _put_table(out, item, kind[2:-1]))
        return start
    items = np.ascontiguousarray(value, np.dtype(_NUMPY[kind[1:-1]]))
    _align(out, 16 if kind == "[B]" else 8, ahead=4)
    start = len(out)
    out += struct.pack("<I", items.size)
    out += items.data if items.size else b""
    return start
