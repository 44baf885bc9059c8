# SPDX-License-Identifier: Apache-2.0
"""The errors that a user may cause, and the exit codes of nodes. Each error is one line: what, got, expected, where,
and what to do.

    DnnDistError
      ModelError    the .tflite file is missing, broken, or holds what cannot be served
      CutError      the model cannot be cut in the way that was asked for
      PlanError     a plan does not fit the model, or its text is broken
      ConfigError   a parameter file or a setting is wrong
        AbsentError   a camera or a stream is not there now; it may be later

A node that is told to stop ends with 0. Who started it, `ros2 launch` or `dnn_dist demo`, starts it again after every
other end but one: PERMANENT.
"""

# Exit codes of nodes, as in sysexits.h.
UNEXPECTED = 70  # EX_SOFTWARE: exceptions that nobody expected; a new process may do better
TEMPORARY = 75  # EX_TEMPFAIL: something is missing that may come
PERMANENT = 78  # EX_CONFIG: the next start would end in the same way, so there is none


class DnnDistError(Exception):
    """Base of all errors whose text is meant for the user; the command line prints it without a traceback."""

    exit_code = PERMANENT  # of a node that ends with it


class ModelError(DnnDistError):
    """The .tflite file is missing, broken, or holds what cannot be served."""


class CutError(DnnDistError):
    """The model cannot be cut in the way that was asked for."""


class PlanError(DnnDistError):
    """A plan does not fit the model, or its text is broken."""


class ConfigError(DnnDistError):
    """A parameter file or a setting is wrong."""


class AbsentError(ConfigError):
    """A camera or a stream is not there now; it may be later."""

    exit_code = TEMPORARY
