# SPDX-License-Identifier: Apache-2.0
"""The command line: `dnn_dist inspect | check | demo`.

    main.py     the table of commands, errors as one line, exit codes
    inspect.py  what a model is made of, what can be tiled, and if not why
    check.py    cut a model, run every piece, merge, compare with the untouched file

A command is a module with `add_arguments(parser)` and `run(args) -> exit code`, imported when asked for.
May import everything but `nodes`.
"""
