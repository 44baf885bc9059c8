#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The core's laws on arm64, under emulation, and how far arm64 and this machine are apart: `make arm64`.

Needs Debian or Ubuntu with qemu-user-static; no root. Python for arm64 comes from the distribution that apt is
configured for, LiteRT and NumPy from the package index that pip is configured for; both go to build/arm64. This shows
that results are right there, and says nothing about speed.
"""

import argparse
import os
import shutil
import subprocess
import sys

from environment import REQUIREMENTS
from machine import ROOT, VENV

OUT = ROOT / "build/arm64"
SYSTEM = OUT / "root"
PACKAGES = ("python3", "libstdc++6")
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
FEATURES = "fp asimd evtstrm crc32 cpuid"
CORES = {
    "cortex-a53": ("0xd03", FEATURES),
    "cortex-a72": ("0xd08", FEATURES),
    "cortex-a76": ("0xd0b", f"{FEATURES} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"),
}
"""Core -> its part number and features, as /proc/cpuinfo has them: those of Raspberry Pi 3, 4, 5. The runtime chooses
its kernels by these, and ends with a segmentation fault where it finds another machine's."""
MODELS = tuple(
    f"{folder}/{name}_{kind}.tflite"
    for folder, name in (("models", "warehouse"), *(("test/models", one) for one in ("chain", "mobile", "residual")))
    for kind in ("float32", "int8")
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cores", nargs="*", metavar="CORE", help=f"of {', '.join(CORES)}; all by default")
    arguments = parser.parse_args()
    if unknown := set(arguments.cores) - set(CORES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; take of {', '.join(CORES)}")
    emulator = shutil.which("qemu-aarch64-static")
    lacking = [name for name in ("apt-get", "dpkg-deb") if not shutil.which(name)]
    if not emulator or lacking:
        names = ", ".join([*([] if emulator else ["qemu-aarch64-static"]), *lacking])
        sys.exit(f"{names} is not here: on Debian and Ubuntu, apt install qemu-user-static")
    fetch()
    here = run([VENV / "bin/dnn_dist-env", "python"], "here", {})
    codes = [here]
    for core in arguments.cores or CORES:
        write_cpuinfo(core)
        print(f"\n{core}, under {emulator}", flush=True)
        python = [emulator, "-cpu", core, "-L", SYSTEM, SYSTEM / "usr/bin" / interpreter()]
        codes += [run(python, core, {"PYTHONPATH": str(OUT / "site")}), compare(core)]
    return max(codes)


def fetch() -> None:
    """Python and wheels for arm64, once. apt's state is a folder of its own: the machine's is not touched."""
    wanted = "\n".join([*PACKAGES, (REQUIREMENTS / "core.txt").read_text(), (VENV / "constraints.txt").read_text()])
    stamp = OUT / "stamp"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(OUT, ignore_errors=True)
    apt = OUT / "apt"
    for folder in (apt / "lists/partial", apt / "cache/archives/partial", SYSTEM / "proc"):
        folder.mkdir(parents=True)
    (apt / "status").touch()
    options = {
        **{"APT::Architecture": "arm64", "APT::Architectures": "arm64", "Dir::State": apt},
        **{"Dir::State::lists": apt / "lists", "Dir::State::status": apt / "status", "Dir::Cache": apt / "cache"},
    }
    get = ["apt-get", "-qq", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    print("downloading Python and LiteRT for arm64, about a minute", flush=True)
    call(*get, "update")
    call(*get, "install", "--yes", "--no-install-recommends", "--download-only", *PACKAGES)
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        call("dpkg-deb", "-x", package, SYSTEM)
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    version = interpreter().removeprefix("python")
    call(
        *(VENV / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *platforms),
        *("--python-version", version, "--only-binary=:all:", "--target", OUT / "site"),
        *("-c", VENV / "constraints.txt", "-r", REQUIREMENTS / "core.txt"),
    )
    stamp.write_text(wanted)


def call(*command: object) -> None:
    words = [str(word) for word in command]
    if subprocess.run(words, check=False, stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"this failed, see above: {' '.join(words)}")


def interpreter() -> str:
    """Name of the Python in the system, e.g. python3.11."""
    return next(path.name for path in sorted((SYSTEM / "usr/bin").glob("python3.*")) if path.name[8:].isdecimal())


def write_cpuinfo(core: str) -> None:
    part, features = CORES[core]
    facts = {"processor": "0", "BogoMIPS": "108.00", "Features": features, "CPU implementer": "0x41"}
    facts |= {"CPU architecture": "8", "CPU variant": "0x0", "CPU part": part, "CPU revision": "3"}
    (SYSTEM / "proc/cpuinfo").write_text("".join(f"{name}\t: {value}\n" for name, value in facts.items()) + "\n")


def run(python: list[object], name: str, added: dict[str, str]) -> int:
    """The laws by one interpreter; what the whole models give goes to NAME.npz."""
    command = [*python, ROOT / "deploy/laws.py", OUT / f"{name}.npz", *MODELS]
    ended = subprocess.run([str(word) for word in command], cwd=ROOT, env={**os.environ, **added}, check=False)
    return min(abs(ended.returncode), 1)


def compare(core: str) -> int:
    """Prints how far whole models are apart on this machine and on that core; 1 where int8 ones are."""
    files = [OUT / "here.npz", OUT / f"{core}.npz"]
    command = [VENV / "bin/dnn_dist-env", "python", ROOT / "deploy/laws.py", "--compare", *files]
    return subprocess.run([str(word) for word in command], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
