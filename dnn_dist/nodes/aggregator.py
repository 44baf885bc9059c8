# SPDX-License-Identifier: Apache-2.0
"""Aggregator node: merges results, runs the rest of the model, publishes detections, overlay and report. What it
decides is in run/gatherer.py.

`Aggregator` is the part that a gateway holds too; `AggregatorNode` is the executable, its partition elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from dnn_dist import msg
from dnn_dist.detect.boxes import Detection
from dnn_dist.detect.draw import TileMark, draw_overlay
from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.nodes import convert
from dnn_dist.nodes.computing import Computing, keep_pace, one_line
from dnn_dist.nodes.images import rgb_to_image, to_rgb
from dnn_dist.nodes.imagetopic import ImageReader
from dnn_dist.nodes.parameters import Parameters
from dnn_dist.nodes.planning import load_card, load_head, load_network
from dnn_dist.nodes.qos import FRAME, LATCHED_IN, OUTPUT, RECORD, STATE, tensors
from dnn_dist.nodes.shell import Shell, run
from dnn_dist.nodes.workertopics import WorkerListener, WorkerTopics
from dnn_dist.run import gatherer as g
from dnn_dist.run.notes import Note
from dnn_dist.run.report import FrameReport, Status
from dnn_dist.run.state import Progress, WorkerState
from dnn_dist.run.store import TensorStore
from dnn_dist.run.wire import TaskKey, WireError
from dnn_dist.settings import AggregatorSettings


@dataclass(slots=True)
class FrameInfo:
    """What an open frame needs for its outputs."""

    store: TensorStore  # of the plan that it keeps for life
    header: Header
    letterbox: Letterbox
    dropped: int
    image: np.ndarray | None
    session: int = 0  # of the partition that announced it
    detections: list[Detection] = field(default_factory=list)
    tiles: dict[int, tuple[str, str]] = field(default_factory=dict)  # piece of stage 0 -> (state, worker)


class Aggregator:
    """Topics, threads and tensors around the gatherer."""

    def __init__(self, shell: Shell, parameters: Parameters[AggregatorSettings]) -> None:
        self._shell, self._settings = shell, parameters
        self.source = convert.name_of(parameters.now.source, "source")
        self._robots: dict[str, str] = {}  # worker -> robot
        self._frames: dict[int, FrameInfo] = {}
        self._arrived: dict[TaskKey, tuple[str, int, list[np.ndarray]]] = {}  # (worker, attempt, outputs)
        self._results: dict[str, Any] = {}  # worker -> subscription
        self.stores: dict[str, TensorStore] = {}  # plan -> tensors; the newest plan last
        self.hand_over: Callable[[int, int], None] | None = None  # a later distributed stage is next
        self.tell: Callable[[Progress], None] | None = None  # the partition in this process

    def configure(self) -> None:
        self.network = load_network(self._settings.now.model)
        self._head = load_head(self.network, load_card(self.network))
        self._card_thresholds = (self._head.score_threshold, self._head.nms_threshold)
        self._machine = g.Gatherer(self.source, aggregator=self._shell.session)
        self.change()

    def change(self) -> None:
        """Parameters have changed."""
        if not hasattr(self, "_machine"):
            return
        p = self._settings.now
        self._machine.settings = g.GathererSettings(guard=p.guard, worker_timeout=p.worker_timeout, max_open=p.max_open)
        score, nms = self._card_thresholds
        self._head.score_threshold = p.score_threshold if p.score_threshold >= 0 else score
        self._head.nms_threshold = p.nms_threshold if p.nms_threshold >= 0 else nms

    def start(self, workers: WorkerTopics) -> None:
        shell = self._shell
        self._running = Computing(shell, "local stages")
        self._drawing = Computing(shell, "drawing")
        self._detections = shell.offer(msg.Detections, "detections", RECORD)
        self._vision = self._offer_vision()
        self._overlay = shell.offer(Image, "overlay", OUTPUT)
        self._report = shell.offer(msg.FrameReport, "report", RECORD)
        self._progress = shell.offer(msg.Progress, "progress", STATE)
        most = self._most_workers
        workers.add(WorkerListener(self._hear_worker, self._connect, self._disconnect, most))
        self._tick()

    def stop(self) -> None:
        if hasattr(self, "_running"):
            self._running.stop()
            self._drawing.stop()

    def _offer_vision(self) -> Any:
        try:
            from vision_msgs.msg import Detection2DArray
        except ImportError:
            self._shell.get_logger().info("vision_msgs is not installed: no detections_2d topic, only our detections")
            return None
        return self._shell.offer(Detection2DArray, "detections_2d", OUTPUT)

    def health(self) -> dict[str, Any]:
        return {
            "workers connected": " ".join(sorted(self._results)) or "none",
            "frames open": len(self._frames),
        }

    # Events in

    def install(self, store: TensorStore) -> None:
        """Put a plan in force for frames to come; those of plans that no frame keeps are forgotten."""
        in_use = {about.store.plan.hash for about in self._frames.values()}
        self.stores = {plan: kept for plan, kept in self.stores.items() if plan in in_use}
        self.stores[store.plan.hash] = store
        self._handle(g.PlanInstalled(store.plan.hash, store.shape))

    def announce(
        self,
        frame: int,
        session: int,
        plan: str,
        budget: float,
        about: FrameInfo,
        pixels: np.ndarray | None = None,
    ) -> bool:
        """A frame begins; False when it is not taken. `pixels`: the model's input, where this process has it."""
        if frame in self._machine.frames:
            if session == self._machine.session:
                self._shell.note(Note("frame refused", f"frame {frame}: announced twice"))
                return False
            self._handle(g.SourceRestarted(session, frame))  # ends the frame of this number before it is replaced
        about.session = session  # a restarted partition's first frame ends those of the one before
        about.store.begin(frame, pixels)
        self._frames[frame] = about
        self._handle(g.FrameAnnounced(session, frame, plan, budget))
        taken = frame in self._machine.frames
        if not taken and self._frames.pop(frame, None):
            about.store.release(frame)
        return taken

    def _most_workers(self) -> int:
        return self._settings.now.max_workers

    def _connect(self, worker: str) -> None:
        # Before it has said a word: each end that waits for the other costs another round of discovery.
        topic = f"{self.source}/{worker}/result"
        self._results[worker] = self._shell.receive(
            msg.Result, topic, tensors(), lambda result: self._hear_result(worker, result)
        )

    def _disconnect(self, worker: str) -> None:
        self._shell.destroy_subscription(self._results.pop(worker))
        self._robots.pop(worker, None)

    def _hear_worker(self, state: WorkerState) -> None:
        self._robots[state.worker] = state.robot
        self._handle(g.WorkerHeard())

    def _hear_result(self, worker: str, message: msg.Result) -> None:
        key = convert.read_key(message.key)
        if message.worker != worker:
            raise WireError(f"result {key} of worker {message.worker[:64]!r} came on the topic of {worker!r}")
        store = self.stores.get(message.plan)
        if store is None:
            raise WireError(f"result {key} of worker {worker!r}: plan {message.plan[:32]!r} is not in force here")
        outputs = []
        if not message.error:
            tensors_in = [convert.read_tensor(tensor) for tensor in message.outputs]
            outputs = store.check(key.stage, key.piece, tensors_in)
        self._arrived[key] = (worker, message.attempt, outputs)
        stolen = self._robots.get(worker) != self._settings.now.robot
        size = sum(output.nbytes for output in outputs)
        self._handle(
            g.ResultArrived(
                key,
                message.plan,
                worker,
                stolen,
                message.attempt,
                convert.seconds(message.computed, "computed"),
                size,
                message.error[:200],
            )
        )

    def _tick(self) -> None:
        self._handle(g.Tick())

    # Actions out

    def _handle(self, event: Any) -> None:
        for action in self._machine.handle(event, self._shell.now()):
            self._perform[type(action)](self, action)
        early = self._machine.early
        for key in [key for key in self._arrived if key not in early]:
            del self._arrived[key]
        self._shell.wake_at(self._machine.next_wake(), self._tick)

    def _keep(self, action: g.Keep) -> None:
        key = action.key
        worker, attempt, outputs = self._arrived[key]
        about = self._frames[key.frame]
        about.store.keep(key.frame, key.stage, key.piece, outputs)
        if key.stage == 0:
            about.tiles[key.piece] = ("recomputed" if attempt else "fresh", worker)

    def _fill(self, action: g.Fill) -> None:
        if action.stage == 0:
            self._frames[action.frame].tiles.update(dict.fromkeys(action.pieces, ("filled", "")))

    def _settled(self, action: g.Settled) -> None:
        self._frames[action.frame].store.settle(action.frame, action.stage, whole=action.whole)

    def _run_local(self, action: g.RunLocal) -> None:
        about, began = self._frames[action.frame], self._shell.now()
        store = about.store
        pace = self._settings.now.pace

        def job() -> list[Detection]:
            store.run_local(action.frame, action.stage)
            keep_pace(began, store.macs(action.stage), pace)
            return self._head(store.results(action.frame), about.letterbox) if action.last else []

        def done(detections: list[Detection] | None, error: Exception | None) -> None:
            about.detections = detections or []
            seconds = self._shell.now() - began
            text = "" if error is None else one_line(error)
            self._handle(g.LocalDone(action.session, action.frame, action.stage, seconds, text))

        self._running.submit(job, done)

    def _hand_over(self, action: g.HandOver) -> None:
        assert self.hand_over is not None, "plans of several distributed stages are refused without a gateway"
        self.hand_over(action.frame, action.stage)

    def _publish(self, action: g.Publish) -> None:
        report, about = action.report, self._frames.pop(action.report.frame)
        session = about.session
        detections = about.detections if report.status is not Status.NO_RESULT else []
        send, source = self._shell.send, self.source
        send(self._detections, convert.detections_message(about.header, source, session, report, detections))
        send(self._report, convert.report_message(about.header, source, session, report, about.dropped))
        if self._vision is not None:
            send(self._vision, convert.vision_message(about.header, detections))
        late = report.latency - report.budget - self._settings.now.timer_slack
        if late > 0:
            text = f"frame {report.frame} was reported {late * 1000:.0f} ms after its deadline and slack"
            self._shell.note(Note("report late", f"{text}; this machine is overloaded"))
        if self._overlay.get_subscription_count() and about.image is not None and not self._drawing.busy:
            self._draw(about, report, detections)
        about.store.release(report.frame)

    def _draw(self, about: FrameInfo, report: FrameReport, detections: Sequence[Detection]) -> None:
        tiles = []
        for piece, (state, worker) in sorted(about.tiles.items()):
            extent = about.store.extent(0, piece)
            if extent is not None:
                tiles.append(TileMark(*about.letterbox.tile_to_image(*extent), state, worker))
        status = report.status.name.lower().replace("_", " ")
        caption = f"{status}  quality {report.quality:.2f}  {report.latency * 1000:.0f} ms"
        image, scale = about.image, self._settings.now.overlay_scale
        assert image is not None
        self._drawing.submit(
            lambda: draw_overlay(image, detections, tiles, caption, scale),
            lambda drawn, error: self._drawn(about, drawn, error),
        )

    def _drawn(self, about: FrameInfo, image: np.ndarray | None, error: Exception | None) -> None:
        if image is None:
            self._shell.note(Note("drawing failed", one_line(error) if error else "no picture"))
            return
        self._shell.send(self._overlay, rgb_to_image(image, about.header))

    def _publish_progress(self, action: g.PublishProgress) -> None:
        self._shell.send(self._progress, convert.progress_message(action.progress))
        if self.tell is not None:
            self.tell(action.progress)

    def _note(self, action: Note) -> None:
        self._shell.note(action)

    _perform: dict[type, Callable[[Aggregator, Any], None]] = {
        g.Keep: _keep,
        g.Fill: _fill,
        g.Settled: _settled,
        g.RunLocal: _run_local,
        g.HandOver: _hand_over,
        g.Publish: _publish,
        g.PublishProgress: _publish_progress,
        Note: _note,
    }


