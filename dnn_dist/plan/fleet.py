# SPDX-License-Identifier: Apache-2.0
"""A fleet: what each robot computes per second and holds, and the links between them. A YAML file.

    dnn_dist_fleet: 1
    robots:
      front: {profile: raspberry_pi_4}      # published, see profiles.py; keys beside it come first
      pi:                                   # pi1 to pi6
        count: 6
        speed: 0.6 GMAC/s                   # where nothing was measured
        overhead: 2 ms                      # of each run of a piece
        memory: 700 MB                      # for weights and tensors; left out: unlimited
        power: {idle: 1.3 W, busy: 6.5 W}
        spread: 10 %                        # how service times vary: standard deviation / mean
        measured: {SHA-256 of a model: "0.4 1.9 0.2 ms"}     # of each op, by `dnn_dist profile`
    links:                                  # of the rules that join two robots the last one holds, in both directions
      - {robots: all, bandwidth: 60 Mbit/s, latency: 2 ms, loss: 1 %, medium: wifi}
      - {robots: [front, pi], bandwidth: 900 Mbit/s, latency: 0.2 ms, delays: [1.2 ms, 1.9 ms]}
      - {robots: [pi1, [pi2, pi3]], bandwidth: unlimited, delay: "gamma(2, 1 ms)"}

The first robot has the camera and gathers the results, if nothing else is said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from dnn_dist.errors import ConfigError
from dnn_dist.plan.profiles import PROFILES
from dnn_dist.plan.units import BANDWIDTH, DURATION, POWER, SHARE, SIZE, SPEED
from dnn_dist.yamlfile import Keys, near, read_yaml

FORMAT = 1
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GAMMA = re.compile(r"gamma\(\s*(\d+\.?\d*)\s*,\s*([^,()]+?)\s*\)")
_MOST_ROBOTS = 10_000
_ROBOT = ("profile", "count", "speed", "overhead", "memory", "power", "spread", "measured")
_LINK = ("robots", "bandwidth", "latency", "loss", "delays", "delay", "medium")


@dataclass(frozen=True, slots=True)
class Robot:
    """One robot as a computer."""

    name: str
    speed: float  # MAC/s, where nothing was measured
    overhead: float = 0.0  # s for each run of a piece
    memory: int | None = None  # bytes for weights and tensors; None: unlimited
    idle: float | None = None  # W
    busy: float | None = None  # W
    spread: float = 0.0  # of service times: standard deviation / mean
    measured: Mapping[str, tuple[float, ...]] = field(default_factory=dict, hash=False)
    """SHA-256 of a model -> s of each of its ops."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a message goes through from one robot to another."""

    bandwidth: float  # bytes/s; inf: none to speak of
    latency: float = 0.0  # s for each message
    loss: float = 0.0  # probability that a message has to be sent again
    delays: tuple[float, ...] = ()  # s; measured samples of what comes on top
    gamma: tuple[float, float] | None = None  # what comes on top is Gamma(shape, scale in s)
    medium: str = ""  # links of one medium carry one message at a time, all of them together; "": own wire each way

    @property
    def mean_delay(self) -> float:
        """s on top of latency and transfer, on average."""
        shape, scale = self.gamma or (0.0, 0.0)
        return shape * scale + (fmean(self.delays) if self.delays else 0.0)

    def occupied(self, size: int) -> float:
        """Seconds for which `size` bytes keep the link (or its medium) busy, lost ones sent again."""
        return size / self.bandwidth / (1 - self.loss)

    def seconds(self, size: int) -> float:
        """Mean time one way of a message of `size` bytes on an idle link; a lost one is sent again at once."""
        return (self.latency + self.mean_delay + size / self.bandwidth) / (1 - self.loss)


WITHIN = Link(bandwidth=math.inf)
"""Between processes of one robot."""


