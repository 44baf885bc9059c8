# SPDX-License-Identifier: Apache-2.0
"""Laws of cost and schedule: shares of ops, measured seconds come back, nobody is used twice at once."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from cutting import FIXTURES
from hypothesis import given, settings
from hypothesis import strategies as st

from dnn_dist.cut.memory import stage_memory
from dnn_dist.cut.spec import cut_network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.cost import PieceLoad, StageLoad, chain_load, op_shares, piece_memory, piece_seconds
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.plan.policy import alike, columns, deal
from dnn_dist.plan.schedule import Site, schedule
from dnn_dist.run.assignment import choose
from dnn_dist.run.fleetview import WorkerView
from dnn_dist.run.lease import Lease
from dnn_dist.run.state import WorkerState
from dnn_dist.run.wire import TaskKey

CHAIN = read_network(FIXTURES / "chain_float32.tflite")
CUTS = ["local", "layers:3", "tiles:2x2", "tiles:3x2@0..4", "bands:3@0..3", "slices:4@3..3", "slices:2+1@5..5"]
PER_OP = tuple(0.001 * (1 + op.index) for op in CHAIN.ops)
MEASURED = Robot("m", 1e6, overhead=0.5, measured={CHAIN.sha256: PER_OP})


@pytest.mark.parametrize("cut", CUTS)
def test_shares_of_an_op_cover_it(cut: str) -> None:
    for stage in cut_network(CHAIN, cut):
        for op in range(stage.first, stage.last + 1):
            shares = [op_shares(CHAIN, stage, piece)[op] for piece in stage.pieces[: stage.needed]]
            assert sum(shares) >= 0.99 or CHAIN.ops[op].kind == "MAX_POOL_2D"
            assert max(shares) <= 1


@pytest.mark.parametrize("cut", CUTS)
def test_measured_or_by_macs(cut: str) -> None:
    by_macs = Robot("r", 2e6, overhead=0.5)
    for stage in cut_network(CHAIN, cut):
        for piece in stage.pieces:
            assert piece_seconds(CHAIN, stage, piece, by_macs) == 0.5 + piece.macs / 2e6
            least = 0.5 + sum(PER_OP[op] * share for op, share in op_shares(CHAIN, stage, piece).items())
            assert piece_seconds(CHAIN, stage, piece, MEASURED) == pytest.approx(least)
    (whole,) = cut_network(CHAIN, "local")
    assert piece_seconds(CHAIN, whole, whole.pieces[0], MEASURED) == pytest.approx(0.5 + sum(PER_OP))


def test_memory_is_that_of_the_tiles_and_slices_divide_weights() -> None:
    tiles = cut_network(CHAIN, "tiles:2x2@0..4")[0]
    assert max(piece_memory(CHAIN, tiles, piece) for piece in tiles.pieces) == stage_memory(CHAIN, tiles).piece
    whole, sliced = (cut_network(CHAIN, cut)[-1] for cut in ("layers:1@6..6", "slices:4@6..6"))
    pieces = [piece_memory(CHAIN, sliced, piece) for piece in sliced.pieces]
    assert max(pieces) < piece_memory(CHAIN, whole, whole.pieces[0])


# The schedule ---------------------------------------------------------------------------------------------------------

LINKS = st.builds(Link, st.floats(1e3, 1e6), st.floats(0, 0.1), medium=st.sampled_from(["", "air"]))
PIECES = st.builds(PieceLoad, st.integers(0, 5000), st.integers(0, 5000), st.tuples(*[st.floats(0.001, 1)] * 3))


@st.composite
def stages(draw: st.DrawFn) -> StageLoad:
    if draw(st.booleans()):
        return StageLoad(True, (draw(PIECES),), 1)
    pieces = tuple(draw(st.lists(PIECES, min_size=1, max_size=6)))
    parity = draw(st.integers(0, min(2, len(pieces) - 1)))
    return StageLoad(False, pieces, len(pieces) - parity, 1 if parity else draw(st.integers(1, 2)))


@st.composite
def chained(draw: st.DrawFn) -> list[StageLoad]:
    """One chain: every piece but the first stage's gets something of pieces before it, and the last are reported."""
    found: list[StageLoad] = []
    count = draw(st.integers(2, 4))
    for number in range(count):
        makers = [(stage, piece) for stage, load in enumerate(found) for piece in range(len(load.pieces))]
        pieces = []
        for _ in range(draw(st.integers(1, 4))):
            drawn = draw(PIECES)
            feeds = draw(st.dictionaries(st.sampled_from(makers), st.integers(1, 5000), min_size=1)) if makers else {}
            given, made = (0 if makers else 1 + drawn.bytes_in), (1 + drawn.bytes_out) * (number == count - 1)
            pieces.append(PieceLoad(given, made, drawn.seconds, draw(st.integers(0, 100)), feeds))
        group = number > 0 and draw(st.booleans())
        found.append(StageLoad(False, tuple(pieces), len(pieces), direct=number > 0, group=group))
    return found


