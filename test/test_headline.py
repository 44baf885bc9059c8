# SPDX-License-Identifier: Apache-2.0
"""The headline bench without a fleet: which cuts it takes, and what its runs come to."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import midchain
from headline_cases import MODELS, Division, Setting, is_direct, plan_of
from headline_show import rows_of, tables
from medium import Weather

from dnn_dist.cut.spec import cut_network
from dnn_dist.graph.tflite import read_network
from dnn_dist.run.report import Status

SHIPPED = Path(__file__).parents[1] / "models/warehouse_float32.tflite"


def one_run(latency: float, **more: object) -> dict[str, object]:
    """What headline_run.run returns of a run in which nothing was disturbed."""
    measure = {
        "latencies_s": [latency], "latency_s": latency, "glue_s": 0.1, "worked_s": 1.0, "interval_s": latency / 2,
        "air_bytes": 2e6, "resent_bytes": 1e5, "cpu_s": 0.3, "machine_load": 0.4, "statuses": {"complete": 3},
        "recomputed": 0, "filled": 0,
    }  # fmt: skip
    return {"latency": measure, "throughput": measure, "respawns": {}, "same_processes": True, **more}


def case(robots: int, way: str, *runs: dict[str, object]) -> dict[str, object]:
    sums = {"alone_s": 12.0, "bound_s": 12.0 / robots, "piece_macs": 1e9, "work_ratio": 1.0}
    names = {"network": "vgg16", "rate": 60.0, "robots": robots, "way": way, "pace": 1000.0}
    return {**names, "calculated": sums, "runs": list(runs)}


def test_medians_of_runs_against_one_robot_of_the_same_network():
    rows = rows_of([case(1, "local", one_run(10.0)), case(4, "direct", *map(one_run, (2.0, 2.5, 9.0)))])
    assert rows[1]["latency_s"] == 2.5 and rows[1]["latency_spread"] == (2.0, 9.0)
    assert rows[1]["speed_up"] == 4.0  # of the 10 s measured, not of the 12 s calculated
    assert rows[1]["slower_than_paced"] == 1.0 and rows[1]["resent_share"] == pytest.approx(0.05)


def test_a_run_that_failed_is_named_and_counts_for_nothing():
    cases = [case(4, "direct", {"error": "no report"}, one_run(2.0)), case(4, "modnn", {"error": "it broke"})]
    text = "\n".join(tables(cases))
    assert "| 4 | direct | 2.00" in text and "| modnn |" not in text
    assert "vgg16, 4 robots, modnn: it broke" in text


@pytest.mark.parametrize(
    ("cut", "direct"),
    [
        ("tiles:2x3@0..19;tiles:3x4@20..27", False),
        ("tiles:2x3@0..12>tiles:2x3@13..16", True),
        ("bands:4@0..9", True),
        ("bands:4g@0..9", False),
        ("tiles:2x2@0..3;layers:3g", False),
        ("local", False),
    ],
)
def test_which_cuts_send_from_robot_to_robot(cut, direct):
    assert is_direct(cut) is direct


@pytest.mark.parametrize("way", ["local", "stealing", "pipeline", "direct"])
@pytest.mark.parametrize("robots", [1, 3])
def test_ways_that_know_no_network_cut_any(way, robots):
    network = read_network(SHIPPED)
    setting = Setting(network, MODELS["vgg16"], robots, 100.0, Weather())
    division = plan_of(way, setting)
    assert cut_network(network, division.cut)
    assert robots > 1 or division.cut == "local"
    assert way != "stealing" or not is_direct(division.cut)


def report(frame: int, status: Status = Status.COMPLETE, latency: float = 2.0, **more: object) -> dict[str, object]:
    """A report as listen.py prints it."""
    counts = {"recomputed": 0, "decoded": 0, "filled": 0, "workers": {"r2": {"tasks": 1}}}
    return {
        "frame": frame,
        "session": 1,
        "status": status,
        "latency": latency,
        "budget": 3.0,
        "time": 0.0,
        **counts,
        **more,
    }


def test_frames_that_are_reported_once_in_time_and_truly_break_no_law():
    told = midchain.judged([
        report(4), report(5, Status.RECOMPUTED, recomputed=2), report(6, Status.FILLED, recomputed=1, filled=1),
        report(7, latency=3.01),
    ])  # fmt: skip
    assert not any(told[law] for law in midchain.LAWS)
    assert told["frames"] == 4 and told["statuses"] == {"complete": 2, "recomputed": 1, "filled": 1}


@pytest.mark.parametrize(
    ("law", "frames", "reports"),
    [
        ("missing", [5], [report(4), report(6)]),
        ("twice", [4], [report(4), report(5), report(4)]),
        ("late", [4], [report(4, latency=3.1)]),
        ("no_result", [4], [report(4, Status.NO_RESULT)]),
        ("wrong_status", [4], [report(4, Status.COMPLETE, recomputed=1)]),
        ("wrong_status", [4], [report(4, Status.RECOMPUTED)]),
        ("wrong_status", [4], [report(4, Status.RECOMPUTED, recomputed=1, filled=1)]),
    ],
)
def test_a_frame_that_breaks_a_law_is_named(law, frames, reports):
    told = midchain.judged(reports)
    assert {name: told[name] for name in midchain.LAWS if told[name]} == {law: frames}


def test_a_worker_is_back_with_the_first_frame_after_the_one_that_was_hit():
    without = {"workers": {"r3": {"tasks": 2}}}
    assert midchain.back_after([report(1), report(2, **without), report(3)], "r2") == 3
    assert midchain.back_after([report(1), report(2, **without)], "r2") is None


def test_warnings_and_tracebacks_are_counted_by_what_they_are_of():
    log = (
        "[INFO] [1.5] [gateway_r1]: worker joined: worker 'r2' on robot 'r2' joined\n"
        "[WARN] [2.5] [gateway_r1]: worker lost: worker 'r2' is silent since 0.50 s\n"
        "[WARN] [3.5] [gateway_r1]: worker lost: worker 'r3' is silent since 0.50 s\n"
        "Traceback (most recent call last):\n"
    )
    assert midchain.troubles({"gateway_r1": log}) == {"gateway_r1: worker lost": 2, "gateway_r1: traceback": 1}


def test_the_same_plan_on_one_robot_less():
    setting = Setting(read_network(SHIPPED), MODELS["vgg16"], 3, 100.0, Weather())
    fewer, division = midchain.with_fewer(setting, Division("tiles:1x3@0..4", ("r1", "r2", "r3")))
    assert fewer.robots == 2 and division == Division("tiles:1x3@0..4", ("r1", "r2"))
    assert midchain.with_fewer(setting, Division("tiles:1x3@0..4"))[1].workers == ()


def death(victim: str, **more: object) -> dict[str, object]:
    usual = {
        "victim": victim, "moment": 0.5, "frame": 9, "hit_s": 4.0, "status": "complete", "recomputed": 0, "filled": 0,
        "back_frames": 2, "back_s": 3.0, "settled": True, "settled_frames": 5, "latency_s": 2.0, "others_died": [],
    }  # fmt: skip
    return {**usual, **more}


def killed_twice(**more: object) -> dict[str, object]:
    """What midchain.measure returns of two kills."""
    chain = {
        "calm": {"latency_s": 2.0}, "kills": [death("r2"), death("r3")], "respawns": {"worker_r2": 1, "worker_r3": 1},
        "died": [["worker_r2", 7], ["worker_r3", 8]], "judged": midchain.judged([report(1)]), "troubles": {},
        "five": {"after": {"latency_s": 3.0}, "statuses": {"complete": 6}},
    }  # fmt: skip
    found = {"case": {"calculated": {"bound_s": 1.0}}, "chain": {**chain, **more}, "fewer": {"latency_s": 2.9}}
    return found


def missed(found: dict[str, object]) -> set[str]:
    return {what for what, _, _, fine in midchain.lines(found) if fine is False}


def test_figures_of_a_chain_whose_workers_died_stand_beside_their_bars():
    assert not missed(killed_twice())
    assert missed(killed_twice(respawns={"worker_r2": 2, "worker_r3": 1})) == {"respawns"}
    assert missed(killed_twice(kills=[death("r2", back_frames=None, back_s=None), death("r3")])) == {"back in the crew"}
    assert missed(killed_twice(five={"after": {"latency_s": 3.1}, "statuses": {}})) == {
        "killed for good, to started without"
    }
    assert "| r2 | 0.50 | complete | 4.00 |" in "\n".join(midchain.tables(killed_twice()))
