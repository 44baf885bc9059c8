# SPDX-License-Identifier: Apache-2.0
"""Laws of the bench's shared medium, in virtual time; and one real frame through namespaces, where that can be."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCH = Path(__file__).parents[1] / "bench"
sys.path.append(str(BENCH))

from medium import Medium, Weather  # noqa: E402

STATIONS = ("r1", "r2", "r3")
Log = list[tuple[float, str, bytes]]

weathers = st.builds(
    Weather,
    rate=st.floats(1e5, 1e8),
    overhead=st.floats(0, 1e-3),
    delay=st.floats(0, 0.01),
    jitter=st.just(0.0),
    loss=st.floats(0, 0.9),
    queue=st.integers(1500, 20_000),
)
sends = st.lists(
    st.tuples(
        st.floats(0, 5e-3),  # s since the one before
        st.sampled_from(STATIONS),
        st.sampled_from([("r1",), ("r2",), ("r3",), STATIONS]),
        st.integers(60, 1500),  # bytes
    ),
    max_size=60,
)


def play(medium: Medium, plan: list, looks: bool = True) -> Log:
    """Send as planned; returns (time, receiver, frame) of all arrivals. Frames carry their number in four bytes."""
    now, log = 0.0, Log()

    def look(until: float) -> None:
        while looks and (wake := medium.next_wake()) < until:
            log.extend((wake, *arrival) for arrival in medium.advance(wake))

    for number, (gap, sender, receivers, size) in enumerate(plan):
        now += gap
        look(now)
        others = [receiver for receiver in receivers if receiver != sender]
        medium.send(sender, others, number.to_bytes(4, "big") + bytes(size - 4), now)
    looks = True
    look(float("inf"))
    return log


@given(weathers, sends)
def test_no_frame_is_made_or_vanishes(weather: Weather, plan: list) -> None:
    medium = Medium(STATIONS, weather)
    medium.cut("r1", "r3")
    log = play(medium, plan)
    it = medium.counters
    assert it.offered == len(plan) == it.dropped + it.sent
    assert it.delivered == len(log)
    copies = [len([r for r in receivers if r != sender]) for _, sender, receivers, _ in plan]
    assert it.delivered + it.lost + it.cut <= sum(copies)
    if not it.dropped:
        assert it.delivered + it.lost + it.cut == sum(copies)
    assert medium.told()["waiting"] == medium.told()["flying"] == 0
    seen = [(receiver, frame[:4]) for _, receiver, frame in log]
    assert len(seen) == len(set(seen))


@given(weathers, sends)
def test_the_rate_is_never_exceeded(weather: Weather, plan: list) -> None:
    medium = Medium(STATIONS, weather)
    log = play(medium, plan)
    ends = {frame[:4]: (time - weather.delay, len(frame)) for time, _, frame in log}  # on the air, s
    order = sorted(ends.values())
    for k, (first, _size) in enumerate(order):
        carried = 0.0
        for end, later in order[k + 1 :]:
            carried += weather.airtime(later)
            assert end - first >= carried - 1e-9
    assert medium.counters.airtime <= sum(weather.airtime(size) for *_, size in plan) + 1e-9


@given(weathers, sends)
def test_without_jitter_a_pair_keeps_its_order(weather: Weather, plan: list) -> None:
    log = play(Medium(STATIONS, weather), plan)
    for receiver in STATIONS:
        for sender in STATIONS:
            numbers = [int.from_bytes(frame[:4], "big") for _, at, frame in log if at == receiver]
            numbers = [number for number in numbers if plan[number][1] == sender]
            assert numbers == sorted(numbers)


@given(weathers, sends)
def test_nothing_hangs_on_when_one_looks(weather: Weather, plan: list) -> None:
    """A program that comes late to `advance` delays what it hands on, and changes nothing else."""
    often, late = Medium(STATIONS, weather), Medium(STATIONS, weather)
    assert [entry[1:] for entry in play(often, plan)] == [entry[1:] for entry in play(late, plan, looks=False)]
    assert often.counters == late.counters


def lost_numbers(seed: int, others: bool) -> set[int]:
    """Which of a hundred frames r1 -> r2 do not arrive; `others`: r3 sends in between."""
    medium, arrived = Medium(STATIONS, Weather(loss=0.3), seed), set()
    for number in range(100):
        now = 0.01 * number
        if others:
            medium.send("r3", ["r2"], bytes(1000), now)
        medium.send("r1", ["r2"], bytes([number]), now)
        arrived |= {frame[0] for _, frame in medium.advance(now + 0.009) if len(frame) == 1}
    return set(range(100)) - arrived


def test_a_seed_and_a_link_say_what_is_lost() -> None:
    assert lost_numbers(1, others=False) == lost_numbers(1, others=True) != lost_numbers(2, others=False)
    assert 10 < len(lost_numbers(1, others=False)) < 60


def test_stations_take_turns() -> None:
    medium = Medium(STATIONS, Weather(delay=0.0))
    for _number in range(6):
        medium.send("r1", ["r3"], b"a" * 1000, 0.0)
        medium.send("r2", ["r3"], b"b" * 1000, 0.0)
    order = b"".join(frame[:1] for _, frame in medium.advance(1.0))
    assert order in (b"ab" * 6, b"ba" * 6)


def test_a_full_queue_drops_what_comes_last() -> None:
    medium = Medium(STATIONS, Weather(queue=3000))
    for number in range(6):
        medium.send("r1", ["r2"], bytes([number]) * 1000, 0.0)
    # The first is on the air already when the second comes.
    assert [frame[0] for _, frame in medium.advance(1.0)] == [0, 1, 2, 3]
    assert medium.counters.dropped == 2


def test_cut_and_heal() -> None:
    medium = Medium(STATIONS)

    def passes(sender: str, receiver: str) -> bool:
        passes.now += 1.0
        medium.send(sender, [receiver], b"x", passes.now)
        return bool(medium.advance(passes.now + 0.5))

    passes.now = 0.0
    medium.cut("r1", "r2")
    assert (passes("r1", "r2"), passes("r2", "r1"), passes("r1", "r3")) == (False, False, True)
    medium.heal()
    medium.cut("r1")
    assert (passes("r1", "r2"), passes("r3", "r1"), passes("r2", "r3")) == (False, False, True)
    medium.cut()
    assert not passes("r2", "r3")
    medium.heal("r2", "r3")
    assert (passes("r2", "r3"), passes("r1", "r2")) == (True, False)
    with pytest.raises(ValueError, match="r9: expected"):
        medium.cut("r9")


def test_weather_changes_for_what_comes_after() -> None:
    medium = Medium(STATIONS, Weather(rate=8e3, overhead=0.0, delay=0.0))
    for _ in range(2):
        medium.send("r1", ["r2"], bytes(1000), 0.0)  # one second each
    medium.change(0.5, rate=16e3)
    assert medium.next_wake() == 1.0
    assert len(medium.advance(1.4)) == 1
    assert len(medium.advance(1.5)) == 1
    with pytest.raises(ValueError, match="loss is 2"):
        medium.change(2.0, loss=2.0)


SEND = """
import socket, sys, time
for _ in range(4):
    socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", (sys.argv[1], 9))
    time.sleep(0.05)
