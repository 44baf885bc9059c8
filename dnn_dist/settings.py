# SPDX-License-Identifier: Apache-2.0
"""Every setting of every node, declared once: name, default, range, meaning, and whether it may change while running.

`nodes/parameters.py` declares these to ROS, `cluster.py` checks parameter files against them, and the table in
doc/parameters.md is made from them (`dnn_dist parameters`). Knows nothing of ROS itself. All durations are in seconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""Names of sources, workers and robots."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a parameter is, beside its name, type and default."""

    text: str
    low: float | None = None  # smallest value allowed
    high: float | None = None  # largest value allowed
    live: bool = False  # may change while the node runs
    choices: tuple[str, ...] = ()
    names: bool = False  # a text of names, with spaces between them

    def expects(self, value: Any) -> str:
        """What is expected instead of a text that is not allowed; empty where it is."""
        if self.choices and value not in self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.names and not all(NAME.fullmatch(name) for name in value.split()):
            return "names of a to z, 0 to 9 and _, with spaces between them"
        return ""


def parameter(default: Any, text: str, low: float | None = None, high: float | None = None, **more: Any) -> Any:
    """A field of a settings class that is a ROS parameter."""
    metadata = {"meaning": Meaning(text, low, high, **more)}
    return field(default=default, metadata=metadata)


def meanings(settings: type) -> dict[str, tuple[Any, Meaning]]:
    """Name -> (default, meaning) of a settings class's parameters."""
    return {entry.name: (entry.default, entry.metadata["meaning"]) for entry in fields(settings)}


IMAGES = "topics of the images, of a model with several inputs one for each, as in 'left right'; empty: image, for all"


def image_topics(images: str) -> tuple[str, ...]:
    """The topics that the parameter `images` names."""
    return tuple(images.split()) or ("image",)


@dataclass(frozen=True)
class CameraSettings:
    """Publishes frames of a camera, a video, a folder of images or a synthetic scene."""

    source: str = parameter("scene", "what is seen: scene, scene:SEED, a folder of images, a video file, or device:N")
    rate: float = parameter(5.0, "frames a second", 0.05, 240.0, live=True)
    height: int = parameter(256, "rows of a synthetic scene, or asked of a device", 16, 8192)
    width: int = parameter(320, "columns of a synthetic scene, or asked of a device", 16, 8192)
    loop: bool = parameter(True, "start a folder or video again at its end")
    frame_id: str = parameter("camera", "frame_id of the images' header")
    compressed: bool = parameter(False, "publish image/compressed (JPEG) instead of image")
    jpeg_quality: int = parameter(90, "quality of compressed images", 1, 100, live=True)
    wait_for_subscriber: bool = parameter(True, "take the first frame when somebody listens")


@dataclass(frozen=True)
class ModelSettings:
    """The network, as every node that computes needs it."""

    model: str = parameter("warehouse_float32.tflite", "path of the .tflite file; a bare name is one that is shipped")
    threads: int = parameter(1, "threads of an interpreter", 1, 64)
    pace: float = parameter(
        0.0,
        "compute as slowly as a robot of this many million MACs a second, by waiting; 0: full speed",
        0.0,
        1e6,
        live=True,
    )


@dataclass(frozen=True)
class SourceSettings:
    """A source: what partition and aggregator of one camera share."""

    source: str = parameter("front", "name of the source: a to z, 0 to 9 and _, unique in the cluster")
    robot: str = parameter("r1", "name of the robot that this node runs on")
    trusted: str = parameter("", "workers that may compute for it, e.g. r1 r2; empty: all", names=True, live=True)


@dataclass(frozen=True)
class PartitionSettings(ModelSettings, SourceSettings):
    """Takes the newest frame, cuts it and hands tasks to workers."""

    plan: str = parameter("", "plan file of `dnn_dist plan`; it replaces cut, by_link, fill, wire and replicas")
    cut: str = parameter("tiles:2x2", "how the model is cut, as for `dnn_dist check --cut`")
    by_link: str = parameter(
        "",
        "cuts by the rate of the link to a server, each from so many Mbit/s on, as in '1.5 front@0..4>rest | 9 rest'; "
        "below the first, and without a server, cut",
    )
    fill: str = parameter("last", "what stands for a lost piece", choices=("last", "zeros"))
    wire: str = parameter(
        "float32",
        "how float tensors travel; float16 and int8 are smaller and rounded",
        choices=("float32", "float16", "int8"),
    )
    narrow: str = parameter(
        "float32",
        "how float tensors may travel when links are too slow for all pieces of a frame to come in time",
        choices=("float32", "float16", "int8"),
        live=True,
    )
    jpeg: int = parameter(
        0, "quality of JPEG in which pixels may travel when that is not enough; 0: never", 0, 100, live=True
    )
    replicas: int = parameter(1, "workers that may compute each piece without parity; the first answer counts", 1, 4)
    deadline: float = parameter(0.5, "from an image's arrival to its detections", 0.01, 60.0, live=True)
    max_frames: int = parameter(
        0,
        "frames in work at once; more raises throughput and latency; 0: one, of a pipeline one more than it has groups",
        0,
        16,
        live=True,
    )
    images: str = parameter("", IMAGES)
    pair_within: float = parameter(
        0.01, "largest difference of the stamps of images that belong together, of a model with several", 0.0, 10.0
    )
    compressed: bool = parameter(False, "images come on image/compressed instead of image")
    mode: str = parameter(
        "stealing",
        "stealing: workers pull tasks; sharing: a fixed division",
        choices=("stealing", "sharing"),
        live=True,
    )
    window: int = parameter(
        4_000_000, "bytes on the way at once, work and expected results", 1_000, 1_000_000_000, live=True
    )
    transit: float = parameter(
        0.1,
        "shortest time for a work or an answer to be acknowledged; it grows with what is on the way",
        0.001,
        10.0,
        live=True,
    )
    lifespan: float = parameter(
        1.0, "work that has not arrived after this is given up; about the deadline, or less", 0.05, 60.0
    )
    worker_timeout: float = parameter(0.5, "silence after which a worker is taken for gone", 0.05, 60.0, live=True)
    lease_min: float = parameter(0.1, "shortest time that a worker is given for a task", 0.001, 60.0, live=True)
    lease_factor: float = parameter(
        3.0, "time that a worker is given, in multiples of its usual time for the task", 1.0, 100.0, live=True
    )
    redundancy: str = parameter(
        "demand",
        "demand: parities and replicas go out when pieces are late; always: with the others",
        choices=("demand", "always"),
        live=True,
    )
    risk: float = parameter(
        0.2,
        "a piece is late when it has been away for a quarter longer than all but this share of its stage's pieces",
        0.0,
        0.5,
        live=True,
    )
    qos_deadlines: bool = parameter(
        False,
        "ask DDS to say when works or results of a pair are overdue, by the source's rate and a stage's share; "
        "rclpy may end the gateway by it, see doc/design.md",
        live=True,
    )
    backoff_min: float = parameter(
        0.25, "how long a worker that is lost again within 30 s is left out at first; doubles", 0.0, 60.0, live=True
    )
    backoff_max: float = parameter(10.0, "longest time that a worker is left out", 0.0, 600.0, live=True)
    max_attempts: int = parameter(5, "workers that a task is tried at", 1, 100, live=True)
    max_workers: int = parameter(256, "workers that are known at once", 1, 4096, live=True)


