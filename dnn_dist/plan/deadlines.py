# SPDX-License-Identifier: Apache-2.0
"""Shares of an end-to-end deadline: when each actor of a dataflow starts.

`uniform` is NoS's baseline, the slack shared evenly over a path's channels. `best` maximises the SNR over the starts by
SciPy's SLSQP, as NoS does. Both keep to precedence, ts(v) >= ts(u) + e(u), and to the deadline.
"""

from __future__ import annotations

import numpy as np

from dnn_dist.errors import PlanError
from dnn_dist.plan.delay import Array
from dnn_dist.plan.quality import Dataflow

_STEP = 1e-6
"""Of finite differences, as a share of the deadline."""
_NONE = 1e-300
"""Added to what is kept, which may be 0, for its logarithm."""


def earliest(flow: Dataflow, delays: Array) -> tuple[Array, Array]:
    """When each actor can start if channels take so long, and how many channels are on the longest path there."""
    starts, counts = np.zeros(len(flow.seconds)), np.zeros(len(flow.seconds))
    for one, delay in sorted(zip(flow.channels, delays, strict=True), key=lambda pair: pair[0].source):
        at = starts[one.source] + flow.seconds[one.source] + delay
        if at >= starts[one.target]:
            starts[one.target], counts[one.target] = at, counts[one.source] + 1
    return starts, counts


def latency(flow: Dataflow, share: float) -> float:
    """Seconds from source to end of the sink when every channel takes what it does with this probability.

    NoS's tightness rho of a deadline is 0 at `latency(flow, 0.001)`, 1 at `latency(flow, 0.999)`.
    """
    starts, _ = earliest(flow, _quantiles(flow, share))
    return float(starts[-1] + flow.seconds[-1])


def uniform(flow: Dataflow, deadline: float) -> Array:
    """The starts when each channel is given the same, the most that the path with the least slack allows.

    PlanError when computing alone takes longer than the deadline.
    """
    ends_by = deadline - flow.seconds[-1]
    starts, _ = earliest(flow, np.zeros(len(flow.channels)))
    if starts[-1] > ends_by:
        raise PlanError(
            f"a deadline of {deadline:g} s is less than the {starts[-1] + flow.seconds[-1]:g} s of computing; "
            "allow more, or cut into smaller pieces"
        )
    # The latency is convex and piecewise linear in what each has, so that Newton's method ends at the root.
    each = ends_by
    for _ in flow.seconds:
        starts, counts = earliest(flow, np.full(len(flow.channels), each))
        if starts[-1] <= ends_by * (1 + 1e-12):
            break
        each -= (starts[-1] - ends_by) / counts[-1]
    return _to_the_end(starts, ends_by)


def proportional(flow: Dataflow, deadline: float, share: float = 0.5) -> Array:
    """The starts when each channel is given in proportion to what it takes with this probability."""
    usual = _quantiles(flow, share)
    ends_by = deadline - flow.seconds[-1]
    low, high = 0.0, deadline / max(float(usual.min()), 1e-6 * deadline)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if earliest(flow, middle * usual)[0][-1] <= ends_by else (low, middle)
    return _to_the_end(earliest(flow, low * usual)[0], ends_by)


def best(flow: Dataflow, deadline: float) -> Array:
    """The starts of the best SNR, never below that of `uniform`. Needs SciPy; PlanError as for `uniform`.

    The SNR of one output grows with sum_k p_k w_k^2, so the logarithm of that sum is maximised: with many equal paths
    the SNR itself is nearly flat. It begins at `uniform` or at `proportional`, whichever is better.
    """
    from scipy.optimize import minimize

    even = uniform(flow, deadline)
    inner = slice(1, -1)
    if len(even) < 3:
        return even
    sources, targets = ([getattr(one, end) for one in flow.channels] for end in ("source", "target"))
    rows = np.zeros((len(flow.channels), len(even)))
    rows[np.arange(len(sources)), targets] += 1.0
    rows[np.arange(len(sources)), sources] -= 1.0
    after = rows[:, [0, -1]] @ even[[0, -1]] - np.asarray(flow.seconds)[sources]
    steps = np.vstack([np.zeros(len(even) - 2), _STEP * np.eye(len(even) - 2)])

    def all_starts(inside: Array) -> Array:
        """With source and sink, for shares of the deadline (..., actors between them)."""
        ends = [np.full((*inside.shape[:-1], 1), end) for end in even[[0, -1]]]
        return np.concatenate([ends[0], inside * deadline, ends[1]], -1)

    def cost(inside: Array) -> tuple[float, Array]:
        kept = -np.log(flow.kept(all_starts(inside + steps)) + _NONE)
        return float(kept[0]), (kept[1:] - kept[0]) / _STEP

    limits = {
        "type": "ineq",
        "fun": lambda inside: rows[:, inner] @ inside + after / deadline,
        "jac": lambda inside: rows[:, inner],
    }
    first = max(even, proportional(flow, deadline), key=flow.kept)
    options = {"ftol": 1e-6, "maxiter": 60}
    start = first[inner] / deadline
    solved = minimize(cost, start, jac=True, method="SLSQP", constraints=limits, options=options)
    return max(even, first, _in_order(flow, all_starts(solved.x)), key=flow.kept)


def _quantiles(flow: Dataflow, share: float) -> Array:
    """Of each channel; a distribution that several have is asked once."""
    found = {id(one.delay): one.delay.quantile(share) for one in {id(c.delay): c for c in flow.channels}.values()}
    return np.array([found[id(one.delay)] for one in flow.channels])


def _in_order(flow: Dataflow, starts: Array) -> Array:
    """The same, without the rounding by which a solver may break precedence."""
    kept = np.array(starts)
    for one in sorted(flow.channels, key=lambda one: one.source):
        kept[one.target] = max(kept[one.target], kept[one.source] + flow.seconds[one.source])
    kept[-1] = starts[-1]
    return kept


def _to_the_end(starts: Array, ends_by: float) -> Array:
    """The sink waits as long as it may."""
    return np.array([*starts[:-1], ends_by])
