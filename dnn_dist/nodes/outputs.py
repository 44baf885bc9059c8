# SPDX-License-Identifier: Apache-2.0
"""What a source publishes for others: detections, reports, and a picture of each frame if somebody watches."""

from __future__ import annotations

from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from dnn_dist import msg
from dnn_dist.detect.boxes import Detection
from dnn_dist.detect.draw import TileMark, draw_overlay
from dnn_dist.nodes import convert
from dnn_dist.nodes.images import rgb_to_image
from dnn_dist.nodes.lane import one_line
from dnn_dist.nodes.parameters import Parameters
from dnn_dist.nodes.qos import OUTPUT, OVERRIDES, RECORD, detections
from dnn_dist.nodes.shell import Shell
from dnn_dist.nodes.world import RosWorld
from dnn_dist.run.notes import Note
from dnn_dist.run.values import Outcome
from dnn_dist.settings import AggregatorSettings


class Outputs:
    """The topics on which the outcome of each frame is said."""

    def __init__(self, shell: Shell, world: RosWorld, settings: Parameters[AggregatorSettings]) -> None:
        self._shell, self._settings, self._drawing = shell, settings, world.lane("drawing")
        self._detections = shell.offer(msg.Detections, "detections", detections(), OVERRIDES, owed=False)
        self._report = shell.offer(msg.FrameReport, "report", RECORD, OVERRIDES)
        self._overlay = shell.offer(Image, "overlay", OUTPUT, OVERRIDES)
        self._vision = self._offer_vision()
        world.route(Outcome, lambda outcome, to: self._publish(outcome))

    def _offer_vision(self) -> Any:
        try:
            from vision_msgs.msg import Detection2DArray
        except ImportError:
            self._shell.get_logger().info("vision_msgs is not installed: no detections_2d topic, only our detections")
            return None
        return self._shell.offer(Detection2DArray, "detections_2d", OUTPUT, OVERRIDES)

    def _publish(self, outcome: Outcome) -> None:
        report, send = outcome.report, self._shell.send
        found: list[Detection] = outcome.outputs or []
        messages = [  # all are made before one is sent: what cannot be said of a frame is not said by half
            (self._detections, convert.detections_message(outcome, found)),
            (self._report, convert.report_message(outcome)),
        ]
        if self._vision is not None:
            messages.append((self._vision, convert.vision_message(outcome.frame.about.header, found)))
        for publisher, message in messages:
            send(publisher, message)
        late = report.latency - report.budget - self._settings.now.timer_slack
        if late > 0:
            text = f"frame {report.frame} was reported {late * 1000:.0f} ms after its deadline and slack"
            self._shell.note(Note("report late", f"{text}; this machine is overloaded"))
        watched = self._overlay.get_subscription_count() and outcome.frame.about.image is not None
        if watched and not self._drawing.busy:
            self._draw(outcome, found)

    def _draw(self, outcome: Outcome, detections: list[Detection]) -> None:
        report, picture, tiles = outcome.report, outcome.frame.about, []
        for place, (state, worker) in sorted(outcome.tiles.items()):
            extent = outcome.store.extent(*place)
            if extent is not None:
                y0, x0, y1, x1 = picture.letterbox.tile_to_image(*extent)
                tiles.append(TileMark(y0, x0, y1, x1, state, worker))
        status = report.status.name.lower().replace("_", " ")
        caption = f"{status}  quality {report.quality:.2f}  {report.latency * 1000:.0f} ms"
        scale = self._settings.now.overlay_scale

        def drawn(image: np.ndarray | None, error: Exception | None) -> None:
            if image is None:
                self._shell.note(Note("drawing failed", one_line(error) if error else "no picture"))
            else:
                self._shell.send(self._overlay, rgb_to_image(image, picture.header))

        self._drawing.submit(lambda: draw_overlay(picture.image, detections, tiles, caption, scale), drawn)
