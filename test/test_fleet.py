# SPDX-License-Identifier: Apache-2.0
"""Fleet files: what is written is read back, the last rule holds, mistakes are one line with the cure."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dnn_dist.errors import ConfigError
from dnn_dist.plan.fleet import Fleet, Link, LinkRule, Robot, parse_fleet, read_fleet
from dnn_dist.plan.profiles import PROFILES
from dnn_dist.plan.units import BANDWIDTH, DURATION, POWER, SHARE, SIZE, SPEED

FLEETS = sorted((Path(__file__).parents[1] / "config/fleets").glob("*.yaml"))
WIFI = {"robots": "all", "bandwidth": "60 Mbit/s", "latency": "2 ms", "loss": "1 %", "medium": "wifi"}
TWO = {
    "dnn_dist_fleet": 1,
    "robots": {"front": {"profile": "raspberry_pi_4"}, "pi": {"count": 2, "speed": "0.6 GMAC/s"}},
    "links": [WIFI],
}
UNITS = [BANDWIDTH, DURATION, POWER, SHARE, SIZE, SPEED]


def with_robot(**keys: object) -> dict:
    return {**TWO, "robots": {"pi": {"speed": "1 GMAC/s", **keys}}}


def with_link(**keys: object) -> dict:
    return {**TWO, "links": [{**WIFI, **keys}]}


@given(st.sampled_from(UNITS), st.floats(0, 1e15))
def test_a_quantity_is_read_as_it_was_written(unit, value) -> None:
    value = min(value, unit.high)
    exact = unit is not SHARE  # which has no unit that is 1
    assert unit.read(unit.write(value), "x") == (value if exact else pytest.approx(value, rel=1e-14))


def test_units_mean_what_they_say() -> None:
    assert BANDWIDTH.read("60 Mbit/s", "x") == 7.5e6
    assert BANDWIDTH.read("1.5MB/s", "x") == 1.5e6
    assert SIZE.read("1 MiB", "x") == 2**20
    assert SHARE.read("1 %", "x") == 0.01
    assert DURATION.write(0.002) == "2 ms"


FINITE = st.floats(1e-6, 1e12)
SHARES = st.integers(0, 90).map(lambda percent: SHARE.read(f"{percent} %", "x"))
LINKS = st.builds(
    Link,
    bandwidth=FINITE | st.just(math.inf),
    latency=st.floats(0, 10),
    loss=SHARES,
    delays=st.lists(st.floats(0, 1), max_size=3).map(tuple),
    gamma=st.none() | st.tuples(st.floats(0.5, 9), st.floats(1e-6, 1)),
    medium=st.sampled_from(["", "wifi"]),
)
NAMES = ["front", "pi1", "pi2"]
GROUPS = st.lists(st.sets(st.sampled_from(NAMES), min_size=1).map(frozenset), max_size=3).map(tuple)
WATTS = st.none() | st.floats(0, 100)


@st.composite
def fleets(draw) -> Fleet:
    robots = [
        Robot(
            name,
            draw(FINITE),
            draw(st.floats(0, 1)),
            draw(st.none() | st.integers(1, 10**12)),
            draw(WATTS),
            draw(WATTS),
            draw(SHARES),
            {"0" * 64: tuple(round(x, 6) for x in draw(st.lists(st.floats(0, 1), min_size=1, max_size=3)))},
        )
        for name in NAMES
    ]
    rules = [LinkRule((), draw(LINKS)), *draw(st.lists(st.builds(LinkRule, GROUPS, LINKS), max_size=3))]
    return Fleet(tuple(robots), tuple(rules))


@given(fleets())
def test_a_fleet_is_read_as_it_was_written(fleet) -> None:
    assert parse_fleet(yaml.safe_load(fleet.to_yaml()), "fleet.yaml") == fleet


@pytest.mark.parametrize("path", FLEETS, ids=lambda path: path.stem)
def test_the_shipped_fleets_are_right(path) -> None:
    fleet = read_fleet(path)
    assert len(fleet.robots) > 1
    assert all(fleet.link(a, b).seconds(1000) > 0 for a in fleet.names for b in fleet.names if a != b)


def test_a_profile_is_overridden_by_the_keys_beside_it() -> None:
    entry = {"count": 3, "profile": "raspberry_pi_3", "memory": "1 GB"}
    pi, *others = parse_fleet({**TWO, "robots": {"pi": entry}}, "f").robots
    assert [pi.name, *(robot.name for robot in others)] == ["pi1", "pi2", "pi3"]
    assert (pi.speed, pi.memory, pi.busy) == (2.1e9, 10**9, 6.5)


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_are_robots(profile) -> None:
    assert parse_fleet({**TWO, "robots": {"r": {"profile": profile}}}, "f").robots[0].speed > 0


def test_the_last_rule_that_joins_two_robots_holds_in_both_directions() -> None:
    wire = {"robots": ["front", "pi"], "bandwidth": "1 GB/s"}
    among = {"robots": ["pi"], "bandwidth": "2 GB/s"}
    fleet = parse_fleet({**TWO, "links": [WIFI, wire, among]}, "f")
    assert fleet.link("front", "pi2").bandwidth == fleet.link("pi2", "front").bandwidth == 1e9
    assert fleet.link("pi1", "pi2").bandwidth == 2e9
    assert fleet.link("pi1", "pi1").seconds(10**9) == 0
    short = parse_fleet({**TWO, "links": [WIFI, wire]}, "f")
    assert short.link("pi1", "pi2").medium == "wifi"


def test_mean_seconds_of_a_link() -> None:
    assert Link(1000.0, 0.5, delays=(0.1, 0.3)).seconds(100) == pytest.approx(0.8)
    assert Link(1000.0, gamma=(2.0, 0.05)).seconds(100) == pytest.approx(0.2)
    assert Link(1000.0, loss=0.5).seconds(100) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("tree", "cure"),
    [
        (None, "expected keys and values"),
        ({}, "begin it with 'dnn_dist_fleet: 1'|expected keys"),
        ({"robots": TWO["robots"]}, "begin it with 'dnn_dist_fleet: 1'"),
        ({"dnn_dist_fleet": 1}, "'robots' is missing; add it"),
        ({**TWO, "robtos": {}}, "did you mean 'robots'"),
        ({**TWO, "robots": {"Pi 3": {"speed": "1 GMAC/s"}}}, "expected a name"),
        ({**TWO, "robots": {"pi": {}}}, "'speed' is missing; add it .* or a profile"),
        ({**TWO, "robots": {"pi1": {"speed": "1 GMAC/s"}, "pi": {"count": 1, "speed": "1 GMAC/s"}}}, "twice"),
        (with_robot(sped="1 GMAC/s"), "did you mean 'speed'"),
        (with_robot(profile="raspbery_pi_3"), "did you mean 'raspberry_pi_3'"),
        (with_robot(speed="-1 GMAC/s"), "expected a speed above 0"),
        (with_robot(speed="0 GMAC/s"), "expected a speed above 0"),
        (with_robot(speed=600), "did you forget the unit"),
        (with_robot(speed="600"), "expected a speed with its unit"),
        (with_robot(speed="1 gmac/s"), "did you mean 'GMAC/s'"),
        (with_robot(speed="fast"), "e.g. 0.6 GMAC/s"),
        (with_robot(memory="700 Mb"), "did you mean 'MB'"),
        (with_robot(memory=700), "did you forget the unit"),
        (with_robot(overhead=0.002), "did you forget the unit"),
        (with_robot(power={"idle": "1.3 V"}), "expected a power with its unit"),
        (with_robot(power={"sleep": "1.3 W"}), "unknown key 'sleep'"),
        (with_robot(count=0), "a whole number"),
        (with_robot(spread="120 %"), "up to 100 %"),
        (with_robot(measured={"abc": "1 ms"}), "SHA-256"),
        (with_robot(measured={"0" * 64: "1 2"}), "expected"),
        (with_robot(measured={"0" * 64: "1 -2 ms"}), "of 0 or more"),
        ({**TWO, "links": []}, "none between front and pi1; add one"),
        ({**TWO, "links": {"all": WIFI}}, "a list"),
        (with_link(robots=["frnt", "pi"]), "did you mean 'front'"),
        (with_link(robots=["front", "desk"]), "no robot 'desk'"),
        (with_link(robots="front"), "all, or a list"),
        (with_link(bandwidth="60 Mbps"), "did you mean 'Mbit/s'"),
        (with_link(bandwidth=60), "did you forget the unit"),
        (with_link(bandwidth="0 B/s"), "above 0"),
        ({**TWO, "links": [{"robots": "all"}]}, "'bandwidth' is missing"),
        (with_link(loss=0.01), "did you forget the unit"),
        (with_link(loss="100 %"), "less than 100 %"),
        (with_link(delay="normal(2, 1 ms)"), r"gamma\(SHAPE, SCALE\)"),
        (with_link(delay="gamma(2, 1)"), "expected a time with its unit"),
        (with_link(delays=["1"]), "expected a time with its unit"),
        (with_link(medium=5), "a name"),
        (with_link(jitter="1 ms"), "unknown key 'jitter'"),
    ],
)
def test_a_mistake_is_one_line_with_the_cure(tree, cure) -> None:
    with pytest.raises(ConfigError, match=cure) as error:
        parse_fleet(tree, "fleet.yaml")
    assert str(error.value).startswith("fleet.yaml: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "- 1", "a: b: c", "\x00"])
def test_a_broken_file_is_one_line(tmp_path, text) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_fleet(path)
    assert "fleet.yaml" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="can't read the fleet file"):
        read_fleet(tmp_path / "missing.yaml")


def test_asking_for_who_is_not_there_names_those_who_are() -> None:
    fleet = parse_fleet(TWO, "f")
    with pytest.raises(ConfigError, match="did you mean 'pi1'"):
        fleet.robot("pi_1")
    with pytest.raises(ConfigError, match="no link between a and b"):
        Fleet((Robot("a", 1.0), Robot("b", 1.0))).link("a", "b")
