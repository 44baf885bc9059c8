# SPDX-License-Identifier: Apache-2.0
"""Published figures that come out: the numbers of bench/figures, without their pictures."""

import csv
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench" / "figures"))
import all as figures
import cdc_arrivals
import cdc_coverage
import cdc_stragglers
import deepthings_latency
import deepthings_memory
import deepthings_traffic
import edge_centric
import pipeline_throughput
import published
import robot_server
import testbed
from figure import write_rows
from networks import NETWORKS
from wifi_delays import MESSAGE

from dnn_dist.cut.spec import cut_network
from dnn_dist.sim.loads import stages_load

ROOT = Path(__file__).parents[1]


def test_memory_within_one_percent():
    for row in deepthings_memory.savings():
        assert row["saving"] == pytest.approx(row["published"], abs=0.01), row


def test_memory_of_layers_is_in_order():
    """Every cut saves in every layer, more tiles save more."""
    for row in deepthings_memory.layers():
        assert row["tiles:5x5_mib"] < row["tiles:3x3_mib"] < row["whole_mib"] and row["bands:4_mib"] < row["whole_mib"]


def test_traffic_of_modnn_and_sharing_within_three_percent():
    assert deepthings_traffic.modnn() == pytest.approx(published.MODNN_TRAFFIC_MIB, rel=0.03)
    for grid, mib in published.SHARING_TRAFFIC_MIB.items():
        assert deepthings_traffic.sharing(grid) == pytest.approx(mib, rel=0.03)


def test_modnn_in_the_simulator_sends_what_its_formula_says():
    for devices in (1, 2, 6):
        sent = testbed.run(testbed.testbed(), [testbed.source("MoDNN", "3x3", devices, frames=1)]).traffic
        assert sent / 2**20 == pytest.approx(deepthings_traffic.modnn()[devices - 1], rel=1e-6)


def test_traffic_of_stealing_has_order_and_shape():
    """The published order at every number of devices, growth that slows, and no point far off."""
    curves = {grid: deepthings_traffic.stealing(grid) for grid in published.STEALING_TRAFFIC_MIB}
    for grid, curve in curves.items():
        assert curve == pytest.approx(published.STEALING_TRAFFIC_MIB[grid], rel=0.15)
        assert all(less <= more * 1.02 for less, more in pairwise(curve))
        assert curve[1] - curve[0] > curve[2] - curve[1] > curve[5] - curve[4]
        assert all(mib < deepthings_traffic.sharing(grid) for mib in curve)
    assert all(a <= b for a, b in zip(curves["3x3"], curves["5x5"], strict=True))
    assert all(a < b for a, b in zip(curves["3x3"], published.MODNN_TRAFFIC_MIB, strict=True))


def test_reuse_in_the_memory_bound_case():
    """Many tiles on few robots: 1.28 times the work instead of 2.20; what each layer of a piece costs besides stays."""
    for devices in (1, 2):
        without, with_ = (testbed.latency(testbed.testbed(), "stealing", grid, devices) for grid in ("5x5", "5x5r"))
        assert with_ <= 0.65 * without, devices


def test_the_first_layers_have_the_published_share_of_memory_and_less_of_the_macs():
    """The paper says "more than 49 %" of the computation; by MACs it is less."""
    shares = {row["of"]: row["share"] for row in deepthings_memory.shares()}
    assert shares["memory"] == pytest.approx(published.FIRST16_SHARES["memory"], abs=0.002)
    assert shares["computation"] == pytest.approx(13.000 / 31.469, abs=0.001)


@pytest.fixture(scope="module")
def latencies():
    return deepthings_latency.tables()


def test_who_is_fastest_at_every_number_of_devices(latencies):
    """Fitted is stealing alone: where the others stand is held out."""
    for devices in published.DEVICES:
        here = [row for row in latencies[""] if row["devices"] == devices and "reuse" not in row["curve"]]
        by_ours, by_theirs = (sorted(here, key=lambda row: row[key]) for key in ("seconds", "published_s"))
        assert [row["curve"] for row in by_ours] == [row["curve"] for row in by_theirs], devices


def test_how_far_fitted_and_held_out_curves_are_off(latencies):
    off = {row["curve"]: row for row in latencies["deviations"]}
    assert [curve for curve, row in off.items() if not row["held_out"]] == [testbed.FITTED]
    assert off[testbed.FITTED]["rms"] < 0.04
    assert off["MoDNN"]["rms"] < 0.08 and off["sharing 3x3"]["rms"] < 0.06
    assert max(row["rms"] for row in off.values()) < 0.2, "those with reuse"


