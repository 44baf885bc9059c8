# SPDX-License-Identifier: Apache-2.0
"""What the papers print, as given there or read off their plots; nothing here is ours.

DeepThings: Zhao, Barijough, Gerstlauer, CODES+ISSS 2018. YOLOv2's first 16 layers at 608 x 608 on up to six
Raspberry Pi 3, one core each, Wi-Fi; MoDNN is its baseline. CDC: Hadidi et al., DAC 2019. Pipeline: Hadidi et al.,
2018, and Cao et al. (edge-centric framework). Robot and server: Wang, Duan and Wu, ICCCN 2021.
"""

from __future__ import annotations

DEVICES = (1, 2, 3, 4, 5, 6)

# DeepThings, set-up: what the first 16 layers have of the network's computation ("more than") and memory footprint
FIRST16_SHARES = {"computation": 0.49, "memory": 0.866}

# DeepThings, memory: saving of the largest footprint, and the mean saving over layers
MEMORY_SAVING = {"bands:4": 0.61, "tiles:3x3": 0.58, "tiles:5x5": 0.68}
LAYER_MEMORY_SAVING = {"bands:4": 0.67, "tiles:3x3": 0.69, "tiles:5x5": 0.79}

# DeepThings, Fig. 12: MiB sent for a frame, for 1..6 devices (read off); sharing does not depend on the devices
MODNN_TRAFFIC_MIB = (9.87, 10.92, 12.87, 13.92, 17.05, 19.59)
SHARING_TRAFFIC_MIB = {"3x3": 13.79, "4x4": 16.23, "5x5": 18.99}
STEALING_TRAFFIC_MIB = {
    "3x3": (1.41, 5.17, 6.41, 6.81, 7.56, 7.98),
    "5x5": (1.41, 7.56, 9.67, 10.95, 11.23, 11.69),
}

# DeepThings, Fig. 13: seconds for a frame, for 1..6 devices (read off)
LATENCY_S = {
    "MoDNN": (17.02, 10.20, 8.50, 7.57, 7.82, 8.08),
    "sharing 3x3": (25.86, 15.60, 11.01, 9.70, 8.12, 8.13),
    "stealing 3x3": (24.41, 13.42, 9.94, 8.60, 6.30, 5.59),
    "stealing and reuse 3x3": (18.15, 11.48, 7.53, 7.19, 6.34, 6.25),
    "stealing and reuse 5x5": (24.88, 14.32, 10.15, 7.79, 6.93, 7.03),
}

# DeepThings, Fig. 14: several sources, against MoDNN
SOURCES_LATENCY_CHANGE = -0.41
SOURCES_THROUGHPUT_CHANGE = 0.80
SOURCES_THROUGHPUT_RANGE = (1.7, 2.2)  # from the abstract, with reuse

# CDC, Fig. 1: share of results of a layer of 50 ms that have come by then
ARRIVALS = {0.100: 0.34, 0.150: 0.42}
ARRIVALS_COMPUTE_S = 0.050

# CDC, Fig. 2, in words: accuracy of Inception v3 is hurt badly above 30 % of one layer lost, near zero above 50 %
ACCURACY_HURT_ABOVE, ACCURACY_GONE_ABOVE = 0.30, 0.50

# CDC, Fig. 3: (network, devices, coded groups) -> % of single failures survived with 1, 2, ... more devices
COVERAGE: dict[tuple[str, int, tuple[int, ...]], tuple[tuple[float, ...], tuple[float, ...]]] = {
    ("AlexNet", 5, (2,)): ((33, 57, 75, 89, 100), (50, 71, 87.5, 100)),
    ("action recognition", 8, (2, 2)): ((22, 40, 55, 67, 77, 86, 93, 100), (33, 60, 73, 83, 92, 100)),
    ("C3D", 7, (2, 2)): ((25, 44, 60, 73, 83, 92, 100), (37.5, 67, 80, 91, 100)),
    ("C3D", 9, (3, 3)): ((20, 36, 50, 62, 71, 80, 87.5, 94, 100), (40, 73, 83, 92, 100)),
}
FULL_COVERAGE_AT = {("VGG16", 9, (3, 3)): (9, 5)}  # 2MR, CDC and 2MR: of VGG16 only this is given

# CDC, Fig. 5b: gain of mean latency by not waiting for the last, for 3..6 devices (about)
STRAGGLER_GAIN = {3: 0.03, 4: 0.09, 5: 0.16, 6: 0.35}

# Pipeline: frames/s on so many devices
THROUGHPUT = {"alexnet": {4: 6.8, 6: 9.2}, "vgg16": {8: 0.87, 10: 1.08}}
# Raspberry Pi 3, VGG16: seconds for conv1..13 and fc1..3; fc1 swaps, for its weights do not fit the memory
VGG16_LAYER_S = (0.247, 1.25, 0.50, 0.92, 0.40, 0.766, 0.766, 0.373, 0.70, 0.70, 0.21, 0.21, 0.21, 2.483, 0.114, 0.063)
PI_MESSAGE_S = (0.075, 0.085)

# Edge-centric framework, YOLOv3 at 320 x 320: about so many s for an image on one Raspberry Pi 3, frames/s on eight
YOLOV3_ONE_S, YOLOV3_EIGHT = 15.0, 0.5

# Robot and server, ms: a Raspberry Pi 4B, a desktop with an i7-8700. Alone (LO); by link, the server alone (RO), and EJ
LINKS = ("3G", "4G", "Wi-Fi")
COOPERATIVE: dict[str, tuple[float, dict[str, tuple[float, float]]]] = {
    "AlexNet-P": (406, {"3G": (4422, 406), "4G": (877, 255), "Wi-Fi": (337, 187)}),
    "GoogLeNet": (848, {"3G": (4475, 848), "4G": (879, 728), "Wi-Fi": (352, 352)}),
    "ResNet18": (871, {"3G": (4463, 871), "4G": (946, 810), "Wi-Fi": (341, 341)}),
    "Siamese": (3919, {"3G": (8783, 1998), "4G": (1702, 1087), "Wi-Fi": (613, 469)}),
    "multi-stream": (1198, {"3G": (13146, 931), "4G": (2513, 692), "Wi-Fi": (891, 317)}),
}
# Its worked example: seconds of each path on robot, link and server; EJ's order, and what it takes
PATHS = ((3, 2, 5), (3, 2, 2), (4, 3, 3), (4, 2, 3))
PATHS_ORDER, PATHS_S = (1, 3, 4, 2), 18
EJ_RATIO = 5 / 3  # claimed: of the best order's time, at most

# NoS: Mirzazad, Zhao, Gerstlauer, CODES+ISSS 2019: accuracy with uniform and optimised shares, by tightness rho (read
# off); equal at 1
TIGHTNESS = {
    0.2: (0.284, 0.450),
    0.25: (0.430, 0.598),
    0.4: (0.734, 0.848),
    0.5: (0.855, 0.899),
    0.75: (0.928, 0.932),
}

# CDC: AlexNet on five devices, s; with one failed device, without coding
ALEXNET_S, ALEXNET_FAILED_S = 0.836, 2.046
