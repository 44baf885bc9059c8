# SPDX-License-Identifier: Apache-2.0
"""Laws of the simulator: a run is a function of its scenario, nothing is lost or counted twice, time adds up."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnn_dist.cli.gantt import draw_gantt
from dnn_dist.cli.main import main
from dnn_dist.cut.spec import cut_network
from dnn_dist.graph.tflite import read_network
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.plan.predict import Circumstances, Predictor
from dnn_dist.run.report import Status
from dnn_dist.run.shape import PieceShape, PlanShape, StageShape
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.sim import (
    Fault,
    FaultError,
    Load,
    Outcome,
    Scenario,
    SimulationError,
    Source,
    parse_faults,
    random_faults,
    simulate,
    stages_load,
)
from dnn_dist.sim.agenda import Agenda
from dnn_dist.sim.board import Board
from dnn_dist.sim.processor import Processor

ROOT = Path(__file__).parent.parent
SHARING = DispatcherSettings(mode="sharing")
WIFI = Link(7.5e6, latency=0.002, medium="wifi")


def fleet(count: int, link: Link = WIFI, speed: float = 1e9, spread: float = 0.0) -> Fleet:
    """Robots r1, r2, ... that are all alike."""
    robots = tuple(Robot(f"r{n + 1}", speed, overhead=0.001, idle=1.3, busy=6.5, spread=spread) for n in range(count))
    return Fleet(robots, (LinkRule((), link),))


def shape(
    pieces: int = 9, stages: int = 1, macs: int = 50_000_000, parity: int = 0, local: int = 20_000_000
) -> PlanShape:
    """Equal pieces and a local end."""
    stage = StageShape(False, (PieceShape(40_000, 20_000, macs),) * (pieces + parity), pieces if parity else None)
    return PlanShape((*(stage,) * stages, StageShape(True, (PieceShape(0, 0, local),))))


def digest(outcome: Outcome) -> str:
    """All that came of a run, in a few letters."""
    facts = (outcome.frames, outcome.robots, outcome.links, outcome.trace, outcome.notes, outcome.events)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def troubled(seed: int) -> Scenario:
    """Something of everything: two sources, chaos, loss, delays, spread, parity."""
    robots = fleet(6, replace(WIFI, loss=0.05, gamma=(2.0, 0.001)), spread=0.2)
    sources = tuple(Source(name, Load(shape(parity=1)), rate=3, deadline=0.6, max_frames=2) for name in ("r1", "r4"))
    return Scenario(robots, sources, faults=tuple(random_faults(robots.names, 6.0, seed, 1.0)), seed=seed)


# A run is a function of its scenario


def test_the_same_seed_gives_the_same_run_and_another_another() -> None:
    assert digest(simulate(troubled(3))) == digest(simulate(troubled(3)))
    assert digest(simulate(troubled(3))) != digest(simulate(troubled(4)))


def test_a_run_does_not_depend_on_the_order_of_sets() -> None:
    code = "import sys; sys.path[:0] = {0!r}; from test_sim import *; print(digest(simulate(troubled(5))))"
    command = [sys.executable, "-c", code.format([str(ROOT / "test"), *sys.path])]
    runs = [
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout != ""


@pytest.mark.parametrize("seed", range(4))
def test_coalescing_what_changes_nothing_changes_nothing(seed: int) -> None:
    """Every message by itself, or read when it matters: the same frames end in the same way at the same time."""
    robots = fleet(6, Link(12e6, latency=0.002), spread=0.1)
    sources = tuple(Source(name, Load(shape()), frames=15, max_frames=2, deadline=2.0) for name in ("r1", "r3"))
    faults = parse_faults("kill r2@1.03, restart r2@1.7, slow r5 x3@0.5..1", robots.names) if seed % 2 else ()
    short = simulate(Scenario(robots, sources, faults=faults, seed=seed))
    exact = simulate(Scenario(robots, sources, faults=faults, seed=seed, exact=True))
    assert short.statuses == exact.statuses
    assert short.events < 0.7 * exact.events
    assert math.isclose(sum(short.latencies), sum(exact.latencies), rel_tol=0.03)
    assert math.isclose(short.traffic, exact.traffic, rel_tol=0.03)


# Who takes part


def test_robots_that_the_plan_does_not_name_compute_nothing() -> None:
    plan = replace(shape(), robots=("r1", "r3"))
    outcome = simulate(Scenario(fleet(4), (Source("r1", Load(plan), frames=10),)))
    assert {name for name, use in outcome.robots.items() if use.tasks} == {"r1", "r3"}
    assert outcome.statuses["complete"] == 10
    everybody = simulate(Scenario(fleet(4), (Source("r1", Load(shape()), frames=10),)))
    assert all(use.tasks for use in everybody.robots.values())


# Nothing is lost or counted twice


@given(
    seed=st.integers(0, 1000),
    robots=st.integers(1, 6),
    pieces=st.integers(1, 9),
    stages=st.integers(1, 3),
    parity=st.integers(0, 2),
    rate=st.sampled_from([None, 2.0, 20.0]),
    max_frames=st.integers(1, 3),
    stealing=st.booleans(),
    loss=st.sampled_from([0.0, 0.1]),
    chaos=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_frame_announced_is_reported_once_and_in_time(
    seed: int, robots: int, pieces: int, stages: int, parity: int, rate: float | None, max_frames: int,
    stealing: bool, loss: float, chaos: bool,
) -> None:  # fmt: skip
    them = fleet(robots, replace(WIFI, loss=loss), spread=0.1)
    faults = tuple(random_faults(them.names, 3.0, seed, 0.7)) if chaos else ()
    load = Load(shape(pieces, stages, parity=parity))
    source = Source(
        "r1", load, frames=12, rate=rate, deadline=0.8, max_frames=max_frames,
        dispatcher=DispatcherSettings(mode="stealing" if stealing else "sharing"),
    )
    outcome = simulate(Scenario(them, (source,), faults=faults, seed=seed))
    numbers = [run.report.frame for run in outcome.frames]
    assert sorted(numbers) == list(range(len(numbers)))
    assert outcome.images == 12 == len(numbers) + outcome.dropped
    assert outcome.unreported == 0
    assert all(run.reported <= run.announced + run.report.budget + 1e-4 for run in outcome.frames)
    assert all(run.taken <= run.announced <= run.reported for run in outcome.frames)
    assert all(0 <= use.busy <= outcome.seconds + 1.001 for use in outcome.robots.values())
    by_robot: dict[str, float] = {}
    for span in outcome.trace:
        if span.kind == "task":
            assert span.begin >= by_robot.get(span.robot, 0.0) - 1e-9, "a worker computed two tasks at once"
            by_robot[span.robot] = span.end


@pytest.mark.parametrize("dispatcher", [DispatcherSettings(), SHARING], ids=["stealing", "sharing"])
@pytest.mark.parametrize("robots", [1, 2, 5])
def test_traffic_is_the_shapes_bytes_when_nothing_is_lost(dispatcher: DispatcherSettings, robots: int) -> None:
    load = Load(shape(9, stages=2))
    outcome = simulate(Scenario(fleet(robots), (Source("r1", load, frames=10, dispatcher=dispatcher),)))
    shares = [share for run in outcome.frames for name, share in run.report.workers.items() if name != "r1"]
    assert outcome.tasks == 10 * 18, "each piece is computed once"
    assert outcome.traffic == sum(share.bytes_in + share.bytes_out for share in shares)
    assert outcome.traffic == sum(60_000 * share.tasks for share in shares)
    assert sum(use.sent for use in outcome.robots.values()) == outcome.traffic
    assert sum(use.received for use in outcome.robots.values()) == outcome.traffic
    assert outcome.resent == 0


def test_what_links_lose_is_sent_again() -> None:
    def run(loss: float) -> Outcome:
        return simulate(Scenario(fleet(4, replace(WIFI, loss=loss)), (Source("r1", Load(shape())),)))

    assert run(0.0).resent == 0 < run(0.2).resent
    assert run(0.2).statuses["complete"] == 20
    assert run(0.2).percentile(50) > run(0.0).percentile(50)


# Time is accounted for


def test_a_plan_for_one_robot_takes_the_robots_time() -> None:
    robot = Robot("r1", 2e9, overhead=0.003, idle=1.0, busy=5.0)
    plan = shape(4, stages=2)
    outcome = simulate(Scenario(Fleet((robot,)), (Source("r1", Load(plan), frames=5),)))
    alone = sum(0.003 + piece.macs / 2e9 for stage in plan.stages for piece in stage.pieces)
    assert outcome.latencies == pytest.approx([alone] * 5)
    assert outcome.robots["r1"].busy == pytest.approx(5 * alone)
    assert outcome.seconds == pytest.approx(5 * alone)
    assert outcome.energy == pytest.approx(5 * alone * 5.0)
    assert outcome.traffic == 0


def test_seconds_of_a_piece_may_be_any_function() -> None:
    load = Load(shape(2), lambda robot, stage, piece: 0.25 if stage == 0 else 0.1)
    assert simulate(Scenario(fleet(1), (Source("r1", load, frames=3),))).latencies == pytest.approx([0.6] * 3)


def test_a_faster_fleet_loses_no_work_and_computes_half_as_long() -> None:
    load = Load(shape(8), lambda robot, stage, piece: 1e8 / robot.speed)
    slow, fast = (
        simulate(Scenario(fleet(4, Link(math.inf), speed), (Source("r1", load, frames=10),))) for speed in (1e9, 2e9)
    )
    assert slow.statuses == fast.statuses and fast.statuses["complete"] == 10
    busy = [sum(use.busy for use in outcome.robots.values()) for outcome in (slow, fast)]
    assert busy[0] == pytest.approx(2 * busy[1])
    assert fast.seconds < 0.6 * slow.seconds


def test_more_robots_are_faster_until_the_medium_is_full() -> None:
    medians = [simulate(Scenario(fleet(n), (Source("r1", Load(shape())),))).percentile(50) for n in (1, 2, 4)]
    assert medians[0] > 1.5 * medians[1] > 1.5 * medians[2]
    narrow = replace(WIFI, bandwidth=2e5)
    full = simulate(Scenario(fleet(8, narrow), (Source("r1", Load(shape())),)))
    assert full.seconds >= full.traffic / narrow.bandwidth, "one message at a time on a medium"


def test_own_wires_carry_side_by_side() -> None:
    """Eight pieces to eight robots at once: a medium of their own needs an eighth of the time of a shared one."""
    load = Load(shape(8), lambda robot, stage, piece: 0.0)
    outcomes = [
        simulate(
            Scenario(fleet(9, Link(1e5, medium=medium)), (Source("r1", load, frames=1),), workers=fleet(9).names[1:])
        )
        for medium in ("air", "")
    ]
    assert outcomes[0].percentile(50) == pytest.approx(8 * 60_000 / 1e5, rel=0.02)
    assert outcomes[1].percentile(50) == pytest.approx(60_000 / 1e5, rel=0.02)


def test_jobs_share_a_processor() -> None:
    agenda = Agenda()
    processor, ended = Processor(agenda), {}
    for name, seconds in (("short", 1.0), ("long", 3.0)):
        processor.start(seconds, lambda name=name: ended.update({name: agenda.now}))
    agenda.run(100.0)
    assert ended == {"short": pytest.approx(2.0), "long": pytest.approx(4.0)}
    assert processor.busy == pytest.approx(4.0)


def test_a_slow_processor_takes_longer_and_a_frozen_job_waits() -> None:
    agenda = Agenda()
    processor, ended = Processor(agenda), []
    job = processor.start(3.0, lambda: ended.append(agenda.now))
    for at, what, value in ((1, processor.slow, 5.0), (6, processor.slow, 1.0)):
        agenda.at(at, what, value)
    agenda.at(6.5, processor.freeze, job, True)
    agenda.at(8.5, processor.freeze, job, False)
    agenda.run(100.0)
    assert ended == [pytest.approx(9.0)]  # 1 s, 5 s at a fifth, 0.5 s, 2 s frozen, 0.5 s
    assert processor.busy == pytest.approx(7.0)


def test_spread_keeps_the_mean() -> None:
    load = Load(shape(1), lambda robot, stage, piece: 0.1)
    outcome = simulate(Scenario(fleet(1, spread=0.3), (Source("r1", load, frames=400),), trace=1000))
    times = [span.end - span.begin for span in outcome.trace]
    mean = sum(times) / len(times)
    deviation = math.sqrt(sum((time - mean) ** 2 for time in times) / len(times))
    assert mean == pytest.approx(0.1, rel=0.05)
    assert deviation / mean == pytest.approx(0.3, rel=0.2)


# Sources


def test_the_newest_image_waits_and_older_ones_are_dropped() -> None:
    """One frame takes 1 s, images come ten a second: each frame is of an image not older than a period."""
    load = Load(PlanShape((shape(1).stages[0], StageShape(True, ()))), lambda robot, stage, piece: 1.0)
    outcome = simulate(Scenario(fleet(1), (Source("r1", load, frames=40, rate=10.0),)))
    assert outcome.dropped == 40 - len(outcome.frames) > 30
    assert all(run.announced - run.taken <= 0.1 + 1e-3 for run in outcome.frames)


def test_frames_in_work_overlap_up_to_max_frames() -> None:
    one, two = (
        simulate(Scenario(fleet(4), (Source("r1", Load(shape(4, stages=3)), max_frames=many),))) for many in (1, 2)
    )
    assert two.throughput > 1.2 * one.throughput
    for outcome, most in ((one, 1), (two, 2)):
        for run in outcome.frames:
            others = [other for other in outcome.frames if other.announced <= run.announced < other.reported - 1e-9]
            assert len(others) <= most


def test_a_source_that_idles_lends_its_worker() -> None:
    """The robot of an idle source computes for the other; its own frames come first."""
    load = Load(shape())
    busy = Source("r1", load, frames=20)
    alone = simulate(Scenario(fleet(2), (busy,), workers=("r1",)))
    shared = simulate(Scenario(fleet(2), (busy, Source("r2", load, frames=1, start=2.0))))
    assert len(shared.of("r1")) / shared.of("r1")[-1].reported > 1.6 * alone.throughput
    assert shared.robots["r2"].tasks > 60


def test_camera_and_aggregator_may_be_elsewhere() -> None:
    robots, load = fleet(4), Load(shape())
    apart = simulate(Scenario(robots, (Source("r1", load, aggregator="r4"),), workers=("r1", "r2", "r3")))
    assert apart.statuses["complete"] == 20
    assert apart.links["r1", "r4"].bytes == 20_000 * apart.robots["r1"].tasks, "results of the camera's own robot"
    assert apart.robots["r4"].tasks == 0 < apart.robots["r4"].busy
    sent = simulate(Scenario(robots, (Source("r4", load, camera="r1", image_bytes=500_000),), workers=("r1", "r2")))
    assert sent.links["r1", "r4"].bytes == 20 * 500_000 + 20_000 * sent.robots["r1"].tasks


# Faults


def test_a_killed_worker_costs_time_and_no_frame() -> None:
    robots = fleet(4)
    faults = parse_faults("kill r2@0.51, restart r2@2", robots.names)
    source = Source("r1", Load(shape()), frames=30, deadline=2.0)
    outcome = simulate(Scenario(robots, (source,), faults=faults))
    assert outcome.statuses["complete"] + outcome.statuses["recomputed"] == 30
    assert outcome.statuses["recomputed"] >= 1
    dead = [span for span in outcome.trace if span.robot == "r2" and 0.51 < span.end < 2.0]
    assert not dead and any(span.robot == "r2" and span.begin > 2.0 for span in outcome.trace)


def test_without_workers_frames_end_at_their_deadline() -> None:
    robots = fleet(2)
    faults = parse_faults("kill r1@0, kill r2@0", robots.names)
    outcome = simulate(Scenario(robots, (Source("r1", Load(shape()), frames=3, deadline=0.5),), faults=faults))
    assert outcome.statuses["no_result"] == 3
    assert outcome.seconds == pytest.approx(1.5, abs=0.05)
    assert math.isnan(outcome.percentile(50)) and outcome.throughput == 0


def test_without_a_deadline_the_limit_ends_a_run() -> None:
    robots = fleet(1)
    scenario = Scenario(robots, (Source("r1", Load(shape())),), faults=parse_faults("kill r1@0", robots.names), limit=5)
    assert simulate(scenario).unreported == 1


def test_a_local_stage_that_was_too_late_once_gets_its_time() -> None:
    """Nothing is known of its length at first, so the first frame waits too long for a dead robot's pieces."""
    robots = fleet(3)
    faults = parse_faults("kill r2@0.05, kill r3@0.05", robots.names)
    source = Source("r1", Load(shape(12, local=60_000_000)), frames=6, deadline=0.35)
    outcome = simulate(Scenario(robots, (source,), faults=faults, seed=1))
    assert [run.report.status for run in outcome.frames][2:] == [Status.FILLED] * 4


