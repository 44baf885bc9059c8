# SPDX-License-Identifier: Apache-2.0
"""What the core must hold on any kind of machine: `deploy/arm64.py` runs it here and under emulation.

    python deploy/laws.py OUT.npz MODEL...
    python deploy/laws.py --compare HERE.npz THERE.npz

Each model is cut in every way. Merged tiles, bands and layers must equal the whole model bit for bit, and so must
slices of int8 models. Slices of float32 models may differ by rounding: for few channels the runtime sums in another
order on some processors. What the whole models give goes to OUT.npz, so that two kinds of machine can be compared:
int8 models must give the same everywhere, float32 ones differ by rounding.
"""

import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]

import numpy as np  # noqa: E402
from cutting import random_inputs, run_stages, run_whole  # noqa: E402

from dnn_dist.cut.spec import cut_network  # noqa: E402
from dnn_dist.errors import CutError  # noqa: E402
from dnn_dist.graph.tflite import read_network  # noqa: E402

CUTS = ("tiles:2x2", "tiles:3x2b", "tiles:auto", "bands:3", "bands:3g", "layers:2", "slices:3")
ROUNDED = 1e-4  # of the largest value; the same bound as for results that are decoded


def main() -> int:
    """Does what the command line asks for; 1 when a law does not hold."""
    first, *others = sys.argv[1:]
    return compare(*others) if first == "--compare" else cut_all(first, others)


def cut_all(out: str, models: list[str]) -> int:
    """Prints a line for each model and cut."""
    print(f"{platform.machine()}, NumPy {np.__version__}")
    wholes: dict[str, np.ndarray] = {}
    broken = 0
    for path in map(Path, models):
        network = read_network(path)
        inputs = random_inputs(network)
        whole = run_whole(network, inputs)
        for number, tensor in enumerate(network.outputs):
            wholes[f"{path.stem} {number}"] = whole[tensor]
        for cut in CUTS:
            try:
                stages = cut_network(network, cut)
            except CutError as error:
                print(f"  {path.stem}  {cut}: does not apply: {error}")
                continue
            merged = run_stages(network, stages, inputs)
            apart = max(difference(merged[tensor], array) for tensor, array in whole.items())
            allowed = ROUNDED if cut.startswith("slices") and "int8" not in path.stem else 0.0
            broken += apart > allowed
            said = "equal" if not apart else f"{apart:.1e} of the largest value apart"
            print(f"  {path.stem}  {cut}: {said}{'' if apart <= allowed else ', WHICH BREAKS THE LAW'}", flush=True)
    np.savez(out, **wholes)
    return 1 if broken else 0


def compare(here: str, there: str) -> int:
    """Prints how far the same whole models are apart on two kinds of machine."""
    ours, theirs = np.load(here), np.load(there)
    broken = 0
    for name in ours:
        apart = difference(theirs[name], ours[name])
        allowed = 0.0 if "int8" in name else ROUNDED
        broken += apart > allowed
        said = "equal on both machines" if not apart else f"{apart:.1e} of the largest value between the machines"
        print(f"  {name.rsplit(' ', 1)[0]}  whole: {said}{'' if apart <= allowed else ', WHICH BREAKS THE LAW'}")
    return 1 if broken else 0


def difference(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, as a share of the largest value; 0 only where all bits are equal."""
    if got.tobytes() == expected.tobytes():
        return 0.0
    exact = expected.astype(np.float64)
    return float(max(np.abs(got - exact).max() / max(np.abs(exact).max(), 1e-30), 1e-30))


if __name__ == "__main__":
    sys.exit(main())
