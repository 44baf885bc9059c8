# SPDX-License-Identifier: Apache-2.0
"""Laws of ROS images: there and back is the identity, every encoding is the same picture, garbage is told."""

import array
from contextlib import suppress
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnn_dist.nodes import images
from dnn_dist.nodes.images import ENCODINGS, ImageError, to_rgb

H, W = 6, 8


@pytest.fixture(autouse=True)
def ours(monkeypatch):
    """The conversion of our own, also where cv_bridge is installed."""
    monkeypatch.setattr(images, "cv_bridge", lambda: None)


def picture(seed=0, height=H, width=W):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def image_message(pixels, encoding, padding=0, bigendian=0):
    """What a camera would send, with the fields of sensor_msgs/Image; pixels (H, W) or (H, W, C)."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    return SimpleNamespace(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=bigendian,
        step=rows.shape[1],
        data=array.array("B", rows.tobytes()),
    )


def compressed_message(content, kind="png"):
    return SimpleNamespace(format=kind, data=array.array("B", content))


COLOURED = {
    "rgb8": None,
    "bgr8": cv2.COLOR_RGB2BGR,
    "rgba8": cv2.COLOR_RGB2RGBA,
    "bgra8": cv2.COLOR_RGB2BGRA,
    "8UC3": cv2.COLOR_RGB2BGR,
    "8UC4": cv2.COLOR_RGB2BGRA,
}


@pytest.mark.parametrize("padding", [0, 1, 3, 64])
@pytest.mark.parametrize("encoding", COLOURED)
def test_every_encoding_of_a_picture_is_that_picture(encoding, padding):
    rgb, code = picture(), COLOURED[encoding]
    sent = rgb if code is None else cv2.cvtColor(rgb, code)
    assert np.array_equal(to_rgb(image_message(sent, encoding, padding)), rgb)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_gray_is_equal_red_green_and_blue(encoding, padding):
    gray = picture()[..., 0]
    assert np.array_equal(to_rgb(image_message(gray, encoding, padding)), gray[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("bigendian", [0, 1])
def test_sixteen_bits_in_both_byte_orders(bigendian):
    deep = np.random.default_rng(1).integers(0, 65536, (H, W)).astype(np.uint16)
    deep[0, :2] = 0, 65535
    sent = deep.astype(">u2" if bigendian else "<u2")
    got = to_rgb(image_message(sent, "mono16", padding=2, bigendian=bigendian))
    assert np.array_equal(got[..., 0], np.rint(deep * (255 / 65535)).astype(np.uint8))
    assert got[0, 0, 0] == 0 and got[0, 1, 0] == 255


@pytest.mark.parametrize(
    "encoding", [name for name in ENCODINGS if name.startswith(("yuv", "uyvy", "bayer"))]
)
def test_what_sensors_send_keeps_its_colours(encoding):
    """A picture of one colour survives subsampling and mosaics, whose patterns are written out here."""
    red, green, blue = 200, 120, 40
    if encoding.startswith("bayer"):
        letters = encoding[len("bayer_") : -1]
        shade = {"r": red, "g": green, "b": blue}
        sent = np.tile(np.array([shade[c] for c in letters], np.uint8).reshape(2, 2), (H // 2, W // 2))
    else:
        y, v, u = cv2.cvtColor(np.uint8([[[red, green, blue]]]), cv2.COLOR_RGB2YCrCb)[0, 0].astype(float)
        y, u, v = 16 + y * 219 / 255, 128 + (u - 128) * 224 / 255, 128 + (v - 128) * 224 / 255  # video range
        pair = [[u, y], [v, y]] if encoding in ("yuv422", "uyvy") else [[y, u], [y, v]]
        sent = np.tile(np.rint(pair).astype(np.uint8), (H, W // 2, 1))
    got = to_rgb(image_message(sent, encoding))
    assert np.abs(got.astype(int) - (red, green, blue)).max() <= 4


def test_rgb8_is_not_copied():
    message = image_message(picture(), "rgb8")
    assert np.shares_memory(to_rgb(message), np.frombuffer(message.data, np.uint8))


def test_png_is_exact_and_jpeg_near():
    rgb = cv2.resize(picture(2), (64, 48), interpolation=cv2.INTER_CUBIC)
    png, jpeg = (cv2.imencode(kind, rgb[..., ::-1])[1].tobytes() for kind in (".png", ".jpg"))
    assert np.array_equal(to_rgb(compressed_message(png)), rgb)
    assert np.abs(to_rgb(compressed_message(jpeg, "rgb8; jpeg compressed bgr8")).astype(int) - rgb).mean() < 6
    gray = cv2.imencode(".jpg", rgb[..., 0])[1].tobytes()
    assert to_rgb(compressed_message(gray, "jpeg")).shape == (48, 64, 3)


# ---------------------------------------------------------------- garbage


HUGE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + 2 * (10**6).to_bytes(4, "big") + b"\x08\x02"
JPEG = cv2.imencode(".jpg", picture())[1].tobytes()


def with_fields(**fields):
    message = image_message(picture(), "rgb8")
    vars(message).update(fields)
    return message


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (with_fields(encoding="rgb99"), "encoding 'rgb99' is unknown; known are rgb8"),
        (with_fields(encoding=""), "unknown"),
        (with_fields(height=7), r"needs 24 bytes a row and 168 in all; it says 24 a row and holds 144"),
        (with_fields(step=23), "it says 23 a row"),
        (with_fields(step=2**32 - 1, height=2**32 - 1), "holds 144"),
        (with_fields(width=0), "0 columns"),
        (with_fields(height=0, data=array.array("B")), "0 rows"),
        (with_fields(data=array.array("B")), "holds 0"),
        (with_fields(data=None), "without data"),
        (compressed_message(b""), "0 bytes"),
        (compressed_message(b"no picture"), "neither JPEG nor PNG"),
        (compressed_message(b"\xff\xd8\xff\xe0 JPEG that breaks off"), "neither JPEG nor PNG"),
        (compressed_message(HUGE), "claims 1000000x1000000 pixels"),
        (compressed_message(JPEG[: JPEG.index(b"\xff\xda")]), "can't be decoded"),
        (compressed_message(b"", "16UC1; compressedDepth"), "depth"),
    ],
)
def test_what_is_no_picture_is_one_line(message, says):
    with pytest.raises(ImageError, match=says) as error:
        to_rgb(message)
    assert "\n" not in str(error.value)


@settings(deadline=None)
@given(
    st.sampled_from([*ENCODINGS, "nonsense"]),
    *[st.integers(0, 40)] * 3,
    st.integers(0, 1),
    st.binary(max_size=600),
)
def test_no_message_does_harm(encoding, height, width, step, bigendian, content):
    message = SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=bigendian, step=step, data=content
    )
    with suppress(ImageError):
        assert to_rgb(message).shape == (height, width, 3)


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a"])
)
@settings(deadline=None)
def test_no_compressed_message_does_harm(content, start):
    with suppress(ImageError):
        assert to_rgb(compressed_message(start + content)).shape[2] == 3


# ---------------------------------------------------------------- with ROS


@pytest.fixture
def header():
    messages = pytest.importorskip("std_msgs.msg", reason="std_msgs is not installed")
    pytest.importorskip("sensor_msgs.msg", reason="sensor_msgs is not installed")
    made = messages.Header(frame_id="camera")
    made.stamp.sec, made.stamp.nanosec = 12, 34
    return made


def test_there_and_back_is_the_identity(header):
    rgb = picture(3, 48, 64)
    message = images.rgb_to_image(rgb, header)
    assert (message.height, message.width, message.step, message.encoding) == (48, 64, 192, "rgb8")
    assert message.header == header
    assert np.array_equal(to_rgb(message), rgb)
    assert np.array_equal(
        to_rgb(images.rgb_to_image(rgb[:, ::2], header)), rgb[:, ::2]
    )  # a view with gaps too


def test_compressed_there_and_back(header):
    rgb = cv2.resize(picture(4), (64, 48), interpolation=cv2.INTER_CUBIC)
    exact = images.rgb_to_compressed(rgb, header, "png")
    assert exact.header == header and np.array_equal(to_rgb(exact), rgb)
    small, fine = (images.rgb_to_compressed(rgb, header, "jpeg", quality) for quality in (20, 95))
    assert len(small.data) < len(fine.data)
    assert np.abs(to_rgb(fine).astype(int) - rgb).mean() < 4


def test_a_bridge_that_fails_is_one_line(monkeypatch):
    class Broken:
        def imgmsg_to_cv2(self, message, encoding):
            raise RuntimeError("Boost says\nno")

    monkeypatch.setattr(images, "cv_bridge", Broken)
    with pytest.raises(ImageError, match="can't convert 'bgr8': Boost says no"):
        to_rgb(image_message(picture(), "bgr8"))


@pytest.mark.parametrize("padding", [0, 1, 12])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_cv_bridge_and_ours_agree(monkeypatch, header, encoding, padding):
    pytest.importorskip("cv_bridge", reason="cv_bridge is not installed")
    from sensor_msgs.msg import Image

    kind = ENCODINGS[encoding]
    size = (H, W, kind.channels) if kind.channels > 1 else (H, W)
    pixels = (
        np.random.default_rng(5).integers(0, 256 ** np.dtype(kind.sample).itemsize, size).astype(kind.sample)
    )
    fields = vars(image_message(pixels, encoding, padding))
    message = Image(header=header, **fields)
    mine = to_rgb(message)
    monkeypatch.undo()
    assert images.cv_bridge() is not None, "cv_bridge is installed but does not load"
    assert np.array_equal(to_rgb(message), mine)
    back = images.cv_bridge().imgmsg_to_cv2(images.rgb_to_image(mine, header), "rgb8")
    assert np.array_equal(back, mine)
