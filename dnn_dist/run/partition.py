# SPDX-License-Identifier: Apache-2.0
"""A source's partition: takes the newest image, announces it as a frame, cuts it, and hands tasks to workers.

What it decides is in run/dispatcher.py. Here images, plans and tensors belong to their keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dnn_dist.errors import DnnDistError
from dnn_dist.plan.plan import WIRES
from dnn_dist.plan.policy import in_work
from dnn_dist.run.dispatcher import Dispatcher
from dnn_dist.run.due import Cadence, even_share, missed
from dnn_dist.run.events import (
    FrameReady,
    FrameRefused,
    PlanInForce,
    PlanInstalled,
    PlanWithdrawn,
    ProgressHeard,
    PublishPlan,
    PublishSource,
    ReleaseFrame,
    SendProbe,
    SendScatter,
    SendWork,
    WorkerHeard,
)
from dnn_dist.run.linkhealth import links_told
from dnn_dist.run.notes import Note
from dnn_dist.run.saving import Saving, savings
from dnn_dist.run.state import Progress, SourceState, WorkerState
from dnn_dist.run.store import Store
from dnn_dist.run.tasks import DispatcherSettings
from dnn_dist.run.trust import WORKERS, names_in
from dnn_dist.run.twins import Twins
from dnn_dist.run.values import Frame, Installed, PlanText, Scatter, Work
from dnn_dist.run.wire import TaskKey
from dnn_dist.run.world import Job, Loop, Part, World


class Picture(Protocol):
    """An image as the camera gave it, or one for each of the model's inputs."""

    def pixels(self, sizes: Sequence[tuple[int, int]]) -> Any:
        """As the model's inputs of these rows and columns, for each uint8 rows x columns x 3; DnnDistError in one line
        when it is no image."""


@dataclass(frozen=True, slots=True)
class SetPlan:
    """Have new frames take another plan, as soon as workers are ready for it."""

    make: Callable[[], Store]  # makes the plan's store; may take long, and raise DnnDistError
    answer: Callable[[str], None]  # told once: why not, or an empty text when the plan is in force


@dataclass(frozen=True, slots=True)
class _ImageCame:
    """An image waits."""


@dataclass(frozen=True, slots=True)
class _Made:
    """The store of a plan was made, or not."""

    store: Store | None
    error: str
    asked: SetPlan


