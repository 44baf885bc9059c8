# SPDX-License-Identifier: Apache-2.0
"""From the processes of a cluster to what other systems start them by: compose, Kubernetes, systemd, SROS2.

Pure functions to text. `cluster.py` decides what runs where; these are mappings of its answer, as the launch file is.
"""
