# SPDX-License-Identifier: Apache-2.0
"""Laws of detection: decoding equals a plain loop, NMS leaves no rivals, bad numbers and cards do no harm."""

import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dnn_dist.camera.scene import SceneFilm
from dnn_dist.detect.boxes import MAX_CANDIDATES, Detection, suppress
from dnn_dist.detect.card import card_path, load_card, parse_card
from dnn_dist.detect.head import Head, make_head
from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.errors import ConfigError
from dnn_dist.graph.tflite import read_network
from dnn_dist.modelcard import card_of

CLASSES = ["cone", "crate", "barrel", "robot"]
ANCHORS = [[[20, 30], [50, 60], [120, 100]], [[80, 90], [200, 150]]]
STRIDES = [16, 32]
HEIGHT, WIDTH = 128, 160


def make_card(**output):
    content = {
        "classes": CLASSES,
        "input": {"shape": [1, HEIGHT, WIDTH, 3], "scale": 1 / 255},
        "output": {"head": "yolo", "strides": STRIDES, "anchors": ANCHORS} | output,
    }
    return parse_card(content, "card.yaml")


def shapes(card):
    return [
        (card.height // g.stride, card.width // g.stride, len(g.anchors) * (5 + len(card.classes)))
        for g in card.grids
    ]


def random_outputs(card, seed, spread=3.0):
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal(shape) * spread).astype(np.float32) for shape in shapes(card)]


def iou(a, b):
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    both = max(0.0, height) * max(0.0, width)
    return both / ((a.y1 - a.y0) * (a.x1 - a.x0) + (b.y1 - b.y0) * (b.x1 - b.x0) - both)


# ---------------------------------------------------------------- oracles: plain loops


def loop_decode(outputs, card, threshold):
    """What yolo.py's table says, number by number: (score, class, y0, x0, y1, x1) in the model's input."""
    found = []
    for output, stride, anchors in zip(outputs, STRIDES, ANCHORS, strict=True):
        rows, columns, _ = output.shape
        for r in range(rows):
            for c in range(columns):
                for a, (anchor_w, anchor_h) in enumerate(anchors):
                    t = [float(v) for v in output[r, c, a * 9 : (a + 1) * 9]]
                    s = [1 / (1 + math.exp(-v)) for v in t]
                    if card.decode == "yolov5":
                        x, y = (2 * s[0] - 0.5 + c) * stride, (2 * s[1] - 0.5 + r) * stride
                        w, h = anchor_w * (2 * s[2]) ** 2, anchor_h * (2 * s[3]) ** 2
                        scores = s[5:]
                    else:
                        x, y = (s[0] + c) * stride, (s[1] + r) * stride
                        w, h = anchor_w * math.exp(t[2]), anchor_h * math.exp(t[3])
                        powers = [math.exp(v) for v in t[5:]]
                        scores = [p / sum(powers) for p in powers]
                    best = max(range(4), key=lambda k: scores[k])
                    score = s[4] * scores[best]
                    if score >= threshold:
                        found.append((score, best, y - h / 2, x - w / 2, y + h / 2, x + w / 2))
    return found


def loop_nms(found, threshold):
    kept = []
    for score, k, *box in sorted(found, key=lambda item: -item[0]):
        item = Detection(k, CLASSES[k], score, *box)
        if all(item.class_id != other.class_id or iou(item, other) <= threshold for other in kept):
            kept.append(item)
    return kept


@pytest.mark.parametrize("decode", ["yolov5", "yolov2"])
@pytest.mark.parametrize("seed", range(5))
def test_yolo_equals_a_plain_loop(decode, seed):
    card = make_card(decode=decode)
    head = make_head(card, shapes(card))
    head.max_detections = 1000
    outputs = random_outputs(card, seed, spread=1.5)
    letterbox = Letterbox(HEIGHT, WIDTH, HEIGHT, WIDTH)
    clipped = []
    for score, k, *box in loop_decode(outputs, card, head.score_threshold):
        box = np.clip(box, 0, [HEIGHT, WIDTH, HEIGHT, WIDTH]).tolist()
        if box[0] < box[2] and box[1] < box[3]:
            clipped.append((score, k, *box))
    expected = loop_nms(clipped, head.nms_threshold)
    found = head(outputs, letterbox)
    assert len(found) == len(expected) > 5
    for got, want in zip(found, expected, strict=True):
        assert (got.class_id, got.label) == (want.class_id, want.label)
        assert math.isclose(got.score, want.score, rel_tol=1e-5)
        assert np.allclose([got.y0, got.x0, got.y1, got.x1], [want.y0, want.x0, want.y1, want.x1], atol=1e-3)


