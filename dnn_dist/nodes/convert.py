# SPDX-License-Identifier: Apache-2.0
"""Messages from and to the core's values. What comes in is validated here, once; inside it is trusted.

Every `read_...` raises WireError in one line when a message does not hold what it should.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
from std_msgs.msg import Header

from dnn_dist import msg
from dnn_dist.detect.boxes import Detection
from dnn_dist.graph.region import Region
from dnn_dist.nodes.images import ImageError, decoded, encoded
from dnn_dist.nodes.tasklists import TASKS, read_tasks, speeds_messages, tasks_messages
from dnn_dist.plan.plan import WIRES, Plan
from dnn_dist.run.state import Progress, SourceState, StageProgress, WorkerState
from dnn_dist.run.values import Feed, Frame, Outcome, PlanText, Result, Route, Scatter, Work
from dnn_dist.run.wire import TaskKey, WireError, WireTensor, array_from_bytes
from dnn_dist.settings import NAME

T = TypeVar("T")
LONGEST_DUE = 3600.0
"""Seconds of a QoS deadline; more is no camera of ours."""
MOST = 4096
"""Entries of any list in a control message; a longer one is not ours."""


def name_of(text: str, what: str) -> str:
    """A source's or worker's name; it becomes part of topic names, so it is checked."""
    if not NAME.fullmatch(text):
        raise WireError(f"{what} is {text[:80]!r}, expected a to z, 0 to 9 and _, e.g. 'front'")
    return text


def _few(entries: Sequence[Any], what: str) -> Sequence[Any]:
    if len(entries) > MOST:
        raise WireError(f"{what}: {len(entries)} entries, expected at most {MOST}")
    return entries


def seconds(value: float, what: str) -> float:
    """A duration in seconds: finite, and not below zero."""
    return _quantity(value, what, "a duration in seconds")


def _speed(value: float) -> float:
    return _quantity(value, "speed", "MAC/s, or 0 while unknown")


def _quantity(value: float, what: str, expected: str) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise WireError(f"{what} is {value}, expected {expected}")
    return float(value)


def work_number(value: int) -> int:
    """A work's number. The next one must fit into its field as well."""
    if value >= 2**63:
        raise WireError(f"work number {value}, expected less than 2^63: nobody sends so much")
    return value


@cache
def _fields(kind: Any) -> tuple[str, ...]:
    """Names of a message's fields, or of a value's."""
    return kind._fields if issubclass(kind, tuple) else tuple(kind.get_fields_and_field_types())


def _made(kind: Callable[..., T], of: Any, **own: Any) -> T:
    """A message of a value or a value of a message: `own` fields, and the others as they stand in `of`."""
    return kind(**own, **{name: getattr(of, name) for name in _fields(kind) if name not in own})


# Keys and tensors


def key_message(key: TaskKey) -> msg.TaskKey:
    """A task's key as it travels."""
    return msg.TaskKey(source=key.source, session=key.session, frame=key.frame, stage=key.stage, piece=key.piece)


def read_key(message: msg.TaskKey) -> TaskKey:
    return TaskKey(name_of(message.source, "source"), message.session, message.frame, message.stage, message.piece)


def tensor_message(tensor: WireTensor) -> msg.Tensor:
    """An array of any shape with its name, region and quantisation, as bytes."""
    region = tensor.region
    message = msg.Tensor(
        name=tensor.name,
        dtype="jpeg" if tensor.jpeg else tensor.array.dtype.name,
        scale=tensor.scale,
        zero_point=tensor.zero_point,
        shape=list(tensor.array.shape),
        region=[] if region is None else [region.y0, region.x0, region.y1, region.x1],
    )
    # frombytes copies once; assigning the array would convert value by value, a thousand times slower.
    sent = encoded(tensor.array, "jpeg", tensor.jpeg) if tensor.jpeg else np.ascontiguousarray(tensor.array)
    message.data.frombytes(sent.data.cast("B"))
    return message


def read_tensor(message: msg.Tensor) -> WireTensor:
    """The array is a view of the message's bytes; they must be as many as shape and type say."""
    if len(message.region) not in (0, 4):
        raise WireError(f"tensor {message.name[:80]!r}: region has {len(message.region)} numbers, expected 0 or 4")
    region = None
    if len(message.region):
        y0, x0, y1, x1 = (int(edge) for edge in message.region)
        region = Region(y0=y0, y1=y1, x0=x0, x1=x1)
    shape = tuple(int(extent) for extent in message.shape)
    name, data = message.name[:80], memoryview(message.data).cast("B")
    if message.dtype == "jpeg":
        array = _from_jpeg(name, shape, data)
    else:
        array = array_from_bytes(name, message.dtype, shape, data)
    return WireTensor(message.name, array, float(message.scale), int(message.zero_point), region)


