# SPDX-License-Identifier: Apache-2.0
"""The headline bench without a fleet: which cuts it takes, and what its runs come to."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from headline_cases import MODELS, Setting, is_direct, plan_of
from headline_show import rows_of, tables
from medium import Weather

from dnn_dist.cut.spec import cut_network
from dnn_dist.graph.tflite import read_network

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
