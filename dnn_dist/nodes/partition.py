# SPDX-License-Identifier: Apache-2.0
"""Partition node: takes the newest frame, cuts it, and hands tasks to workers. What it decides is in run/dispatcher.py.

`Partition` is the part that a gateway holds too; `PartitionNode` is the executable, its aggregator elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from dnn_dist import msg
from dnn_dist.detect.letterbox import Letterbox
from dnn_dist.nodes import convert
from dnn_dist.nodes.images import ImageError, to_rgb
from dnn_dist.nodes.imagetopic import ImageReader
from dnn_dist.nodes.parameters import Parameters
from dnn_dist.nodes.planning import load_network, plan_in_force
from dnn_dist.nodes.qos import FRAME, LATCHED, STATE, tensors
from dnn_dist.nodes.shell import Shell, run
from dnn_dist.nodes.workertopics import WorkerListener, WorkerTopics
from dnn_dist.run import dispatcher as d
from dnn_dist.run.fleetview import Patience
from dnn_dist.run.notes import Note
from dnn_dist.run.state import Progress, WorkerState
from dnn_dist.run.store import TensorStore
from dnn_dist.settings import PartitionSettings


@dataclass(frozen=True, slots=True)
class Announcement:
    """A frame as it is told to the aggregator, before any work is sent."""

    header: Header
    session: int
    frame: int
    plan: str
    budget: float  # s
    image: np.ndarray  # RGB, as the camera gave it
    letterbox: Letterbox  # from the image to the model's input
    pixels: np.ndarray  # the model's input, uint8 H x W x 3
    dropped: int  # images dropped so far


class Partition:
    """Topics and tensors around the dispatcher."""

    def __init__(
        self,
        shell: Shell,
        parameters: Parameters[PartitionSettings],
        announce: Callable[[Announcement], bool],
        owns_tensors: bool = True,
        heard: Callable[[], bool] = lambda: True,
    ) -> None:
        """`announce` tells the aggregator of a frame; False: it does not take it.

        `owns_tensors`: False in a gateway, where the aggregator opens and closes frames in the store of both. One
        owner: else the dispatcher could free what the gatherer still works with.

        `heard`: False while no aggregator would hear an announcement; then no frame is begun.
        """
        self._shell, self._settings, self._announce = shell, parameters, announce
        self._owns_tensors, self._heard = owns_tensors, heard
        settings = parameters.now
        self.source = convert.name_of(settings.source, "source")
        self.session = shell.session
        self._frame = 0  # the next one's number
        self._open: dict[int, float] = {}  # frame -> deadline, s
        self._waiting: Image | CompressedImage | None = None  # the newest image, while frames are in work
        self._arrived = 0.0  # when it came, s
        self.dropped = 0
        self._unheard = False  # nobody listened when the last image could have been taken
        self._work: dict[str, Any] = {}  # worker -> publisher

    def configure(self) -> None:
        settings = self._settings.now
        network = load_network(settings.model)
        plan = plan_in_force(network, settings)
        self.store = TensorStore(network, plan, settings.threads)
        self.plan = plan
        self._input = network.tensors[network.inputs[0]].array_shape
        self._machine = d.Dispatcher(self.source, settings.robot, self.session)
        self.change()

    def change(self) -> None:
        """Parameters have changed."""
        if not hasattr(self, "_machine"):
            return
        p = self._settings.now
        self._machine.settings = d.DispatcherSettings(
            stealing=p.mode == "stealing",
            window=p.window,
            patience=Patience(
                transit=p.transit,
                lifespan=p.lifespan,
                worker_timeout=p.worker_timeout,
                lease_min=p.lease_min,
                lease_factor=p.lease_factor,
                backoff_min=p.backoff_min,
                backoff_max=p.backoff_max,
            ),
            recover_after=p.recover_after if p.recover_after > 0 else float("inf"),
            max_attempts=p.max_attempts,
            max_workers=p.max_workers,
        )

    def start(self, workers: WorkerTopics) -> None:
        shell = self._shell
        self._plan = shell.offer(msg.Plan, "plan", LATCHED)
        self._state = shell.offer(msg.SourceState, "source_state", STATE)
        most = self._most_workers
        workers.add(WorkerListener(self._hear_worker, self._connect, self._disconnect, most))
        self._images = ImageReader(shell, self._settings.now.compressed, self._hear_image)
        self._handle(d.PlanInstalled(self.plan.hash, self.store.shape))
        shell.get_logger().info(f"plan {self.plan.hash}: {self.plan.cut} of {self.store.network.path.name}")

    def health(self) -> dict[str, Any]:
        if not hasattr(self, "_machine"):
            return {}
        views = self._machine.workers.values()
        able = [view.state.worker for view in views if view.serves(self.plan.hash, self._shell.now())]
        return {
            "plan": self.plan.hash,
            "cut": self.plan.cut,
            "robots of the plan": " ".join(self.plan.robots) or "all",
            "workers": " ".join(sorted(able)) or "none ready",
            "workers silent": " ".join(sorted(view.state.worker for view in views if view.silent)) or "none",
            "images dropped": self.dropped,
            "frames lost in restarts": len(self._machine.orphans),
            "frames taken": self._frame,
            "bytes on the way": self._machine.in_flight(),
        }

    # Events in

    def _hear_image(self, message: Image | CompressedImage) -> None:
        if self._waiting is not None:
            self.dropped += 1
        self._waiting, self._arrived = message, self._shell.now()
        self._take_newest()

    def _take_newest(self) -> None:
        if self._waiting is None or len(self._open) >= self._settings.now.max_frames or self._machine.full():
            return
        unheard, self._unheard = self._unheard, not self._heard()
        if self._unheard:
            if not unheard:
                self._shell.note(Note("no aggregator", "images wait: nobody listens to the frames of this source"))
            return
        message, self._waiting = self._waiting, None
        deadline = self._arrived + self._settings.now.deadline
        try:
            image = to_rgb(message)
        except ImageError as error:  # here, for this may be called at the end of any event
            self._shell.note(Note("bad image", str(error)))
            return
        letterbox = Letterbox(image.shape[0], image.shape[1], *self._input[:2])
        pixels = letterbox.apply(image)
        number, plan, budget = self._frame, self.plan.hash, max(0.0, deadline - self._shell.now())
        self._frame += 1
        announcement = Announcement(
            message.header, self.session, number, plan, budget, image, letterbox, pixels, self.dropped
        )
        self._open[number] = deadline
        if self._owns_tensors:
            self.store.begin(number, pixels)
        if self._announce(announcement):
            self._handle(d.StageReady(number, 0, plan, deadline))
        else:
            self._release(d.ReleaseFrame(number))

    def stage_ready(self, frame: int, stage: int) -> None:
        """The aggregator has the inputs of the frame's next distributed stage in the store."""
        if frame in self._open:
            self._handle(d.StageReady(frame, stage, self.plan.hash, self._open[frame]))

    def hear_progress(self, progress: Progress) -> None:
        """What the aggregator holds."""
        self._handle(d.ProgressHeard(progress))

    def _most_workers(self) -> int:
        return self._settings.now.max_workers

    def _connect(self, worker: str) -> None:
        # Before it has said a word: each end that waits for the other costs another round of discovery.
        topic = f"{self.source}/{worker}/work"
        self._work[worker] = self._shell.offer(msg.Work, topic, tensors(self._settings.now.lifespan))

    def _disconnect(self, worker: str) -> None:
        self._shell.destroy_publisher(self._work.pop(worker))
        self._handle(d.WorkerReachable(worker, False))

    def _hear_worker(self, state: WorkerState) -> None:
        self._handle(d.WorkerHeard(state))
        reachable = self._work[state.worker].get_subscription_count() > 0
        self._handle(d.WorkerReachable(state.worker, reachable))

    def _tick(self) -> None:
        self._handle(d.Tick())

    # Actions out

    def _handle(self, event: Any) -> None:
        for action in self._machine.handle(event, self._shell.now()):
            self._perform[type(action)](self, action)
        self._shell.wake_at(self._machine.next_wake(), self._tick)
        self._take_newest()

    def _send_work(self, action: d.SendWork) -> None:
        key = action.key
        inputs = self.store.work(key.frame, key.stage, key.piece)
        message = msg.Work(
            key=convert.key_message(key),
            plan=action.plan,
            worker_session=action.worker_session,
            number=action.number,
            attempt=action.attempt,
            budget=action.budget,
            inputs=[convert.tensor_message(tensor) for tensor in inputs],
        )
        self._shell.send(self._work[action.worker], message)

    def _publish(self, action: d.PublishSource) -> None:
        self._shell.send(self._state, convert.source_message(action.state))

    def _publish_plan(self, action: d.PublishPlan) -> None:
        text = self.plan.to_yaml()
        message = msg.Plan(source=self.source, session=self.session, plan=action.plan, text=text)
        self._shell.send(self._plan, message)

    def _release(self, action: d.ReleaseFrame) -> None:
        self._open.pop(action.frame, None)
        if self._owns_tensors:
            self.store.release(action.frame)

    def _note(self, action: Note) -> None:
        self._shell.note(action)

    _perform: dict[type, Callable[[Partition, Any], None]] = {
        d.SendWork: _send_work,
        d.PublishSource: _publish,
        d.PublishPlan: _publish_plan,
        d.ReleaseFrame: _release,
        Note: _note,
    }


