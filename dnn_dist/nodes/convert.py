# SPDX-License-Identifier: Apache-2.0
"""Messages from and to the core's values. What comes in is validated here, once; inside it is trusted.

Every `read_...` raises WireError in one line when a message does not hold what it should.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from std_msgs.msg import Header

from dnn_dist import msg
from dnn_dist.detect.boxes import Detection
from dnn_dist.graph.region import Region
from dnn_dist.plan.plan import Plan
from dnn_dist.run.report import WorkerShare
from dnn_dist.run.state import Progress, SourceState, StageProgress, WorkerState
from dnn_dist.run.values import Frame, Outcome, PlanText, Result, Work
from dnn_dist.run.wire import NAME, TaskKey, WireError, WireTensor, array_from_bytes

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


def plan_message(plan: PlanText) -> msg.Plan:
    return msg.Plan(source=plan.source, session=plan.session, plan=plan.plan, text=plan.text, pieces=plan.pieces)


def read_plan(message: msg.Plan) -> PlanText:
    """A plan whose text is what its hash was made of."""
    plan = Plan.from_yaml(message.text)
    if plan.hash != message.plan:
        raise WireError(f"plan {message.plan[:32]!r} has the hash {plan.hash}; its text was changed on the way")
    source = name_of(message.source, "source")
    return PlanText(source, message.session, plan.hash, message.text, message.pieces[:64], plan.robots)


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
        dtype=tensor.array.dtype.name,
        scale=tensor.scale,
        zero_point=tensor.zero_point,
        shape=list(tensor.array.shape),
        region=[] if region is None else [region.y0, region.x0, region.y1, region.x1],
    )
    # frombytes copies once; assigning the array would convert value by value, a thousand times slower.
    message.data.frombytes(np.ascontiguousarray(tensor.array).data.cast("B"))
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
    array = array_from_bytes(message.name[:80], message.dtype, shape, memoryview(message.data).cast("B"))
    return WireTensor(message.name, array, float(message.scale), int(message.zero_point), region)


# Tasks


def work_message(work: Work) -> msg.Work:
    return msg.Work(
        key=key_message(work.key),
        plan=work.plan,
        worker_session=work.worker_session,
        number=work.number,
        attempt=work.attempt,
        budget=work.budget,
        inputs=[tensor_message(tensor) for tensor in work.inputs],
    )


def read_work(message: msg.Work) -> Work:
    key = read_key(message.key)
    if message.awaited or message.destinations:
        raise WireError(f"task {key}: inputs from other workers are not known to this version; update it")
    return Work(
        key,
        message.plan,
        message.worker_session,
        work_number(message.number),
        message.attempt,
        seconds(message.budget, "budget"),
        [read_tensor(tensor) for tensor in message.inputs],
    )


def result_message(result: Result) -> msg.Result:
    return msg.Result(
        key=key_message(result.key),
        plan=result.plan,
        worker=result.worker,
        worker_session=result.worker_session,
        attempt=result.attempt,
        waited=result.waited,
        computed=result.computed,
        error=result.error,
        outputs=[tensor_message(tensor) for tensor in result.outputs or ()],
    )


def read_result(message: msg.Result) -> Result:
    return Result(
        read_key(message.key),
        message.plan,
        name_of(message.worker, "worker"),
        message.worker_session,
        message.attempt,
        seconds(message.waited, "waited"),
        seconds(message.computed, "computed"),
        message.error[:200],
        [] if message.error else [read_tensor(tensor) for tensor in message.outputs],
    )


def frame_message(frame: Frame) -> msg.Frame:
    picture = frame.about
    height, width = picture.image.shape[:2] if picture.image is not None else (0, 0)
    return msg.Frame(
        header=picture.header,
        source=frame.source,
        session=frame.session,
        frame=frame.frame,
        plan=frame.plan,
        budget=frame.budget,
        height=height,
        width=width,
        dropped=frame.dropped,
        error=frame.error,
    )


def read_frame(message: msg.Frame, about: Any) -> Frame:
    """`about`: what the outputs of the frame need; see run/values.py."""
    if message.frame == 2**32 - 1:
        raise WireError(f"frame {message.frame}: is the last number there is, and must have a next one")
    error = message.error[:200]
    if not error and not (message.height and message.width):
        raise WireError(f"frame {message.frame}: its image has {message.height} x {message.width} pixels")
    return Frame(
        name_of(message.source, "source"),
        message.session,
        message.frame,
        message.plan,
        seconds(message.budget, "budget"),
        about,
        message.dropped,
        error,
    )


# Control


def worker_message(state: WorkerState) -> msg.WorkerState:
    return msg.WorkerState(
        worker=state.worker,
        robot=state.robot,
        session=state.session,
        sequence=state.sequence,
        model=state.model,
        plans=sorted(state.plans),
        on_demand=sorted(state.on_demand),
        refused=sorted(state.refused),
        held=[key_message(key) for key in state.held],
        answered=[key_message(key) for key in state.answered],
        room=state.room,
        offered_to=state.offered_to,
        seen=[
            msg.SeenWork(source=source, session=session, number=number)
            for (source, session), number in state.seen.items()
        ],
        speed=state.speed,
        speeds=[msg.StageSpeed(plan=plan, stage=stage, speed=speed) for (plan, stage), speed in state.speeds.items()],
        preparing=state.preparing,
        version=state.version,
    )


def read_worker(message: msg.WorkerState) -> WorkerState:
    return WorkerState(
        worker=name_of(message.worker, "worker"),
        robot=message.robot,
        session=message.session,
        sequence=message.sequence,
        model=message.model,
        plans=frozenset(_few(message.plans, "plans")),
        on_demand=frozenset(_few(message.on_demand, "on_demand")),
        refused=frozenset(_few(message.refused, "refused")),
        held=tuple(read_key(key) for key in _few(message.held, "held")),
        answered=frozenset(read_key(key) for key in _few(message.answered, "answered")),
        room=message.room,
        offered_to=message.offered_to,
        seen={(seen.source, seen.session): work_number(seen.number) for seen in _few(message.seen, "seen")},
        speed=_speed(message.speed),
        speeds={(entry.plan, entry.stage): _speed(entry.speed) for entry in _few(message.speeds, "speeds")},
        preparing=message.preparing,
        version=message.version,
    )


def source_message(state: SourceState) -> msg.SourceState:
    return msg.SourceState(
        source=state.source,
        robot=state.robot,
        session=state.session,
        sequence=state.sequence,
        plan=state.plan,
        oldest_open=state.oldest_open,
        queued=state.queued,
        version=state.version,
    )


def read_source(message: msg.SourceState) -> SourceState:
    return SourceState(
        source=name_of(message.source, "source"),
        robot=message.robot,
        session=message.session,
        sequence=message.sequence,
        plan=message.plan,
        oldest_open=message.oldest_open,
        queued=message.queued,
        version=message.version,
    )


def progress_message(progress: Progress) -> msg.Progress:
    return msg.Progress(
        source=progress.source,
        session=progress.session,
        sequence=progress.sequence,
        oldest_open=progress.oldest_open,
        aggregator=progress.aggregator,
        plans=sorted(progress.plans),
        stages=[
            msg.StageProgress(frame=frame, stage=stage, settled=state.settled, held=_bits(state.held))
            for (frame, stage), state in progress.stages.items()
        ],
    )


def read_progress(message: msg.Progress) -> Progress:
    return Progress(
        source=name_of(message.source, "source"),
        session=message.session,
        sequence=message.sequence,
        oldest_open=message.oldest_open,
        stages={
            (entry.frame, entry.stage): StageProgress(_pieces(entry.held), entry.settled)
            for entry in _few(message.stages, "stages")
        },
        aggregator=message.aggregator,
        plans=frozenset(_few(message.plans, "plans")),
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
    return msg.Detections(
        header=frame.about.header,
        source=frame.source,
        session=frame.session,
        frame=report.frame,
        status=int(report.status),
        quality=report.quality,
        detections=[
            msg.Detection(
                class_id=found.class_id,
                label=found.label,
                score=found.score,
                y0=found.y0,
                x0=found.x0,
                y1=found.y1,
                x1=found.x1,
            )
            for found in detections
        ],
    )


def report_message(outcome: Outcome) -> msg.FrameReport:
    frame, report = outcome.frame, outcome.report
    return msg.FrameReport(
        header=frame.about.header,
        source=frame.source,
        session=frame.session,
        frame=report.frame,
        plan=report.plan,
        status=int(report.status),
        quality=report.quality,
        pieces=report.pieces,
        came=report.came,
        decoded=report.decoded,
        recomputed=report.recomputed,
        filled=report.filled,
        latency=report.latency,
        budget=report.budget,
        computed=report.computed,
        local=report.local,
        waited=report.waited,
        dropped=frame.dropped,
        workers=[_share_message(name, share) for name, share in sorted(report.workers.items())],
    )


def _share_message(name: str, share: WorkerShare) -> msg.WorkerShare:
    return msg.WorkerShare(
        worker=name,
        tasks=share.tasks,
        stolen=share.stolen,
        recomputed=share.recomputed,
        bytes_in=share.bytes_in,
        bytes_out=share.bytes_out,
        computed=share.computed,
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
