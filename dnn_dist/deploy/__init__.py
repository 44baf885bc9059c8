# SPDX-License-Identifier: Apache-2.0
"""From the processes of a cluster to what other systems start them by: compose, Kubernetes, systemd, SROS2.

    place.py       where a process is to run, and what it needs there
    container.py   what compose and Kubernetes have in common
    compose.py  kubernetes.py  systemd.py  sros2.py    one kind of file each

Pure functions to text. `cluster` decides what runs where; these are mappings of its answer, as the launch file is.
"""
