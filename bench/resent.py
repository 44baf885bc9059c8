# SPDX-License-Identifier: Apache-2.0
"""What DDS sends again: the same part of the same message, once more on its way to the same receiver. Pure.

A frame on the air is Ethernet, IPv4, UDP, RTPS. Only large ones are looked at, which carry tensors: heartbeats and
requests are small, and meant to come again, as discovery is. Of a datagram in IP fragments only the first one tells
what it is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

LARGE = 400  # bytes
REMEMBERED = 60_000  # frames that are surely known; up to twice as many are
_IP, _UDP, _RTPS = 14, 8, 20  # bytes of headers: where IP begins, and of the others
_DATA, _DATA_FRAG = 0x15, 0x16


def part_of(frame: bytes) -> tuple[bytes, ...] | None:
    """What tells a frame's part of a message from all others: receiver, writer, number, fragment. None: not data."""
    if len(frame) < LARGE or frame[12:14] != b"\x08\x00" or frame[_IP + 9] != 17:
        return None
    start = _IP + 4 * (frame[_IP] & 0x0F) + _UDP
    if struct.unpack_from(">H", frame, _IP + 6)[0] & 0x1FFF or frame[start : start + 4] != b"RTPS":
        return None
    at = start + _RTPS
    while at + 24 <= len(frame):
        kind, little = frame[at], frame[at + 1] & 1
        if kind in (_DATA, _DATA_FRAG):
            # after 4 bytes of header: flags and offset (4), reader (4), writer (4), number (8), first fragment (4)
            if frame[at + 15] & 0xC0 == 0xC0:  # the writer is one of discovery's own, which is meant to say it again
                return None
            numbers = frame[at + 12 : at + (28 if kind == _DATA_FRAG else 24)]
            return frame[_IP + 16 : _IP + 20], frame[start + 8 : start + _RTPS], numbers
        length = struct.unpack_from("<H" if little else ">H", frame, at + 2)[0]
        if not length:
            return None
        at += 4 + length
    return None


@dataclass(slots=True)
class Resent:
    """Counts frames whose part has been on the air before."""

    frames: int = 0
    bytes: int = 0
    _new: set[tuple[bytes, ...]] = field(default_factory=set)
    _old: set[tuple[bytes, ...]] = field(default_factory=set)

    def see(self, frame: bytes) -> None:
        """A station gives this to the air."""
        part = part_of(frame)
        if part is None:
            return
        if part in self._new or part in self._old:
            self.frames += 1
            self.bytes += len(frame)
            return
        self._new.add(part)
        if len(self._new) > REMEMBERED:
            self._old, self._new = self._new, set()