def test_boxes_arrive_in_pixels_of_the_image():
    """One certain object in the middle of cell (3, 4); the image is four times its part of the input."""
    card = make_card(strides=[16], anchors=[[[40, 20]]])
    output = np.full((8, 10, 9), -20, np.float32)
    output[3, 4] = [
        0,
        0,
        0,
        0,
        20,
        -20,
        20,
        -20,
        -20,
    ]  # sigmoid(0) = 1/2: the cell's middle, the anchor's size
    (found,) = make_head(card)(
        [output], Letterbox(256, 640, HEIGHT, WIDTH)
    )  # 64 x 160 inside, 32 gray rows above
    assert (found.label, found.class_id) == ("crate", 1)
    assert found.score > 0.99
    assert np.allclose([found.y0, found.x0], [(56 - 10 - 32) * 4, (72 - 20) * 4])
    assert np.allclose([found.y1, found.x1], [(56 + 10 - 32) * 4, (72 + 20) * 4])


# ---------------------------------------------------------------- what always holds of a head's answer


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["yolov5", "yolov2"]), st.floats(0, 1), st.floats(0, 1))
def test_what_a_head_answers_always_holds(seed, decode, score_threshold, nms_threshold):
    card = make_card(decode=decode)
    head = make_head(card)
    head.score_threshold, head.nms_threshold, head.max_detections = score_threshold, nms_threshold, 30
    found = head(random_outputs(card, seed), Letterbox(97, 211, HEIGHT, WIDTH))
    assert len(found) <= 30
    assert found == sorted(found, key=lambda d: -d.score)
    for i, a in enumerate(found):  # OpenCV compares overlaps in float32
        assert score_threshold <= a.score <= 1
        assert 0 <= a.y0 < a.y1 <= 97 and 0 <= a.x0 < a.x1 <= 211
        assert all(iou(a, b) <= nms_threshold + 1e-6 for b in found[:i] if a.class_id == b.class_id)


@given(st.integers(0, 10**6), st.sampled_from([np.nan, np.inf, -np.inf]))
@settings(deadline=None)
def test_a_cell_with_bad_numbers_holds_no_detection_and_harms_no_other(seed, bad):
    rng = np.random.default_rng(seed)
    card = make_card(score_threshold=0.05)
    head = make_head(card)
    head.nms_threshold = 1.0  # no rivalry between cells, so that every other one answers as before
    head.max_detections = MAX_CANDIDATES
    outputs = random_outputs(card, seed)
    silent = [output.copy() for output in outputs]
    for output, quiet in zip(outputs, silent, strict=True):
        view, quiet_view = (o.reshape(*o.shape[:2], -1, 9) for o in (output, quiet))
        for _ in range(4):
            cell = tuple(rng.integers(0, n) for n in view.shape[:3])
            view[cell][rng.integers(0, 9)] = bad
            quiet_view[cell][4] = -100
    letterbox = Letterbox(HEIGHT, WIDTH, HEIGHT, WIDTH)
    assert head(outputs, letterbox) == head(silent, letterbox)


@pytest.mark.parametrize("decode", ["yolov5", "yolov2"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e4])
@pytest.mark.filterwarnings("error")
def test_outputs_of_one_bad_number_end_in_an_answer(decode, value):
    card = make_card(decode=decode)
    found = make_head(card)(
        [np.full(shape, value, np.float32) for shape in shapes(card)], Letterbox(9, 9, 128, 160)
    )
    assert all(math.isfinite(d.score) and math.isfinite(d.y1 - d.y0 + d.x1 - d.x0) for d in found)
    assert not (found and not math.isfinite(value))


def test_thresholds_are_live():
    card = make_card()
    head, outputs, letterbox = (
        make_head(card),
        random_outputs(card, 1),
        Letterbox(HEIGHT, WIDTH, HEIGHT, WIDTH),
    )
    before = head(outputs, letterbox)
    head.score_threshold = 0.9
    after = head(outputs, letterbox)
    assert after and len(after) < len(before)
    head.score_threshold = 0.3
    assert head(outputs, letterbox) == before


# ---------------------------------------------------------------- suppression


BOXES = st.lists(
    st.tuples(
        st.integers(-50, 50), st.integers(-50, 50), st.integers(0, 40), st.integers(0, 40), st.integers(0, 4)
    ),
    max_size=25,
)