def test_parity_hides_a_slow_robot() -> None:
    def slowest(parity: int) -> float:
        robots = fleet(5, Link(math.inf))
        faults = parse_faults("slow r5 x8@0..1000", robots.names)
        load = Load(shape(5 - parity, macs=100_000_000, parity=parity))
        equal = DispatcherSettings(mode="sharing", shares=tuple((name, 1.0) for name in robots.names))
        source = Source("r1", load, dispatcher=equal)
        return simulate(Scenario(robots, (source,), faults=faults)).percentile(99)

    assert slowest(0) > 2 * slowest(1)


def test_faults_are_read_as_written() -> None:
    text = "kill r2@3.0, restart r2 @ 5,slow r3 x5@2..6 , stop r1@1, go r1@2.5, link r1 r3 x0@2.2..7"
    assert parse_faults(text, ("r1", "r2", "r3")) == (
        Fault(1.0, "stop", "r1"),
        Fault(2.0, "slow", "r3", 5.0),
        Fault(2.2, "link", "r1", 0.0, "r3"),
        Fault(2.5, "go", "r1"),
        Fault(3.0, "kill", "r2"),
        Fault(5.0, "restart", "r2"),
        Fault(6.0, "slow", "r3"),
        Fault(7.0, "link", "r1", other="r3"),
    )
    assert parse_faults("", ("r1",)) == ()
    assert parse_faults("chaos:3", ("r1", "r2"), 30.0) == parse_faults("chaos:3", ("r1", "r2"), 30.0) != ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kill r9@3", "no robot 'r9'"),
        ("kil r1@3", "not understood"),
        ("kill r1", "not understood"),
        ("slow r1 x0@1..2", "factor above 0"),
        ("slow r1 x2@2..1", "a time that passes"),
        ("link r1 r1 x0@1..2", "two robots"),
        ("link r1 r3 x0@1..2", "no robot 'r3'"),
    ],
)
def test_faults_that_are_wrong_say_so_in_one_line(text: str, says: str) -> None:
    with pytest.raises(FaultError, match=says) as error:
        parse_faults(text, ("r1", "r2"))
    assert "\n" not in str(error.value)


