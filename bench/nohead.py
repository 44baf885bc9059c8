# SPDX-License-Identifier: Apache-2.0
"""A head for the front of a network, whose output says nothing that a detection could be made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dnn_dist.detect.boxes import Detection
from dnn_dist.detect.head import Head
from dnn_dist.detect.letterbox import Letterbox


class NoHead(Head):
    """Finds nothing, in no time."""

    def __call__(self, outputs: Sequence[np.ndarray], letterbox: Letterbox) -> list[Detection]:
        return []
