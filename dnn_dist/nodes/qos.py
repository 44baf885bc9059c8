# SPDX-License-Identifier: Apache-2.0
"""Quality of service of every topic, in one place, so that both ends agree.

A subscriber that asks for a deadline which the publisher does not offer gets nothing at all; hence both take the
profile from the same function. QoS events feed diagnostics only: the budget in a message and the aggregator's own
steady clock decide what is late.
"""

from __future__ import annotations

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy

from dnn_dist.run.due import OFFERED

OVERRIDES = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
"""What users may override of topics whose other end is theirs, by the parameters that rclpy has for it, e.g.
`qos_overrides./detections.publisher.depth`. Of our own topics both ends stand here."""


def _profile(reliable: bool, depth: int, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


OUTPUT = _profile(reliable=True, depth=10)
"""Detections, overlays, reports: reliable, so that any subscriber is compatible."""
RECORD = _profile(reliable=True, depth=100)
"""Detections and reports: small, one a frame, and a reader that was held up for seconds still gets each of them."""
LATCHED = _profile(reliable=True, depth=1, latched=True)
"""Plans: a late joiner still gets the newest."""
LATCHED_IN = _profile(reliable=True, depth=64, latched=True)
"""Subscriptions to plans: room for one of every source."""
FRAME = _profile(reliable=True, depth=16)
"""Announcements of frames: each says what no other says, and must be reported on."""
SCATTER = _profile(reliable=True, depth=64)
"""Who needs what an aggregator merged: small, several a frame; what is lost is asked for again when it is overdue."""
STATE = _profile(reliable=False, depth=10)
"""Absolute states of sources and aggregators, said again ten times a second. Best effort: a lost one is older than the
next, and after a cut nothing is worse than to hear the old ones again, one by one."""


def images(reliable: bool) -> QoSProfile:
    """Images: the newest. Our cameras offer them reliably; see imagetopic.py for who subscribes how."""
    return _profile(reliable, depth=1)


def tensors(lifespan: float | None = None, deadline: float = 0.0) -> QoSProfile:
    """Work, results and feeds. One lost fragment would lose a whole best-effort message, hence reliable. Deep enough
    for all works of several frames' chains, which go out at once: beyond its depth DDS drops what was not sent yet.

    `lifespan` (s) is the publisher's: readers compare it with the sender's wall clock, so they ask for none. A
    publisher offers a deadline of OFFERED; `deadline` (s) is what a subscriber asks for, 0: none.
    """
    profile = _profile(reliable=True, depth=256)
    if lifespan is not None:
        profile.lifespan = Duration(seconds=lifespan)
        deadline = OFFERED
    if deadline:
        profile.deadline = Duration(seconds=deadline)
    return profile


def detections() -> QoSProfile:
    """As RECORD, with the deadline that tensors have: a robot's subscriber may ask to be told when none come."""
    profile = _profile(reliable=True, depth=100)
    profile.deadline = Duration(seconds=OFFERED)
    return profile


HEARTBEAT_DEADLINE = 1.0
"""Seconds between two states of a worker after which QoS calls its deadline missed. A constant, for both ends must ask
for the same; a worker's own `heartbeat` is well below."""


def heartbeats() -> QoSProfile:
    """A worker's states, as `STATE`, on a topic of its own: there a missed deadline says whose it is."""
    profile = _profile(reliable=False, depth=10)
    profile.deadline = Duration(seconds=HEARTBEAT_DEADLINE)
    return profile
