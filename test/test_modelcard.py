# SPDX-License-Identifier: Apache-2.0
"""The card of a model without one: what its file tells, what is guessed, and what is said when neither will do."""

import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from cutting import FIXTURES, assert_equal
from described import AXIS_LABELS, BOXES, CALIBRATION, VALUE_LABELS, describe_in, metadata
from netbuilder import NetBuilder

from dnn_dist.cli.main import main
from dnn_dist.cut.spec import cut_network
from dnn_dist.detect.card import load_card, parse_card
from dnn_dist.detect.head import make_head
from dnn_dist.errors import ConfigError, DnnDistError, ModelError
from dnn_dist.graph.tflite import read_network
from dnn_dist.modelcard import card_of, describe, guesses, pixels_of
from dnn_dist.plan.plan import Pixels
from dnn_dist.run.wire import decode_pixels

ZOO = FIXTURES / "zoo"
ANIMALS = [f"animal {k}" for k in range(10)]
LABELS = {"labels.txt": "\n".join(ANIMALS) + "\n\n"}
CLASSES = [{"name": "probability", "files": {"labels.txt": AXIS_LABELS}}]
SSD_LABELS = {"labelmap.txt": "cone\ncrate\nbarrel"}
SSD = {  # as TensorFlow Lite Support's writer of detectors names them
    "boxes": {"name": "location", "box": BOXES},
    "classes": {"name": "category", "files": {"labelmap.txt": VALUE_LABELS}},
    "scores": {"name": "score"},
    "count": {"name": "number of detections"},
}
CONVERTED = ["classes", "count", "boxes", "scores"]  # the converter's order in the fixtures ssd_postprocessed_*


def classifier(folder, content=None, files=None, kind="float32"):
    """A converter-made classifier of ten classes with metadata, and no card."""
    told = metadata([127.5], [127.5], CLASSES) if content is None else content
    where = folder / f"classifier_{kind}.tflite"
    packed = LABELS if files is None else files
    return read_network(describe_in(ZOO / f"mobilenet_v2_{kind}.tflite", where, told, packed))


def detector(folder, kind="float32"):
    told = metadata([0.0], [255.0], [SSD[role] for role in CONVERTED])
    where = folder / f"detector_{kind}.tflite"
    return read_network(describe_in(ZOO / f"ssd_postprocessed_{kind}.tflite", where, told, SSD_LABELS))


def shapes_of(network):
    return [network.tensors[t].array_shape for t in network.outputs]


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_classifier_with_metadata_needs_no_card(tmp_path, kind):
    network = classifier(tmp_path, kind=kind)
    card = card_of(network)
    assert (card.head, list(card.classes), card.height, card.width) == ("classification", ANIMALS, 96, 64)
    assert (card.scale, card.offset) == pytest.approx((1 / 127.5, -1.0))
    assert pixels_of(network) == (card.scale, card.offset)
    assert guesses(network) == []
    make_head(card, shapes_of(network))


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_detector_with_metadata_has_the_card_that_people_wrote(tmp_path, kind):
    network = detector(tmp_path, kind)
    card, written = card_of(network), load_card(ZOO / "ssd_postprocessed.yaml")
    assert guesses(network) == []
    assert card.output.get("order") == written.output.get("order") == CONVERTED
    assert replace(card, scale=0, output=written.output) == replace(written, scale=0)
    assert card.scale == pytest.approx(written.scale)
    make_head(card, shapes_of(network))


def test_metadata_and_packed_files_do_not_change_what_pieces_compute(tmp_path):
    network = detector(tmp_path)
    assert_equal(network, cut_network(network, "tiles:2x2@0..3;local"))


