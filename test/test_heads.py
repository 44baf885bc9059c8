# SPDX-License-Identifier: Apache-2.0
"""Laws of the heads for SSD and for boxes decoded by the model: plain loops, and converter-made models, agree."""

import math

import numpy as np
import pytest
from cutting import FIXTURES, random_inputs
from hypothesis import given
from hypothesis import strategies as st

from dnn_dist import modelcard
from dnn_dist.detect.card import parse_card
from dnn_dist.detect.head import make_head
from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.errors import ConfigError
from dnn_dist.graph.tflite import read_network
from dnn_dist.run.engine import Engine
from dnn_dist.run.wire import dequantise

CLASSES = ["cone", "crate", "barrel"]
HEIGHT, WIDTH = 96, 128
SAME = Letterbox(HEIGHT, WIDTH, HEIGHT, WIDTH)

SSD = {
    "head": "ssd",
    "maps": [[3, 4], [1, 2]],
    "priors": [[[0.3, 1.0], [0.3, 2.0], [0.2, 0.5]], [[0.6, 1.0]]],
}
OP = {"head": "ssd_postprocessed"}
FREE = {"head": "yolo_anchor_free", "boxes": "pixels"}
N = 3 * 4 * 3 + 1 * 2  # priors of SSD


def card_of(output, **more):
    shape = [1, HEIGHT, WIDTH, 3]
    return parse_card({"classes": CLASSES, "input": {"shape": shape}, "output": output | more}, "card.yaml")


def head_of(output, **more):
    """A head that suppresses nothing, so that all it decodes can be compared."""
    head = make_head(card_of(output, **more))
    head.nms_threshold, head.max_detections = 1.0, 10_000
    return head


def rows(detections):
    return sorted((d.class_id, d.score, d.y0, d.x0, d.y1, d.x1) for d in detections)


def clipped(found, height=HEIGHT, width=WIDTH):
    """Rows of (class, score, y0, x0, y1, x1) as they come out of a head: within the image, with an area."""
    inside = []
    for k, score, y0, x0, y1, x1 in found:
        box = [min(max(y0, 0), height), min(max(x0, 0), width), min(max(y1, 0), height), min(max(x1, 0), width)]
        if box[0] < box[2] and box[1] < box[3]:
            inside.append((k, score, *box))
    return sorted(inside)


def assert_alike(found, expected, least=1):
    assert len(found) == len(expected) >= least
    assert np.allclose(np.array(found), np.array(expected), rtol=1e-5, atol=1e-3)


# ---------------------------------------------------------------- oracles: plain loops


def loop_ssd(boxes, scores, threshold, scales=(10, 10, 5, 5), first=1, activation="probabilities"):
    found, n = [], 0
    for (map_rows, map_columns), cell in zip(SSD["maps"], SSD["priors"], strict=True):
        for r in range(map_rows):
            for c in range(map_columns):
                for scale, ratio in cell:
                    h, w = scale / math.sqrt(ratio), scale * math.sqrt(ratio)
                    ty, tx, th, tw = (float(v) / s for v, s in zip(boxes[n], scales, strict=True))
                    y, x = (r + 0.5) / map_rows + ty * h, (c + 0.5) / map_columns + tx * w
                    h, w = h * math.exp(th), w * math.exp(tw)
                    values = [float(v) for v in scores[n]]
                    if activation == "logits":
                        values = [1 / (1 + math.exp(-v)) for v in values]
                    if activation == "softmax":
                        values = [math.exp(v) / sum(math.exp(u) for u in values) for v in values]
                    values = values[first:]
                    best = max(range(len(values)), key=lambda k: values[k])
                    if values[best] >= threshold:
                        box = ((y - h / 2) * HEIGHT, (x - w / 2) * WIDTH, (y + h / 2) * HEIGHT, (x + w / 2) * WIDTH)
                        found.append((best, values[best], *box))
                    n += 1
    return clipped(found)


def loop_anchor_free(table, threshold, unit=(1, 1), activation="probabilities"):
    """`table` is (N, 4 + classes)."""
    found = []
    for x, y, w, h, *scores in table.tolist():
        if activation == "logits":
            scores = [1 / (1 + math.exp(-v)) for v in scores]
        best = max(range(len(scores)), key=lambda k: scores[k])
        x, w, y, h = x * unit[1], w * unit[1], y * unit[0], h * unit[0]
        if scores[best] >= threshold:
            found.append((best, scores[best], y - h / 2, x - w / 2, y + h / 2, x + w / 2))
    return found


