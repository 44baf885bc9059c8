# SPDX-License-Identifier: Apache-2.0
"""sensor_msgs Image and CompressedImage <-> RGB arrays, through cv_bridge where it is installed.

The conversion here is equal to cv_bridge's and serves where there is none. It needs no rclpy, and
sensor_msgs only to make messages, not to read them. Pixels travel by `frombytes` and `np.frombuffer`:
assigning an array to a `uint8[]` field takes a thousand times longer.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from dnn_dist.errors import DnnDistError

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import Header


class ImageError(DnnDistError):
    """A message that is no picture: broken, truncated, of an unknown encoding. Count it, go on."""


class Encoding(NamedTuple):
    """How an uncompressed picture lies in memory."""

    channels: int
    sample: str  # numpy's type code, without byte order
    to_rgb: int | None  # OpenCV's conversion code; None when it is RGB already


ENCODINGS = {
    "rgb8": Encoding(3, "u1", None),
    "bgr8": Encoding(3, "u1", cv2.COLOR_BGR2RGB),
    "rgba8": Encoding(4, "u1", cv2.COLOR_RGBA2RGB),
    "bgra8": Encoding(4, "u1", cv2.COLOR_BGRA2RGB),
    "mono8": Encoding(1, "u1", cv2.COLOR_GRAY2RGB),
    "mono16": Encoding(1, "u2", cv2.COLOR_GRAY2RGB),
    # Names of OpenCV's types say nothing of colour; what OpenCV reads from a file or camera is BGR.
    "8UC1": Encoding(1, "u1", cv2.COLOR_GRAY2RGB),
    "8UC3": Encoding(3, "u1", cv2.COLOR_BGR2RGB),
    "8UC4": Encoding(4, "u1", cv2.COLOR_BGRA2RGB),
    # What USB cameras and bare sensors send.
    "yuv422": Encoding(2, "u1", cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": Encoding(2, "u1", cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": Encoding(2, "u1", cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": Encoding(2, "u1", cv2.COLOR_YUV2RGB_YUY2),
    # OpenCV names a Bayer pattern by its second row and column, ROS by its first.
    "bayer_rggb8": Encoding(1, "u1", cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": Encoding(1, "u1", cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": Encoding(1, "u1", cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": Encoding(1, "u1", cv2.COLOR_BayerGB2RGB),
}
MAX_PIXELS = 1 << 26
"""A compressed image that claims more than these 67 million is taken for garbage."""
BRIDGED = {"rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "yuv422", "yuv422_yuy2"} | {
    name for name in ENCODINGS if name.startswith("bayer")
}
"""What cv_bridge is given. OpenCV's type names it refuses, as they say nothing of colour."""


def to_rgb(message: Image | CompressedImage) -> np.ndarray:
    """Either message -> RGB uint8 (H, W, 3). ImageError when it is no picture.

    Not to be written to: a message in rgb8 is not copied, and the array is a view of it.
    """
    return compressed_to_rgb(message) if hasattr(message, "format") else image_to_rgb(message)


def image_to_rgb(message: Image) -> np.ndarray:
    """Image -> RGB uint8 (H, W, 3), possibly a view of the message. ImageError when it is no picture."""
    encoding = ENCODINGS.get(message.encoding)
    if encoding is None:
        raise ImageError(f"image encoding '{message.encoding}' is unknown; known are {', '.join(ENCODINGS)}")
    rows = _rows(message, encoding)  # first: cv_bridge trusts height, step and the amount of data
    bridge = cv_bridge() if _bridgeable(message, encoding) else None
    if bridge is None:
        return _convert(rows, message, encoding)
    try:
        return np.asarray(bridge.imgmsg_to_cv2(message, "rgb8"))
    except Exception as error:  # its own, cv2's, numpy's and Boost's alike
        raise ImageError(f"cv_bridge can't convert '{message.encoding}': {_line(error)}") from error


def compressed_to_rgb(message: CompressedImage) -> np.ndarray:
    """CompressedImage (JPEG or PNG) -> RGB uint8 (H, W, 3). ImageError when it is no picture.

    Never through cv_bridge: that does the same imdecode, but fails on a gray JPEG.
    """
    if "compressedDepth" in message.format:
        raise ImageError(f"compressed image of format '{message.format}' holds depth, not a picture")
    return decoded(_bytes_of(message), f"'{message.format}'")


