# SPDX-License-Identifier: Apache-2.0
"""The dispatch policy, for the dispatcher that runs (run/assignment.py) and for the schedule that predicts it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, TypeVar

from dnn_dist.cut.feeds import Maker

Tie = TypeVar("Tie", str, int)


class FedPiece(Protocol):
    """A piece as load of a chain."""

    @property
    def feeds(self) -> Mapping[Maker, int]:
        """Bytes that it gets of other pieces of its chain."""
        ...


class Grouped(Protocol):
    """A stage of a pipeline."""

    @property
    def group(self) -> bool:
        """Whether it begins a group: other robots compute it than the stages of its chain before it."""
        ...


class FedStage(Grouped, Protocol):
    """A stage as load of a chain."""

    @property
    def pieces(self) -> Sequence[FedPiece]: ...

    @property
    def side(self) -> str:
        """"front" or "rest", between a robot and a server (cut/sides.py); else empty."""
        ...


_SOONER = 1.25  # times as long the homes would take for a piece that is read elsewhere, at least
_IDLE_USES = 256  # a worker's share of some tens of frames


def rank(of_stage: int, load: int, speed: float, tie: Tie) -> tuple[int, int, float, Tie]:
    """Orders the workers that offer room for a piece: the one of the least rank gets it.

    First the fewest pieces of the same stage, so that one death costs as few as can be; then the least loaded; then the
    fastest at the stage. A speed of 0 is not known, and goes first, or nobody would learn that the worker is faster.
    `tie` makes the order strict.
    """
    return of_stage, load, -(speed or math.inf), tie


def in_work(most: int, stages: Sequence[Grouped], alone: int = 1) -> int:
    """Frames in work at once: `most`, or for 0 as many as the plan needs.

    A pipeline has one in each group and one on its way, since more would wait before the slowest group; any other
    plan `alone`.
    """
    others = sum(stage.group for stage in stages)
    return most or (others + 2 if others else alone)


def window_takes(size: int, in_flight: int, window: int) -> bool:
    """Whether a piece of `size` bytes, work and result, may travel beside `in_flight` bytes; one always may."""
    return in_flight == 0 or in_flight + size <= window


def groups(stages: Sequence[Grouped], chain: range) -> tuple[range, ...]:
    """The stages of a chain, group by group: while one group has a frame, the one before it has the next."""
    starts = [number for number in chain if number == chain.start or stages[number].group]
    return tuple(range(start, end) for start, end in zip(starts, [*starts[1:], chain.stop], strict=True))


def idle_uses(forms: int) -> int:
    """After so many uses of its other forms a worker drops one that was not used, of so many that it has ready on
    demand. Its source counts alike, by works; where a worker serves several sources it may drop a form earlier.
    """
    return max(_IDLE_USES, 4 * forms)


def worth_reading(waiting: float, homes: Sequence[tuple[float, float]], other: tuple[float, float]) -> bool:
    """Whether another worker should read the weights of a piece that `homes` have ready: load and speed of each.

    `waiting`: pieces that wait for the homes and come before it; all count as this one. Who reads needs as long for it
    as for computing, and keeps the weights from then on. So it must be done a good deal sooner: seldom where pieces are
    well divided, and soon where a home is slow or has too many. Unknown speeds count as the greatest. Simulated with 25
    tiles on four robots: at 1.25 times sooner workers keep five of nine forms or less and a frame takes no longer than
    with all forms everywhere; at 2 they keep three, and it takes 1.1 times as long.
    """
    most = max(speed for _, speed in (*homes, other)) or 1.0
    at_home = (sum(load for load, _ in homes) + waiting + 1) / sum(speed or most for _, speed in homes)
    load, speed = other
    return at_home >= _SOONER * (load + 2) / (speed or most)


def columns(stages: Sequence[FedStage], chain: range) -> dict[Maker, int]:
    """Which pieces of a chain one worker should have: each piece of the chain -> number of its column.

    Each group has columns of its own.
    """
    found: dict[Maker, int] = {}
    for group in groups(stages, chain):
        before = 1 + max(found.values(), default=-1)
        found.update((maker, before + column) for maker, column in _columns(stages, group).items())
    return found


def _columns(stages: Sequence[FedStage], group: range) -> dict[Maker, int]:
    """Of one group.

    A piece sits where most of its bytes are. A column has one piece of a stage, or one robot would have all tiles of
    what one robot made; who finds no place takes another column or begins one. But where most stages have n pieces
    (those within the group count first) and one has several times n, each of n columns has so many of that: the first
    is on its way while the next is computed. Between a robot and a server the front is one column, the rest another.
    """
    if stages[group.start].side:
        sides = sorted({stages[number].side for number in group})
        return {(number, 0): sides.index(stages[number].side) for number in group}
    levels = [(number, level) for number in group for level in _levels(stages[number], number)]
    counts = [len(level) for _, level in levels]
    usual = max(counts, key=lambda n: (counts[1:-1].count(n), counts.count(n), n))
    found: dict[Maker, int] = {}
    count = 0
    for number, level in levels:
        stage, pieces = stages[number], len(level)
        places = _by_bytes(stage, level, found)
        if places and 1 < pieces == usual < count and count % usual == 0:
            joins = _dealt(places, level, range(count), count // pieces)
            found, count = {maker: joins[column] for maker, column in found.items()}, pieces
            places = _by_bytes(stage, level, found)
        each = pieces // usual if places and count == usual > 1 and pieces % usual == 0 else 1
        swapped = [(column, piece) for piece, column in places]
        taken = _dealt(swapped, range(count if places else 0), level, each)
        for piece in level:
            found[number, piece] = taken.get(piece, count)
            count = max(count, found[number, piece] + 1)
    return found


def _levels(stage: FedStage, number: int) -> list[list[int]]:
    """The pieces of a stage; after the others those that take strips of these (cut/reuse.py)."""
    levels: tuple[list[int], list[int]] = [], []
    for index, piece in enumerate(stage.pieces):
        levels[any(maker[0] == number for maker in piece.feeds)].append(index)
    return [level for level in levels if level]


def _by_bytes(stage: FedStage, level: Sequence[int], found: Mapping[Maker, int]) -> list[tuple[int, int]]:
    """(piece, column) of those of these pieces of a stage that get something of a column, most bytes first."""
    resident: dict[tuple[int, int], int] = {}
    for index in level:
        for maker, size in stage.pieces[index].feeds.items():
            if maker in found:  # else of a group before
                resident[index, found[maker]] = resident.get((index, found[maker]), 0) + size
    return sorted(resident, key=lambda place: (-resident[place], place))


def _dealt(
    pairs: Sequence[tuple[int, int]], hosts: Sequence[int], guests: Sequence[int], each: int
) -> dict[int, int]:
    """Guest -> host: by the order of `pairs` (host, guest), then by number; a host takes `each` guests at most."""
    free = dict.fromkeys(hosts, each)
    found: dict[int, int] = {}
    for host, guest in [*pairs, *((host, guest) for guest in guests for host in hosts)]:
        if free[host] and guest not in found:
            found[guest] = host
            free[host] -= 1
    return found


STAY = 1.1
"""A column moves to a worker that ends so many times sooner: measured speeds are noisy, and who gets pieces that are
new to it may have to read their weights."""


def deal(
    seconds: Sequence[Sequence[float]], own: int | None = None, before: Sequence[int | None] = ()
) -> tuple[int, ...]:
    """The worker of each column, of which it takes `seconds[column][worker]`: greatest first, to whoever ends soonest.

    Where it was `before` a column stays unless another ends much sooner. Of equals to who has the fewest columns, then
    to the source's `own` robot, to which nothing has to be sent.
    """
    workers = range(len(seconds[0]) if seconds else 0)
    columns_of, given, found = [0] * len(workers), [0.0] * len(workers), [0] * len(seconds)
    for column in sorted(range(len(seconds)), key=lambda n: (-min(seconds[n]), n)):
        stays = before[column] if before else None
        ends = [given[n] + seconds[column][n] / (STAY if n == stays else 1.0) for n in workers]
        soonest = min(ends) * (1 + 1e-9)
        worker = min((n for n in workers if ends[n] <= soonest), key=lambda n: (columns_of[n], n != own, n))
        given[worker] += seconds[column][worker]
        columns_of[worker] += 1
        found[column] = worker
    return tuple(found)


def keep_sides(seconds: list[list[float]], sides: Mapping[int, str], own: Collection[int]) -> None:
    """Columns of a front go to the source's `own` workers, those of a rest to others: nobody else ends them ever.

    Where one side has nobody the other does its work too.
    """
    for column, side in sides.items():
        meant = [(worker in own) is (side == "front") for worker in range(len(seconds[column]))]
        if any(meant):
            seconds[column] = [s if here else math.inf for s, here in zip(seconds[column], meant, strict=True)]


def alike(loads: Sequence[float], speeds: Sequence[float]) -> list[list[float]]:
    """Seconds of each column at each worker, where a worker is as fast at all of them."""
    return [[load / speed for speed in speeds] for load in loads]
