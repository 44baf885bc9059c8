# SPDX-License-Identifier: Apache-2.0
"""What tells the pieces that one robot derives from those of another: a digest of all that they depend on.

Plans name a model and a cut; every robot derives the pieces by itself. Robots of different versions of this
package may derive different ones under the same plan, whose results do not belong together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

from dnn_dist.cut.coding import coefficients
from dnn_dist.cut.piece import Stage
from dnn_dist.graph.network import Network

PIECES = 1
"""Number of the way in which files of pieces are written, and results of a stage merged. To be raised with every
change after which the same stages give other bytes."""


def pieces_digest(network: Network, stages: Sequence[Stage]) -> str:
    """16 hexadecimal digits that are the same wherever the same pieces were derived from the same model.

    Every field of stages, pieces and ports counts, and the codes of parities: nothing that depends on the
    process, the machine or the version of Python.
    """
    digest = hashlib.sha256(f"{PIECES} {network.sha256}\n".encode())
    for stage in stages:
        code = coefficients(stage.needed, stage.parity).tolist() if stage.coded else []
        text = json.dumps({"code": code, **asdict(stage)}, sort_keys=True, separators=(",", ":"), default=int)
        digest.update(f"{text}\n".encode())
    return digest.hexdigest()[:16]