def decoded(content: np.ndarray, what: str) -> np.ndarray:
    """Bytes of a JPEG or PNG -> RGB uint8 (H, W, 3). ImageError when they are none; it says `what` they should be."""
    size = _declared_size(content.tobytes())
    if size is None:
        raise ImageError(f"compressed image of {content.size} bytes ({what}) is neither JPEG nor PNG")
    if not 0 < size[0] * size[1] <= MAX_PIXELS:
        raise ImageError(f"compressed image claims {size[0]}x{size[1]} pixels, at most {MAX_PIXELS} are taken")
    try:
        # A camera's picture goes with its calibration: it is not turned by what an EXIF header says.
        image = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"compressed image can't be decoded: {_line(error)}") from error
    if image is None:
        raise ImageError(f"compressed image of {content.size} bytes ({what}) can't be decoded")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def rgb_to_image(rgb: np.ndarray, header: Header) -> Image:
    """RGB uint8 (H, W, 3) -> Image in rgb8 with this header."""
    from sensor_msgs.msg import Image

    height, width, _ = rgb.shape
    message = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
    message.is_bigendian = 0
    message.data.frombytes(np.ascontiguousarray(rgb, np.uint8))
    return message


def rgb_to_compressed(rgb: np.ndarray, header: Header, kind: str = "jpeg", quality: int = 85) -> CompressedImage:
    """RGB uint8 (H, W, 3) -> CompressedImage, kind "jpeg" (quality 1..100) or "png" (exact)."""
    from sensor_msgs.msg import CompressedImage

    # The format in image_transport's words, so that its decoders read the colours right.
    message = CompressedImage(header=header, format=f"rgb8; {kind} compressed bgr8")
    message.data.frombytes(encoded(rgb, kind, quality))
    return message


def encoded(rgb: np.ndarray, kind: str, quality: int) -> np.ndarray:
    """RGB uint8 (H, W, 3) -> bytes of a "jpeg" (quality 1..100) or "png" (exact)."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    good, content = cv2.imencode("." + kind, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    if not good:
        raise ImageError(f"OpenCV can't write {rgb.shape} as '{kind}'")
    return np.asarray(content)


@cache
def cv_bridge() -> Any:
    """A CvBridge, or None where there is none that works."""
    try:
        from cv_bridge import CvBridge

        bridge = CvBridge()
        bridge.encoding_to_cvtype2("rgb8")  # loads its C++ half, which a newer NumPy breaks
    except (ImportError, AttributeError, RuntimeError):  # the last two from one built for another NumPy
        return None
    return bridge


def _bridgeable(message: Image, encoding: Encoding) -> bool:
    """Whether cv_bridge does this right.

    It shears rows padded by less than a whole pixel, and fails on big-endian pictures under NumPy 2.
    """
    return (
        message.encoding in BRIDGED
        and not message.is_bigendian
        and message.step % (encoding.channels * np.dtype(encoding.sample).itemsize) == 0
    )


def _rows(message: Image, encoding: Encoding) -> np.ndarray:
    """The message's bytes as (height, step), after checking that they are there."""
    height, width, step = message.height, message.width, message.step
    row = width * encoding.channels * np.dtype(encoding.sample).itemsize
    content = _bytes_of(message)
    if height < 1 or width < 1 or step < row or content.size < height * step:
        raise ImageError(
            f"image of {height} rows x {width} columns in {message.encoding} needs {row} bytes a row and "
            f"{height * max(step, row)} in all; it says {step} a row and holds {content.size}"
        )
    return content[: height * step].reshape(height, step)


def _convert(rows: np.ndarray, message: Image, encoding: Encoding) -> np.ndarray:
    """Bytes (height, step) -> RGB uint8 (height, width, 3); what pads each row is left off."""
    sample = np.dtype(encoding.sample)
    used = rows[:, : message.width * encoding.channels * sample.itemsize]
    pixels = used.view(sample.newbyteorder(">" if message.is_bigendian else "<"))
    if encoding.channels > 1:
        pixels = pixels.reshape(message.height, message.width, encoding.channels)
    if sample.itemsize == 2:
        pixels = cv2.convertScaleAbs(pixels.astype(np.uint16), alpha=255 / 65535)  # rounds, as cv_bridge does
    if encoding.to_rgb is None:
        return np.asarray(pixels)
    try:
        return np.asarray(cv2.cvtColor(pixels, encoding.to_rgb))
    except cv2.error as error:  # some versions refuse YUV with an odd number of columns
        raise ImageError(
            f"{message.height}x{message.width} image in {message.encoding} can't be converted: {_line(error)}"
        ) from error


def _declared_size(content: bytes) -> tuple[int, int] | None:
    """Height and width that a JPEG or PNG claims to have; None for anything else.

    To be known before decoding: a few bytes of garbage can make a decoder ask for gigabytes.
    """
    if content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) >= 24:
        width, height = struct.unpack(">II", content[16:24])
        return height, width
    at = 2 if content.startswith(b"\xff\xd8") else len(content)
    while at + 9 <= len(content) and content[at] == 0xFF:  # a JPEG is a chain of segments: marker, length, body
        marker, length, _, height, width = struct.unpack(">BHBHH", content[at + 1 : at + 9])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame, in any coding
            return height, width
        at += 1 if marker == 0xFF else 2 + length  # a marker may be preceded by filling
    return None


def _bytes_of(message: Image | CompressedImage) -> np.ndarray:
    try:
        return np.frombuffer(message.data, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise ImageError(f"image without data that can be read: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
