# SPDX-License-Identifier: Apache-2.0
"""The processes of run/ in virtual time, over modelled robots and links. What is simulated is the live cluster's own
partition, aggregator and worker; only computing, links and clocks are modelled.

    agenda.py     Agenda: virtual time
    air.py        Air: links and shared media, what they carry, delay and lose
    processor.py  Processor: a robot's, shared by its worker and its local stages
    faults.py     Fault, parse_faults: what goes wrong, as a text or by seed
    changes.py    links that carry more or less for a while
    listener.py   Listener: what a source knows of a worker
    scenario.py   Scenario, Source, Load: what is simulated
    process.py    Process: the world of run/world.py in virtual time; Hub: what all processes share
    source.py     SourceRun: a camera, and the processes of its partition and aggregator
    robot.py      WorkerRun: the process of a robot's worker, over its lives
    sizes.py      SizeStore, SizePieces: tensors as numbers of bytes
    cluster.py    Cluster: all of them, and what is counted
    board.py      Board: what sources say to all, read when it matters
    loads.py      plan_load, stages_load: a network's plan as a Load, by the planner's cost model
    outcome.py    Outcome: reports, latencies, traffic, use, energy, trace

    from dnn_dist.plan.fleet import read_fleet
    from dnn_dist.run.shape import PieceShape, PlanShape, StageShape
    from dnn_dist.sim import Load, Scenario, Source, parse_faults, plan_load, simulate, stages_load

    fleet = read_fleet("fleet.yaml")
    load = plan_load(network, plan)                             # seconds and memory by the planner's cost model
    load = stages_load(network, cut_network(network, "tiles:3x3"), wire="float32")
    shape = PlanShape((StageShape(False, (PieceShape(bytes_in, bytes_out, macs),) * 9), StageShape(True, ())))
    load = Load(shape)                                          # by hand: seconds = overhead + MACs / speed
    load = Load(shape, lambda robot, stage, piece: 0.1)         # or any seconds of (Robot, stage, piece)
    source = Source("front", load, frames=20)                   # as fast as it goes, one frame at a time
    source = Source("front", load, rate=5, deadline=0.5, max_frames=2, dispatcher=DispatcherSettings(mode="sharing"))
    faults = parse_faults("kill r2@3.0, restart r2@5, slow r3 x5@2..6", fleet.names)
    outcome = simulate(Scenario(fleet, (source,), faults=faults, seed=1))
    outcome.percentile(50), outcome.throughput, outcome.traffic, outcome.robots["front"].busy, outcome.statuses

Baselines: work stealing is the dispatcher's default, sharing `DispatcherSettings(mode="sharing")`, with `shares` by
weight; MoDNN's bands are the stages of the cut `bands:n`; a gateway apart from the camera's robot is
`Source(robot, load, aggregator="gateway")`, and a camera that sends whole frames to it is
`Source("gateway", load, camera="r1", image_bytes=n)`. `Scenario.workers` names the robots that compute.

A run is a function of its scenario: the same seed gives the same outcome.
"""

from dnn_dist.sim.cluster import Cluster
from dnn_dist.sim.faults import Fault, FaultError, parse_faults, random_faults
from dnn_dist.sim.loads import plan_load, stages_load
from dnn_dist.sim.outcome import FrameRun, Outcome, RobotUse, Span
from dnn_dist.sim.scenario import Load, Scenario, SimulationError, Source

__all__ = [
    "Fault",
    "FaultError",
    "FrameRun",
    "Load",
    "Outcome",
    "RobotUse",
    "Scenario",
    "SimulationError",
    "Source",
    "Span",
    "parse_faults",
    "plan_load",
    "random_faults",
    "simulate",
    "stages_load",
]


def simulate(scenario: Scenario) -> Outcome:
    """Run a scenario in virtual time."""
    return Cluster(scenario).run()
