# syntax=docker/dockerfile:1
# SPDX-License-Identifier: Apache-2.0
# One image for every node, on arm64 and amd64:
#     docker build -t dnn_dist:0.2.0 .
#     docker buildx build --platform linux/arm64,linux/amd64 -t REGISTRY/dnn_dist:0.2.0 --push .
# Which node a container runs is its command: compose.yaml, or what `dnn_dist deploy kubernetes FILE` prints.

ARG ROS_DISTRO=jazzy

FROM ros:${ROS_DISTRO}-ros-base AS ros
# What package.xml asks for and the base image lacks. Versions are those of the distribution.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends \
        python3-numpy \
        python3-opencv \
        python3-rich \
        python3-yaml \
        "ros-${ROS_DISTRO}-cv-bridge" \
        "ros-${ROS_DISTRO}-vision-msgs" \
 && rm -rf /var/lib/apt/lists/*

FROM ros AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends build-essential python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY . /opt/dnn_dist
WORKDIR /opt/dnn_dist
RUN /ros_entrypoint.sh python3 deploy/build.py --lean \
 && .venv/bin/python -m compileall -q install

FROM ros
COPY --from=build /opt/dnn_dist/.venv /opt/dnn_dist/.venv
COPY --from=build /opt/dnn_dist/install /opt/dnn_dist/install
RUN useradd --create-home --uid 7411 --groups video dnn_dist
USER 7411
ENV ROS_LOG_DIR=/tmp/log
ENTRYPOINT ["/ros_entrypoint.sh", "/opt/dnn_dist/.venv/bin/dnn_dist-env"]
CMD ["dnn_dist", "--help"]