def _from_jpeg(name: str, shape: tuple[int, ...], data: memoryview) -> np.ndarray:
    try:
        pixels = decoded(np.frombuffer(data, np.uint8), f"tensor {name!r}")
    except ImageError as error:
        raise WireError(str(error)) from None
    if pixels.shape != shape:
        raise WireError(f"tensor {name!r}: a JPEG of {pixels.shape[:2]} pixels, expected {shape}")
    return pixels


# Plans and tasks


def plan_message(plan: PlanText) -> msg.Plan:
    return _made(msg.Plan, plan)


def read_plan(message: msg.Plan) -> PlanText:
    """A plan whose text is what its hash was made of."""
    plan = Plan.from_yaml(message.text)
    if plan.hash != message.plan:
        raise WireError(f"plan {message.plan[:32]!r} has the hash {plan.hash}; its text was changed on the way")
    return _made(PlanText, message, source=name_of(message.source, "source"), robots=plan.robots)


def work_message(work: Work) -> msg.Work:
    inputs = [tensor_message(tensor) for tensor in work.inputs]
    routes = [_made(msg.Route, route) for route in work.routes]
    return _made(msg.Work, work, key=key_message(work.key), inputs=inputs, routes=routes)


def read_work(message: msg.Work) -> Work:
    return _made(
        Work,
        message,
        key=read_key(message.key),
        number=work_number(message.number),
        budget=seconds(message.budget, "budget"),
        wire=_wire(message.wire),
        inputs=[read_tensor(tensor) for tensor in message.inputs],
        routes=_read_routes(message),
    )


def _wire(text: str) -> str:
    if not text:
        return WIRES[0]
    if text not in WIRES:
        raise WireError(f"wire is {text[:32]!r}, expected one of {', '.join(WIRES)}")
    return text


def _read_routes(message: msg.Work | msg.Scatter) -> tuple[Route, ...]:
    routes = _few(message.routes, "routes")
    return tuple(Route(one.stage, one.piece, name_of(one.worker, "worker"), one.session) for one in routes)


def scatter_message(scatter: Scatter) -> msg.Scatter:
    return _made(msg.Scatter, scatter, routes=[_made(msg.Route, route) for route in scatter.routes])


def read_scatter(message: msg.Scatter) -> Scatter:
    return _made(Scatter, message, source=name_of(message.source, "source"), routes=_read_routes(message))


def feed_message(feed: Feed) -> msg.Feed:
    return _made(msg.Feed, feed, key=key_message(feed.key), boxes=[tensor_message(box) for box in feed.boxes])


def read_feed(message: msg.Feed) -> Feed:
    return _made(
        Feed,
        message,
        key=read_key(message.key),
        worker=name_of(message.worker, "worker"),
        boxes=[read_tensor(box) for box in _few(message.boxes, "boxes")],
    )


def result_message(result: Result) -> msg.Result:
    outputs = [tensor_message(tensor) for tensor in result.outputs or ()]
    return _made(msg.Result, result, key=key_message(result.key), outputs=outputs)


def read_result(message: msg.Result) -> Result:
    return _made(
        Result,
        message,
        key=read_key(message.key),
        worker=name_of(message.worker, "worker"),
        waited=seconds(message.waited, "waited"),
        computed=seconds(message.computed, "computed"),
        error=message.error[:200],
        outputs=[] if message.error else [read_tensor(tensor) for tensor in message.outputs],
    )


def frame_message(frame: Frame) -> msg.Frame:
    picture = frame.about
    height, width = picture.image.shape[:2] if picture.image is not None else (0, 0)
    image = [tensor_message(tensor) for tensor in frame.image]
    return _made(msg.Frame, frame, header=picture.header, height=height, width=width, image=image)


def read_frame(message: msg.Frame, about: Any) -> Frame:
    """`about`: what the outputs of the frame need; see run/values.py."""
    if message.frame == 2**32 - 1:
        raise WireError(f"frame {message.frame}: is the last number there is, and must have a next one")
    if not message.error and not (message.height and message.width):
        raise WireError(f"frame {message.frame}: its image has {message.height} x {message.width} pixels")
    source, budget = name_of(message.source, "source"), seconds(message.budget, "budget")
    image = [read_tensor(tensor) for tensor in _few(message.image, "image")]
    told = {"error": message.error[:200], "saving": message.saving[:80]}
    return _made(Frame, message, source=source, budget=budget, about=about, image=image, **told)


# States


