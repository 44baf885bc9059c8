# SPDX-License-Identifier: Apache-2.0
"""What a run of the demo showed: summary.json, reports.jsonl with a frame a line, a video and a picture."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.run.report import Status


class Summary:
    """Collects reports and overlays of a run and writes what they come to."""

    def __init__(self, out: Path, frames: int, rate: float) -> None:
        """`frames`: how many are wanted; later ones are not counted. `rate`: frames a second of the video."""
        self.reports: list[Any] = []  # FrameReport messages
        self.detections: dict[tuple[int, int], int] = {}  # (session, frame) -> number of detections
        self.pictures = 0
        self._out, self._frames = out, frames
        self._began: float | None = None
        self._last = time.monotonic()
        self._kill: dict[str, Any] | None = None
        self.rate = rate
        self._video: cv2.VideoWriter | None = None
        self._size = (0, 0)  # rows and columns of the video
        self._picture: tuple[int, np.ndarray] | None = None
        for old in ("summary.json", "reports.jsonl", "demo.mp4", "demo.png"):
            (out / old).unlink(missing_ok=True)

    def add_report(self, report: Any) -> None:
        """A frame was reported."""
        if len(self.reports) >= self._frames:
            return
        self._last = time.monotonic()
        self._began = self._began or self._last
        self.reports.append(report)

    def add_overlay(self, image: np.ndarray) -> None:
        """An annotated image, RGB."""
        rows, columns = image.shape[:2]
        if self._video is None:
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._video = cv2.VideoWriter(str(self._out / "demo.mp4"), codec, self.rate, (columns, rows))
            self._size = rows, columns
        # A video has one size: the first picture's. OpenCV leaves out what has another.
        fitted = Letterbox(rows, columns, *self._size).apply(image)
        self._video.write(cv2.cvtColor(fitted, cv2.COLOR_RGB2BGR))
        self.pictures += 1
        if self.pictures <= max(1, 2 * self._frames // 3):
            self._picture = (self.pictures, image)

    def killed(self, worker: str) -> None:
        """A worker was killed now."""
        self._kill = {"worker": worker, "after_frames": len(self.reports)}

    def age(self) -> float:
        """Seconds since the last report, or since the start."""
        return time.monotonic() - self._last

    def told(self) -> dict[str, Any]:
        """The summary so far, as it stands in summary.json. Latencies in ms."""
        latencies = sorted(1000 * report.latency for report in self.reports)
        undisturbed = [1000 * r.latency for r in self.reports if r.status == Status.COMPLETE]
        span = self._last - (self._began or self._last)
        statuses = Counter(Status(report.status).name.lower() for report in self.reports)
        numbers = [(report.session, report.frame) for report in self.reports]
        return {
            "frames_taken_in": self._taken_in(),
            "frames_reported": len(self.reports),
            "frames_reported_twice": len(numbers) - len(set(numbers)),
            "images_dropped": max((report.dropped for report in self.reports), default=0),
            "reported": {status.name.lower(): statuses[status.name.lower()] for status in Status},
            "with_detections": sum(self.detections.get(key, 0) > 0 for key in numbers),
            "frames_per_second": (len(self.reports) - 1) / span if span > 0 else 0.0,
            "latency_ms": {f"p{p}": float(np.percentile(latencies, p)) if latencies else 0.0 for p in (50, 90, 99)},
            "undisturbed_median_ms": float(np.median(undisturbed)) if undisturbed else 0.0,
            "deadline_ms": 1000 * max((report.budget for report in self.reports), default=0.0),
            "parts_ms": {part: self._median(part) for part in ("computed", "local", "waited")},
            "workers": self._workers(),
            "killed": self._kill,
        }

    def _taken_in(self) -> int:
        """Frames announced, over all sessions that a restarted source went through."""
        last: dict[int, int] = {}
        for report in self.reports:
            last[report.session] = max(last.get(report.session, -1), report.frame)
        return sum(frame + 1 for frame in last.values())

    def _median(self, part: str) -> float:
        return float(np.median([1000 * getattr(report, part) for report in self.reports])) if self.reports else 0.0

    def _workers(self) -> dict[str, dict[str, float]]:
        total: dict[str, defaultdict[str, float]] = {}
        for report in self.reports:
            for share in report.workers:
                entry = total.setdefault(share.worker, defaultdict(int))
                for name in ("tasks", "stolen", "recomputed", "bytes_in", "bytes_out"):
                    entry[name] += getattr(share, name)
                entry["computed_s"] += share.computed
        return {name: dict(entry) for name, entry in sorted(total.items())}

    def line(self) -> str:
        """Progress in one line."""
        told = self.told()
        latency = told["latency_ms"]
        return (
            f"{told['frames_reported']:4d} frames, {told['frames_per_second']:.1f}/s, "
            f"p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms, "
            + ", ".join(f"{status} {count}" for status, count in told["reported"].items() if count)
        )

    def write(self, exit_codes: Mapping[str, int], **conditions: Any) -> dict[str, Any]:
        """Write summary.json and reports.jsonl, close the video, write the picture; returns the summary."""
        if self._video is not None:
            self._video.release()
        if self._picture is not None:
            cv2.imwrite(str(self._out / "demo.png"), cv2.cvtColor(self._picture[1], cv2.COLOR_RGB2BGR))
        told = {**self.told(), "exit_codes": dict(exit_codes), "conditions": conditions}
        (self._out / "summary.json").write_text(json.dumps(told, indent=2) + "\n")
        lines = [json.dumps(plain(report) | {"status": Status(report.status).name.lower()}) for report in self.reports]
        (self._out / "reports.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return told

    def closing_line(self, told: Mapping[str, Any]) -> str:
        """Where to look."""
        kill = (
            f"; {told['killed']['worker']} was killed after {told['killed']['after_frames']} frames"
            if told["killed"]
            else ""
        )
        pictures = f"{self.pictures} pictures in {self._out}/demo.mp4, one in demo.png, " if self.pictures else ""
        return f"{pictures}figures in {self._out}/summary.json, frame by frame in reports.jsonl{kill}"


def plain(value: Any) -> Any:
    """A ROS message as JSON has it; numbers to six digits behind the point."""
    if hasattr(value, "get_fields_and_field_types"):
        return {name: plain(getattr(value, name)) for name in value.get_fields_and_field_types()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value