@given(st.text(max_size=40))
def test_any_text_is_faults_or_an_error(text: str) -> None:
    with contextlib.suppress(FaultError):
        parse_faults(text, ("r1",))


# Values


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"robot": "r9"}, "no robot 'r9'"),
        ({"workers": ("r7",)}, "no robot 'r7'"),
        ({"frames": 0}, "frames is 0"),
        ({"rate": 0.0}, "rate is 0"),
    ],
)
def test_scenarios_that_cannot_be_say_so(change: dict[str, object], says: str) -> None:
    with pytest.raises(SimulationError, match=says):
        Scenario(fleet(2), (replace(Source("r1", Load(shape())), **change),))


def test_a_board_shows_the_newest_that_has_arrived() -> None:
    board = Board()
    for time, text in ((1.0, "a"), (2.0, "b"), (3.0, "c")):
        board.put(time, text)
    assert board.read(0, 0.5, 2.6) == (2, "b", 3.5)
    assert board.read(2, 0.5, 2.6) == (2, None, 3.5)
    assert board.read(2, 0.5, 9.0) == (3, "c", math.inf)


# Command


def test_the_command_simulates_a_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["simulate", "tiles:3x3", "--fleet", str(ROOT / "config/fleets/six_pi3.yaml"), "--frames", "6"]
    words += ["--model", str(ROOT / "models/warehouse_float32.tflite")]
    assert main([*words, "--faults", "kill pi2@0.2, restart pi2@0.6", "--deadline", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["frames"] == 6 == told["statuses"]["complete"] + told["statuses"]["recomputed"]
    assert told["latency"]["p50"] > 0 and told["traffic"] > 0 and told["energy"] > 0
    assert main([*words, "--mode", "sharing", "--sources", "pi1,pi2"]) == 0
    table = capsys.readouterr().out
    assert "12 complete" in table and "pi6" in table and "J a frame" in table
    assert main([*words, "--faults", "kill pi9@1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "did you mean" in error


@pytest.mark.parametrize("cut", ["local", "bands:3", "slices:2+1@0..4", "layers:3", "tiles:2x2@0..10;slices:3+1"])
def test_every_kind_of_cut_runs_and_comes_near_what_the_planner_predicts(cut: str) -> None:
    network = read_network(ROOT / "models/warehouse_float32.tflite")
    robots = fleet(4, Link(100e6, latency=0.0005))
    stages = cut_network(network, cut)
    source = Source("r1", stages_load(network, stages), frames=8, max_frames=1)
    outcome = simulate(Scenario(robots, (source,)))
    assert outcome.statuses["complete"] + outcome.statuses["decoded"] == 8
    predicted = Predictor(network, Circumstances(robots, "r1", max_frames=1))(stages, robots.names)
    assert outcome.percentile(50) == pytest.approx(predicted.latency, rel=0.3)
    assert max(use.memory for use in outcome.robots.values()) > 0


def test_the_chart_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_gantt(simulate(troubled(1)), tmp_path / "gantt.png")
    assert (tmp_path / "gantt.png").read_bytes().startswith(b"\x89PNG")


def test_the_pages_command_draws_its_chart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("matplotlib.image")
    text = (ROOT / "doc/planning.md").read_text()
    (command,) = re.findall(r"^dnn_dist (simulate (?:.*\\\n)?.* -o) gantt\.png$", text, re.MULTILINE)
    monkeypatch.chdir(ROOT)
    assert main([*shlex.split(command.replace("\\\n", " ")), str(tmp_path / "gantt.png")]) == 0
    drawn, shown = image.imread(tmp_path / "gantt.png"), image.imread(ROOT / "doc" / "gantt.png")
    assert drawn.shape == shown.shape and abs(drawn - shown).mean() < 0.01, "fonts may differ, bars may not"
