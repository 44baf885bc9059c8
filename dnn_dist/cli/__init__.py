# SPDX-License-Identifier: Apache-2.0
"""The command line, `dnn_dist COMMAND`.

    main.py        the table of commands, errors as one line, exit codes
    inspect.py     what a model is made of, what can be tiled, and if not why
    check.py       cut a model, run every piece, merge, compare with the untouched file
    trial.py       the stages of a cut, run as robots would run them, for check
    apart.py       work in a process of its own, for its peak of memory
    cost.py        what a cut costs by calculation
    card.py        a model's card from what its file tells
    plan.py        which plan for a fleet, and why
    given.py       the argument PLAN: a plan file, or the text of a cut
    profile.py     this robot measured, for a fleet file
    measure.py     how long this machine takes for a model, op by op
    simulate.py    a plan on a fleet in virtual time
    gantt.py       frames over robots as a picture
    fleet.py       the fleet file of a cluster that runs
    setplan.py     another plan for sources that run
    deploy.py      files for compose, Kubernetes, systemd, SROS2
    parameters.py  every parameter of every node
    demo.py        a cluster on this machine
    supervisor.py  starts processes, starts them again, stops them
    domain.py      a ROS domain that nobody uses on this machine
    chaos.py       trouble by seed, for the demo
    summary.py     what a demo leaves behind

A command is a module with `add_arguments(parser)` and `run(args) -> exit code`, imported when asked for. Commands that
need a cluster (demo, fleet, set-plan) import `nodes` when they run; the others work without ROS.
"""
