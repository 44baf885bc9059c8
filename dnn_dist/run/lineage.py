# SPDX-License-Identifier: Apache-2.0
"""What has to be computed anew when workers of a chain are lost, by lineage: who was fed by whom, backwards.

A piece whose worker died took with it all outputs that it kept. It is computed anew from its inputs: what came with the
work comes again from the source, the rest from makers that still keep it; those that do not are computed anew as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from dnn_dist.cut.feeds import Maker


def needed(
    feeds: Callable[[Maker], Iterable[Maker]], have: Collection[Maker], wanted: Iterable[Maker]
) -> tuple[Maker, ...]:
    """Pieces to be computed so that all of `wanted` are there; those of earlier stages first.

    `feeds`: who gives a piece something. `have`: pieces whose outputs somebody keeps. `wanted`: pieces whose results
    the aggregator lacks; one that is in both has only to be sent again.
    """
    found: set[Maker] = set()
    waiting = [maker for maker in wanted if maker not in have]
    while waiting:
        maker = waiting.pop()
        if maker not in found:
            found.add(maker)
            waiting += [before for before in feeds(maker) if before not in have]
    return tuple(sorted(found))