class PartitionNode(Shell):
    """A partition by itself: frames are announced, and progress is heard, by topics."""

    def __init__(self) -> None:
        super().__init__("partition")
        self._part = None
        parameters = Parameters(self, PartitionSettings, lambda: self._part and self._part.change())
        self.robot = parameters.now.robot
        self._part = Partition(self, parameters, self._announce, heard=self._heard)

    def configure(self) -> None:
        self._part.configure()

    def start(self) -> None:
        self._frames = self.offer(msg.Frame, f"{self._part.source}/frame", FRAME)
        self.receive(msg.Progress, "progress", STATE, self._hear_progress)
        self._part.start(WorkerTopics(self))

    def health(self) -> dict[str, Any]:
        return self._part.health()

    def _heard(self) -> bool:
        return bool(self._frames.get_subscription_count())

    def _announce(self, it: Announcement) -> bool:
        height, width = it.image.shape[:2]
        message = msg.Frame(
            header=it.header,
            source=self._part.source,
            session=it.session,
            frame=it.frame,
            plan=it.plan,
            budget=it.budget,
            height=height,
            width=width,
            dropped=it.dropped,
        )
        self.send(self._frames, message)
        return True

    def _hear_progress(self, message: msg.Progress) -> None:
        if message.source == self._part.source:
            self._part.hear_progress(convert.read_progress(message))


def main() -> int:
    return run(PartitionNode, sys.argv)
