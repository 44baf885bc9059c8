# SPDX-License-Identifier: Apache-2.0
"""MoDNN's biased one-dimensional partition (BODP): row bands, layer by layer, higher for faster robots.

After Mao et al., "MoDNN" (2017), and its description in DeepThings (2018), where it is the baseline. Each layer
that looks beyond its own row (a convolution, a pool) begins a stage; layers that work row by row join it. No
value is computed twice; instead the bands of a layer need rows that other bands made: between two stages these go
straight from robot to robot (feeds.py), or all of them by the aggregator.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnn_dist.cut.piece import Piece, Stage
from dnn_dist.cut.shares import Speeds, least_time
from dnn_dist.cut.tile import tile_piece
from dnn_dist.cut.tiles import NothingToTile, front_end, is_closed
from dnn_dist.cut.walk import walk_tile
from dnn_dist.errors import CutError
from dnn_dist.graph.geometry import Pad
from dnn_dist.graph.network import Network, Op
from dnn_dist.graph.region import Region

_MOST_BANDS = 256


def cut_bands(
    network: Network, speeds: Speeds, text: str, first: int = 0, last: int | None = None
) -> tuple[Stage, ...]:
    """Ops first..last (None: as deep as rows can be told apart) in bands, one stage for each layer.

    Heights are such that robots of these speeds end soonest; a layer with fewer rows than bands has fewer
    pieces. `text` is how the user wrote the speeds. Raises CutError when an op of the range cannot be tiled.
    """
    if len(speeds) > _MOST_BANDS:
        raise CutError(f"bands:{text}: more than {_MOST_BANDS} bands; take fewer")
    if last is None:
        last = front_end(network, first)
        if last is None:
            op = network.ops[first]
            raise NothingToTile(f"nothing can be cut in bands: op {op.index} {op.kind}: {op.reason}")
    for op in network.ops[first : last + 1]:
        if not op.tileable:
            raise CutError(f"op {op.index} {op.kind} cannot be cut in bands: {op.reason}; end the range before it")
    if not is_closed(network, first, last):
        raise CutError(f"@{first}..{last} splits a dilated convolution, which is several ops; inspect names them")
    return tuple(_stage(network, speeds, text, *layer) for layer in layers_of(network, first, last))


def layers_of(network: Network, first: int, last: int) -> tuple[tuple[int, int], ...]:
    """Ranges of ops that bands compute without other bands' rows once they have their input."""
    starts = [first]
    for op in network.ops[first : last + 1]:
        start = min((op.index, *op.inner))  # ops that are cut as one stay in one stage
        begun = [before for before in network.ops[starts[-1] : start] if before.geometry is not None]
        if not _by_rows(network, op) and not all(isinstance(before.geometry, Pad) for before in begun):
            starts.append(start)
    return tuple(zip(starts, [*(start - 1 for start in starts[1:]), last], strict=True))


def _by_rows(network: Network, op: Op) -> bool:
    """Whether each row of the output comes from the same row of the input."""
    if op.geometry is None:
        return True  # a constant's, or part of an op that follows
    output = network.tensors[op.outputs[0]]
    rows = [Region(y, y + 1, 0, output.width) for y in range(output.height)]
    return all((need.input.y0, need.input.y1) == (r.y0, r.y1) for r in rows for need in (op.geometry.need(r),))


def _stage(network: Network, speeds: Speeds, text: str, first: int, last: int) -> Stage:
    outputs = network.live_after(first, last)
    if not outputs:
        raise CutError(f"ops {first}..{last} make nothing that is used; leave them out of the bands (@FIRST..LAST)")
    pieces: list[Piece] = []
    for band in range(len(speeds)):
        wanted = {t: box for t in outputs if not (box := band_of(network, t, speeds, band)).empty}
        if wanted:
            pieces.append(tile_piece(network, len(pieces), walk_tile(network, first, last, wanted)))
    read = {port.tensor for piece in pieces for port in piece.inputs}
    inputs = tuple(t for t in network.live_before(first, last) if t in read)
    return Stage("bands", f"bands:{text}@{first}..{last}", first, last, tuple(pieces), inputs, outputs)


def band_of(network: Network, tensor: int, speeds: Speeds, band: int) -> Region:
    """The rows of a tensor that robot number `band` makes and keeps; may be empty."""
    image = network.tensors[tensor]
    return Region(*least_time(image.height, speeds)[band], 0, image.width)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What bands send one another, through the coordinator, before they can compute a layer."""

    first: int
    last: int
    """Ops of the layer, both included."""
    pushed: tuple[int, ...]
    """Bytes of each band's rows that other bands need; each row once, however many need it."""
    pulled: tuple[int, ...]
    """Bytes of the rows that each band needs and has not made."""


def exchanges(network: Network, speeds: Speeds, first: int, last: int) -> tuple[Exchange, ...]:
    """Of each layer of ops first..last in MoDNN, where every robot keeps the band that it made.

    What the range takes from outside comes from the coordinator and is no exchange: the first layer has none.
    """
    given = network.live_before(first, last)
    robots = range(len(speeds))
    found = []
    for begin, end in layers_of(network, first, last):
        made = {t: [band_of(network, t, speeds, band) for band in robots] for t in network.live_after(begin, end)}
        needs = []
        for band in robots:
            wanted = {t: bands[band] for t, bands in made.items() if not bands[band].empty}
            needs.append(walk_tile(network, begin, end, wanted).inputs)
        pushed, pulled = [0] * len(speeds), [0] * len(speeds)
        for tensor in set().union(*needs) - set(given):
            row_bytes = network.tensors[tensor].bytes // network.tensors[tensor].height
            kept = [_rows(band_of(network, tensor, speeds, band)) for band in robots]
            wanted_rows = [_rows(need[tensor]) if tensor in need else set() for need in needs]
            for band in robots:
                others = set().union(*(rows for other, rows in enumerate(wanted_rows) if other != band))
                pushed[band] += row_bytes * len(kept[band] & others)
                pulled[band] += row_bytes * len(wanted_rows[band] - kept[band])
        found.append(Exchange(begin, end, tuple(pushed), tuple(pulled)))
    return tuple(found)


def exchanged_bytes(network: Network, speeds: Speeds, first: int, last: int) -> int:
    """What MoDNN sends per frame for ops first..last: 2 x input + output + rows pushed and pulled.

    The model's own input comes whole to the coordinator and goes out in bands (DeepThings, section V).
    """
    traffic = 2 * sum(network.tensors[t].bytes for t in network.live_before(first, last))
    traffic += sum(network.tensors[t].bytes for t in network.live_after(first, last))
    layers = exchanges(network, speeds, first, last)
    return traffic + sum(sum(layer.pushed) + sum(layer.pulled) for layer in layers)


def _rows(region: Region) -> set[int]:
    return set() if region.empty else set(range(region.y0, region.y1))
