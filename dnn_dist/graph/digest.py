# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of model files, kept from run to run: a plan names its model by it, and 550 MB take half a second
to two on a small computer.

The hash of a large file is kept in $XDG_CACHE_HOME/dnn_dist (~/.cache) under the file's place, inode, size and
time of change. Entries are written aside and renamed, so that any number of processes may read and write them
at once. A cache that is not there, not readable or not to be written costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from pathlib import Path

_LEAST_BYTES = 16 << 20  # below, hashing is as fast as looking it up
_BLOCK_BYTES = 1 << 20
_SETTLED_S = 2.0  # a file changed just now may change once more with the same time of change
_FORM = re.compile(r"[0-9a-f]{64}")


def cached_sha256(path: Path, descriptor: int) -> str:
    """SHA-256 of the open file `descriptor`, which was found at `path`."""
    before = os.fstat(descriptor)
    if before.st_size < _LEAST_BYTES:
        return _sha256(descriptor)
    key = f"{path.resolve()} {before.st_dev} {before.st_ino} {before.st_size} {before.st_mtime_ns} {before.st_ctime_ns}"
    entry = _cache() / hashlib.sha256(key.encode()).hexdigest()[:32]
    with contextlib.suppress(OSError, UnicodeError):
        kept = entry.read_text()
        if _FORM.fullmatch(kept):
            return kept
    digest = _sha256(descriptor)
    after = os.fstat(descriptor)
    unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if unchanged and time.time() - after.st_mtime > _SETTLED_S:
        with contextlib.suppress(OSError):
            _keep(entry, digest)
    return digest


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dnn_dist"


def _keep(entry: Path, digest: str) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=entry.parent, delete=False) as aside:
        aside.write(digest)
    os.replace(aside.name, entry)


def _sha256(descriptor: int) -> str:
    digest = hashlib.sha256()
    position = 0
    while block := os.pread(descriptor, _BLOCK_BYTES, position):
        digest.update(block)
        position += len(block)
    return digest.hexdigest()
