# SPDX-License-Identifier: Apache-2.0
"""Plans by the rate of the link to a server: the rate measured, the plan chosen, probes, and in virtual time what comes
of it when the link gets worse, better, and is cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import pytest
from cutting import EXAMPLES, FIXTURES
from hypothesis import given, settings
from hypothesis import strategies as st
from netbuilder import VALID, NetBuilder
from virtual import Cluster as Chaos
from virtual import Faults, shape

from dnn_dist.cli.main import main
from dnn_dist.cut.spec import cut_network
from dnn_dist.errors import PlanError
from dnn_dist.graph.network import Network
from dnn_dist.graph.tflite import read_network
from dnn_dist.nodes.planning import plan_in_force, plans_by_link
from dnn_dist.plan.between import between
from dnn_dist.plan.bylink import (
    ALONE,
    MEGABIT,
    Step,
    best_by_link,
    by_link_text,
    parse_by_link,
    read_by_link,
    step_for,
    with_rate,
)
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot
from dnn_dist.plan.plan import Plan
from dnn_dist.plan.predict import Circumstances, Predictor
from dnn_dist.run.bylink import EVERY, IN_A_ROW, MARGIN, PROBE, ByLink
from dnn_dist.run.events import PlanInForce, PlanInstalled, PlanWithdrawn, SendProbe
from dnn_dist.run.fleetview import WorkerView
from dnn_dist.run.linkrate import Meter
from dnn_dist.run.planswitch import PlanSwitch
from dnn_dist.run.report import Status
from dnn_dist.run.state import WorkerState
from dnn_dist.run.tasks import Books, DispatcherSettings
from dnn_dist.settings import PartitionSettings
from dnn_dist.sim import Scenario, Source, plan_load
from dnn_dist.sim.changes import Changes
from dnn_dist.sim.cluster import Cluster
from dnn_dist.sim.faults import Fault, parse_faults
from dnn_dist.sim.outcome import FrameRun
from dnn_dist.sim.source import SourceRun

many = settings(max_examples=EXAMPLES, derandomize=True, deadline=None)


# The rate of a link


def test_the_rate_is_bytes_by_time_without_a_round_trip():
    meter = Meter()
    meter.sent(1, 0, 0.0)
    meter.seen(1, 0.02)
    assert (meter.rate, meter.round_trip) == (0.0, 0.02)
    meter.sent(2, 50_000, 1.0)
    meter.seen(2, 1.52)
    assert meter.rate == pytest.approx(100_000) and not meter.awaits


def test_messages_one_after_the_other_have_their_own_time_each():
    """Works by their number, feeds by the task that gets them; all sent at once, and of one rate."""
    meter = Meter()
    meter.sent(1, 0, 0.0)
    meter.seen(1, 0.02)
    for number, what in enumerate((2, "task", 3)):
        meter.sent(what, 10_000 * (number + 1), 1.0)
    for what, at in ((2, 1.12), ("task", 1.32), (3, 1.62)):
        meter.seen(what, at) if isinstance(what, int) else meter.fed(what, 1.0, at)
        assert meter.rate == pytest.approx(100_000)
    assert meter.count == 3


def test_of_a_task_that_waited_for_something_else_nothing_is_learnt():
    """Nor of what was sent before it had all it needs; then again."""
    meter = Meter()
    meter.sent("task", 10_000, 1.0)
    meter.sent(1, 10_000, 2.4)
    meter.fed("task", 2.0, 2.5)
    assert (meter.rate, meter.awaits) == (0.0, True)
    meter.seen(1, 2.6)
    assert (meter.rate, meter.awaits) == (0.0, False)
    meter.sent(2, 10_000, 10.0)
    meter.seen(2, 10.1)
    assert meter.rate == pytest.approx(100_000)


def test_what_is_under_way_will_be_there_when_the_rate_says():
    meter = Meter()
    meter.sent(1, 100_000, 0.0)
    assert meter.left(0.0) == 0.0, "of a rate nothing is known"
    meter.seen(1, 1.0)
    meter.sent(2, 50_000, 2.0)
    meter.sent(3, 50_000, 2.1)
    assert meter.left(2.4) == pytest.approx(0.6)
    meter.seen(2, 2.5)
    assert meter.left(2.6) == pytest.approx(0.4) and meter.left(9.0) == 0.0


def test_what_does_not_arrive_bounds_the_rate():
    meter = Meter()
    meter.sent(1, 100_000, 0.0)
    assert meter.most(0.5, slack=0.5) == inf
    assert meter.most(1.5, slack=0.5) == pytest.approx(100_000)
    assert meter.most(10.5, slack=0.5) == pytest.approx(10_000)
    meter.sent(2, 100_000, 10.0)
    assert meter.most(10.5, slack=0.5) == pytest.approx(10_000), "the second has had no time yet"
    meter.lost(1)
    assert meter.most(10.6, slack=0.5) == pytest.approx(1_000_000), "it may have been behind the first until now"
    meter.lost(2)
    assert meter.most(20.0, slack=0.5) == inf, "nobody waits"


# The choice


class Desk:
    """The machine with a robot and a server; messages to it take what the link's rate makes of them."""

    def __init__(self, rates: Iterable[float], place: int = 0) -> None:
        self.now, self.rate, self.delay = 100.0, inf, 0.0
        self.books = Books("cam", "pi", 1, DispatcherSettings(robot="pi"))
        self.plans = [f"plan{number}" for number, _ in enumerate((0.0, *rates))]
        self.books.plan = self.plans[0]
        self.machine = ByLink(self.books)
        for plan, rate in zip(self.plans[1:], rates, strict=True):
            self.machine.add(plan, rate)
        for name in ("pi", "server"):
            state = WorkerState(name, name, 1, 1, plans=frozenset(self.plans))
            self.books.workers[name] = WorkerView(state, self.now, reachable=True)
        self.server = self.books.workers["server"]
        self.books.plan = self.plans[place]
        self.switches: list[int] = []
        self.probes: list[tuple[float, int]] = []  # (s, bytes)

    @property
    def place(self) -> int:
        return self.plans.index(self.books.plan)

    def look(self) -> list[Any]:
        for view in self.books.workers.values():
            view.heard_at = self.now
        return self.act(self.machine.look(frozenset(self.plans), self.now))

    def act(self, actions: list[Any]) -> list[Any]:
        self.switches += [self.plans.index(one.plan) for one in actions if isinstance(one, PlanInForce)]
        sent = [one for one in actions if isinstance(one, SendProbe)]
        self.probes += [(self.now, one.size) for one in sent]
        began, size = self.now + self.delay, 0
        for one in sent if self.rate > 0 else ():
            size += one.size
            self.now = began + size / self.rate
            self.server.meter.seen(one.number, self.now)
        return actions

    def message(self, rate: float, size: int = 100_000) -> None:
        """Something of the frames goes to the server, at this rate."""
        self.server.meter.sent("task", size, self.now)
        self.now += size / rate
        self.server.meter.fed("task", 0.0, self.now)
        self.look()

    def pass_time(self, seconds: float, step: float = 0.1) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += step
            self.look()


