# SPDX-License-Identifier: Apache-2.0
"""Carrying a plan out. Imports plan, cut and graph; knows neither ROS nor a clock nor a thread.

What a process does, over the port of world.py:

    world.py       the port to what a process runs in: ROS or virtual time; the queue of events
    partition.py   takes images, announces frames, hands out tasks
    aggregator.py  merges results, runs the rest of the model, reports
    computer.py    a worker: computes pieces for every source
    values.py      what processes say to each other, beside their states
    state.py       what the control messages say: absolute state, never increments
    net.py         the one net for exceptions that nobody expected
    notes.py       counted and named: whatever was late, doubled, foreign or broken
    health.py      what diagnostics say of a node
    pairing.py     images of several cameras that belong together
    trust.py       who may take part
    kinds.py       workers of another version or kind of machine
    twins.py       two processes of one name

The state machines, and what their rules are about:

    events.py      what machines are told, and what they want done
    shape.py       what a machine must know of a plan: stages, pieces, bytes, MACs
    dispatcher.py  a source's queue, leases and plans
    tasks.py       what a dispatcher keeps
    handout.py     who is given the tasks that wait
    assignment.py  which worker gets a task
    sending.py     a task is given to a worker
    lease.py       a worker's right to a task, and the story of that task
    leases.py      when leases are lost
    spares.py      when parities and second copies go out
    lastcall.py    the last moment at which the own robot can compute what a frame has with a server
    chains.py      chains: placed as a whole, repaired piece by piece
    crew.py        which workers compute a chain
    lineage.py     what has to be computed anew when workers of a chain are lost
    planswitch.py  which plan new frames take
    bylink.py      which plan new frames take, by the rate of the link to a server
    restarts.py    frames of which nobody will report
    fleetview.py   what a dispatcher knows of each worker
    worker.py      a worker's offers, tasks and answers
    sourceviews.py what a worker knows of each source
    residence.py   which feeds a worker's tasks lack, and what is kept for others
    outbox.py      a worker's results: one on its way at a time
    gatherer.py    a source's open frames, merging and deadlines
    gathered.py    what a gatherer holds of an open frame, and its report
    report.py      how a frame ended

What they measure:

    pace.py        how long an acknowledgement takes on a link
    speeds.py      how fast a worker computes, for each stage
    stagetimes.py  how long something about the stages of plans took of late
    linkrate.py    the rate of a link, by what goes over it anyway
    linkhealth.py  what diagnostics say of a source's links
    delays.py      what pieces of a stage, and works on a link, took of late
    shares.py      until when each chain of a plan is waited for
    due.py         when the next message of a pair is due: the QoS deadline to ask for
    saving.py      what a source saves of a frame's bytes before it gives up pieces

Tensors and computing:

    store.py       the tensors that belong to the machines' keys
    wire.py        keys and tensors as they travel
    engine.py      LiteRT: one .tflite in memory, arrays in, arrays out
    pieces.py      a plan made ready to compute on one robot
    workshop.py    the pieces of all plans of a worker, within one budget of memory
    mapped.py      what memory is free, and giving back that of mapped files

The three machines are `handle(event, now) -> [action]` with `next_wake() -> time`: they never block, sleep or read a
clock, so that the same machines run on robots and in virtual time.
"""
