# SPDX-License-Identifier: Apache-2.0
"""Laws of the camera's sources: every frame in order, an end that stays, one line when there is none."""

import cv2
import numpy as np
import pytest

from dnn_dist.camera.sources import open_source
from dnn_dist.errors import ConfigError


def frames(source, limit=1000):
    """All frames until the end, which must stay the end."""
    taken = []
    while (image := source.read()) is not None:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        taken.append(image)
        if len(taken) == limit:
            return taken
    assert source.read() is None
    return taken


def plain(shade, height=24, width=32):
    """An RGB picture of one colour whose red says which one it is."""
    return np.full((height, width, 3), (shade, 20, 250), np.uint8)


def reds(images):
    return [int(image[0, 0, 0]) for image in images]


@pytest.fixture
def folder(tmp_path):
    """Images whose natural order is that of their shade, and files that are none."""
    names = ["a.png", "img1.png", "img2.PNG", "img10.bmp", "img11.png", "z.png"]
    for k, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), plain(10 * k, 24, 32 + k)[..., ::-1])
    (tmp_path / "img3.png").write_bytes(b"no picture")
    (tmp_path / "img4.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not an image, and no failure either")
    (tmp_path / "img5.png").mkdir()
    return tmp_path


def test_a_folder_gives_all_its_images_in_natural_order(folder):
    left_out = {}
    images = frames(open_source(str(folder), 1, 1, warn=left_out.__setitem__))
    assert reds(images) == [0, 10, 20, 30, 40, 50]
    assert [image.shape[1] for image in images] == [32, 33, 34, 35, 36, 37]  # sizes stay
    assert tuple(images[1][0, 0]) == (10, 20, 250)  # RGB
    assert left_out.keys() == {"img3.png", "img4.jpg", "img5.png"}
    assert "10 bytes" in left_out["img3.png"] and "directory" in left_out["img5.png"]


def test_a_folder_that_loops_starts_again_and_tells_of_bad_files_once(folder):
    left_out = []
    source = open_source(str(folder), 1, 1, loop=True, warn=lambda file, why: left_out.append(file))
    assert reds(frames(source, limit=15)) == [0, 10, 20, 30, 40, 50] * 2 + [0, 10, 20]
    assert sorted(left_out) == ["img3.png", "img4.jpg", "img5.png"]


def test_a_loop_over_images_that_have_gone_ends(folder):
    source = open_source(str(folder), 1, 1, loop=True)
    for path in folder.glob("*.*"):
        if path.is_file():
            path.unlink()
    assert len(frames(source)) == 1  # the one read when it was opened


def test_names_outside_ascii(tmp_path):
    target = tmp_path / "für Ästhetik"
    target.mkdir()
    (target / "1 é.png").write_bytes(cv2.imencode(".png", plain(7))[1].tobytes())
    assert len(frames(open_source(str(target), 1, 1))) == 1


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for k in range(6):
        writer.write(plain(40 * k, 48, 64)[..., ::-1])
    writer.release()
    return path


def test_a_video_gives_all_its_frames_in_order(video):
    images = frames(open_source(str(video), 1, 1))
    assert images[0].shape == (48, 64, 3)
    assert np.allclose(reds(images), [0, 40, 80, 120, 160, 200], atol=12)  # JPEG is not exact


def test_a_video_that_loops_starts_again(video):
    source = open_source(str(video), 1, 1, loop=True)
    images = frames(source, limit=9)
    assert np.allclose(reds(images), [0, 40, 80, 120, 160, 200, 0, 40, 80], atol=12)
    source.close()
    assert source.read() is None


def test_a_scene_is_its_seed():
    a, b, c = (open_source(spec, 64, 80, seed=5) for spec in ("scene", "scene:5", "scene:6"))
    for _ in range(3):
        first, second, other = a.read(), b.read(), c.read()
        assert first.shape == (64, 80, 3) and first.dtype == np.uint8
        assert np.array_equal(first, second) and not np.array_equal(first, other)


def test_closed_sources_are_at_their_end(folder, video):
    for spec in (str(folder), str(video)):
        source = open_source(spec, 1, 1)
        source.close()
        source.close()
        assert source.read() is None


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("{tmp}/missing.mp4", "no such file or folder"),
        ("", "no such file or folder"),
        ("{tmp}/empty", "no image in it that can be read"),
        ("{tmp}/bad", "no image in it that can be read"),
        ("{tmp}/text.mp4", "finds no video"),
        ("scene:x", "write e.g. scene:7"),
        ("scene:-1", "write e.g. scene:7"),
        ("device:", "write device:0"),
        ("device:a", "write device:0"),
        ("device:97", "can't be opened"),
        ("/dev/video97", "no such camera"),
        ("/dev/null", "no such camera"),
    ],
)
def test_a_source_without_a_frame_is_one_line(tmp_path, spec, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tmp_path / "text.mp4").write_text("no video")
    spec = spec.format(tmp=tmp_path)
    with pytest.raises(ConfigError, match=says) as error:
        open_source(spec, 48, 64)
    assert spec in str(error.value) and "\n" not in str(error.value)
