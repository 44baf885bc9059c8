# SPDX-License-Identifier: Apache-2.0
"""Runs the bytes of a .tflite file: by LiteRT, or by tflite-runtime where only that is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnn_dist.errors import DnnDistError, ModelError
from dnn_dist.run.mapped import release_pages


def _interpreter_class() -> Any:
    """The runtime's Interpreter; imported when first needed: reading and cutting models do without."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError:
            raise DnnDistError("no runtime for .tflite models here: pip install ai-edge-litert") from None
    return Interpreter


class Engine:
    """One piece, ready to run. Not for two threads at once; `run` releases the GIL while it computes."""

    def __init__(self, model: bytes | Path, threads: int = 1) -> None:
        """Builds the interpreter (about 10 ms) with the runtime's default delegate, XNNPACK.

        A file is mapped, not read: what of it the runtime has packed for itself need not stay in memory. It
        may be unlinked afterwards, but not changed.

        Raises ModelError when the runtime refuses the model, and DnnDistError when there is no runtime.
        """
        self._model = model  # the interpreter reads weights in place and does not keep the bytes alive itself
        interpreter_class = _interpreter_class()
        try:
            content = {"model_path": str(model)} if isinstance(model, Path) else {"model_content": model}
            self._interpreter = interpreter_class(**content, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"the runtime refuses the model: {_one_line(error)}") from None
        if isinstance(model, Path):
            release_pages(model)
        # Details stand in the order of the graph's own lists, which is the order of a piece's ports
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for `inputs`, in the graph's order; arrays without batch axis, outputs the caller's own.

        Raises ValueError when the arrays do not fit the model, ModelError when the runtime fails.
        """
        if len(inputs) != len(self._inputs):
            raise ValueError(f"the model takes {len(self._inputs)} arrays, got {len(inputs)}")
        for detail, array in zip(self._inputs, inputs, strict=True):
            shape = tuple(detail["shape"].tolist())
            if array.dtype != detail["dtype"] or array.shape != _array_shape(shape):
                raise ValueError(
                    f"input '{detail['name']}' is {np.dtype(detail['dtype']).name} {_array_shape(shape)}, "
                    f"got {array.dtype.name} {array.shape}"
                )
            self._interpreter.set_tensor(detail["index"], np.ascontiguousarray(array).reshape(shape))
        try:
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"the runtime failed: {_one_line(error)}") from None
        # get_tensor copies; a live view of the runtime's memory would block the next invoke
        results = (self._interpreter.get_tensor(detail["index"]) for detail in self._outputs)
        return [array.reshape(_array_shape(array.shape)) for array in results]


def _array_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the batch axis, as Tensor.array_shape has it."""
    return shape[1:] if shape[:1] == (1,) else shape


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