def worker_message(state: WorkerState) -> msg.WorkerState:
    return _made(
        msg.WorkerState,
        state,
        **{name: sorted(getattr(state, name)) for name in ("plans", "on_demand", "refused", "peers")},
        tasks=tasks_messages(state),
        speeds=speeds_messages(state),
    )


def _read_speeds(message: msg.WorkerState) -> dict[tuple[str, int], float]:
    for of in _few(message.speeds, "speeds"):
        if len(of.stages) != len(of.speeds):
            raise WireError(f"speeds: {len(of.speeds)} of {len(of.stages)} stages, expected one of each")
        _few(of.stages, "speeds")
    return {
        (of.plan, stage): _speed(speed)
        for of in message.speeds
        for stage, speed in zip(of.stages, of.speeds, strict=True)
    }


def read_worker(message: msg.WorkerState) -> WorkerState:
    tasks = _few(message.tasks, "tasks")
    for of in tasks:
        name_of(of.source, "source")
        for name in TASKS:
            _few(getattr(of, name), name)
    return _made(
        WorkerState,
        message,
        worker=name_of(message.worker, "worker"),
        **{name: frozenset(_few(getattr(message, name), name)) for name in ("plans", "on_demand", "refused", "peers")},
        held=tuple(read_tasks(tasks, "held")),
        waiting=frozenset(read_tasks(tasks, "waiting")),
        answered=frozenset(read_tasks(tasks, "answered")),
        seen={(of.source, of.session): work_number(of.seen) for of in tasks if of.seen},
        speed=_speed(message.speed),
        speeds=_read_speeds(message),
    )


def source_message(state: SourceState) -> msg.SourceState:
    return _made(msg.SourceState, state)


def read_source(message: msg.SourceState) -> SourceState:
    source = name_of(message.source, "source")
    if not 0 <= message.deadline <= LONGEST_DUE:
        raise WireError(f"state of source {source!r}: deadline is {message.deadline} s, expected 0 to {LONGEST_DUE:g}")
    return _made(SourceState, message, source=source)


def progress_message(progress: Progress) -> msg.Progress:
    stages = [
        msg.StageProgress(frame=frame, stage=stage, settled=state.settled, held=_bits(state.held))
        for (frame, stage), state in progress.stages.items()
    ]
    known = {"plans": sorted(progress.plans), "peers": sorted(progress.peers)}
    return _made(msg.Progress, progress, **known, stages=stages)


def read_progress(message: msg.Progress) -> Progress:
    return _made(
        Progress,
        message,
        source=name_of(message.source, "source"),
        plans=frozenset(_few(message.plans, "plans")),
        peers=frozenset(_few(message.peers, "peers")),
        stages={
            (entry.frame, entry.stage): StageProgress(_pieces(entry.held), entry.settled)
            for entry in _few(message.stages, "stages")
        },
    )


def _bits(pieces: Iterable[int]) -> list[int]:
    number = sum(1 << piece for piece in pieces)
    return list(number.to_bytes((number.bit_length() + 7) // 8, "little"))


def _pieces(held: Sequence[int]) -> frozenset[int]:
    return frozenset(
        8 * index + bit for index, byte in enumerate(_few(held, "held")) for bit in range(8) if byte >> bit & 1
    )


# Outputs


def detections_message(outcome: Outcome, detections: Sequence[Detection]) -> msg.Detections:
    frame, report = outcome.frame, outcome.report
    return _made(
        msg.Detections,
        report,
        header=frame.about.header,
        source=frame.source,
        session=frame.session,
        status=int(report.status),
        detections=[_made(msg.Detection, found) for found in detections],
    )


def report_message(outcome: Outcome) -> msg.FrameReport:
    frame, report = outcome.frame, outcome.report
    return _made(
        msg.FrameReport,
        report,
        header=frame.about.header,
        source=frame.source,
        session=frame.session,
        dropped=frame.dropped,
        saving=frame.saving,
        status=int(report.status),
        workers=[_made(msg.WorkerShare, share, worker=name) for name, share in sorted(report.workers.items())],
    )


def vision_message(header: Header, detections: Sequence[Detection]):  # type: ignore[no-untyped-def]
    """vision_msgs/Detection2DArray; raises ImportError where vision_msgs is not installed."""
    from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray, ObjectHypothesisWithPose

    array = Detection2DArray(header=header)
    for found in detections:
        box = BoundingBox2D(size_x=float(found.x1 - found.x0), size_y=float(found.y1 - found.y0))
        box.center.position.x = (found.x0 + found.x1) / 2
        box.center.position.y = (found.y0 + found.y1) / 2
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = found.label
        hypothesis.hypothesis.score = float(found.score)
        array.detections.append(Detection2D(header=header, bbox=box, results=[hypothesis]))
    return array
