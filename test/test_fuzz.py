# SPDX-License-Identifier: Apache-2.0
"""Corrupt, truncated and hostile .tflite files: one clear error or a cut, never a crash, a hang or a heap of memory.

What the runtime makes of such a file is its own affair: `check` lets it loose in processes of their own.
"""

import os
import random
import resource
import struct
import time

import pytest
from cutting import FIXTURES

from dnn_dist.cli.inspect import describe
from dnn_dist.cut.build import build_piece
from dnn_dist.cut.memory import stage_memory
from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import DnnDistError
from dnn_dist.graph.tflite import read_network

VARIANTS = int(os.environ.get("DNN_DIST_FUZZ", "400"))
SEEDS = sorted(p for p in (*FIXTURES.glob("*.tflite"), *FIXTURES.glob("zoo/*.tflite")) if p.stat().st_size < 120_000)
CUTS = ("tiles:2x3", "tiles:auto", "tiles:2x2b@0..2", "slices:3+1", "bands:2,1", "layers:2", "local@0..1")
WORDS = (0, 1, 2, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x00FFFFFF, 0x40000000)


def flip(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        content[rng.randrange(len(content))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def overwrite(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.choice((1, 2, 4))):
        place = rng.randrange(0, len(content) - 4) & ~3
        struct.pack_into("<I", content, place, rng.choice((*WORDS, len(content), rng.randrange(len(content)))))


def truncate(rng: random.Random, content: bytearray) -> None:
    del content[rng.randrange(len(content)) :]


def drop(rng: random.Random, content: bytearray) -> None:
    start = rng.randrange(len(content))
    del content[start : start + rng.choice((1, 4, 16, 256))]


def splice(rng: random.Random, content: bytearray) -> None:
    """A part of the file over another."""
    size = rng.choice((4, 8, 16, 64, 256))
    source, target = (rng.randrange(max(1, len(content) - size)) & ~3 for _ in range(2))
    content[target : target + size] = content[source : source + size]


def in_the_graph(rng: random.Random, content: bytearray) -> None:
    """Small changes where the tables are, not the weights: at the end, where converters put them."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = len(content) - 1 - int(rng.random() ** 2 * min(len(content) - 9, 20_000))
        content[place] = rng.choice((0, 1, 2, 3, 4, 8, 0x7F, 0x80, 0xFF, rng.randrange(256)))


CHANGES = (flip, overwrite, truncate, drop, splice, in_the_graph, in_the_graph)


def read_and_cut(path) -> None:
    """All that happens before the runtime sees a file."""
    network = read_network(path)
    describe(network)
    for text in CUTS:
        try:
            for stage in cut_network(network, text):
                build_piece(network, stage, stage.pieces[-1])
                if stage.kind == "tiles":
                    stage_memory(network, stage)
        except DnnDistError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("part", range(6))
def test_broken_files_are_one_clear_error(tmp_path, part):
    path = tmp_path / "broken.tflite"
    rng = random.Random(part)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(part, VARIANTS, 6):
        content = bytearray(rng.choice(SEEDS).read_bytes())
        for _ in range(rng.choice((1, 1, 1, 2))):
            rng.choice(CHANGES)(rng, content)
        path.write_bytes(content)
        started = time.monotonic()
        try:
            read_and_cut(path)
        except DnnDistError as error:
            assert "\n" not in str(error)
        except Exception as error:
            kept = tmp_path / f"variant-{number}.tflite"
            kept.write_bytes(content)
            raise AssertionError(f"{kept}: {type(error).__name__}: {error}") from error
        assert time.monotonic() - started < 10, f"variant {number} took that long"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10  # kB
