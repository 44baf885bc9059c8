# SPDX-License-Identifier: Apache-2.0
"""A network between a robot and a server: stages of a front, on the source's own robot, and of a rest, elsewhere.

A stage may have any ops, not only neighbours in the file: what it needs must be made by stages before it, so that each
beginning of the stages is a closed set. With a stage for each path what one path gives is on its way, and the server
goes on with it, while the robot computes the next; the stages' order is that of the paths (plan/paths.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from dnn_dist.cut.layers import last_known
from dnn_dist.cut.local import whole_stage
from dnn_dist.cut.piece import Stage
from dnn_dist.errors import CutError
from dnn_dist.graph.network import Network

SIDES = ("front", "rest")
"""Kinds of these stages, in the order in which they stand in a chain."""

Ranges = tuple[tuple[int, int], ...]
"""Ops as (first, last), both included; none: all that is left, as far as shapes are known."""


def ranges(ops: Iterable[int]) -> Ranges:
    """Ascending numbers of ops as ranges."""
    found: list[tuple[int, int]] = []
    for op in ops:
        if found and found[-1][1] == op - 1:
            found[-1] = found[-1][0], op
        else:
            found.append((op, op))
    return tuple(found)


def side_text(kind: str, ops: Iterable[int]) -> str:
    """The text of such a stage: front@0..5+9..12."""
    return f"{kind}@" + "+".join(str(a) if a == b else f"{a}..{b}" for a, b in ranges(ops))


def cut_sides(network: Network, parts: Sequence[tuple[str, Ranges]], first: int) -> Iterator[Stage]:
    """The stages of a front and a rest that together run all ops from `first` to the last one named.

    Raises CutError when a stage lacks what no stage before it makes, names ops that are not there or named already, or
    when ops between them are left out.
    """
    taken: set[int] = set()
    known = range(first, last_known(network, first) + 1)
    for number, (kind, named) in enumerate(parts):
        before = parts[number - 1][0] if number else kind
        if SIDES.index(kind) < SIDES.index(before):
            raise CutError(f"{kind} after {before}: the server's layers feed nothing on the robot; write front>rest")
        for a, b in named:
            if not first <= a <= b < len(network.ops):
                raise CutError(f"{kind} names ops {a}..{b}; there are {first}..{len(network.ops) - 1} to name here")
        ops = [op for a, b in named for op in range(a, b + 1)] if named else [op for op in known if op not in taken]
        if not ops:
            raise CutError(f"{kind}: the stages before it have all ops; leave it out")
        text = side_text(kind, sorted(ops))
        for op, count in Counter(ops).items():
            if count > 1 or op in taken:
                raise CutError(f"{text[:80]} names op {op} twice")
        taken.update(ops)
        _check_closed(network, text, set(ops), taken, first)
        yield whole_stage(network, kind, text, ops=tuple(sorted(ops)))
    left = [op.index for op in network.ops[first : max(taken) + 1] if not op.folded and op.index not in taken]
    if left:
        raise CutError(f"front and rest leave out ops {side_text('', left)[1:80]}; name them in a stage of either")


def _check_closed(network: Network, text: str, ops: set[int], taken: set[int], first: int) -> None:
    for number in sorted(ops):
        op = network.ops[number]
        for tensor in network.activations(op):
            maker = network.producers.get(tensor, -1)
            if maker >= first and maker not in taken:
                raise CutError(
                    f"{text[:80]}: op {number} {op.kind} reads what op {maker} makes, which no stage has until here; "
                    "name that too, or later"
                )
        whole = {number, *op.inner} if op.part_of is None else {number, op.part_of}
        if not whole <= ops:
            raise CutError(f"{text[:80]} splits ops {sorted(whole)}, which are cut as one; name all of them or none")