def site(link: Link, workers: int = 3, **own: int) -> Site:
    fleet = Fleet(tuple(Robot(f"r{n}", 4.0 - n) for n in range(3)), (LinkRule((), link),))
    return Site(fleet, "r0", fleet.names[-workers:], **own)


@settings(deadline=None)
@given(st.lists(stages(), min_size=1, max_size=4), LINKS, st.integers(1, 3), st.integers(1, 3))
def test_nobody_works_twice_at_once_and_nothing_is_lost(loads, link, in_work, prefetch) -> None:
    copies = max(load.replicas for load in loads)
    timeline = schedule(loads, site(link, max(2, copies), prefetch=prefetch), 8, in_work)
    assert len(timeline.ended) == 8
    assert all(begun < ended for begun, ended in zip(timeline.begun, timeline.ended, strict=True))
    # who still computes what nobody needs may do so after the end
    surplus = sum(max(piece.seconds) for load in loads for piece in load.pieces) * 3
    assert all(busy <= max(timeline.ended) + surplus for busy in timeline.busy.values())
    for stage, load in enumerate(loads):
        done = {piece for _, of, piece in timeline.runs if of == stage}
        assert len(done) >= load.needed


@settings(deadline=None)
@given(chained(), LINKS, st.integers(1, 3), st.sampled_from([4000, 10**9]))
def test_a_chain_takes_no_less_than_its_bounds_and_computes_every_piece_once(loads, link, in_work, window) -> None:
    frames = 8
    timeline = schedule(loads, site(link, window=window), frames, in_work)
    every = {(stage, piece) for stage, load in enumerate(loads) for piece in range(len(load.pieces))}
    placed = {(stage, piece): robot for robot, stage, piece in timeline.runs}
    assert placed.keys() == every and len(timeline.runs) == len(every)  # each at one robot, the same in all frames
    seconds = {(s, p): loads[s].pieces[p].seconds[robot] for (s, p), robot in placed.items()}
    assert sum(timeline.busy.values()) == pytest.approx(frames * sum(seconds.values()))
    path: dict[tuple[int, int], float] = {}  # s from the frame's beginning that a piece's end takes at least
    for stage, load in enumerate(loads):
        for number, piece in enumerate(load.pieces):
            here = stage, number
            before = (
                path[maker] + (link.seconds(size) if placed[maker] != placed[here] else 0.0)
                for maker, size in piece.feeds.items()
            )
            path[here] = seconds[here] + max(before, default=0.0)
    reported = [path[s, p] for s, load in enumerate(loads) for p, piece in enumerate(load.pieces) if piece.bytes_out]
    assert min(b - a for a, b in zip(timeline.begun, timeline.ended, strict=True)) >= max(reported) * (1 - 1e-9)
    moved = sum(
        size
        for here in every
        for maker, size in loads[here[0]].pieces[here[1]].feeds.items()
        if placed[maker] != placed[here]
    )
    ends = sum(p.bytes_in + p.bytes_out for (s, n), robot in placed.items() if robot for p in [loads[s].pieces[n]])
    assert timeline.traffic == frames * (moved + ends)


@settings(deadline=None)
@given(chained())
def test_a_column_has_one_piece_of_most_stages_and_each_group_its_own(loads) -> None:
    found = columns(loads, range(len(loads)))
    assert set(found.values()) == set(range(len(set(found.values())))), "a column of nothing"
    began = 0  # of the group
    for stage, load in enumerate(loads):
        mine = [found[stage, piece] for piece in range(len(load.pieces))]
        began = stage if load.group else began
        others = {column for (other, _), column in found.items() if other < began}
        assert not others & set(mine), "a robot of one group has what another should compute meanwhile"
        assert max(map(mine.count, mine)) == 1 or len(loads) > 2
        if len(load.pieces) == 1 and stage > began:
            sizes = {column: 0 for (other, _), column in found.items() if began <= other < stage}
            for maker, size in load.pieces[0].feeds.items():
                if maker[0] >= began:
                    sizes[found[maker]] += size
            # Where most is; who gets nothing of its group is a column by itself.
            assert not any(sizes.values()) or sizes[mine[0]] == max(sizes.values())