RATES = (1e5, 5e5, 2e6)  # bytes/s
rates = st.floats(1e4, 2e7).filter(lambda rate: clear(rate))


def clear(rate: float) -> bool:
    """Whether a rate is far enough from where plans change for rounding not to matter."""
    return all(abs(rate / edge - 1) > 0.01 for step in RATES for edge in (step / MARGIN, step, step * MARGIN))


def offline(rate: float) -> int:
    return sum(step <= rate for step in RATES)


@many
@given(rates, st.lists(st.floats(0.8, 1.2), min_size=1, max_size=30))
def test_noise_of_a_fifth_makes_no_switch(rate, noise):
    desk = Desk(RATES, offline(rate))
    for factor in noise:
        desk.rate = rate * factor
        desk.message(rate * factor)
    assert desk.switches == []


@many
@given(st.lists(st.tuples(rates, rates), min_size=1, max_size=6))
def test_a_change_is_one_switch_to_the_plan_that_is_chosen_offline(changes):
    """Each change begins with a message that was under way meanwhile, of any rate."""
    desk = Desk(RATES)
    for mixed, rate in changes:
        before, began = len(desk.switches), desk.place
        low, high = (0.0, *RATES)[began] / MARGIN, (*RATES, inf)[began] * MARGIN
        desk.rate = rate
        desk.message(mixed)
        for _ in range(3):
            desk.message(rate)
        after = desk.switches[before:]
        if low <= rate < high:
            assert after == []
        else:
            assert after == [offline(rate)]


@many
@given(rates, st.floats(0.0, 0.02))
def test_where_nothing_is_sent_probes_find_the_rate(rate, delay):
    desk = Desk(RATES)
    desk.rate, desk.delay = rate, delay
    desk.pass_time(3.0)
    assert desk.switches == ([] if rate < RATES[0] * MARGIN else [offline(rate)])


