# SPDX-License-Identifier: Apache-2.0
"""The errors that a user may cause. Each is one line: what, got, expected, where, and what to do.

    DnnDistError
      ModelError    the .tflite file is missing, broken, or holds what cannot be served
      CutError      the model cannot be cut in the way that was asked for
      PlanError     a plan does not fit the model, or its text is broken
      ConfigError   a parameter file or a setting is wrong
"""


class DnnDistError(Exception):
    """Base of all errors whose text is meant for the user; the command line prints it without a traceback."""


class ModelError(DnnDistError):
    """The .tflite file is missing, broken, or holds what cannot be served."""


class CutError(DnnDistError):
    """The model cannot be cut in the way that was asked for."""


class PlanError(DnnDistError):
    """A plan does not fit the model, or its text is broken."""


class ConfigError(DnnDistError):
    """A parameter file or a setting is wrong."""
