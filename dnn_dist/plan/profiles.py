# SPDX-License-Identifier: Apache-2.0
"""Published profiles: what stands in for a robot until `dnn_dist profile` has measured it.

raspberry_pi_3           VGG16's 13 convolutions, 15.35 GMAC, in 7.25 s; idle 1.3 W, busy 6.5 W. Cao et al., "An
                         Edge-Centric Scalable Intelligent Framework To Collaboratively Execute DNN", and Hadidi et al.,
                         arXiv:1901.02537, which it builds on. Their fully connected layers swapped and are left out.
raspberry_pi_3_one_core  YOLOv2's first 16 layers at 608 x 608, 13.0 GMAC, in 17.0 s on one core. Zhao et al.,
                         "DeepThings", IEEE TCAD 2018, figure 13 at one device. Power is the board's: an upper bound.
raspberry_pi_4           MobileNet v1 and v2 at 224 x 224, 569 and 301 MMAC, in 77 and 46 ms on four cores: 7.4 and
                         6.5 GMAC/s. google/XNNPACK, README.md, table "Raspberry Pi"; it is the library that runs here.
                         Idle 2.7 W, busy 6.4 W: Geerling, pidramble.com, "Power Consumption Benchmarks".
pc                       ResNet18, 1.82 GMAC, run remotely in 341 ms over 18.88 Mbit/s, of which the input takes 255 ms:
                         at least 21 GMAC/s on a desktop with a Core i7-8700. Wang, Duan and Wu, "Accelerate
                         Cooperative Deep Inference via Layer-wise Processing Schedule Optimization", ICCCN 2021.

Memory is what is left for a model once the system runs: 1 GB boards keep 700 MB, 4 GB boards 3 GB. That is our own
judgement, as is a PC's 12 GB.
"""

from __future__ import annotations

from typing import Any

_PI_3 = {"memory": "700 MB", "power": {"idle": "1.3 W", "busy": "6.5 W"}}

PROFILES: dict[str, dict[str, Any]] = {
    "raspberry_pi_3": {"speed": "2.1 GMAC/s", **_PI_3},
    "raspberry_pi_3_one_core": {"speed": "0.764 GMAC/s", **_PI_3},
    "raspberry_pi_4": {"speed": "7 GMAC/s", "memory": "3 GB", "power": {"idle": "2.7 W", "busy": "6.4 W"}},
    "pc": {"speed": "21 GMAC/s", "memory": "12 GB"},
}
"""Profile -> the keys of a robot as in a fleet file; what stands beside `profile` there comes first."""