@pytest.mark.parametrize("activation", ["probabilities", "logits", "softmax"])
@pytest.mark.parametrize("background", [True, False])
def test_ssd_equals_a_plain_loop(activation, background):
    rng = np.random.default_rng(3)
    boxes = rng.normal(0, 2, (N, 4)).astype(np.float32)
    scores = rng.normal(0, 2, (N, 3 + background)).astype(np.float32)
    if activation == "probabilities":
        scores = rng.random(scores.shape, np.float32)
    scales = [8.0, 9.0, 4.0, 6.0]
    more = {"scores": activation, "background": background, "box_scales": scales, "order": ["scores", "boxes"]}
    head = head_of(SSD, **more)
    head.check([scores.shape, boxes.shape])
    expected = loop_ssd(boxes, scores, head.score_threshold, scales, int(background), activation)
    assert_alike(rows(head([scores, boxes], SAME)), expected, least=8)


@pytest.mark.parametrize("activation", ["probabilities", "logits"])
@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize("unit", ["pixels", "normalised"])
def test_anchor_free_equals_a_plain_loop(activation, columns, unit):
    rng = np.random.default_rng(4)
    factor = (1, 1) if unit == "pixels" else (HEIGHT, WIDTH)
    table = rng.random((50, 7), np.float32)
    table[:, :4] *= np.array([WIDTH / factor[1], HEIGHT / factor[0], 40 / factor[1], 40 / factor[0]], np.float32)
    table[:, 4:] = table[:, 4:] * 8 - 4 if activation == "logits" else table[:, 4:]
    head = head_of(FREE, boxes=unit, scores=activation)
    output = table.T if columns else table
    head.check([output.shape])
    expected = clipped(loop_anchor_free(table, head.score_threshold, factor, activation))
    assert_alike(rows(head([output], SAME)), expected, least=30)


def test_postprocessed_equals_a_plain_loop():
    rng = np.random.default_rng(5)
    boxes = rng.random((20, 4), np.float32) * np.float32([0.5, 0.5, 0.6, 0.6]) + np.float32([0, 0, 0.5, 0.5])
    classes, scores = rng.integers(-1, 5, 20).astype(np.float32), rng.random(20, np.float32)
    head = head_of(OP, order=["count", "scores", "boxes", "classes"])
    head.check([(), (20,), (20, 4), ()])
    expected = [
        (int(classes[n]), float(scores[n]), *(boxes[n] * [HEIGHT, WIDTH, HEIGHT, WIDTH]).tolist())
        for n in range(15)
        if scores[n] >= 0.3 and classes[n] in (0, 1, 2)
    ]
    found = head([np.array(15.0, np.float32), scores, boxes, classes], SAME)
    assert_alike(rows(found), clipped(expected), least=4)


# ---------------------------------------------------------------- whatever the numbers are


wild = st.sampled_from([0.0, 1.0, 0.5, -3.0, 1e30, -1e30, np.inf, -np.inf, np.nan])


@pytest.mark.parametrize(
    ("output", "shapes"),
    [
        (SSD, [(N, 4), (N, 4)]),
        (SSD | {"scores": "softmax"}, [(N, 4), (N, 4)]),
        (SSD | {"scores": "logits"}, [(N, 4), (N, 4)]),
        (OP, [(6, 4), (6,), (6,), ()]),
        (FREE, [(7, 11)]),
        (FREE | {"boxes": "normalised", "scores": "logits"}, [(11, 7)]),
    ],
)
@given(st.data())
def test_bad_numbers_do_no_harm(output, shapes, data):
    """Every detection is a box within the image; a row with a bad number spoils no other."""
    head = make_head(card_of(output), shapes)
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    outputs = [rng.random(shape, np.float32) for shape in shapes]
    for array in outputs:
        for place in data.draw(st.lists(st.integers(0, max(array.size - 1, 0)), max_size=6)):
            array.flat[place] = data.draw(wild)
    for d in head(outputs, Letterbox(50, 70, HEIGHT, WIDTH)):
        assert 0 <= d.y0 < d.y1 <= 50 and 0 <= d.x0 < d.x1 <= 70
        assert d.score >= head.score_threshold and d.label == CLASSES[d.class_id]