@many
@given(st.floats(1e3, 1e5))
def test_probes_take_a_twentieth_of_the_lowest_link_at_most(rate):
    desk = Desk(RATES)
    desk.rate = rate
    desk.pass_time(60.0)
    assert not desk.switches
    assert sum(size for _, size in desk.probes) <= PROBE / EVERY * RATES[0] * (60.0 + EVERY)
    assert all(later - at >= EVERY for (at, _), (later, size) in pairwise(desk.probes) if size == 0)


def test_a_link_that_says_something_else_each_time_is_not_probed_for_ever():
    desk = Desk(RATES)
    for number in range(200):
        desk.rate = RATES[number % 2] * 1.5
        desk.now += 0.05
        desk.look()
    most = MARGIN * RATES[-1] * PROBE
    assert sum(size for _, size in desk.probes) <= (IN_A_ROW + 1) * most * (1 + (desk.now - 100.0) / EVERY)


def test_a_server_that_is_silent_or_left_out_leaves_the_robot_alone_until_a_probe_is_back():
    desk = Desk(RATES, place=2)
    desk.message(1e6)
    desk.rate = 0.0
    desk.now += 2 * desk.books.settings.worker_timeout
    desk.books.workers["pi"].heard_at = desk.now
    desk.act(desk.machine.look(frozenset(desk.plans), desk.now))
    assert desk.switches == [0] and "no server" in desk.machine.why
    desk.look()  # heard again
    assert desk.switches == [0], "of what the link is now nothing is known"
    desk.server.meter = Meter()
    desk.rate = 1e6
    desk.pass_time(2.0)
    assert desk.switches == [0, 2]
    desk.server.left_out_until = desk.now + 10.0
    desk.look()
    assert desk.switches == [0, 2, 0]


def test_what_does_not_arrive_leaves_the_robot_alone_though_the_server_is_heard():
    desk = Desk(RATES, place=3)
    desk.message(3e6)
    desk.rate = 0.0
    desk.server.meter.sent("task", 50_000, desk.now)
    desk.pass_time(0.5 + 50_000 / RATES[0])
    assert desk.switches == []
    desk.pass_time(1.0)
    assert desk.switches == [0]


def test_a_plan_that_nobody_serves_or_gathers_waits():
    desk = Desk(RATES)
    desk.rate = 1e6
    lacks = frozenset(desk.plans) - {"plan2"}
    for _ in range(20):
        desk.now += 0.1
        desk.server.heard_at = desk.now
        desk.act(desk.machine.look(lacks, desk.now))
    assert desk.switches == []
    desk.look()
    assert desk.switches == [2]


def test_another_plan_by_hand_ends_it():
    desk = Desk(RATES, place=2)
    desk.books.plan = "another"
    for _ in range(3):
        desk.server.meter.sent("task", 1000, desk.now)
        desk.now += 1.0
        desk.server.meter.fed("task", 0.0, desk.now)
        assert desk.machine.look(frozenset(desk.plans), desk.now) == []


# The text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("front", "no step"),
        ("0 front@0>rest", "no step"),
        ("2 front@0>rest | 1 rest", "rise"),
        ("1 a | 2 b | 3 c | 4 d | 5 e", "at most"),
        ("1 front@0>rest |", "no step"),
    ],
)
def test_a_list_that_is_none_is_one_line(text, why):
    with pytest.raises(PlanError, match=why) as error:
        parse_by_link(text)
    assert "\n" not in str(error.value)


def test_the_text_of_a_list_is_read_again(tmp_path: Path):
    steps = (Step(1.5 * MEGABIT, "front@0..4>rest"), Step(9 * MEGABIT, "rest"))
    assert parse_by_link(by_link_text(steps)) == steps and parse_by_link("") == ()
    plan = Plan("00" * 32, ALONE)
    path = tmp_path / "plan.yaml"
    path.write_text(f'{plan.to_yaml()}by_link: "{by_link_text(steps)}"\n')
    assert read_by_link(path) == steps and Plan.read(path) == plan
    path.write_text(plan.to_yaml())
    assert read_by_link(path) == ()


# The planner's list, and a link that changes


def stream(net: NetBuilder) -> int:
    x = net.pool("MAX", net.conv(net.input(96, 96, 3), 16, (5, 5), stride=(2, 2)), (2, 2), (2, 2), VALID)
    return net.dense(net.conv(net.pool("MAX", net.conv(x, 32, (3, 3)), (2, 2), (2, 2), VALID), 32, (3, 3)), 256)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Network:
    """Two streams that are compared, 16 million MACs."""
    net, path = NetBuilder(seed=1), tmp_path_factory.mktemp("models") / "streams.tflite"
    path.write_bytes(net.build([net.dense(net.unary("ABS", net.binary("SUB", stream(net), stream(net))), 1)]))
    return read_network(path)