class AggregatorNode(Shell):
    """An aggregator by itself: plans, frames and images come by topics."""

    def __init__(self) -> None:
        super().__init__("aggregator")
        self._part = None
        self._settings = Parameters(self, AggregatorSettings, lambda: self._part and self._part.change())
        self.robot = self._settings.now.robot
        self._part = Aggregator(self, self._settings)
        self._images: dict[tuple[int, int], np.ndarray] = {}  # stamp -> image, the newest few

    def configure(self) -> None:
        self._part.configure()

    def start(self) -> None:
        self._part.start(WorkerTopics(self))
        self.receive(msg.Plan, "plan", LATCHED_IN, self._hear_plan)
        self.receive(msg.Frame, f"{self._part.source}/frame", FRAME, self._hear_frame)
        self._reader = ImageReader(self, self._settings.now.compressed, self._hear_image)

    def stop(self) -> None:
        self._part.stop()

    def health(self) -> dict[str, Any]:
        return self._part.health()

    def _hear_plan(self, message: msg.Plan) -> None:
        if message.source != self._part.source:
            return
        plan = convert.read_plan(message)
        if plan.hash in self._part.stores:
            return
        store = TensorStore(self._part.network, plan, self._settings.now.threads)
        if any(not stage.distributed and set(stage.inputs) & set(self._part.network.inputs) for stage in store.stages):
            raise WireError(f"plan {plan.hash}: its local stage reads the image; run the gateway instead")
        if sum(stage.distributed for stage in store.stages) > 1:
            raise WireError(f"plan {plan.hash}: has several distributed stages; run the gateway instead")
        self._part.install(store)

    def _hear_image(self, message: Image | CompressedImage) -> None:
        self._images[message.header.stamp.sec, message.header.stamp.nanosec] = to_rgb(message)
        while len(self._images) > 8:
            del self._images[next(iter(self._images))]

    def _hear_frame(self, message: msg.Frame) -> None:
        if message.source != self._part.source:
            raise WireError(f"frame of source {message.source[:64]!r} came on the topic of {self._part.source!r}")
        if message.frame == 2**32 - 1:
            raise WireError(f"frame {message.frame}: is the last number there is, and must have a next one")
        if not (message.height and message.width):
            raise WireError(f"frame {message.frame}: its image has {message.height} x {message.width} pixels")
        height, width = self._part.network.tensors[self._part.network.inputs[0]].array_shape[:2]
        letterbox = Letterbox(message.height, message.width, height, width)
        image = self._images.get((message.header.stamp.sec, message.header.stamp.nanosec))
        store = self._part.stores.get(message.plan)
        if store is None:
            raise WireError(f"frame {message.frame} names plan {message.plan[:32]!r}, not installed here")
        about = FrameInfo(store, message.header, letterbox, message.dropped, image)
        budget = convert.seconds(message.budget, "budget")
        self._part.announce(message.frame, message.session, message.plan, budget, about)


def main() -> int:
    return run(AggregatorNode, sys.argv)