@dataclass(frozen=True, slots=True)
class LinkRule:
    """A link, and whom it joins: robots of different groups, or of the only one; no groups: everybody."""

    groups: tuple[frozenset[str], ...]
    link: Link

    def joins(self, a: str, b: str) -> bool:
        if len(self.groups) < 2:
            return all(a in group and b in group for group in self.groups)
        of_a, of_b = ({n for n, group in enumerate(self.groups) if robot in group} for robot in (a, b))
        return bool(of_a and of_b) and (of_a != of_b or len(of_a) > 1)


@dataclass(frozen=True)  # no slots: cached properties need a __dict__
class Fleet:
    """Robots in the file's order, and rules for the links between them; the last rule that joins two robots holds."""

    robots: tuple[Robot, ...]
    links: tuple[LinkRule, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(robot.name for robot in self.robots)

    def robot(self, name: str) -> Robot:
        """ConfigError when there is none of this name."""
        if name not in self._by_name:
            raise ConfigError(f"fleet: no robot {name!r}, there are {_listed(self.names)}{near(name, self.names)}")
        return self._by_name[name]

    def link(self, a: str, b: str) -> Link:
        """From robot a to robot b; no time is lost within one robot. ConfigError when no rule joins them."""
        if a == b:
            return WITHIN
        if (a, b) not in self._found:
            rule = next((rule for rule in reversed(self.links) if rule.joins(a, b)), None)
            if rule is None:
                raise ConfigError(
                    f"fleet: no link between {a} and {b}; add one to links, e.g. {{robots: all, bandwidth: 60 Mbit/s}}"
                )
            self._found[a, b] = rule.link
        return self._found[a, b]

    def to_yaml(self) -> str:
        """The fleet as text, every robot by itself; `parse_fleet` gives an equal fleet back."""
        tree = {
            "dnn_dist_fleet": FORMAT,
            "robots": {robot.name: _robot_tree(robot) for robot in self.robots},
            "links": [_rule_tree(rule, self.names) for rule in self.links],
        }
        return yaml.safe_dump(tree, sort_keys=False, width=120)

    @cached_property
    def _by_name(self) -> dict[str, Robot]:
        return {robot.name: robot for robot in self.robots}

    @cached_property
    def _found(self) -> dict[tuple[str, str], Link]:
        return {}


def read_fleet(path: str | Path) -> Fleet:
    """Read a fleet file. ConfigError in one line, with the cure, when it is missing or wrong."""
    return parse_fleet(read_yaml(path, "fleet file"), str(path))


def parse_fleet(tree: Any, where: str) -> Fleet:
    """The fleet in a parsed YAML document; `where` opens the error messages."""
    top = Keys.of(tree, where, ("dnn_dist_fleet", "robots", "links"))
    if top.get("dnn_dist_fleet", None) != FORMAT:
        raise ConfigError(f"{where}: is no fleet file of this version; begin it with 'dnn_dist_fleet: {FORMAT}'")
    if not top.get("robots", None):
        example = "robots: {pi: {count: 4, profile: raspberry_pi_4}}"
        raise ConfigError(f"{where}: 'robots' is missing; add it, e.g. {example}")
    groups: dict[str, tuple[Robot, ...]] = {}
    for name, entry in Keys.of(top.get("robots"), f"{where}: robots").content.items():
        groups[name] = tuple(_robots(name, entry, f"{where}: robots: {name}"))
    robots = tuple(robot for group in groups.values() for robot in group)
    names = [robot.name for robot in robots]
    doubled = next((name for name in names if names.count(name) > 1), "") if len(set(names)) < len(names) else ""
    if doubled:
        raise ConfigError(f"{where}: robots: {doubled!r} is there twice; rename one, or count fewer")
    known = {name: frozenset(r.name for r in group) for name, group in groups.items()}
    known |= {name: frozenset((name,)) for name in names}
    entries = top.get("links", None) or []
    if not isinstance(entries, list):
        raise top.wrong("links", entries, "a list, e.g. [{robots: all, bandwidth: 60 Mbit/s}]")
    rules = tuple(_rule(entry, f"{where}: links: {n}", known) for n, entry in enumerate(entries, 1))
    if not any(not rule.groups for rule in rules):
        for a, b in combinations(names, 2):
            if not any(rule.joins(a, b) for rule in rules):
                raise ConfigError(
                    f"{where}: links: none between {a} and {b}; add one, e.g. {{robots: all, bandwidth: 60 Mbit/s}}"
                )
    return Fleet(robots, rules)


def _robots(name: Any, entry: Any, where: str) -> Iterator[Robot]:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: expected a name of a to z, 0 to 9 and _, e.g. pi")
    keys = Keys.of(entry, where, _ROBOT)
    profile = keys.choice("profile", PROFILES, None) if "profile" in keys.content else ""
    if not profile and "speed" not in keys.content:
        raise ConfigError(
            f"{where}: 'speed' is missing; add it (e.g. speed: 0.6 GMAC/s) or a profile ({', '.join(PROFILES)})"
        )
    keys = Keys({**PROFILES.get(profile, {}), **keys.content}, where)
    power = Keys.of(keys.get("power", {}), f"{where}: power", ("idle", "busy"))
    watts = {state: POWER.read(power.get(state), f"{power.where}: {state}") for state in power.content}
    memory = int(SIZE.read(keys.get("memory"), f"{where}: memory", True)) if "memory" in keys.content else None
    count = keys.count("count", None, _MOST_ROBOTS) if "count" in keys.content else 0
    for robot in [f"{name}{n}" for n in range(1, count + 1)] or [name]:
        yield Robot(
            name=robot,
            speed=SPEED.read(keys.get("speed"), f"{where}: speed", True),
            overhead=DURATION.read(keys.get("overhead", "0 s"), f"{where}: overhead"),
            memory=memory,
            idle=watts.get("idle"),
            busy=watts.get("busy"),
            spread=SHARE.read(keys.get("spread", "0 %"), f"{where}: spread"),
            measured=_measured(keys.get("measured", None) or {}, f"{where}: measured"),
        )


def _measured(tree: Any, where: str) -> dict[str, tuple[float, ...]]:
    found = {}
    for model, text in Keys.of(tree, where, tree if isinstance(tree, dict) else ()).content.items():
        *numbers, unit = text.split() if isinstance(text, str) else [""]
        if not isinstance(model, str) or not _SHA256.fullmatch(model) or not numbers:
            raise ConfigError(
                f"{where}: {str(model)[:16]!r} is {str(text)[:40]!r}, expected a model's SHA-256 and its ops' times "
                "as '1.2 0.4 ms'; `dnn_dist profile` writes them"
            )
        found[model] = tuple(DURATION.read(f"{number} {unit}", f"{where}: {model[:12]}") for number in numbers)
    return found


def _rule(entry: Any, where: str, known: Mapping[str, frozenset[str]]) -> LinkRule:
    keys = Keys.of(entry, where, _LINK)
    delays = keys.get("delays", None) or []
    if not isinstance(delays, list):
        raise keys.wrong("delays", delays, "a list of measured times, e.g. [1.2 ms, 1.9 ms]")
    medium = keys.get("medium", "")
    if not isinstance(medium, str):
        raise keys.wrong("medium", medium, "a name, e.g. wifi")
    bandwidth = keys.get("bandwidth")
    loss = SHARE.read(keys.get("loss", "0 %"), f"{where}: loss")
    if loss >= 1:
        raise keys.wrong("loss", keys.get("loss"), "less than 100 %, e.g. 1 %")
    link = Link(
        bandwidth=math.inf if bandwidth == "unlimited" else BANDWIDTH.read(bandwidth, f"{where}: bandwidth", True),
        latency=DURATION.read(keys.get("latency", "0 s"), f"{where}: latency"),
        loss=loss,
        delays=tuple(DURATION.read(delay, f"{where}: delays") for delay in delays),
        gamma=_gamma(keys),
        medium=medium,
    )
    return LinkRule(_groups(keys, known), link)


def _gamma(keys: Keys) -> tuple[float, float] | None:
    text = keys.get("delay", None)
    if text is None:
        return None
    match = _GAMMA.fullmatch(text) if isinstance(text, str) else None
    if match is None or not float(match[1]):
        raise keys.wrong("delay", text, "gamma(SHAPE, SCALE), e.g. gamma(2, 1 ms)")
    return float(match[1]), DURATION.read(match[2], f"{keys.where}: delay", True)


def _groups(keys: Keys, known: Mapping[str, frozenset[str]]) -> tuple[frozenset[str], ...]:
    listed = keys.get("robots")
    if listed == "all":
        return ()
    if not isinstance(listed, list) or not listed:
        raise keys.wrong("robots", listed, "all, or a list of robots, e.g. [front, pi]")
    groups = []
    for entry in listed:
        words = entry if isinstance(entry, list) else [entry]
        for word in words:
            if word not in known:
                cure = near(str(word), known) or f", there are {_listed(tuple(known))}"
                raise ConfigError(f"{keys.where}: robots: no robot {word!r}{cure}")
        groups.append(frozenset[str]().union(*(known[word] for word in words)))
    return tuple(groups)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def measured_text(seconds: tuple[float, ...]) -> str:
    """Seconds of each op as a fleet file has them: whole microseconds and thousandths of them, in milliseconds."""
    return " ".join([*(repr(second) if not second else f"{second:.9g}" for second in seconds), "s"])


def _robot_tree(robot: Robot) -> dict[str, Any]:
    watts = {"idle": robot.idle, "busy": robot.busy}
    power = {state: POWER.write(value) for state, value in watts.items() if value is not None}
    return {
        "speed": SPEED.write(robot.speed),
        **({"overhead": DURATION.write(robot.overhead)} if robot.overhead else {}),
        **({"memory": SIZE.write(robot.memory)} if robot.memory is not None else {}),
        **({"power": power} if power else {}),
        **({"spread": SHARE.write(robot.spread)} if robot.spread else {}),
        **({"measured": {m: measured_text(s) for m, s in robot.measured.items()}} if robot.measured else {}),
    }


def _rule_tree(rule: LinkRule, order: tuple[str, ...]) -> dict[str, Any]:
    groups = [[name for name in order if name in group] for group in rule.groups]
    return {"robots": [group[0] if len(group) == 1 else group for group in groups] or "all", **_link_tree(rule.link)}


def link_text(link: Link) -> str:
    """A link as one line of a fleet file; `parse_link` gives an equal one back."""
    return str(yaml.safe_dump(_link_tree(link), sort_keys=False, width=1_000_000, default_flow_style=True)).strip()


def parse_link(text: str, where: str) -> Link:
    """The link in a line like that; `where` opens the error messages."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:
        tree = None
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: {text[:60]!r} is no link, expected e.g. {{bandwidth: 60 Mbit/s, latency: 2 ms}}")
    return _rule({**tree, "robots": "all"}, where, {}).link


def _link_tree(link: Link) -> dict[str, Any]:
    return {
        "bandwidth": "unlimited" if math.isinf(link.bandwidth) else BANDWIDTH.write(link.bandwidth),
        **({"latency": DURATION.write(link.latency)} if link.latency else {}),
        **({"loss": SHARE.write(link.loss)} if link.loss else {}),
        **({"delays": [DURATION.write(delay) for delay in link.delays]} if link.delays else {}),
        **({"delay": f"gamma({link.gamma[0]:.17g}, {DURATION.write(link.gamma[1])})"} if link.gamma else {}),
        **({"medium": link.medium} if link.medium else {}),
    }