def test_roles_of_outputs_are_taken_from_metadata_where_no_op_tells_them(tmp_path):
    net = NetBuilder()
    x = net.input(8, 8, 3)
    model = tmp_path / "four.tflite"
    model.write_bytes(net.build([net.conv(x, 4, (1, 1)) for _ in range(4)]))

    def described(order, **changed):
        roles = [SSD[role] | changed.get(role, {}) for role in order]
        told = metadata([0], [1], roles)
        return describe(read_network(describe_in(model, tmp_path / "told.tflite", told, SSD_LABELS)))

    found = described(CONVERTED)
    assert found.content["output"] == {"head": "ssd_postprocessed", "order": CONVERTED}
    assert found.content["classes"] == ["cone", "crate", "barrel"]
    # boxes in another order, or in pixels, are not what the head takes
    for wrong in ({"box": (0, 1, 2, 3)}, {"coordinates": 1}):
        assert "nothing in the file tells their head" in described(CONVERTED, boxes=wrong).missing


def test_bytes_go_into_an_old_uint8_model_as_they_are(tmp_path):
    """Whatever its metadata says of the float model behind it: so published models are used."""
    told = metadata([127.5], [127.5], [{"files": {"labels.txt": AXIS_LABELS}}])
    source = FIXTURES / "residual_int8_uint8_edges.tflite"
    network = read_network(describe_in(source, tmp_path / "old.tflite", told, {"labels.txt": "a\nb\nc\nd"}))
    card, image = card_of(network), network.tensors[network.inputs[0]]
    assert (image.dtype, guesses(network)) == ("uint8", [])
    given = np.resize(np.arange(256, dtype=np.uint8), image.array_shape)
    pixels = Pixels(card.scale, card.offset)
    got = decode_pixels(given, pixels, "uint8", image.scale, image.zero_point, image.array_shape)
    assert (got == given).all()


def test_what_is_not_told_is_guessed_and_named(tmp_path):
    shutil.copy(ZOO / "mobilenet_v2_float32.tflite", tmp_path / "bare.tflite")
    network = read_network(tmp_path / "bare.tflite")
    card = card_of(network)
    assert card.classes[:2] == ("class 0", "class 1") and card.scale == pytest.approx(1 / 255)
    assert [line.split(":")[0] for line in guesses(network)] == ["input.scale", "input.offset", "classes"]


def test_an_int8_input_is_taken_to_span_the_bytes(tmp_path):
    shutil.copy(ZOO / "mobilenet_v2_int8.tflite", tmp_path / "bare.tflite")
    network = read_network(tmp_path / "bare.tflite")
    image = network.tensors[network.inputs[0]]
    pixels = Pixels(*pixels_of(network))
    got = decode_pixels(np.arange(256, dtype=np.uint8), pixels, "int8", image.scale, image.zero_point, (256,))
    assert (got == np.arange(-128, 128)).all()


def test_colours_that_are_normalised_apart_give_their_mean_as_a_guess(tmp_path):
    told = metadata([120, 110, 100], [60, 50, 40], CLASSES)
    found = describe(classifier(tmp_path, told))
    assert (found.content["input"]["scale"], found.content["input"]["offset"]) == pytest.approx((1 / 50, -110 / 50))
    assert {"input.scale", "input.offset"} <= found.guessed.keys()


def test_thresholds_are_taken_and_calibration_that_is_not_applied_is_said(tmp_path):
    told = metadata([0], [1], [{"threshold": 0.25, **CLASSES[0]}])
    assert card_of(classifier(tmp_path, told)).score_threshold == 0.25
    files = {"labels.txt": AXIS_LABELS, "calibration.txt": CALIBRATION}
    found = describe(classifier(tmp_path, metadata([0], [1], [{"files": files}])))
    assert "not applied" in found.guessed["output.score_threshold"]


@pytest.mark.parametrize(
    ("outputs", "files", "names", "guess"),
    [
        (CLASSES, {"labels.txt": "a\nb"}, "class 0", "has 2 names for 10 classes"),
        ([{}], LABELS, "animal 0", "is the only list inside the file"),
        ([{}], {**LABELS, "more.txt": "a"}, "class 0", "the file has no names"),
        ([{}], {}, "class 0", "the file has no names"),
        (CLASSES, {"other.csv": "a"}, "class 0", "the file has no names"),
    ],
)
def test_labels_that_do_not_fit_or_that_nothing_names_are_guesses(tmp_path, outputs, files, names, guess):
    found = describe(classifier(tmp_path, metadata([0], [1], outputs), files))
    assert found.content["classes"][0] == names
    assert guess in found.guessed["classes"]


