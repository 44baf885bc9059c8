# SPDX-License-Identifier: Apache-2.0
"""Where frames come from: a synthetic scene, a folder of images, a video, a camera device. No ROS, no clock.

    scene, scene:7              a synthetic scene, with this seed
    path/to/folder              its images in natural order (img2 before img10)
    path/to/video.mp4           a video file; rtsp://... and http://... streams too
    /dev/video0, device:0       a camera

The first frame is read when a source is opened, so that a useless one is told then, not in the running node.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from dnn_dist.errors import AbsentError, ConfigError

IMAGE_ENDINGS = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class Source(Protocol):
    """Frames, one after the other."""

    def read(self) -> np.ndarray | None:
        """The next frame, RGB uint8 (H, W, 3); None at the end and ever after. May block as a camera does."""

    def close(self) -> None:
        """Gives back what is held; may be called twice."""


def open_source(
    spec: str,
    height: int,
    width: int,
    seed: int = 0,
    loop: bool = False,
    warn: Callable[[str, str], None] = lambda file, why: None,
) -> Source:
    """The source that `spec` names; ConfigError in one line if it can't give a single frame.

    height, width: pixels of a synthetic scene, and what a camera device is asked for (it may give another
    size); folders and videos keep theirs. seed: of a scene whose spec has none. loop: folders and videos
    start again at their end. warn: told the name of each file that is left out, and why; by whoever opens or reads.
    """
    kind, _, rest = spec.partition(":")
    if kind == "scene":
        if rest and not rest.isdecimal():
            raise ConfigError(f"camera source '{spec}': the seed is not a whole number; write e.g. scene:7")
        return SceneSource(int(rest) if rest else seed, height, width)
    if kind == "device":
        if not rest.isdecimal():
            raise ConfigError(f"camera source '{spec}': no camera number; write device:0 or /dev/video0")
        return DeviceSource(int(rest), height, width)
    if "://" in spec:
        return VideoSource(spec, loop)
    path = Path(spec).expanduser()
    if spec.startswith("/dev/"):
        # Links such as /dev/v4l/by-id/... lead to /dev/videoN; the number is what every OpenCV opens.
        number = re.fullmatch(r"/dev/video(\d+)", str(path.resolve()))
        if not path.exists() or number is None:
            raise AbsentError(f"camera source '{spec}': no such camera; ls /dev/video* shows those there are")
        return DeviceSource(int(number[1]), height, width)
    if spec and path.is_dir():
        return FolderSource(path, loop, warn)
    if path.is_file():
        return VideoSource(str(path), loop)
    raise ConfigError(
        f"camera source '{spec}': no such file or folder; "
        "give scene, scene:SEED, a folder of images, a video file, or a device such as /dev/video0"
    )


class SceneSource:
    """A synthetic scene, without end; the same seed shows the same film."""

    def __init__(self, seed: int, height: int, width: int) -> None:
        from dnn_dist.camera.scene import SceneFilm

        self._film = SceneFilm(seed, height, width)
        self._next = 0

    def read(self) -> np.ndarray | None:
        image, _ = self._film.frame(self._next)
        self._next += 1
        return image

    def close(self) -> None:
        pass


class FolderSource:
    """The images of a folder in natural order. Files that are none are left out, and `warn` is told."""

    def __init__(self, folder: Path, loop: bool, warn: Callable[[str, str], None]) -> None:
        try:
            found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS]
        except OSError as error:
            raise ConfigError(f"camera source '{folder}': can't list the folder: {error.strerror}") from error
        self._loop, self._warn = loop, warn
        self._paths = sorted(found, key=_natural)
        self._next = 0
        self._first = self._decode()
        if self._first is None:
            endings = " ".join(sorted(IMAGE_ENDINGS))
            raise ConfigError(
                f"camera source '{folder}': no image in it that can be read "
                f"({len(found)} files end in one of {endings})"
            )

    def read(self) -> np.ndarray | None:
        image, self._first = self._first, None
        return self._decode() if image is None else image

    def close(self) -> None:
        self._paths, self._first = [], None

    def _decode(self) -> np.ndarray | None:
        while self._paths:
            if self._next == len(self._paths):
                if not self._loop:
                    return None
                self._next = 0
            path = self._paths[self._next]
            try:
                image = _read_image(path)
            except ValueError as error:
                # Never tried again: a loop over files that have all gone bad must end.
                del self._paths[self._next]
                self._warn(path.name, str(error))
            else:
                self._next += 1
                return image
        return None


class VideoSource:
    """A video file or stream."""

    def __init__(self, path: str, loop: bool) -> None:
        self._path = path
        self._loop = loop
        self._capture = cv2.VideoCapture(path)
        self._first = _grab(self._capture)
        if self._first is None:
            self._capture.release()
            raise (AbsentError if "://" in path else ConfigError)(
                f"camera source '{path}': OpenCV finds no video in it; "
                "give a video file that ffprobe can show, or a folder for still images"
            )

    def read(self) -> np.ndarray | None:
        image, self._first = self._first, None
        if image is None:
            image = _grab(self._capture)
        if image is None and self._loop and self._capture.isOpened():
            # Opened anew: seeking to the start is inexact or impossible with some codecs.
            self._capture.release()
            self._capture = cv2.VideoCapture(self._path)
            image = _grab(self._capture)
            self._loop = image is not None
        return image

    def close(self) -> None:
        self._first = None
        self._capture.release()


class DeviceSource:
    """A camera on this machine. The end comes when it is unplugged."""

    def __init__(self, number: int, height: int, width: int) -> None:
        self._capture = cv2.VideoCapture(number)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        # A driver's queue is old pictures.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._first = _grab(self._capture)
        if self._first is None:
            self._capture.release()
            raise AbsentError(
                f"camera source 'device:{number}': can't be opened or gives no picture; "
                f"is /dev/video{number} there, free, and may this user read it (group video)?"
            )

    def read(self) -> np.ndarray | None:
        image, self._first = self._first, None
        return _grab(self._capture) if image is None else image

    def close(self) -> None:
        self._first = None
        self._capture.release()


def _natural(path: Path) -> list[tuple[int, str]]:
    """A sort key in which numbers count as numbers."""
    parts = re.findall(r"(\d+)|(\D+)", path.name)
    return [*((int(digits or 0), text) for digits, text in parts), (0, path.name)]


def _read_image(path: Path) -> np.ndarray:
    """RGB; ValueError says why not."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ValueError(f"can't be read: {error.strerror or error}") from None
    try:
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise ValueError(f"not an image that OpenCV can read ({content.size} bytes)")
    rgb: np.ndarray = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def _grab(capture: cv2.VideoCapture) -> np.ndarray | None:
    if not capture.isOpened():
        return None
    try:
        good, image = capture.read()
    except cv2.error:
        return None
    if not good or image is None:
        return None
    rgb: np.ndarray = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)
    return rgb