@dataclass(frozen=True)
class AggregatorSettings(ModelSettings, SourceSettings):
    """Merges results, runs the rest of the model, publishes detections, overlay and report."""

    score_threshold: float = parameter(
        -1.0, "least score of a detection; below 0: as the model card says", -1, 1, live=True
    )
    nms_threshold: float = parameter(
        -1.0, "overlap of boxes of one object; below 0: as the card says", -1, 1, live=True
    )
    images: str = parameter("", IMAGES)
    compressed: bool = parameter(False, "images come on image/compressed instead of image")
    worker_timeout: float = parameter(
        0.5,
        "silence after which a worker is taken for gone; when all are, a frame ends with what there is, "
        "but not before half of its deadline",
        0.05,
        60.0,
        live=True,
    )
    lifespan: float = parameter(
        1.0, "work that has not arrived after this is given up; about the deadline, or less", 0.05, 60.0
    )
    max_open: int = parameter(16, "frames open at once; an older one is closed without a result", 1, 256, live=True)
    max_workers: int = parameter(256, "workers that are known at once", 1, 4096, live=True)
    overlay_scale: int = parameter(2, "pixels of the overlay for one of the image", 1, 4, live=True)
    deadlines: str = parameter(
        "quality",
        "how a deadline is shared among stages: so that most of the answer's quality comes in time, which needs SciPy, "
        "or uniform",
        choices=("quality", "uniform"),
        live=True,
    )
    guard: float = parameter(0.01, "kept free before a deadline for what cannot be foreseen", 0.0, 1.0, live=True)
    timer_slack: float = parameter(
        0.02,
        "how much later than its deadline a frame may be reported before it is a warning",
        0.0,
        1.0,
        live=True,
    )


@dataclass(frozen=True)
class GatewaySettings(AggregatorSettings, PartitionSettings):
    """Partition and aggregator of one source in one process: tensors are handed over and not sent."""


@dataclass(frozen=True)
class WorkerSettings(ModelSettings):
    """Computes pieces for every source of the cluster."""

    worker: str = parameter("w1", "name of the worker: a to z, 0 to 9 and _, unique in the cluster")
    robot: str = parameter("r1", "name of the robot that this node runs on; its own source is served first")
    trusted: str = parameter("", "sources that it computes for, e.g. front rear; empty: all", names=True, live=True)
    prefetch: int = parameter(1, "tasks that wait beside the one being computed", 0, 16, live=True)
    max_held: int = parameter(64, "tasks that are taken at all", 1, 10_000, live=True)
    max_sources: int = parameter(64, "sources that are known at once", 1, 4096, live=True)
    max_plans: int = parameter(8, "plans kept ready, the last used ones", 1, 64, live=True)
    prepared: int = parameter(
        64,
        "MB of weights up to which a plan's pieces are all made ready at once; of larger plans each when first given",
        0,
        1_000_000,
    )
    memory: int = parameter(
        0,
        "MB of larger plans' pieces that are kept ready, the last used ones; 0: half of what the robot has free",
        0,
        1_000_000,
    )
    lifespan: float = parameter(
        1.0, "a result that has not arrived after this is given up; about the deadline, or less", 0.05, 60.0
    )
    heartbeat: float = parameter(0.1, "longest gap between two states; the QoS deadline between them is 1 s", 0.01, 0.5)


NODES: dict[str, type] = {
    "camera": CameraSettings,
    "gateway": GatewaySettings,
    "partition": PartitionSettings,
    "aggregator": AggregatorSettings,
    "worker": WorkerSettings,
}
"""Settings of each executable."""


S = TypeVar("S")


def adopt(kind: type[S], values: Any) -> S:
    """Settings of class `kind`, each from the attribute of that name of `values`; where it has none, the default."""
    names = [entry.name for entry in fields(kind) if hasattr(values, entry.name)]  # type: ignore[arg-type]
    return kind(**{name: getattr(values, name) for name in names})