RATE = 8 * MEGABIT
ROBOTS = (Robot("pi", 20e6, 0.002), Robot("server", 400e6, 0.002))
FLEET = Fleet(ROBOTS, (LinkRule((), Link(RATE, 0.002)),))


@pytest.fixture(scope="module")
def steps(network) -> tuple[Step, ...]:
    return best_by_link(network, Circumstances(FLEET, "pi"), "server")


def test_the_list_is_nowhere_much_worse_than_the_best_of_all_cuts(network, steps):
    assert len(steps) >= 2, "a list of one cut shows nothing"
    for rate in (MEGABIT * 10 ** (n / 4) for n in range(-4, 9)):
        there = Circumstances(with_rate(FLEET, "pi", "server", rate), "pi")

        def seconds(cut: str, there: Circumstances = there) -> float:
            return Predictor(network, there)(cut_network(network, cut), ("server", "pi")).latency

        divided = between(network, *ROBOTS, there.fleet.link("pi", "server"), "float32").cut
        assert seconds(step_for(steps, rate)) <= 1.06 * min(map(seconds, ("front", "rest", divided)))


def test_a_changed_link_carries_what_its_share_says():
    changes = Changes(parse_faults("link a b x0.1@2..4, link b a x0@6..7", ("a", "b", "c")))
    assert changes.done("a", "b", 0.0, 1.5) == 1.5
    assert changes.done("a", "b", 1.0, 1.1) == pytest.approx(3.0)
    assert changes.done("b", "a", 1.0, 2.0) == pytest.approx(4.8)
    assert changes.done("a", "b", 5.5, 1.0) == pytest.approx(7.5)
    assert changes.done("a", "c", 5.5, 1.0) == pytest.approx(6.5)
    assert (changes.factor("a", "b", 6.5), changes.since("a", "b", 6.5)) == (0.0, 6.0)


