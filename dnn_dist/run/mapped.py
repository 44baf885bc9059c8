# SPDX-License-Identifier: Apache-2.0
"""Memory: what is free, and giving back that of mapped files that have been read.

The runtime maps a piece's file and packs its weights into memory of its own. Both copies would count from then
on; the pages of the file are read again, if ever, from where they came.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from pathlib import Path


def scratch_folder() -> str | None:
    """Where files go that are mapped for long: /tmp may itself be memory, and would keep what is given back."""
    folder = "/var/tmp"
    return folder if os.access(folder, os.W_OK) else None


def free_memory() -> float:
    """Bytes that the robot could still use without swapping, infinite where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return float("inf")


def release_pages(path: Path) -> None:
    """Drops this process's pages of a file that is mapped and not written to. Does nothing where it cannot."""
    advice = getattr(mmap, "MADV_DONTNEED", None)
    if advice is None:
        return
    with contextlib.suppress(OSError, AttributeError):
        madvise = ctypes.CDLL(None, use_errno=True).madvise
        for start, end in _mappings(path.resolve()):
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)


def _mappings(path: Path) -> list[tuple[int, int]]:
    """Address ranges where `path` is mapped read-only."""
    found = []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            fields = line.rstrip("\n").split(maxsplit=5)  # range, rights, offset, device, inode, path
            if len(fields) == 6 and fields[5] == str(path) and "w" not in fields[1]:
                start, _, end = fields[0].partition("-")
                found.append((int(start, 16), int(end, 16)))
    return found