def test_reuse_saves_as_published(latencies):
    """On one device, where the channel has no part: to one twentieth."""
    one = {row["curve"]: row for row in latencies[""] if row["devices"] == 1}
    ours, theirs = (
        one["stealing and reuse 3x3"][key] / one["stealing 3x3"][key] for key in ("seconds", "published_s")
    )
    assert ours == pytest.approx(theirs, rel=0.05)


def test_coverage_is_the_published_table():
    rows = cdc_coverage.curves()
    assert len(rows) == 49
    for row in rows:
        digits = 1 if row["published"] % 1 else 0  # as many as the paper prints
        assert abs(row["coverage"] - row["published"]) <= 0.5 * 10**-digits + 1e-9, row
    assert [row["extras"] for row in cdc_coverage.full_coverage()] == [5, 4, 8, 6, 7, 5, 9, 5, 9, 5]


def test_arrivals_within_the_published_times():
    seconds = cdc_arrivals.arrivals(frames=800)
    for limit, share in published.ARRIVALS.items():
        assert (seconds <= limit).mean() == pytest.approx(share, abs=0.035)


def test_a_parity_saves_the_wait_for_the_last():
    plain, coded = (cdc_stragglers.latency(4, parity, MESSAGE, frames=60) for parity in (0, 1))
    assert coded < 0.95 * plain


def test_a_failure_costs_an_uncoded_cluster_its_detection_and_a_coded_one_next_to_nothing():
    import cdc_failure

    plain, coded = ({moment: s.mean() for moment, s in cdc_failure.latencies(n, runs=8).items()} for n in (0, 1))
    assert plain["hit"] > 1.2 * plain["before"] and plain["after"] > 1.05 * plain["before"]
    assert coded["hit"] < plain["before"] and coded["after"] < plain["before"]


def test_shares_by_quality_name_more_digits_than_even_ones():
    """Show of issue 14: 20 pairs, whichever links are the slow ones."""
    pytest.importorskip("sklearn")
    import nos_accuracy

    networks = [nos_accuracy.trained(seed) for seed in range(nos_accuracy.SEEDS)]
    for links in nos_accuracy.LINKS:
        *tight, loose = nos_accuracy.compared(networks, links, rhos=(0.2, 0.25, 0.4, 1.0))
        assert all(row["gain"] - row["margin"] > 0 and "published_optimised" in row for row in tight)
        assert abs(loose["gain"]) < 0.003


def test_one_device_takes_as_long_as_all_layers():
    one = pipeline_throughput.pipeline("alexnet", 1)
    assert one == pytest.approx(1 / sum(pipeline_throughput.layer_seconds("alexnet")), rel=0.01)


@pytest.mark.parametrize("devices", [2, 10])
@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_a_pipeline_gives_as_many_frames_as_its_slowest_stage(name, devices):
    network = NETWORKS[name]()
    stages = cut_network(network, f"layers:{devices}")
    load, (robot, *_) = stages_load(network, stages), pipeline_throughput.fleet(name, devices).robots
    slowest = max(load.time(robot, number, 0) for number in range(len(stages)))
    assert pipeline_throughput.throughput(name, devices, stages) == pytest.approx(1 / slowest, rel=0.1)


def test_robot_and_server_are_the_published_table():
    """LO and RO are what the profile is fitted to; EJ is not, and nothing is later than what it contains."""
    pytest.importorskip("networkx")
    rows, errors = robot_server.table(), []
    assert len(rows) == 75
    for name in robot_server.NETWORKS:
        for link in published.LINKS:
            cell = {row["method"]: row for row in rows if (row["network"], row["link"]) == (name, link)}
            for method in ("LO", "RO"):
                assert cell[method]["ms"] == pytest.approx(cell[method]["published"], rel=0.02)
            times = [cell[method]["ms"] for method in ("best", "EJ")]
            times.append(min(cell[method]["ms"] for method in ("LO", "RO", "DSL")))
            assert all(sooner <= later * (1 + 1e-9) for sooner, later in pairwise(times)), cell
            errors.append(abs(cell["EJ"]["ms"] / cell["EJ"]["published"] - 1))
    assert len(errors) == 15 and median(errors) <= 0.1
    divided = [error for error in errors if error > 1e-9]  # EJ of the others is LO or RO, and so fitted
    assert len(divided) == 10 and median(divided) <= 0.1