def test_finer_stages_stay_with_the_columns_that_they_are_cut_of() -> None:
    """Four tiles, two, two, four: each of the two has the halves before it and behind it."""
    fed: list[list[dict[tuple[int, int], int]]] = [
        [{} for _ in range(4)],
        [{(0, 0): 9, (0, 1): 9, (0, 2): 1}, {(0, 1): 1, (0, 2): 9, (0, 3): 9}],
        [{(1, 0): 9, (1, 1): 1}, {(1, 0): 1, (1, 1): 9}],
        [{(2, n // 2): 9, (2, 1 - n // 2): 1} for n in range(4)],
    ]
    pieces = [tuple(PieceLoad(0, 0, (0.1,), 1, feeds) for feeds in stage) for stage in fed]
    stages = [StageLoad(False, load, len(load), direct=number > 0) for number, load in enumerate(pieces)]
    found = columns(stages, range(4))
    assert [found[0, n] for n in range(4)] == [0, 0, 1, 1]
    assert [found[1, n] for n in range(2)] == [0, 1]
    assert [found[3, n] for n in range(4)] == [0, 0, 1, 1]


def test_columns_are_dealt_by_speed_and_equal_ones_to_the_own_robot_first() -> None:
    assert deal(alike([1, 1, 1], [1.0, 1.0, 1.0]), own=1) == (1, 0, 2)
    assert deal(alike([1, 2, 4], [4.0, 1.0, 2.0])) == (1, 2, 0)
    assert deal(alike([3, 3, 3], [10.0, 1.0])) == (0, 0, 0)  # who is much slower is left out
    assert sorted(deal(alike([0, 0], [1.0, 1.0]))) == [0, 1]  # pools have no MACs, and yet take turns


@settings(deadline=None)
@given(st.lists(stages(), min_size=1, max_size=4), LINKS)
def test_one_frame_takes_no_less_than_its_longest_pieces_and_no_more_than_all_in_a_row(loads, link) -> None:
    latency = schedule(loads, site(link)).latency
    copies = max(load.replicas for load in loads)
    fastest = sum(sorted(min(p.seconds) for p in load.pieces)[load.needed - 1] for load in loads)
    pieces = [piece for load in loads for piece in load.pieces]
    in_a_row = sum(max(p.seconds) + 2 * (link.seconds(p.bytes_in) + link.seconds(p.bytes_out)) for p in pieces)
    assert fastest * (1 - 1e-9) <= latency <= 2 * copies * in_a_row + 1e-9


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=1, max_size=5), st.integers(0, 2), st.integers(1, 15))
def test_a_piece_goes_to_whom_the_dispatcher_would_send_it(speeds, prefetch, pieces) -> None:
    names = tuple(f"r{n}" for n in range(len(speeds)))
    views = [
        WorkerView(WorkerState(name, name, 1, 1, room=1 + prefetch, offered_to="s", speeds={("plan", 0): speed}), 0.0)
        for name, speed in zip(names, speeds, strict=True)
    ]
    live = set()
    for piece in range(min(pieces, len(names) * (1 + prefetch))):  # nobody has to wait for room
        key = TaskKey("s", 1, 1, 0, piece)
        view = choose(key, "plan", views, [view.name for view in views if view.room_for("s") > 0])
        assert view is not None
        view.leases[key] = Lease(key, "plan", view.name, 1, view.next_number, 0, 0.0, 1, 0, 0)
        live.add((names.index(view.name), 0, piece))
    robots = tuple(Robot(name, speed) for name, speed in zip(names, speeds, strict=True))
    load = StageLoad(False, (PieceLoad(0, 0, (1.0,) * len(names)),) * len(live), len(live))
    where = Site(Fleet(robots, (LinkRule((), Link(math.inf, 1e-9)),)), "r0", names, prefetch)
    assert schedule([load], where).runs == live


def test_a_default_of_the_nodes_is_the_planners() -> None:
    # In a process of its own: other defaults, from before anything is imported.
    subprocess.run([sys.executable, "-c", OTHER_DEFAULTS], check=True)


OTHER_DEFAULTS = """
import argparse
from dnn_dist.settings import PartitionSettings as P, WorkerSettings as W
P.window, P.wire, P.max_frames, P.fill, P.replicas, W.prefetch, P.redundancy = 123, "int8", 7, "zeros", 2, 5, "always"
from dnn_dist.cli import plan as command
from dnn_dist.plan.plan import Plan
from dnn_dist.plan.predict import Circumstances
from dnn_dist.plan.schedule import Site
site, given, plan = Site(None, "r0", ()), Circumstances(None, "r0"), Plan("", "local")
assert (site.window, site.prefetch, site.redundancy) == (123, 5, "always"), site
assert (given.window, given.prefetch, given.wire, given.max_frames) == (123, 5, "int8", 7), given
assert (plan.fill, plan.wire, plan.replicas) == ("zeros", "int8", 2), plan
command.add_arguments(parser := argparse.ArgumentParser())
args = parser.parse_args(["m", "--fleet", "f"])
assert (args.window, args.wire) == (123, "int8"), args
"""


@given(st.integers(1, 3))
def test_equal_pieces_on_equal_robots_divide_the_time(workers) -> None:
    piece = PieceLoad(0, 0, (1.0, 1.0, 1.0))
    load = StageLoad(False, (piece,) * 6, 6)
    free = Link(math.inf)
    assert schedule([load], site(free, workers)).latency == pytest.approx(6 / workers)


def test_a_shared_medium_takes_turns_and_wires_do_not() -> None:
    piece = PieceLoad(1000, 0, (1.0, 1.0, 1.0))
    load = StageLoad(False, (piece,) * 2, 2)
    for link, latency in ((Link(1000.0), 2.0), (Link(1000.0, medium="air"), 3.0)):
        assert schedule([load], site(link, 2)).latency == pytest.approx(latency)


def test_the_window_holds_back_what_is_too_much_at_once() -> None:
    piece = PieceLoad(1000, 1000, (1.0, 1.0, 1.0))
    load, link = StageLoad(False, (piece,) * 2, 2), Link(math.inf, 1e-9)
    assert schedule([load], site(link, 2, window=4000)).latency == pytest.approx(1.0)
    assert schedule([load], site(link, 2, window=2000)).latency == pytest.approx(2.0)


def test_parity_does_not_wait_for_the_slowest_and_replicas_neither() -> None:
    slices = tuple(PieceLoad(0, 0, (1.0, 1.0, 9.0)) for _ in range(3))
    always = site(Link(math.inf, 1e-9), redundancy="always")
    assert schedule([StageLoad(False, slices, 3)], always).latency == pytest.approx(9.0)
    assert schedule([StageLoad(False, slices, 2)], always).latency == pytest.approx(1.0)
    assert schedule([StageLoad(False, slices[:1], 1, 2)], always).latency == pytest.approx(1.0)


def test_redundancy_on_demand_costs_a_healthy_fleet_nothing() -> None:
    piece, free = PieceLoad(10, 10, (1.0, 1.0, 1.0)), Link(1e3)
    coded, copied = StageLoad(False, (piece,) * 3, 2), StageLoad(False, (piece,) * 2, 2, replicas=2)
    plain = schedule([StageLoad(False, (piece,) * 2, 2)], site(free))
    for load in (coded, copied):
        assert schedule([load], site(free)).traffic == plain.traffic
        assert schedule([load], site(free, redundancy="always")).traffic > plain.traffic


def test_frames_in_work_fill_a_pipeline() -> None:
    piece = PieceLoad(0, 0, (1.0, 1.0, 1.0))
    stages = [StageLoad(False, (piece,), 1)] * 3
    free = Link(math.inf, 1e-9)
    one, three = (schedule(stages, site(free), 24, in_work) for in_work in (1, 3))
    assert one.interval == pytest.approx(3.0)
    assert three.interval == pytest.approx(1.0, rel=0.05)


def test_loads_know_robots_that_compute_alike() -> None:
    stage = cut_network(CHAIN, "tiles:2x2")[0]
    robots = (Robot("a", 1e6), MEASURED, Robot("b", 1e6), Robot("c", 2e6))
    (load,) = chain_load(CHAIN, (stage,), robots)
    for piece, loaded in zip(stage.pieces, load.pieces, strict=True):
        assert loaded.seconds == tuple(piece_seconds(CHAIN, stage, piece, robot) for robot in robots)
    assert chain_load(CHAIN, (stage,), robots, "int8")[0].pieces[0].bytes_out * 4 == load.pieces[0].bytes_out
