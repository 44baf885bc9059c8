# SPDX-License-Identifier: Apache-2.0
"""What travelling smaller costs the shipped detector: average precision and bytes of a frame, by saving.

    .venv/bin/dnn_dist-env python bench/saving.py --jpeg 95 80 60 40 --scenes 600

Held-out scenes of models/dataset.py go through the cut's pieces in one process, each tensor through the message in
which it would travel. `bench/air.py saving` shows what it is worth on a slow link.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from dataset import HELD_OUT_SEED, Scene, make_scenes
from measure import score

from dnn_dist.modelcard import card_of
from dnn_dist.nodes.convert import read_tensor, tensor_message
from dnn_dist.nodes.planning import load_network, make_plan
from dnn_dist.run.pieces import PieceSet
from dnn_dist.run.saving import Saving
from dnn_dist.run.store import TensorStore
from dnn_dist.run.wire import WireTensor


class Pipe:
    """A cut network in one process, whose tensors travel as messages do."""

    def __init__(self, model: str, cut: str) -> None:
        self.network = load_network(model)
        self.card = card_of(self.network)
        plan = make_plan(self.network, self.card, cut)
        self.store = TensorStore(self.network, plan)
        self.pieces = PieceSet(self.network, plan, plan.stages(self.network), local=False)
        self.pieces.prepare()
        self.bytes = 0  # that travelled so far

    def __call__(self, image: np.ndarray, saving: Saving) -> np.ndarray:
        """The model's output of a picture."""
        self.store.begin(0, image, saving)
        for number, stage in enumerate(self.store.stages):
            if stage.distributed:
                for piece in range(len(stage.pieces)):
                    inputs = self._sent(self.store.work(0, number, piece))
                    outputs = self.pieces.run(number, piece, self.pieces.inputs(number, piece, inputs, {}))
                    result = self._sent(self.pieces.result(number, piece, outputs, saving.wire))
                    self.store.keep(0, number, piece, self.store.check(number, piece, result)[1])
                self.store.settle(0, number, whole=True)
            else:
                self.store.run_local(0, number)
        (found,) = self.store.results(0)
        self.store.release(0)
        return found

    def _sent(self, tensors: Sequence[WireTensor]) -> list[WireTensor]:
        messages = [tensor_message(tensor) for tensor in tensors]
        self.bytes += sum(len(message.data) for message in messages)
        return [read_tensor(message) for message in messages]


def measured(pipe: Pipe, saving: Saving, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Average precision at IoU 0.5, and bytes of a frame."""
    before = pipe.bytes

    def answers() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number, (image, truth) in enumerate(scenes, 1):
            print(f"\r{str(saving) or 'as usual'}: {number}/{len(scenes)} ", end="", file=sys.stderr, flush=True)
            yield pipe(image, saving), truth

    found = score(pipe.card, answers())
    print(file=sys.stderr)
    return {"saving": str(saving), "map": found["mean"], "bytes": (pipe.bytes - before) / len(scenes)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="warehouse_float32.tflite")
    parser.add_argument("--cut", default="tiles:2x2@0..10")
    parser.add_argument("--jpeg", type=int, nargs="+", default=[95, 80, 60, 40], help="qualities")
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    scenes = make_scenes(HELD_OUT_SEED, args.scenes, os.cpu_count() or 1)
    pipe = Pipe(args.model, args.cut)
    narrow = [Saving(), Saving("float16"), Saving("int8"), *(Saving("float16", quality) for quality in args.jpeg)]
    found = [measured(pipe, saving, scenes) for saving in narrow]
    print("| saving | mAP | lost, points | kB a frame |\n|---|---|---|---|")
    for one in found:
        lost = 100 * (found[0]["map"] - one["map"])
        print(f"| {one['saving'] or 'none'} | {100 * one['map']:.1f} % | {lost:.1f} | {one['bytes'] / 1e3:.0f} |")
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
