# SPDX-License-Identifier: Apache-2.0
"""Network namespaces joined by the air of `medium.py`: one TAP device in each, one process that moves the frames.

    sudo python3 bench/namespaces.py r1 r2 r3 --loss 0.03
    sudo ip netns exec air-PID-r1 ping 10.77.0.2        # in another terminal

Commands are lines on standard input, each answered by one line of JSON:

    set rate=5e6 loss=0.1      rate (bit/s), overhead, delay, jitter (s), loss (0..1), queue (bytes)
    cut [A [B]]                all links, all of A, or the one between A and B
    heal [A [B]]
    counters

It ends with its input, on Ctrl-C or on an error, and takes the namespaces and what runs in them along. Nothing inside
reaches the machine's own network: there is no default route, and the only device beside loopback ends in this process.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, fields
from typing import Any

from medium import Medium, Weather
from resent import Resent

DEVICE = "air0"
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x2, 0x1000
MAC = bytes.fromhex("02d1570000")  # locally administered; the last byte is the station's number
BURST = 64  # frames read from one station before the others get their turn


def address(number: int) -> str:
    """IPv4 address of the station with this number, from 1."""
    return f"10.77.0.{number}"


def _mac(number: int) -> bytes:
    return MAC + bytes([number])


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


class Taps:
    """The namespaces and their devices. A context manager: at its end nothing is left of them."""

    def __init__(self, stations: Sequence[str]) -> None:
        self.namespaces = {name: f"air-{os.getpid()}-{name}" for name in stations}
        self.files: dict[str, int] = {}  # station -> file descriptor of its TAP
        self._end = ExitStack()

    def __enter__(self) -> Taps:
        sweep()
        with self._end:  # what is there so far goes when the rest fails
            for number, (station, namespace) in enumerate(self.namespaces.items(), start=1):
                _ip("netns", "add", namespace)
                self._end.callback(_remove, namespace)
                self.files[station] = self._tap(number, namespace)
            self._end = self._end.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    def _tap(self, number: int, namespace: str) -> int:
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        self._end.callback(os.close, file)  # the device goes with it
        name = f"air{os.getpid()}.{number}"
        fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        _ip("link", "set", name, "address", _mac(number).hex(":"), "netns", namespace, "name", DEVICE)
        inside = ("-n", namespace)
        # IPv6 would talk of its own accord.
        _ip("netns", "exec", namespace, "sysctl", "-qw", f"net.ipv6.conf.{DEVICE}.disable_ipv6=1")
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "address", "add", f"{address(number)}/24", "brd", "+", "dev", DEVICE)
        _ip(*inside, "link", "set", DEVICE, "up")
        _ip(*inside, "route", "add", "224.0.0.0/4", "dev", DEVICE)
        for other in range(1, len(self.namespaces) + 1):
            if other != number:  # ARP's own retries, seconds apart, are not what is to be seen here
                _ip(*inside, "neighbour", "add", address(other), "lladdr", _mac(other).hex(":"), "dev", DEVICE)
        return file


def _remove(namespace: str) -> None:
    """End what runs in a namespace of ours, then the namespace."""
    with suppress(RuntimeError):
        for process in _ip("netns", "pids", namespace).split():
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        _ip("netns", "delete", namespace)


def sweep() -> None:
    """Remove what a killed run has left: namespaces that carry the number of a process that is gone."""
    for name in _ip("netns", "list").split():
        mark = re.fullmatch(r"air-(\d+)-\w+", name)
        if mark and not os.path.exists(f"/proc/{mark[1]}"):
            _remove(name)


def carry(taps: Taps, medium: Medium) -> None:
    """Move frames and obey commands until standard input ends."""
    stations = list(taps.files)
    by_mac = {_mac(number): (name,) for number, name in enumerate(stations, start=1)}
    others = {name: tuple(other for other in stations if other != name) for name in stations}
    by_file = {file: name for name, file in taps.files.items()}
    began = time.monotonic()
    resent = Resent()
    line = b""
    while True:
        wait = min(max(0.0, medium.next_wake() - time.monotonic()), 1.0)
        readable, _, _ = select.select([sys.stdin.fileno(), *by_file], [], [], wait)
        now = time.monotonic()
        for file in readable:
            if file not in by_file:
                read = os.read(file, 4096)
                if not read:
                    return
                *commands, line = (line + read).split(b"\n")
                for command in commands:
                    print(json.dumps(_obey(command.decode(errors="replace"), medium, resent, now, began)), flush=True)
                continue
            with suppress(BlockingIOError):
                for _ in range(BURST):
                    frame = os.read(file, 2048)
                    sender, to = by_file[file], frame[:6]
                    receivers = others[sender] if to[0] & 1 else by_mac.get(to, ())
                    medium.send(sender, receivers, frame, now)
                    resent.see(frame)
        for receiver, frame in medium.advance(now):
            with suppress(OSError):  # a device whose buffer is full drops, as real ones do
                os.write(taps.files[receiver], frame)


def _obey(line: str, medium: Medium, resent: Resent, now: float, began: float) -> dict[str, Any]:
    """Carry out one command; returns its answer."""
    word, *rest = line.split() or [""]
    try:
        if word == "counters":
            again = {"resent": resent.frames, "resent_bytes": resent.bytes}
            return {**medium.told(), **again, "time": now, "seconds": now - began}
        if word == "set":
            kinds = {entry.name: type(entry.default) for entry in fields(Weather)}
            pairs = dict(pair.partition("=")[::2] for pair in rest)
            medium.change(now, **{name: kinds[name](float(value)) for name, value in pairs.items()})
            return asdict(medium.weather)
        if word in ("cut", "heal"):
            (medium.cut if word == "cut" else medium.heal)(*rest)
            return {word: rest or "all", "time": now}
    except KeyError as error:
        return {"error": f"{error.args[0]!r}: expected {', '.join(entry.name for entry in fields(Weather))}"}
    except ValueError as error:
        return {"error": str(error)}
    return {"error": f"{word!r}: expected set, cut, heal or counters"}


class Air:
    """This program as a process of its own: `enter` starts things inside, `command` says what the air does."""

    def __init__(self, stations: Sequence[str], weather: Weather | None = None, seed: int = 0) -> None:
        self.stations = list(stations)
        self._arguments = [f"--{name}={value}" for name, value in asdict(weather or Weather()).items()]
        self._arguments += [f"--seed={seed}", *stations]

    def __enter__(self) -> Air:
        """RuntimeError, in one line, when the machine does not let us."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us: it ends with its input, after what runs inside
        )
        answer = self._process.stdout.readline()
        if not answer:
            why = self._process.communicate()[1].strip().splitlines() or ["ended at once"]
            raise RuntimeError(why[-1])
        self.namespaces: dict[str, str] = json.loads(answer)["namespaces"]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def enter(self, station: str) -> list[str]:
        """What stands before a command that is to run at a station."""
        return ["ip", "netns", "exec", self.namespaces[station]]

    def address(self, station: str) -> str:
        """IPv4 address of a station."""
        return address(self.stations.index(station) + 1)

    def command(self, line: str) -> dict[str, Any]:
        """See the module. RuntimeError when it is refused."""
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "the air has ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def set(self, weather: Weather) -> None:
        """Other weather."""
        self.command("set " + " ".join(f"{name}={value}" for name, value in asdict(weather).items()))

    def counters(self) -> dict[str, Any]:
        """Sums since the start, and `time` (s, steady clock) and `seconds` since the start."""
        return self.command("counters")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stations", nargs="+", metavar="STATION", help="names: letters, digits and _")
    parser.add_argument("--seed", type=int, default=0, help="of what is lost")
    for entry in fields(Weather):
        parser.add_argument(f"--{entry.name}", type=type(entry.default), default=entry.default)
    args = parser.parse_args()
    if not all(re.fullmatch(r"\w+", name) for name in args.stations):
        parser.error("a station's name is of letters, digits and _")
    if not len(set(args.stations)) == len(args.stations) <= 250:
        parser.error("up to 250 stations of different names are expected")
    if os.geteuid() != 0:
        print("network namespaces need root: run with sudo", file=sys.stderr)
        return 2

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell's background job ignores SIGINT by default
        signal.signal(kind, end)
    with suppress(OSError):
        os.nice(-10)  # the air does not wait for processors
    try:
        medium = Medium(args.stations, Weather(**{e.name: getattr(args, e.name) for e in fields(Weather)}), args.seed)
        with Taps(args.stations) as taps:
            print(json.dumps({"namespaces": taps.namespaces}), flush=True)
            carry(taps, medium)
    except KeyboardInterrupt:
        pass
    except (RuntimeError, ValueError, OSError) as error:
        print(f"the air can't be made: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
