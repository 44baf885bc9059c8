# SPDX-License-Identifier: Apache-2.0
"""Which way to choose. Imports graph, cut and the settings' defaults.

    plan.py       the value that everybody shares: which model, which stages, what to fill in
    units.py      "60 Mbit/s", "2 ms": quantities with their unit
    profiles.py   published robots
    fleet.py      robots and links, from a YAML file
    cost.py       what a piece costs a robot: seconds, memory, bytes
    policy.py     which worker gets a piece, and what may be on the way
    schedule.py   when the pieces of a plan would run
    predict.py    what a plan would do: latency, throughput, memory, traffic, energy
    options.py    ways to cut a range of ops for a crew of workers
    chains.py     at which places a chain exchanges borders
    finer.py      chains with more tiles at their ends
    groups.py     pipelines of groups of robots
    search.py     the best plan of each family
    rules.py      what is wanted, and the rules that pick one of these
    delay.py      how long a message takes, as a distribution: published or measured (needs SciPy)
    quality.py    what a deadline costs in quality: NoS's model, with coding
    deadlines.py  shares of a deadline: even ones, and those of the best quality (needs SciPy)
    observed.py   the fleet of a cluster that runs, from what its nodes measured
    coverage.py   how many devices may fail, and what that costs in extra ones (CDC + 2MR)
    front.py      closed sets of layers: where to cut between a robot and a server
    between.py    the cut of a network between a robot and a server, a stage for each path
    paths.py      in which order what crosses such a cut is computed and sent: Extended Johnson, and better
    minimum_cut.py   the cut of the least sum, which overlaps nothing (needs networkx)
    task_assignment.py   the greedy pipeline assignment of the edge-centric framework, beside the exact one

Of these robots need plan.py and policy.py; fleet.py says their links, and with SciPy they share deadlines by quality.
"""
