# SPDX-License-Identifier: Apache-2.0
"""The card of a model: the YAML file beside it, or else what the .tflite file tells of itself.

A file may tell:

- by its graph: the input's size and quantisation; that it ends in TFLite_Detection_PostProcess, and which output is
  which; that it gives one vector, as classifiers do;
- by its metadata (graph/metadata.py): labels, how pixels become numbers, which output is which, a score threshold.

What neither tells is guessed where a guess is usual, and named as guessed; what cannot be guessed is missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dnn_dist.detect.card import ModelCard, card_path, load_card, parse_card
from dnn_dist.errors import ConfigError
from dnn_dist.graph.metadata import ModelFacts, packed_files, read_labels, read_metadata
from dnn_dist.graph.network import Network, Op, Tensor

_POSTPROCESS = "CUSTOM:TFLite_Detection_PostProcess"
_ROLES = ("boxes", "classes", "scores", "count")  # of that op's outputs, in its order
_SIDES = (1, 0, 3, 2)  # top, left, bottom, right, as that op gives them


@dataclass(slots=True)
class Described:
    """A card made from the file alone."""

    content: dict[str, Any] = field(default_factory=dict)
    """As a card file holds it. Complete where nothing is missing."""
    sources: dict[str, str] = field(default_factory=dict)
    """Key, as `input.scale` -> what of the file tells it."""
    guessed: dict[str, str] = field(default_factory=dict)
    """Key -> why its value is a guess."""
    missing: str = ""
    """What the file does not tell and nobody can guess, in words."""

    def put(self, key: str, value: Any, source: str = "", guess: str = "") -> None:
        """Set a key of the content, as `input.scale`: told by `source`, or a guess for a reason."""
        *parents, last = key.split(".")
        place = self.content
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
        if guess:
            self.guessed[key] = guess
        else:
            self.sources[key] = source


def card_of(network: Network) -> ModelCard:
    """The card of a model: from the file beside it, or else from the model's own file.

    ConfigError when the card is wrong, or missing and needed; ModelError when what is inside the model is damaged.
    """
    path = card_path(network.path)
    if path is None:
        found = describe(network)
        if found.missing:
            raise ConfigError(f"{network.path}: no model card, and {found.missing}; {_cure(network.path)}")
        return parse_card(found.content, str(network.path))
    card, image = load_card(path), network.tensors[network.inputs[0]]
    if (card.height, card.width) != image.array_shape[:2]:
        raise ConfigError(
            f"{path}: input is {card.height}x{card.width}, but {network.path.name} takes "
            f"{'x'.join(map(str, image.array_shape[:2]))}; correct input.shape in the card"
        )
    return card


def guesses(network: Network) -> list[str]:
    """What is guessed of a model that has no card, a line each; empty with a card, or where the file tells all."""
    if card_path(network.path) is not None:
        return []
    return [f"{key}: {why}" for key, why in describe(network).guessed.items()]


def pixels_of(network: Network) -> tuple[float, float]:
    """(scale, offset): the model sees scale * byte + offset. By its card, or else by its file, whatever its outputs."""
    path = card_path(network.path)
    if path is not None:
        known = load_card(path)
        return known.scale, known.offset
    found = Described()
    for image in network.inputs[:1]:
        _pixels(found, network.tensors[image], read_metadata(network.file))
    told = found.content.get("input", {"scale": 1 / 255, "offset": 0.0})
    return told["scale"], told["offset"]


def describe(network: Network) -> Described:
    """All that the file tells of a model; of several inputs the first stands for all. ConfigError when they are no
    images.
    """
    inputs = [network.tensors[tensor] for tensor in network.inputs]
    if not inputs or not all(image.is_image and image.shape[3] == 3 for image in inputs):
        shapes = ", ".join(map(_extents, inputs)) or "nothing"
        raise ConfigError(f"{network.path}: takes {shapes}, expected images of 1 x height x width x 3")
    image, metadata = inputs[0], read_metadata(network.file)
    found = Described({"classes": [], "input": {"shape": list(image.shape)}})  # in this order in a file
    found.sources["input.shape"] = "the graph"
    _pixels(found, image, metadata)
    _outputs(found, network, metadata)
    return found


def _cure(model: Path) -> str:
    return f"write {model.with_suffix('.yaml').name} beside it with classes, input, output (begin with: dnn_dist card)"


# How pixels become numbers


def _pixels(found: Described, image: Tensor, metadata: ModelFacts | None) -> None:
    step = image.scale or 0.0
    if image.dtype == "uint8":  # bytes go in as they are, whatever the metadata says of the float model behind it
        told = f"the input is uint8: bytes go in as they are, zero is {image.zero_point}"
        found.put("input.scale", step or 1.0, told)
        found.put("input.offset", -image.zero_point * step, told)
    elif metadata is not None and metadata.mean and metadata.std:
        _normalised(found, metadata)
    elif step and image.dtype == "int8":  # what was seen in training spans the range of the type
        why = "nothing is told of it; the input's quantisation spans so much"
        found.put("input.scale", step, guess=why)
        found.put("input.offset", (np.iinfo(np.int8).min - image.zero_point) * step, guess=why)
    else:
        found.put("input.scale", 1 / 255, guess="nothing is told of it; many models take pixel / 255")
        found.put("input.offset", 0.0, guess="nothing is told of it; others take 2 * pixel / 255 - 1")


def _normalised(found: Described, metadata: ModelFacts) -> None:
    """(pixel - mean) / std as scale * pixel + offset."""
    mean, std = np.array(metadata.mean), np.array(metadata.std)
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        why = f"the metadata says mean {metadata.mean}, std {metadata.std}, which is no normalisation"
        found.put("input.scale", 1 / 255, guess=why)
        found.put("input.offset", 0.0, guess=why)
        return
    scale, offset = 1 / float(std.mean()), 0.0 - float(mean.mean()) / float(std.mean())
    if len(set(metadata.mean)) == len(set(metadata.std)) == 1:
        told = f"the metadata: (pixel - {mean[0]:g}) / {std[0]:g}"
        found.put("input.scale", scale, told)
        found.put("input.offset", offset, told)
    else:
        why = f"the mean of the colours: the metadata has mean {metadata.mean}, std {metadata.std}, a card one of each"
        found.put("input.scale", scale, guess=why)
        found.put("input.offset", offset, guess=why)


# What the outputs are


def _outputs(found: Described, network: Network, metadata: ModelFacts | None) -> None:
    outputs = [network.tensors[t] for t in network.outputs]
    op = _maker(network)
    told = _told_roles(metadata, len(outputs))
    if op is not None or told:
        order = [_ROLES[op.outputs.index(t)] for t in network.outputs] if op is not None else told
        found.put("output.head", "ssd_postprocessed", "TFLite_Detection_PostProcess" if op else "the metadata")
        found.put("output.order", order, "the graph" if op else "the metadata")
        _name_classes(found, network, metadata, _scored_classes(network, op) if op is not None else 0, values=True)
    elif len(outputs) == 1 and math.prod(outputs[0].array_shape) == max(outputs[0].array_shape, default=0):
        found.put("output.head", "classification", "the graph: one vector")
        _name_classes(found, network, metadata, max(outputs[0].array_shape), values=False)
    else:
        shapes = ", ".join(map(_extents, outputs)) or "none"
        _name_classes(found, network, metadata, 0, values=True)
        found.missing = f"outputs {shapes} are not one vector of class scores, and nothing in the file tells their head"
        return
    _thresholds(found, metadata)


def _maker(network: Network) -> Op | None:
    """The post-processing op, where all outputs are its own four."""
    ops = [op for op in network.ops if op.kind == _POSTPROCESS]
    fits = len(ops) == 1 and len(ops[0].outputs) == 4 and sorted(ops[0].outputs) == sorted(network.outputs)
    return ops[0] if fits else None


def _scored_classes(network: Network, op: Op) -> int:
    """Classes of the post-processing op without background, by its second input, scores (1, N, 1 + n); 0: not known."""
    scores = network.tensors[op.inputs[1]].shape if len(op.inputs) > 1 else ()
    return max(0, scores[-1] - 1) if len(scores) == 3 else 0


def _told_roles(metadata: ModelFacts | None, count: int) -> list[str]:
    """By the metadata: boxes are marked as such, classes have labels, the count is named so. Empty: not told."""
    outputs = metadata.outputs if metadata is not None else ()
    if count != 4 or len(outputs) != 4:
        return []
    roles = ["scores"] * 4
    for number, output in enumerate(outputs):
        if output.box_order == _SIDES:
            roles[number] = "boxes"
        elif output.value_labels:
            roles[number] = "classes"
        elif "number" in output.name.lower() or "count" in output.name.lower():
            roles[number] = "count"
    return roles if sorted(roles) == sorted(_ROLES) else []


def _name_classes(found: Described, network: Network, metadata: ModelFacts | None, count: int, values: bool) -> None:
    """`count`: names that the outputs need, 0: not known. `values`: labels name values of an output, not its places."""
    outputs = metadata.outputs if metadata is not None else ()
    files = [output.value_labels if values else output.axis_labels for output in outputs]
    packed = packed_files(network.file)
    name = next((file for file in files if file in packed), "")
    guess = ""
    if not name:
        loose = [file for file in packed if file.lower().endswith(".txt")]
        name = loose[0] if len(loose) == 1 else ""
        guess = f"{name[:64]} is the only list inside the file; nothing says that it is the classes'" if name else ""
    labels = list(read_labels(network.file, name)) if name else []
    if values and len(labels) == count + 1 > 1:  # the first is that of nothing, which the op leaves out
        guess = f"{name[:64]} inside the file has one name more than there are classes; the first is left out"
        labels = labels[1:]
    if labels and count in (0, len(labels)):
        found.put("classes", labels, f"{name[:64]} inside the file", guess)
        return
    if not count:
        found.missing = "nothing in the file tells its classes"
        return
    many = f"{name[:64]} inside the file has {len(labels)} names for {count} classes"
    why = f"{many if labels else 'the file has no names'}; they are numbered"
    found.put("classes", [f"class {k}" for k in range(count)], guess=why)


def _thresholds(found: Described, metadata: ModelFacts | None) -> None:
    outputs = metadata.outputs if metadata is not None else ()
    least = next((output.threshold for output in outputs if output.threshold is not None), None)
    if least is not None and 0 <= least <= 1:
        found.put("output.score_threshold", least, "the metadata")
    elif any(output.calibrated for output in outputs):
        why = "the usual one; the file has parameters to calibrate scores, which are not applied"
        found.put("output.score_threshold", 0.3, guess=why)


def _extents(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.array_shape)) or "of unknown shape"
