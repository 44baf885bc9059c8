# SPDX-License-Identifier: Apache-2.0
"""What counts as sent again on the emulated air (bench/resent.py)."""

import struct
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from resent import LARGE, Resent, part_of


def frame(number: int = 1, fragment: int | None = 1, to: int = 2, writer: int = 3, size: int = 1400) -> bytes:
    """An Ethernet frame with a timestamp and then data, or with a heartbeat where `fragment` is 0."""
    udp = struct.pack(">HHHH", 7400, 7410, size, 0)
    ip = bytes([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 0, 1, 10, 77, 0, to])
    rtps = b"RTPS\x02\x03\x01\x0f" + b"sender-guid." + struct.pack("<BBH", 9, 1, 8) + bytes(8)
    told = struct.pack("<HHIIiI", 0, 28, 0, writer << 24, 0, number)
    if fragment == 0:
        body = struct.pack("<BBH", 7, 1, 28) + bytes(28)
    elif fragment is None:
        body = struct.pack("<BBH", 0x15, 1, 0) + told
    else:
        body = struct.pack("<BBH", 0x16, 1, 0) + told + struct.pack("<IHHI", fragment, 1, 1300, 10**6)
    return (bytes(12) + b"\x08\x00" + ip + udp + rtps + body).ljust(size, b"x")


def test_same_part_of_same_message_to_same_receiver_is_sent_again():
    seen = Resent()
    for one in (frame(), frame(fragment=2), frame(number=2), frame(to=5), frame(writer=4), frame(fragment=None)):
        seen.see(one)
    assert (seen.frames, seen.bytes) == (0, 0)
    seen.see(frame(fragment=2))
    seen.see(frame(fragment=None))
    assert (seen.frames, seen.bytes) == (2, 2800)


def test_what_carries_no_tensor_is_left_alone():
    assert part_of(frame(fragment=0)) is None  # a heartbeat
    assert part_of(frame(size=LARGE - 1)) is None
    assert part_of(frame(writer=0xC2)) is None  # discovery
    assert part_of(bytes(1400)) is None
    assert part_of(b"") is None
    for length in range(1, 1400, 7):  # cut anywhere it is data or not, and never an error
        part_of(frame()[:length].ljust(1400, b"\0"))


def test_memory_is_bounded_and_the_newest_are_remembered(monkeypatch):
    monkeypatch.setattr("resent.REMEMBERED", 100)
    seen = Resent()
    for number in range(1000):
        seen.see(frame(number))
    assert len(seen._new) + len(seen._old) <= 202
    seen.see(frame(950))
    assert seen.frames == 1