@given(BOXES, st.floats(0, 1), st.randoms(use_true_random=False))
def test_suppression_does_not_depend_on_the_order_given(items, threshold, random):
    """Scores with many ties; the same boxes shuffled give the same answer."""
    items = sorted(set(items))
    shuffled = list(items)
    random.shuffle(shuffled)
    answers = []
    for order in (items, shuffled):
        table = np.array(order, float).reshape(-1, 5)
        boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
        scores, classes = (table[:, 4] + 1) / 5, table[:, 4].astype(int) % 2
        answers.append([order[i] for i in suppress(boxes, scores, classes, threshold, 100)])
    assert answers[0] == answers[1]


@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_classes_never_suppress_each_other(y, x):
    """Also far from the origin, on both sides of it."""
    boxes = np.array([[y, x, y + 10, x + 10], [y, x, y + 10, x + 10], [y, x - 11, y + 10, x - 1]], float)
    kept = suppress(boxes, np.array([0.9, 0.8, 0.7]), np.array([0, 1, 1]), 0.1, 10)
    assert kept.tolist() == [0, 1, 2]


def test_the_best_stays_and_work_is_bounded():
    many = np.random.default_rng(0).uniform(0, 200, (50_000, 2))
    boxes = np.concatenate([many, many + 30], axis=1)
    scores = np.linspace(0.1, 1.0, len(boxes))
    kept = suppress(boxes, scores, np.zeros(len(boxes), int), 0.5, 7)
    assert len(kept) == 7 and kept[0] == len(boxes) - 1


def test_nothing_in_nothing_out():
    assert suppress(np.empty((0, 4)), np.empty(0), np.empty(0, int), 0.5, 10).size == 0


# ---------------------------------------------------------------- classification


def classifier(n=10):
    card = card_for_classifier(n)
    return make_head(card, [(n,)])


def card_for_classifier(n):
    content = {
        "classes": [f"c{k}" for k in range(n)],
        "input": {"shape": [1, 32, 32, 3]},
        "output": {"head": "classification", "score_threshold": 0.1},
    }
    return parse_card(content, "card.yaml")


def test_logits_and_shares_give_the_same_classes():
    logits = np.array([0.0, 3.0, 1.0, 4.0, 2.0] + [-5.0] * 5, np.float32)
    shares = np.exp(logits) / np.exp(logits).sum()
    letterbox = Letterbox(48, 64, 32, 32)
    from_logits, from_shares = (
        classifier()([logits], letterbox),
        classifier()([shares[None, None]], letterbox),
    )
    assert [d.class_id for d in from_logits] == [d.class_id for d in from_shares] == [3, 1]
    assert np.allclose([d.score for d in from_logits], [d.score for d in from_shares], atol=1e-6)
    assert (from_logits[0].y0, from_logits[0].x0, from_logits[0].y1, from_logits[0].x1) == (0, 0, 48, 64)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_with_bad_numbers_classifies_nothing(bad):
    assert classifier(3)([np.array([1, bad, 0], np.float32)], Letterbox(8, 8, 8, 8)) == []


# ---------------------------------------------------------------- cards


def test_a_card_is_found_beside_each_form_of_its_model(tmp_path):
    (tmp_path / "net.yaml").write_text("classes: [a]")
    for name in ("net.tflite", "net_float32.tflite", "net_int8.tflite"):
        assert card_path(tmp_path / name) == tmp_path / "net.yaml"
    assert card_path(tmp_path / "net2.tflite") is None
    (tmp_path / "net_int8.yaml").write_text("classes: [b]")
    assert card_path(tmp_path / "net_int8.tflite") == tmp_path / "net_int8.yaml"


GOOD = {
    "classes": ["a", "b"],
    "input": {"shape": [1, 64, 96, 3]},
    "output": {"head": "yolo", "strides": [16], "anchors": [[[10, 20]]]},
}


