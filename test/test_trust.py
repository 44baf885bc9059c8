# SPDX-License-Identifier: Apache-2.0
"""Who may take part: what untrusted names say is refused, in words; names are checked where they are given."""

from pathlib import Path

import pytest

from dnn_dist.cluster import parse_cluster, processes
from dnn_dist.errors import ConfigError
from dnn_dist.run.state import Progress, SourceState, WorkerState
from dnn_dist.run.trust import SOURCES, WORKERS, names_in, refusal
from dnn_dist.run.values import Feed, PlanText, Result, Work
from dnn_dist.run.wire import TaskKey
from dnn_dist.settings import NODES

KEY = TaskKey("rear", 1, 3, 0, 2)
OF_SOURCES = [
    (SourceState("rear", "r9", 1, 1), "untrusted source"),
    (Progress("rear", 1, 1), "untrusted source"),
    (PlanText("rear", 1, "p", "", ""), "untrusted source"),
    (Work(KEY, "p", 1, 1, 0, 0.1, ()), "work refused"),
    (Feed(KEY, 0, 0, "p", "r1", 1, 1, ()), "feed refused"),
]
OF_WORKERS = [
    (WorkerState("r9", "r9", 1, 1), "untrusted worker"),
    (Result(KEY, "p", "r9", 1, 0, 0.0, 0.0, "", None), "result refused"),
]


@pytest.mark.parametrize(("heard", "kind"), OF_SOURCES, ids=lambda value: type(value).__name__)
def test_what_is_heard_of_a_source_is_taken_from_trusted_ones_alone(heard, kind):
    note = refusal(heard, SOURCES, names_in("front left"))
    assert (note.kind, note.about) == (kind, "rear") and "'rear' is not trusted" in note.text
    assert refusal(heard, SOURCES, names_in(" left  rear ")) is None
    assert refusal(heard, WORKERS, names_in("front")) is None or isinstance(heard, (WorkerState, Result))


@pytest.mark.parametrize(("heard", "kind"), OF_WORKERS, ids=lambda value: type(value).__name__)
def test_what_is_heard_of_a_worker_is_taken_from_trusted_ones_alone(heard, kind):
    note = refusal(heard, WORKERS, names_in("r1 r2"))
    assert (note.kind, note.about) == (kind, "r9") and "'r9' is not trusted" in note.text
    assert refusal(heard, WORKERS, names_in("r9")) is None


def test_all_that_carries_a_name_of_others_is_judged():
    """Who adds a kind of message decides who is to be trusted for it."""
    from dnn_dist.run.aggregator import Aggregator
    from dnn_dist.run.computer import Computer
    from dnn_dist.run.partition import Partition

    inside = {"StatesHeard", "SetPlan", "_Made", "_ImageCame", "Installed"}  # said within a process, or by virtual time
    own = {"Frame", "Scatter", "PlanText"}  # from this source's own partition, which is checked by name
    assert {kind for kind in Computer.takes if kind.__name__ not in inside} == set(SOURCES)
    assert {kind.__name__ for kind in Aggregator.takes} - inside - own == {kind.__name__ for kind in WORKERS}
    assert {kind.__name__ for kind in Partition.takes} - inside == {"WorkerState", "Progress", "SourceState"}


ROBOTS = {"robots": {"r1": {"source": "front", "nodes": ["gateway", "worker"]}}}


def test_names_are_checked_in_the_parameter_file():
    for node in ("gateway", "worker"):
        for good in ("", "front", "front rear_2"):
            cluster = parse_cluster({**ROBOTS, "parameters": {node: {"trusted": good}}}, "test")
            (process,) = [one for one in processes(cluster, Path()) if one.executable == node]
            assert process.parameters["trusted"] == good
        for bad in ("Front", "front,rear", "r1;r2", "*"):
            with pytest.raises(ConfigError, match="expected names of a to z"):
                parse_cluster({**ROBOTS, "parameters": {node: {"trusted": bad}}}, "test")


def test_every_node_that_takes_work_or_gives_it_has_the_parameter():
    assert {node for node, settings in NODES.items() if hasattr(settings, "trusted")} == NODES.keys() - {"camera"}
