# SPDX-License-Identifier: Apache-2.0
"""Carrying a plan out. Imports plan/plan.py, cut and graph; knows neither ROS nor a clock nor a thread.

    engine.py      LiteRT: one .tflite in memory, arrays in, arrays out
    wire.py        keys and tensors as they travel
    state.py       what the control messages say: absolute state, never increments
    shape.py       what a machine must know of a plan: stages, pieces, bytes, MACs
    dispatcher.py  state machine of a source's queue, leases and assignment
    worker.py      state machine of a worker's offers, tasks and answers
    gatherer.py    state machine of a source's open frames, merging and deadlines
    fleetview.py   what a dispatcher knows of each worker
    notes.py       counted and named: whatever was late, doubled, foreign or broken
    store.py       the tensors that belong to the machines' keys
    report.py      how a frame ended
    delays.py      what pieces of a stage, and works on a link, took of late
    shares.py      until when each chain of a plan is waited for
    due.py         when the next message of a pair is due: the QoS deadline to ask for
    pieces.py      a plan made ready to compute on one robot

The three machines are `handle(event, now) -> [action]` with `next_wake() -> time`: they never block, sleep or read a
clock, so that the same machines run on robots and in virtual time.
"""