def with_change(path, value):
    card = yaml.safe_load(yaml.safe_dump(GOOD))
    *parents, last = path.split(".")
    place = card
    for key in parents:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return card


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("classes", None, "'classes' is missing"),
        ("classes", [], "a list of names"),
        ("classes", "a", "a list of names"),
        ("classes", [[1]], "a list of names"),
        ("input", None, "'input' is missing"),
        ("input", [1, 2], "expected keys and values"),
        ("input.shape", [64, 96, 3], r"\[1, height, width, 3\]"),
        ("input.shape", [1, 64, 96, 1], "one RGB image"),
        ("input.shape", [1, 64.5, 96, 3], "one RGB image"),
        ("input.scale", "big", "a number"),
        ("input.scale", float("nan"), "a number"),
        ("output.head", None, "'head' is missing"),
        ("output.strides", [0], "whole pixels"),
        ("output.strides", None, "'strides' is missing"),
        ("output.strides", [16, 32], "for each of 2 strides"),
        ("output.anchors", [[10, 20]], r"\[width, height\]"),
        ("output.anchors", [[[10, -20]]], "both above 0"),
        ("output.anchors", [[[10, 20, 30]]], "both above 0"),
        ("output.score_threshold", 2, "between 0 and 1"),
        ("output.nms_threshold", True, "between 0 and 1"),
    ],
)
def test_a_wrong_card_is_one_line_that_names_the_place(path, value, says):
    with pytest.raises(ConfigError, match=says) as error:
        parse_card(with_change(path, value), "net.yaml")
    assert str(error.value).startswith("net.yaml") and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["classes: [a", "- 1", "", "\x00", "classes: {a: b: c}"])
def test_a_broken_file_is_one_line(tmp_path, text):
    path = tmp_path / "net.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_card(path)
    assert "net.yaml" in str(error.value) and "\n" not in str(error.value)


def test_a_card_that_does_not_fit_the_outputs_is_refused():
    card = parse_card(GOOD, "net.yaml")
    make_head(card, [(4, 6, 7)])
    with pytest.raises(ConfigError, match=r"make outputs \[\(4, 6, 7\)\], the model has \[\(4, 6, 14\)\]"):
        make_head(card, [(4, 6, 14)])


# ---------------------------------------------------------------- the detector that is shipped

MODELS = Path(__file__).parents[1] / "models"


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_the_shipped_detector_finds_what_the_scene_holds(kind):
    """Card, letterbox, head and model agree: of a film's objects most are found, and little else."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
    model = MODELS / f"warehouse_{kind}.tflite"
    interpreter = litert.Interpreter(str(model))
    interpreter.allocate_tensors()
    (taken,), (given_back,) = interpreter.get_input_details(), interpreter.get_output_details()
    output_shape = given_back["shape"][1:].tolist()
    card = card_of(read_network(model))
    head, letterbox = make_head(card, [output_shape]), Letterbox(256, 320, card.height, card.width)
    film, present, found, hits = SceneFilm(2, 256, 320), 0, 0, 0
    for k in range(0, 60, 6):
        image, truth = film.frame(k)
        pixels = letterbox.apply(image)[None] * np.float32(card.scale) + np.float32(card.offset)
        if kind == "int8":
            scale, zero = taken["quantization"]
            pixels = np.rint(pixels / np.float32(scale) + zero).astype(np.int8)
        interpreter.set_tensor(taken["index"], pixels)
        interpreter.invoke()
        raw = interpreter.get_tensor(given_back["index"])[0].astype(np.float32)
        if kind == "int8":
            scale, zero = given_back["quantization"]
            raw = (raw - zero) * np.float32(scale)
        detections = head([raw], letterbox)
        present, found = present + len(truth), found + len(detections)
        hits += sum(
            any(d.class_id == box.class_id and iou(d, box) > 0.5 for d in detections) for box in truth
        )
    assert hits >= 0.9 * present > 20
    assert hits >= 0.85 * found


# ---------------------------------------------------------------- heads of one's own


class EverythingIsACone(Head):
    def __call__(self, outputs, letterbox):
        return [Detection(0, self.card.classes[0], 1.0, 0.0, 0.0, letterbox.image_h, letterbox.image_w)]


class NoHead:
    pass


def test_a_head_of_ones_own_is_found_by_name():
    head = make_head(make_card(head=f"{__name__}:EverythingIsACone"), [(3, 3)])
    assert head([], Letterbox(5, 6, 7, 8))[0].label == "cone"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("yollo", "take one of yolo, .*classification"),
        ("no.such.module:Head", "can't be imported"),
        (f"{__name__}:Missing", "can't be imported"),
        (f"{__name__}:NoHead", "no subclass"),
    ],
)
def test_a_wrong_head_is_one_line(name, says):
    with pytest.raises(ConfigError, match=says):
        make_head(make_card(head=name))


def test_an_unknown_decode_is_one_line():
    with pytest.raises(ConfigError, match="expected one of yolov5, yolov2"):
        make_head(make_card(decode="yolov99"))