"""
HEAR = """
import socket
it = socket.socket(type=socket.SOCK_DGRAM)
it.bind(("", 9))
it.settimeout(2)
print("ready", flush=True)
print(it.recv(9))
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/net/tun", os.W_OK), reason="network namespaces need root and /dev/net/tun"
)
def test_namespaces_hear_each_other_and_nobody_else() -> None:
    from namespaces import Air

    def heard() -> bool:
        with subprocess.Popen(
            [*air.enter("r2"), sys.executable, "-c", HEAR], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as listener:
            assert listener.stdout.readline() == b"ready\n"
            subprocess.run([*air.enter("r1"), sys.executable, "-c", SEND, air.address("r2")], check=True)
            return listener.stdout.readline() == b"b'x'\n"

    with ExitStack() as stack:
        try:
            air = stack.enter_context(Air(["r1", "r2"]))
        except RuntimeError as error:
            pytest.skip(f"no namespaces here: {error}")
        assert heard()
        air.command("cut r1 r2")
        assert not heard()
        air.command("heal")
        assert heard()
        assert air.counters()["cut"] == 4
        routes = subprocess.run([*air.enter("r1"), "ip", "route"], capture_output=True, text=True, check=True).stdout
        assert "default" not in routes
        with pytest.raises(RuntimeError, match="rain"):
            air.command("rain")
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert not [name for name in left.split() if name in air.namespaces.values()]