# ---------------------------------------------------------------- cards that are wrong


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (SSD | {"maps": [[3, 4]]}, "for each of 1 maps"),
        (SSD | {"maps": "3x4"}, r"a list of \[rows, columns\]"),
        (SSD | {"maps": [[3, 4], [1.5, 2]]}, "of a feature map"),
        (SSD | {"maps": [[3, 4], [1e5, 1e5]]}, "of a feature map"),
        (SSD | {"priors": [[[0.3]], [[0.6, 1.0]]]}, "2 numbers above 0"),
        (SSD | {"priors": [[[0.3, -1.0]], [[0.6, 1.0]]]}, "2 numbers above 0"),
        (SSD | {"box_scales": [10, 10, 5]}, "4 numbers above 0"),
        (SSD | {"order": ["boxes", "boxes"]}, "boxes, scores in the order"),
        (SSD | {"order": 3}, "boxes, scores in the order"),
        (SSD | {"scores": "sure"}, "one of probabilities, logits, softmax"),
        (SSD | {"background": 1}, "true or false"),
        (OP | {"order": ["boxes", "scores"]}, "boxes, classes, scores, count in the order"),
        (FREE | {"boxes": "metres"}, "one of normalised, pixels"),
        (FREE | {"boxes": ["pixels"]}, "one of normalised, pixels"),
        ({"head": "yolo_anchor_free"}, "'boxes' is missing"),
    ],
)
def test_a_wrong_card_is_one_line_that_names_the_place(output, says):
    with pytest.raises(ConfigError, match=says) as error:
        make_head(card_of(output))
    assert str(error.value).startswith("card.yaml: output") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("output", "shapes"),
    [
        (SSD, [(N, 4)]),
        (SSD, [(N, 4), (N, 5)]),
        (SSD, [(N + 1, 4), (N + 1, 4)]),
        (SSD | {"background": False}, [(N, 4), (N, 4)]),
        (OP, [(10, 4), (10,), (10,)]),
        (OP, [(10,), (10, 4), (10,), ()]),
        (OP, [(10, 4), (10,), (9,), (1,)]),
        (OP, [(10, 4), (10,), (10,), (10,)]),
        (FREE, [(7, 20), (7, 20)]),
        (FREE, [(8, 20)]),
        (FREE, [(7, 20, 3)]),
    ],
)
def test_a_card_that_does_not_fit_its_model_is_refused(output, shapes):
    with pytest.raises(ConfigError, match="correct") as error:
        make_head(card_of(output), shapes)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- models as the converter makes them


def run_fixture(name, seed=0):
    """(head by the card beside the model, outputs as real values)"""
    path = FIXTURES / "zoo" / f"{name}.tflite"
    network = read_network(path)
    tensors = network.tensors
    given = random_inputs(network, seed)
    pixels = {t: np.abs(array) % 1 if array.dtype == np.float32 else array for t, array in given.items()}
    outputs = Engine(path).run([pixels[t] for t in network.inputs])
    shapes = [tensors[t].array_shape for t in network.outputs]
    card = modelcard.card_of(network)
    real = [
        dequantise(array, tensors[t].scale or 0.0, tensors[t].zero_point)
        for t, array in zip(network.outputs, outputs, strict=True)
    ]
    head = make_head(card, shapes)
    head.nms_threshold, head.max_detections = 1.0, 10_000
    return head, real


@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize("name", ["yolov8", "yolov8_rows"])
def test_anchor_free_models(name, kind):
    head, (output,) = run_fixture(f"{name}_{kind}")
    height, width = head.card.height, head.card.width
    table = output if name.endswith("rows") else output.T
    unit = (1, 1) if name.endswith("rows") else (height, width)
    expected = clipped(loop_anchor_free(table, head.score_threshold, unit), height, width)
    assert_alike(rows(head([output], Letterbox(height, width, height, width))), expected, least=5)


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_ssd_models(kind):
    head, outputs = run_fixture(f"ssd_{kind}")
    scores, boxes = outputs
    detections = head(outputs, SAME)
    assert len(detections) >= 10
    assert {d.class_id for d in detections} == {0, 1, 2}
    assert math.isclose(detections[0].score, scores[:, 1:].max(), rel_tol=1e-6)
    assert np.isfinite(boxes).all()


def test_ssd_decodes_as_the_built_in_op_does():
    """The same weights with and without the op: all that the op gives, in the head's own decoding."""
    head, outputs = run_fixture("ssd_float32")
    op_head, op_outputs = run_fixture("ssd_postprocessed_float32")
    head.score_threshold = op_head.score_threshold = 0.2  # as the op has it
    everything = np.array([(d.class_id, d.score, d.y0, d.x0, d.y1, d.x1) for d in head(outputs, SAME)])
    found = op_head(op_outputs, SAME)
    assert len(found) == 10
    for d in found:
        apart = np.abs(everything - [d.class_id, d.score, d.y0, d.x0, d.y1, d.x1]).max(axis=1)
        assert apart.min() < 1e-3
    assert math.isclose(found[0].score, everything[:, 1].max(), rel_tol=1e-5)


def test_the_built_in_op_in_an_int8_model():
    head, outputs = run_fixture("ssd_postprocessed_int8")
    assert len(head(outputs, SAME)) == 10