def test_one_server_time_and_three_rates_meet_ro_nearly():
    off = sorted(abs(row["ro_deviation"]) for row in robot_server.fitted())
    assert off[-2] < 0.025 and off[-1] < 0.06
    assert [row["rate_deviation"] for row in robot_server.fitted()] == pytest.approx([0] * 15, abs=0.065)


def test_orders_of_the_papers_paths():
    best, second, *_, worst = robot_server.orders()
    assert best == {"order": " ".join(map(str, published.PATHS_ORDER)), "s": published.PATHS_S, "ej": True}
    assert second["s"] == 19 and worst["s"] == 22 and len(robot_server.orders()) == 24
    (counter,) = robot_server.counter_example()
    assert (counter["ej_s"], counter["best_s"]) == (184, 109) and counter["ratio"] > published.EJ_RATIO


def test_eight_devices_of_the_edge_centric_framework():
    alone, eight = edge_centric.rates(1, rounds=1), edge_centric.rates(8, rounds=1)
    assert list(alone.values()) == pytest.approx([1 / published.YOLOV3_ONE_S] * 3, rel=0.02)
    assert list(eight.values()) == pytest.approx([published.YOLOV3_EIGHT] * 3, rel=0.06)
    assert eight[edge_centric.EXACT] >= eight[edge_centric.GREEDY] * (1 - 1e-9)


def test_lost_slices_cost_accuracy_and_parities_prevent_it():
    import cdc_accuracy

    curves: dict[str, list[float]] = {}
    for row in cdc_accuracy.detector(scenes=6, layers={cdc_accuracy.CODED: "6th"}):
        curves.setdefault(row["curve"], []).append(row["accuracy"])
    plain, one, three = curves["6th"], curves["6th, 8 + 1"], curves["6th, 8 + 3"]
    assert plain[0] > 0.9 and plain[8] == 0 and plain[4] < 0.8 * plain[0]
    assert one[0] == one[1] == plain[0] and three[:4] == [plain[0]] * 4


def test_lost_slices_of_a_digit_classifier():
    pytest.importorskip("sklearn")
    import cdc_accuracy

    rows = cdc_accuracy.classifier()
    plain = [row["accuracy"] for row in rows if row["curve"] == "hidden layer"]
    assert plain[0] > 0.95 and plain[8] < 0.2 and plain[0] > plain[2] > plain[4] > plain[6]


def test_outlines_know_the_networks_sizes():
    from networks import alexnet, alexnet_p, googlenet, resnet18, vgg16, yolov2_first16, yolov3

    nets = (alexnet, vgg16, yolov2_first16, alexnet_p, googlenet, resnet18, yolov3)
    megabytes = {net: sum(op.weight_bytes for op in net().ops) / 1e6 for net in nets}
    assert megabytes[vgg16] == pytest.approx(553.4, abs=0.1)
    assert megabytes[alexnet] == pytest.approx(243.9, abs=0.1)
    assert megabytes[yolov2_first16] == pytest.approx(13.69, abs=0.01)
    assert megabytes[alexnet_p] == pytest.approx(megabytes[alexnet], rel=0.001)
    assert megabytes[googlenet] == pytest.approx(28.0, abs=0.1)  # 7.0 million weights
    assert megabytes[resnet18] == pytest.approx(46.7, abs=0.1)  # 11.7 million
    assert megabytes[yolov3] == pytest.approx(247.7, abs=0.1)
    assert [round(net().macs / 1e9, 1) for net in (googlenet, resnet18, yolov3)] == [1.6, 1.8, 19.5]
    assert len(cut_network(vgg16(), "slices:4+1@18")) == 3


def test_every_figure_is_made_and_shown():
    page = (ROOT / "doc" / "reproduction.md").read_text()
    for name in figures.FIGURES:
        assert (ROOT / "bench" / "figures" / f"{name}.py").exists()
        picture = ROOT / "doc" / "figures" / f"{name}.png"
        assert f"figures/{name}.png" in page and picture.stat().st_size < 150_000


def test_rows_are_written_with_every_column(tmp_path):
    write_rows(tmp_path / "rows.csv", [{"a": 1, "b": 0.123456789}, {"b": 2.0, "c": "x"}])
    with (tmp_path / "rows.csv").open() as file:
        assert list(csv.reader(file)) == [["a", "b", "c"], ["1", "0.123457", ""], ["", "2", "x"]]
