# SPDX-License-Identifier: Apache-2.0
"""Calls to come: each at its time, in order, once; and on a real executor, where resets are many."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("rclpy")

from dnn_dist.nodes.alarms import NEVER, Alarms

TIMES = st.floats(0, 100, allow_nan=False)


def run_out(alarms: Alarms, until: float = 1e6) -> None:
    """Ring exactly when it is asked for."""
    while (due := alarms.next()) <= until:
        alarms.run(due)


@given(st.lists(TIMES, max_size=30))
def test_calls_are_made_by_time_and_those_of_one_time_in_order(times: list[float]) -> None:
    alarms, made = Alarms(), []
    for number, when in enumerate(times):
        alarms.at(when, lambda entry=(when, number): made.append(entry))
    run_out(alarms)
    assert made == sorted((when, number) for number, when in enumerate(times))
    assert alarms.next() == NEVER


@given(st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=30))
def test_a_moved_call_is_made_once_at_its_last_time(moves: list[tuple[float, float]]) -> None:
    """Each move is made at a time of its own; a time that has passed is now."""
    alarms, now, made = Alarms(), 0.0, []
    expected: list[float] = []
    wanted = NEVER

    def tick() -> None:
        made.append(now)

    def advance(until: float) -> None:
        nonlocal now, wanted
        while (due := alarms.next()) <= until:
            now = max(now, due)
            if wanted <= now:
                expected.append(now)
                wanted = NEVER
            alarms.run(now)
        now = max(now, until)

    for at, when in sorted(moves):
        advance(at)
        wanted = when
        alarms.move(when, tick)
    advance(1e6)
    assert made == expected


@example(0.01, [1.0])  # 0.99 // 0.01 is 98
@given(st.floats(0.01, 10), st.lists(st.floats(0, 25), max_size=20))
def test_what_comes_again_keeps_its_beat_and_leaves_out_what_was_missed(period: float, pauses: list[float]) -> None:
    alarms, made, now = Alarms(), [], 0.0
    alarms.every(period, lambda: made.append(now), 0.0)
    for pause in pauses:
        now = max(now + pause, alarms.next())
        alarms.run(now)
        assert made[-1] == now, "each run that is due makes one call, however many turns have passed"
        assert 0 < alarms.next() - now <= period * (1 + 1e-6)
        assert (alarms.next() / period) == pytest.approx(round(alarms.next() / period), abs=1e-6)
    assert len(made) == len(pauses)


def test_what_is_entered_while_running_waits_for_the_next_run() -> None:
    alarms, made = Alarms(), []

    def again() -> None:
        made.append(len(made))
        alarms.move(0.0, again)
        alarms.at(0.0, lambda: None)

    alarms.move(0.0, again)
    for runs in range(1, 5):
        alarms.run(1.0)
        assert len(made) == runs, "a machine that wants to be woken at once, always, does not keep the node for itself"


@pytest.mark.parametrize("simulated", [False, True])
def test_a_beat_is_kept_on_a_real_node_however_often_an_alarm_is_moved(simulated: bool) -> None:
    """The fault of the executor that made one ROS timer for all necessary: with a timer each, turns went missing.

    `simulated`: the node's own clock stands still, as it does while a simulator pauses; robots' clocks are set back.
    """
    from rclpy.parameter import Parameter

    from dnn_dist.cli.supervisor import share
    from dnn_dist.cluster import transport
    from dnn_dist.nodes.watch import watching

    with watching(transport("local", share() / "config" / "network")) as node:
        beats: list[float] = []
        ticks: list[float] = []

        def tick() -> None:
            ticks.append(node.now())
            while node.now() < ticks[-1] + 0.06:
                pass  # a long callback, in which a beat comes due
            for _ in range(3):
                node.wake_at(node.now() + 0.001 * (1 + len(ticks) % 40), tick)

        node.set_parameters([Parameter("use_sim_time", value=simulated)])
        begun = node.now()
        node.every(0.05, lambda: beats.append(node.now()))
        node.wake_at(begun, tick)
        while len(beats) < 40:
            node.spin(0.01)
            node.wake_at(node.now() + 0.02, tick)
    assert all(beat - begun >= 0.05 * (1 + turn) for turn, beat in enumerate(beats)), "no turn comes before its time"
    assert ticks
