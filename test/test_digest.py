# SPDX-License-Identifier: Apache-2.0
"""The digest of derived pieces: the same everywhere for the same pieces, another one for any other."""

import hashlib
import os
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace

import pytest
from cutting import FIXTURES

from dnn_dist.cut import digest as digest_module
from dnn_dist.cut.build import build_piece
from dnn_dist.cut.digest import pieces_digest
from dnn_dist.cut.spec import cut_network
from dnn_dist.graph.region import Region
from dnn_dist.graph.tflite import read_network
from dnn_dist.shipped import find_model

# What robots with this version derive: (digest of the pieces, hash of their files). A change of either means that
# robots with the code before and after it do not work together. If only the second one changes, or how results are
# merged, raise `digest.PIECES`, for then the first has to.
GOLDEN = {
    ("warehouse_float32", "tiles:2x2@0..10"): ("b88487a16b42752a", "552000d1bbfe8905"),
    ("warehouse_float32", "tiles:3x3b@0..4;tiles:2x3@5..10"): ("270ec47d3644f755", "fba8daba80766a87"),
    ("warehouse_float32", "bands:3@0..6;layers:2"): ("fb28d7d3fcd11dbe", "b127f1300ee28a9f"),
    ("warehouse_float32", "slices:3+1"): ("6040d19a1d86b338", "1ff74038242c8704"),
    ("warehouse_int8", "tiles:2x2@0..10"): ("25e114fec7733982", "c0da1c346bbd3cf7"),
    ("warehouse_int8", "slices:2,1,1+2"): ("fdda767f2e1c099d", "849daed8ee9c8bdd"),
    ("warehouse_int8", "local"): ("d519ade090eee445", "addd46e143b28706"),
}


def of(name: str, cut: str) -> tuple[str, str]:
    network = read_network(find_model(f"{name}.tflite"))
    stages = cut_network(network, cut)
    files = hashlib.sha256()
    for stage in stages:
        for piece in {piece.form: piece for piece in reversed(stage.pieces)}.values():
            files.update(build_piece(network, stage, piece))
    return pieces_digest(network, stages), files.hexdigest()[:16]


@pytest.mark.parametrize(("name", "cut"), GOLDEN)
def test_shipped_models_give_the_pieces_they_always_gave(name, cut):
    assert of(name, cut) == GOLDEN[name, cut]


def test_every_plan_has_a_digest_of_its_own():
    assert len({digest for digest, _ in GOLDEN.values()}) == len(GOLDEN)


def test_it_does_not_depend_on_the_process():
    """Nor on the order of sets there."""
    program = (
        "import sys; from dnn_dist.cut.digest import pieces_digest; from dnn_dist.cut.spec import cut_network; "
        "from dnn_dist.graph.tflite import read_network; n = read_network(sys.argv[1]); "
        "print(*(pieces_digest(n, cut_network(n, cut)) for cut in sys.argv[2:]))"
    )
    path = FIXTURES / "residual_int8.tflite"
    cuts = ("tiles:3x3", "bands:4", "slices:3+2", "layers:3", "tiles:auto")
    network = read_network(path)
    here = [pieces_digest(network, cut_network(network, cut)) for cut in cuts]
    for seed in ("0", "1", "4711"):
        there = subprocess.run(
            [sys.executable, "-c", program, str(path), *cuts],
            env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert there.stdout.split() == here


def test_it_does_not_depend_on_where_the_model_lies(tmp_path):
    path = tmp_path / "other.tflite"
    path.write_bytes((FIXTURES / "chain_int8.tflite").read_bytes())
    networks = [read_network(p) for p in (path, FIXTURES / "chain_int8.tflite")]
    assert len({pieces_digest(n, cut_network(n, "tiles:2x2")) for n in networks}) == 1


def changes(value):
    """Every value that differs from this dataclass in one field, at any depth."""
    for field in fields(value):
        old = getattr(value, field.name)
        for new in other(old):
            yield replace(value, **{field.name: new})


def other(old):
    if is_dataclass(old):
        yield from changes(old)
    elif isinstance(old, tuple):
        yield (*old, *(old[-1:] or (0,)))
        for place, entry in enumerate(old):
            for new in other(entry):
                yield (*old[:place], new, *old[place + 1 :])
    elif isinstance(old, int):
        yield old + 1
    elif isinstance(old, str):
        yield f"{old}x"
    else:
        assert old is None
        yield Region(0, 1, 0, 1)


def test_any_field_of_a_port_a_piece_or_a_stage_counts(monkeypatch):
    network = read_network(FIXTURES / "residual_int8.tflite")
    tiles, *_ = cut_network(network, "tiles:2x1@0..2")
    coded = next(stage for stage in cut_network(network, "slices:2+1@0;local") if stage.coded)
    stages = (tiles, coded)
    seen = {pieces_digest(network, stages)}
    count = 1
    for number, stage in enumerate(stages):
        for changed in changes(stage):
            if changed.kind in ("tiles", "slices"):
                seen.add(pieces_digest(network, (*stages[:number], changed, *stages[number + 1 :])))
                count += 1
    assert len(seen) == count > 100
    assert pieces_digest(network, (coded, tiles)) not in seen
    assert pieces_digest(read_network(FIXTURES / "residual_float32.tflite"), stages) not in seen
    monkeypatch.setattr(digest_module, "PIECES", 0)
    assert pieces_digest(network, stages) not in seen