def test_what_the_planner_writes_is_what_a_gateway_takes_check_proves_and_the_simulator_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, fleet, out = FIXTURES / "zoo" / "siamese_float32.tflite", tmp_path / "fleet.yaml", tmp_path / "plan.yaml"
    fleet.write_text(replace(FLEET, robots=(Robot("pi", 1e6), Robot("server", 20e6))).to_yaml())
    given = [str(model), "--fleet", str(fleet), "--server", "server"]
    assert main(["plan", *given, "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    cuts = [step.cut for step in parse_by_link(told["by_link"])]
    assert cuts and [row["cut"] for row in told["steps"]] == [ALONE, *cuts]
    settings = PartitionSettings(plan=str(out))
    plan = plan_in_force(read_network(model), settings)
    assert (plan.cut, plan.robots) == (ALONE, ("pi", "server"))
    assert [other.cut for _, other in plans_by_link(plan, settings)] == cuts
    assert main(["check", str(model), "--cut", told["by_link"], "--json"]) == 0
    proved = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(proved) == len(cuts) and all(one["holds"] for one in proved)
    words = ["--frames", "6", "--rate", "1", "--deadline", "8", "--faults", "link pi server x0@3..9", "--json"]
    assert main(["simulate", str(out), "--fleet", str(fleet), "--model", str(model), *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["notes"]["plan in force"] >= 3 and told["robots"]["server"]["tasks"] > 0
    assert main(["plan", *given[:-1], "pi"]) == 2
    assert "name another robot" in capsys.readouterr().err


class Watched(SourceRun):
    """A source whose changes of plan are written down."""

    switches: list[tuple[float, str]]  # (s, plan)

    def begin(self) -> None:
        self.switches = []
        super().begin()

    def look(self) -> None:
        super().look()
        plan = self.partition.plan
        if not self.switches or self.switches[-1][1] != plan:
            self.switches.append((self.agenda.now, plan))


class Watching(Cluster):
    source_class = Watched


PHASE = 8.0  # s


@pytest.mark.parametrize("exact", [True, False], ids=["each message", "boards"])
def test_ten_times_a_tenth_and_cut(network, steps, exact):
    """No frame is lost, within five frames the plan that is chosen offline for the rate, one switch per change."""
    shares = [0.1, 1.0, 0.0, 1.0] * 10
    faults = tuple(Fault(PHASE * (n + 1), "link", "pi", share, "server") for n, share in enumerate(shares))
    loads = {cut: plan_load(network, Plan(network.sha256, cut)) for cut in (ALONE, *(step.cut for step in steps))}
    loads = {cut: replace(load, plan=cut) for cut, load in loads.items()}
    by_link = tuple((step.rate, loads[step.cut]) for step in steps)
    frames = int(PHASE * 2 * (len(shares) + 1))
    source = Source("pi", loads[ALONE], frames=frames, rate=2.0, deadline=4.0, by_link=by_link)
    cluster = Watching(Scenario(FLEET, (source,), faults=faults, exact=exact))
    outcome = cluster.run()
    assert outcome.unreported == 0
    assert {run.report.status for run in outcome.frames} <= {Status.COMPLETE, Status.RECOMPUTED}
    watched: Any = cluster.sources["pi"]
    wanted = [step_for(steps, RATE * share) for share in (1.0, *shares)]
    assert len(set(wanted)) == 3, "a tenth of the rate asks for another plan than all of it, and than none"
    runs: list[FrameRun] = sorted(outcome.frames, key=lambda run: run.announced)
    for n, plan in enumerate(wanted):
        begin, end = PHASE * n, PHASE * (n + 1)
        switched = [to for at, to in watched.switches if begin < at <= end]
        assert switched == [plan], f"from {begin} s on"
        late = [run.report.plan for run in runs if begin <= run.announced < end][5:]
        assert late and set(late) == {plan}, f"from {begin} s on"


@pytest.mark.parametrize(
    ("rate", "share", "deadline"),
    [(1.0, 0.03, 1.6), (0.1, 0.1, 1.6), (0.1, 0.03, 2.0), (0.1, 0.001, 3.0), (1.0, 0.001, 4.0)],
)
def test_a_link_that_gets_much_worse_and_is_not_cut_costs_no_result(network, steps, rate, share, deadline):
    """Deadlines of two to five times what the robot takes alone: what the server will not have in time comes home."""
    loads = {cut: plan_load(network, Plan(network.sha256, cut)) for cut in (ALONE, *(step.cut for step in steps))}
    faults = [
        Fault(5.0 + 12 * n + 6 * end + 0.1 * n, "link", "pi", factor, "server")
        for n in range(3)
        for end, factor in enumerate((share, 1.0))
    ]
    by_link = tuple((step.rate, loads[step.cut]) for step in steps)
    source = Source("pi", loads[ALONE], frames=82, rate=2.0, deadline=deadline, by_link=by_link)
    fleet = with_rate(FLEET, "pi", "server", rate * RATE)
    cluster = Watching(Scenario(fleet, (source,), faults=tuple(faults), exact=True))
    outcome = cluster.run()
    assert outcome.unreported == 0
    assert {run.report.status for run in outcome.frames} <= {Status.COMPLETE, Status.RECOMPUTED}
    watched: Any = cluster.sources["pi"]
    assert len(watched.switches) == 2 + len(faults), "one at the start, one for each change"


@pytest.mark.parametrize("seed", range(6))
def test_the_laws_hold_while_plans_change_by_the_link(seed):
    """Kills, stops, loss, doubling and cuts; messages take times by chance, so that plans change often. Now and then
    another plan is asked for, and that is the end of it.
    """
    apart = seed % 2 == 1
    faults = Faults(
        loss=0.03,
        doubling=0.03,
        delay=(0.001, 0.03),
        events=[(0.6, "kill", "w1"), (1.0, "restart", "w1"), (1.4, "stop", "w2"), (2.2, "go", "w2")],
        cuts=[] if apart else [(2.5, 3.4)],
        calm=5.0,
    )
    by_link = [(50_000.0, shape(4, 2)), (200_000.0, shape(2, 1))]
    more = {"others": [shape(3)], "switches": [5.5]} if seed % 3 == 2 else {}
    cluster = Chaos(3, shape(6, 2), seed, faults, by_link=by_link, apart=apart, **more)
    reports = cluster.run(80, 0.1, 0.6)
    assert cluster.notes.counts["plan in force"] > 1
    assert len(reports) == len(cluster.begun) and cluster.exact(max(report.frame for report in reports))


def test_what_it_asks_for_is_done_also_when_a_plan_that_was_asked_for_is_withdrawn(monkeypatch):
    """Otherwise a probe would be booked as under way that nobody sent."""
    switch = PlanSwitch(Books("front", "pi", 1, DispatcherSettings()))
    probe = SendProbe("server", 1, 1, 4000)
    monkeypatch.setattr(ByLink, "look", lambda self, gathered, now: [probe])
    monkeypatch.setattr(ByLink, "due", lambda self, now: float("inf"))
    for plan, rate in (("alone", None), ("given", 1e6), ("another", None)):
        switch.install(PlanInstalled(plan, shape(2, 1), rate), 0.0)
    found = switch.look(frozenset(), 1e6)
    assert probe in found and any(isinstance(action, PlanWithdrawn) for action in found)