class Partition(Part):
    """See the module."""

    def __init__(
        self,
        world: World,
        loop: Loop,
        source: str,
        session: int,
        settings: DispatcherSettings,
        heard: Callable[[], bool] | None = None,
    ) -> None:
        """`heard`: whether an aggregator in another process would hear an announcement; while not, no frame is begun.

        None: it is in this process, and shares the stores.
        """
        super().__init__(world, loop)
        self.source, self.session, self._heard = source, session, heard or (lambda: True)
        self.machine: Dispatcher = Dispatcher(source, settings.robot, session, settings, apart=heard is not None)
        self.trusted = names_in(settings.trusted)
        self._stores: dict[str, Store] = {}  # plan -> its tensors
        self._open: dict[int, tuple[str, str]] = {}  # frame -> plan, wire
        self._frame = 0  # the next one's number
        self._waiting: Picture | None = None  # the newest image, while frames are in work
        self._arrived = 0.0  # when it came, s
        self._unheard = False  # nobody listened when the last image could have been taken
        self._asked: dict[str, SetPlan] = {}  # plan to come into force -> who waits for it
        self._twins = Twins()
        self._cadence = Cadence()
        self.dropped = 0  # images

    def start(self, store: Store, by_link: Sequence[tuple[float, Store]] = ()) -> None:
        """Begin with this plan in force; `by_link`: others, each with the rate of the link to a server from which it is
        better (bytes/s).
        """
        self._install(store)
        for rate, other in by_link:
            self._install(other, rate)

    def change(self, settings: DispatcherSettings) -> None:
        """Parameters have changed. A worker that is trusted no longer is soon taken for gone, as it is not heard."""
        self.machine.settings, self.trusted = settings, names_in(settings.trusted)

    @property
    def plan(self) -> str:
        """Hash of the plan in force; empty before the start."""
        return self.machine.plan

    @property
    def takes_images(self) -> bool:
        """Whether an image that came now could be a frame, as far as frames in work decide."""
        return self._waiting is None and len(self._open) < self._most_open

    @property
    def _most_open(self) -> int:
        """Frames that may be in work."""
        stages = self.store.shape.stages if self.plan else ()
        return in_work(self.machine.settings.max_frames, stages)

    @property
    def waits(self) -> bool:
        """Whether tasks wait for a worker."""
        return bool(self.machine.queue)

    @property
    def lost(self) -> int:
        """Frames of which nobody will report: they died with a process that was restarted."""
        return len(self.machine.orphans)

    def due(self) -> float:
        """The QoS deadline of works and results now, s; 0: none, for none is asked for, or the source rests."""
        if not self.machine.plan or not self.machine.settings.qos_deadlines:
            return 0.0
        return self._cadence.due(self._share, self.world.now())

    @property
    def _share(self) -> float:
        return even_share(self.store.shape, self.machine.settings.deadline)

    def missed(self, worker: str, deadline: float) -> Note | None:
        """No result came of a worker within its QoS deadline (s): what there is to say, unless the source rests."""
        view = self.machine.workers.get(worker)
        if view is None or not self.due():
            return None
        return missed(self.source, view, self._share, deadline, self.world.now())

    def offers(self) -> list[PlanText]:
        """The plans that workers should have, in full."""
        return [self._plan_text(plan) for plan in self.machine.plans if plan in self._stores]

    def silent(self) -> list[str]:
        """Workers that are taken for gone."""
        return [view.name for view in self.machine.workers.values() if view.silent]

    def awaits(self, state: WorkerState, ours: bool = False) -> bool:
        """Whether something may follow from a worker's state now, or, with `ours`, it tells of our tasks."""
        views, who = self.machine.workers, (self.source, self.session)
        return self.machine.matters(state) or (ours and views[state.worker].tells(state, *who))

    def minds(self, state: WorkerState) -> bool:
        """Whether a worker's state changes what this source does with it later: it has work of ours, offers room or
        did, or is given work without offering any; or it can serve other plans than before.
        """
        machine = self.machine
        view = machine.workers.get(state.worker)
        if view is None or view.leases or not machine.settings.stealing or self.store.shape.chained:
            return True
        known = view.state
        offers = self.source in (state.offered_to, known.offered_to)
        return offers or (state.plans, state.preparing) != (known.plans, known.preparing)

    @property
    def store(self) -> Store:
        """Of the plan in force."""
        return self._stores[self.machine.plan]

    def health(self) -> dict[str, Any]:
        """What diagnostics say of it."""
        plan, now, views = self.machine.plan, self.world.now(), self.machine.workers.values()
        able = sorted(view.name for view in views if view.serves(plan, now))
        return {
            "plan": plan,
            "workers": " ".join(able) or "none ready",
            "workers silent": " ".join(sorted(view.name for view in views if view.silent)) or "none",
            "images dropped": self.dropped,
            "frames lost in restarts": self.lost,
            "frames taken": self._frame,
            "new frames save": str(self._saving()[1]) or "nothing",
            "bytes on the way": self.machine.in_flight(),
            **links_told(self.machine.workers, self.machine.settings.robot, self.machine.by_link, now),
        }

    def troubles(self) -> list[str]:
        """What stands in the way of results now, worst first."""
        plan, now, views = self.machine.plan, self.world.now(), self.machine.workers.values()
        distributed = any(not stage.local for stage in self.store.shape.stages) if plan else False
        found = []
        if distributed and not any(view.serves(plan, now) for view in views):
            found.append(f"no worker is ready for plan {plan}")
        found += [f"worker {name!r} is silent" for name in sorted(self.silent())]
        return [*found, "nobody listens to the frames of this source"] if self._unheard else found

    # What is heard

    def take_image(self, picture: Picture) -> None:
        """An image came."""
        if self._waiting is not None:
            self.dropped += 1
        self._waiting, self._arrived = picture, self.world.now()
        self.post(_ImageCame())

    def after(self) -> None:
        """Begin a frame with the image that waits, if one may begin."""
        settings = self.machine.settings
        if self._waiting is None or len(self._open) >= self._most_open or self.machine.full():
            return
        unheard, self._unheard = self._unheard, not self._heard()
        if self._unheard:
            if not unheard:
                self.world.note(Note("no aggregator", "images wait: nobody listens to the frames of this source"))
            return
        picture, self._waiting = self._waiting, None
        number, plan = self._frame, self.machine.plan
        self._cadence.begin(self.world.now())
        store, deadline = self._stores[plan], self._arrived + settings.deadline
        self._frame += 1
        error, pixels = "", None
        try:
            pixels = picture.pixels(store.input_sizes)
        except DnnDistError as found:
            error = str(found)
        budget = max(0.0, deadline - self.world.now())
        image = store.image(pixels) if pixels is not None else ()
        who, (level, saving) = (self.source, self.session), self._saving()
        told = Frame(*who, number, plan, budget, picture, self.dropped, error, image, str(saving), level)
        self.world.send(told)
        if error:
            self.post(FrameRefused(number))
            return
        self._open[number] = plan, saving.wire
        store.begin(number, pixels, saving)
        self.post(FrameReady(number, plan, deadline))

    def _saving(self) -> tuple[int, Saving]:
        """How much new frames should save, and what that comes to."""
        level, allowed = self.machine.saving, savings(self.machine.settings)
        return level, allowed[min(level, len(allowed) - 1)]

    def hear(self, state: WorkerState, at: float) -> bool:
        """Take in a worker's state that came at a time (s), if nothing follows from it but that it is due earlier."""
        due = self.machine.due
        if not self.machine.hear(state, at):
            return False
        if self.machine.due < due:
            self.wake()
        return True

    def _hear_worker(self, state: WorkerState) -> None:
        if not self.hear(state, self.world.now()):
            self.handle(WorkerHeard(state))

    def _hear_progress(self, progress: Progress) -> None:
        self.handle(ProgressHeard(progress))

    def _hear_source(self, state: SourceState) -> None:
        """The topic of all sources: another process with our name?"""
        if state.source == self.source and state.session != self.session and self._twins.heard(self.world.now()):
            text = f"source {self.source!r} also runs on robot {state.robot!r}: give each a name of its own"
            self.world.note(Note("two sources of one name", text, about=state.robot))

    # Plans

    def _set_plan(self, asked: SetPlan) -> None:
        def done(store: Store | None, error: str, seconds: float) -> None:
            self.post(_Made(store, error, asked))

        self.world.run(Job("prepare", asked.make), done)

    def _take_store(self, made: _Made) -> None:
        store = made.store
        if store is None:
            made.asked.answer(made.error)
            return
        if store.plan.hash in self._asked:
            made.asked.answer(f"plan {store.plan.hash} was asked for a moment ago, and is not in force yet")
            return
        self._asked[store.plan.hash] = made.asked
        self._install(self._stores.get(store.plan.hash, store))

    def _install(self, store: Store, rate: float | None = None) -> None:
        self._stores[store.plan.hash] = store
        self.world.send(Installed(store))  # to an aggregator in this process, which shares it
        self.handle(PlanInstalled(store.plan.hash, store.shape, rate))

    def _put_in_force(self, action: PlanInForce) -> None:
        store = self._stores[action.plan]
        text = f"plan {action.plan}: {store.plan.cut}, from frame {self._frame} on"
        text, about = (f"{text}; {action.why}", action.why) if action.why else (text, action.plan)
        self.world.note(Note("plan in force", text, warn=False, about=about))  # each change is news
        self._answer(action.plan, "")

    def _withdraw(self, action: PlanWithdrawn) -> None:
        self.world.note(Note("plan withdrawn", f"plan {action.plan}: {action.why}", about=action.plan))
        self._answer(action.plan, f"plan {action.plan}: {action.why}")

    def _drop_stores(self) -> None:
        in_use = self.machine.plans | {plan for plan, _ in self._open.values()}
        if len(self._stores) > len(in_use):
            self._stores = {plan: store for plan, store in self._stores.items() if plan in in_use}

    def _answer(self, plan: str, why: str) -> None:
        self._drop_stores()
        asked = self._asked.pop(plan, None)
        if asked is not None:
            asked.answer(why)

    # Actions

    def _send_work(self, action: SendWork) -> None:
        key = action.key
        inputs = () if action.again else self._stores[action.plan].work(key.frame, key.stage, key.piece)
        work = Work(
            key,
            action.plan,
            action.worker_session,
            action.number,
            action.attempt,
            action.budget,
            inputs,
            action.routes,
            action.again,
            action.alone,
            self._open[key.frame][1] if key.frame in self._open else WIRES[0],
        )
        self.world.send(work, action.worker)

    def _send_probe(self, action: SendProbe) -> None:
        key = TaskKey(self.source, self.session, 0, 0, 0)
        inputs = self.store.probe(action.size)
        self.world.send(Work(key, "", action.worker_session, action.number, 0, 0.0, inputs), action.worker)

    def _send_scatter(self, action: SendScatter) -> None:
        self.world.send(Scatter(self.source, self.session, action.frame, action.plan, action.routes))

    def _publish(self, action: PublishSource) -> None:
        self.world.send(action.state._replace(deadline=self.due()))

    def _publish_plan(self, action: PublishPlan) -> None:
        self.world.send(self._plan_text(action.plan))

    def _plan_text(self, plan: str) -> PlanText:
        store = self._stores[plan]
        text, robots = store.plan.to_yaml(), store.shape.robots
        return PlanText(self.source, self.session, plan, text, store.pieces_digest, robots)

    def _release(self, action: ReleaseFrame) -> None:
        if action.frame in self._open:
            plan, _ = self._open.pop(action.frame)
            self._stores[plan].release(action.frame)
            self._drop_stores()

    def failed(self, what: Any, why: str) -> None:
        frame = what.key.frame if isinstance(what, SendWork) else getattr(what, "frame", None)
        if frame in self._open:
            self.post(FrameRefused(frame))

    speakers = WORKERS
    takes = {
        WorkerState: _hear_worker,
        Progress: _hear_progress,
        SourceState: _hear_source,
        SetPlan: _set_plan,
        _Made: _take_store,
        _ImageCame: lambda self, image: self.after(),
    }
    performs = {
        SendWork: _send_work,
        SendProbe: _send_probe,
        SendScatter: _send_scatter,
        PublishSource: _publish,
        PublishPlan: _publish_plan,
        PlanInForce: _put_in_force,
        PlanWithdrawn: _withdraw,
        ReleaseFrame: _release,
    }
