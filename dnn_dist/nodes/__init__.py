# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 nodes: thin shells that read parameters, build a core object, connect topics, and perform its actions.

    camera.py  partition.py  worker.py  aggregator.py  gateway.py    one executable each
    parameters.py   settings classes as ROS parameters
    world.py        the world of run/world.py: clock, topics, threads
    convert.py      messages from and to the core's values
    images.py       images from and to arrays
    imagetopic.py   where a source's images are, and how to subscribe to them
    picture.py      an image on its way through a source
    tasklists.py    a worker's tasks and speeds as numbers in its state
    qos.py          one place for every topic's quality of service
    endpoint.py     makes subscriptions and publishers; their QoS events become notes
    transport.py    what carries the messages, and whether the system lets it
    joining.py      takes a process into the network before the rest is imported
    shell.py        what all nodes share: timer, session, topics, notes to log and diagnostics, start and stop
    process.py      the process of a node: executor, signals, last words, exit code
    lifesign.py     tells whoever started the process that the node lives
    alarms.py       calls to come, on the one timer of a node
    lane.py         a thread that computes one job after the other
    workertopics.py workers' states, a topic of each worker, as they come and go
    peers.py        topics of feeds between workers
    outputs.py      detections, reports and pictures of a source
    expected.py     a subscription to tensors whose QoS deadline changes
    plancalls.py    calls of the service SetPlan, for `dnn_dist set-plan`
    observing.py    listens to what a cluster measured, for `dnn_dist fleet`
    disturb.py      loses, doubles and delays messages by seed, when the environment asks for it
    watch.py        listens to a cluster from outside, for demo, benches and tests
    planning.py     from parameters to the plan in force

Only this folder and launch/ import rclpy or messages. No policy and no arithmetic here: what a node decides, it asks
of a state machine in run/.
"""

import os

# NumPy's BLAS keeps a thread on every core, which spins while NumPy is imported: a fifth more of processor time at each
# start. Nodes compute with LiteRT.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