def test_a_card_beside_the_model_goes_first(tmp_path):
    network = classifier(tmp_path, b"damaged", {})
    with pytest.raises(ModelError, match="its metadata is not of version M001"):
        card_of(network)
    card = {"classes": ANIMALS, "input": {"shape": [1, 96, 64, 3]}, "output": {"head": "classification"}}
    (tmp_path / "classifier.yaml").write_text(yaml.safe_dump(card))
    assert card_of(network).classes == tuple(ANIMALS) and guesses(network) == []
    card["input"]["shape"] = [1, 64, 96, 3]
    (tmp_path / "classifier.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(ConfigError, match=r"input is 64x96, but classifier_float32\.tflite takes 96x64"):
        card_of(network)


def test_outputs_that_no_head_suits_ask_for_a_card(tmp_path):
    shutil.copy(ZOO / "unet_float32.tflite", tmp_path / "maps.tflite")
    with pytest.raises(ConfigError, match=r"no model card.*not one vector.*write maps\.yaml beside it") as error:
        card_of(read_network(tmp_path / "maps.tflite"))
    assert "\n" not in str(error.value)


def test_whatever_damage_gives_a_card_or_one_line(tmp_path):
    path = classifier(tmp_path).path
    whole, chance = path.read_bytes(), random.Random(3)
    at = whole.index(b"M001") - 8
    said = set()
    for _ in range(400):
        broken = bytearray(whole)
        place = chance.choice([chance.randrange(at, at + 600), chance.randrange(len(whole) - 300, len(whole))])
        broken[place] = chance.randrange(256)
        path.write_bytes(broken[: chance.randrange(len(whole) - 200, len(whole))] if chance.random() < 0.2 else broken)
        try:
            said.add(card_of(read_network(path)).head)
        except DnnDistError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
            said.add(type(error).__name__)
    assert {"classification", "ModelError"} <= said


def test_labels_that_would_unfold_to_gigabytes_are_not_unfolded(tmp_path):
    network = classifier(tmp_path, files={"labels.txt": "\n" * (5 << 20)})
    with pytest.raises(ModelError, match="5242880 bytes, expected 4194304 at most"):
        card_of(network)


# The command


@pytest.mark.parametrize("path", sorted(ZOO.glob("*_float32.tflite")), ids=lambda path: path.stem)
def test_the_written_card_is_what_the_file_tells(path, tmp_path, capsys):
    """As YAML, of every converter-made network: a card that fits, or one that says what is missing."""
    model = shutil.copy(path, tmp_path / "net.tflite")
    try:
        found = describe(read_network(model))
    except ConfigError as error:
        assert main(["card", str(model)]) == 2
        assert str(error) in capsys.readouterr().err
        return
    code = main(["card", str(model)])
    written = tmp_path / "net.yaml"
    text = written.read_text()
    assert all(f"# GUESSED: {why}" in text for why in found.guessed.values())
    if found.missing:
        assert (code, "MISSING" in text) == (1, True)
        with pytest.raises(ConfigError, match=r"net\.yaml"):
            load_card(written)
    else:
        assert code == 0
        content = yaml.safe_load(text)
        assert content == found.content
        make_head(parse_card(content, "net.yaml"), shapes_of(read_network(model)))
    capsys.readouterr()
    assert main(["card", str(model)]) == 2
    assert "there is one already" in capsys.readouterr().err


def test_names_that_yaml_would_misread_survive(tmp_path, capsys):
    names = ["yes", "1", "a: b", "# c", "null", "'", '"', "é", "- x", "~"]
    network = classifier(tmp_path, files={"labels.txt": "\n".join(names)})
    assert main(["card", str(network.path), "-o", "-"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["classes"] == names
    assert not list(Path(tmp_path).glob("*.yaml"))
