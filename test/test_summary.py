# SPDX-License-Identifier: Apache-2.0
"""What the demo leaves behind."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dnn_dist.cli.summary import Summary


def test_pictures_of_any_size_are_in_the_video(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    summary = Summary(tmp_path, frames=6, rate=5.0)
    sizes = [(96, 128), (240, 320), (33, 501), (501, 33), (95, 127), (96, 128)]
    for number, (rows, columns) in enumerate(sizes):
        summary.add_overlay(np.full((rows, columns, 3), 40 * number, np.uint8))
    summary.write({})
    assert not capfd.readouterr().err
    video = cv2.VideoCapture(str(tmp_path / "demo.mp4"))
    middles = []
    while True:
        good, image = video.read()
        if not good:
            break
        assert image.shape == (96, 128, 3)
        middles.append(int(image[48, 64, 0]))
    video.release()
    assert np.allclose(middles, [40 * number for number in range(len(sizes))], atol=15), "the codec is not exact"
