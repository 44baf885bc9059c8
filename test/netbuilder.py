# SPDX-License-Identifier: Apache-2.0
"""Builds small .tflite models op by op, float32 or int8 with weights per channel, for the tests of cutting.

Every method adds an op and returns the number of the tensor it makes. Weights come from a seed.
"""

from typing import Any

import numpy as np

from dnn_dist.graph.flatbuffer import pack
from dnn_dist.graph.schema import DTYPES, OPERATOR_CODES, UNIONS

SAME, VALID = 0, 1
NO_ACTIVATION, RELU, RELU_N1_TO_1, RELU6 = 0, 1, 2, 3
OPTIONS = {name: number for number, name in UNIONS["BuiltinOptions"].items()}
ACTIVATION_SCALE, ACTIVATION_ZERO = 0.04, -5


class NetBuilder:
    def __init__(self, dtype: str = "float32", seed: int = 0) -> None:
        self.dtype = dtype
        self.rng = np.random.default_rng(seed)
        self.tensors: list[dict[str, Any]] = []
        self.buffers: list[dict[str, Any]] = [{}]
        self.operators: list[dict[str, Any]] = []
        self.codes: list[dict[str, Any]] = []
        self.inputs: list[int] = []

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(self.tensors[tensor]["shape"].tolist())

    def _quantisation(self, scale, zero_point, axis=0) -> dict[str, Any]:
        scale = np.atleast_1d(np.asarray(scale, np.float32))
        zero = np.full(scale.shape, zero_point, np.int64)
        return {"scale": scale, "zero_point": zero, "quantized_dimension": axis}

    def tensor(self, shape, like: int | None = None, scale=ACTIVATION_SCALE, zero=ACTIVATION_ZERO) -> int:
        tree = {
            "shape": np.array(shape, np.int32),
            "name": f"t{len(self.tensors)}",
            "type": DTYPES.index(self.dtype),
        }
        if self.dtype != "float32":
            tree["quantization"] = self._quantisation(scale, zero)
            if like is not None:
                tree["quantization"] = self.tensors[like]["quantization"]
        self.tensors.append(tree)
        return len(self.tensors) - 1

    def constant(self, value: np.ndarray, quantisation: dict[str, Any] | None = None) -> int:
        self.buffers.append({"data": np.frombuffer(value.tobytes(), np.uint8)})
        tree: dict[str, Any] = {
            "shape": np.array(value.shape, np.int32),
            "name": f"c{len(self.tensors)}",
            "type": DTYPES.index(value.dtype.name),
            "buffer": len(self.buffers) - 1,
        }
        if quantisation:
            tree["quantization"] = quantisation
        self.tensors.append(tree)
        return len(self.tensors) - 1

    def op(
        self, kind: str, inputs, output: int, options: str | None = None, version: int = 0, **fields
    ) -> int:
        number = OPERATOR_CODES[kind]
        version = version or (1 if self.dtype == "float32" else 2)
        code = {"deprecated_builtin_code": min(number, 127), "builtin_code": number, "version": version}
        if code not in self.codes:
            self.codes.append(code)
        tree: dict[str, Any] = {
            "opcode_index": self.codes.index(code),
            "inputs": np.array(inputs, np.int32),
            "outputs": np.array([output], np.int32),
        }
        if options:
            tree.update(builtin_options_type=OPTIONS[options], builtin_options=fields)
        self.operators.append(tree)
        return output

    def input(self, height: int, width: int, channels: int) -> int:
        self.inputs.append(self.tensor((1, height, width, channels)))
        return self.inputs[-1]

    def _weights(self, shape, axis: int) -> tuple[int, np.ndarray]:
        """(tensor, scale of each output channel) of random weights, int8 by channel in int8 models."""
        values = self.rng.normal(0, 1, shape).astype(np.float32)
        if self.dtype == "float32":
            return self.constant(values), np.ones(shape[axis])
        scales = self.rng.uniform(0.005, 0.02, shape[axis]).astype(np.float32)
        integers = np.clip(np.round(values * 50), -127, 127).astype(np.int8)
        return self.constant(integers, self._quantisation(scales, 0, axis)), scales

    def _bias(self, x: int, scales: np.ndarray) -> int:
        values = self.rng.normal(0, 1, len(scales)).astype(np.float32)
        if self.dtype == "float32":
            return self.constant(values)
        scales = scales * float(self.tensors[x]["quantization"]["scale"][0])
        return self.constant(np.round(values * 500).astype(np.int32), self._quantisation(scales, 0))

    @staticmethod
    def out_size(size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
        reach = dilation * (kernel - 1) + 1
        return -(-size // stride) if padding == SAME else (size - reach) // stride + 1

    def _out_hw(self, x, kernel, stride, dilation, padding) -> tuple[int, int]:
        _, height, width, _ = self.shape(x)
        return (
            self.out_size(height, kernel[0], stride[0], dilation[0], padding),
            self.out_size(width, kernel[1], stride[1], dilation[1], padding),
        )

    def conv(self, x, filters, kernel, stride=(1, 1), dilation=(1, 1), padding=SAME, activation=RELU) -> int:
        weights, scales = self._weights((filters, *kernel, self.shape(x)[3]), 0)
        out = self.tensor((1, *self._out_hw(x, kernel, stride, dilation, padding), filters))
        return self.op(
            "CONV_2D", [x, weights, self._bias(x, scales)], out, "Conv2DOptions",
            version=1 if self.dtype == "float32" else 3, padding=padding,
            stride_h=stride[0], stride_w=stride[1],
            dilation_hfactor=dilation[0], dilation_wfactor=dilation[1], fused_activation_function=activation,
        )  # fmt: skip

    def dense(self, x, units, activation=RELU) -> int:
        """Fully connected over all that the tensor holds; int8 weights have one scale."""
        size = int(np.prod(self.shape(x)))
        weights, scales = self._weights((units, size), 0)
        if self.dtype != "float32":
            scales = np.full(1, 0.01)
            self.tensors[weights]["quantization"] = self._quantisation(scales, 0)
        bias = self._bias(x, np.resize(scales, units))
        if self.dtype != "float32":
            scale = 0.01 * float(self.tensors[x]["quantization"]["scale"][0])
            self.tensors[bias]["quantization"] = self._quantisation(scale, 0)
        out = self.tensor((1, units))
        return self.op(
            "FULLY_CONNECTED", [x, weights, bias], out, "FullyConnectedOptions",
            version=1 if self.dtype == "float32" else 4, fused_activation_function=activation,
        )  # fmt: skip

    def depthwise(
        self, x, multiplier, kernel, stride=(1, 1), dilation=(1, 1), padding=SAME, activation=NO_ACTIVATION
    ) -> int:
        channels = self.shape(x)[3] * multiplier
        weights, scales = self._weights((1, *kernel, channels), 3)
        out = self.tensor((1, *self._out_hw(x, kernel, stride, dilation, padding), channels))
        return self.op(
            "DEPTHWISE_CONV_2D", [x, weights, self._bias(x, scales)], out, "DepthwiseConv2DOptions",
            version=2 if self.dtype == "float32" else 3, padding=padding,
            stride_h=stride[0], stride_w=stride[1],
            dilation_hfactor=dilation[0], dilation_wfactor=dilation[1], depth_multiplier=multiplier,
            fused_activation_function=activation,
        )  # fmt: skip

    def pool(self, kind: str, x, kernel, stride, padding) -> int:
        out = self.tensor((1, *self._out_hw(x, kernel, stride, (1, 1), padding), self.shape(x)[3]), like=x)
        return self.op(
            f"{kind}_POOL_2D", [x], out, "Pool2DOptions", padding=padding,
            stride_h=stride[0], stride_w=stride[1],
            filter_height=kernel[0], filter_width=kernel[1],
        )  # fmt: skip

    def unary(self, kind: str, x) -> int:
        quantised = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}.get(
            kind, (ACTIVATION_SCALE, ACTIVATION_ZERO)
        )
        like = x if kind in ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "ABS", "NEG") else None
        out = self.tensor(self.shape(x), like, *quantised)
        if kind == "LEAKY_RELU":
            return self.op(kind, [x], out, "LeakyReluOptions", alpha=0.1)
        if kind == "PRELU":
            alpha = self.rng.uniform(0, 0.5, (1, 1, self.shape(x)[3])).astype(np.float32)
            if self.dtype == "int8":
                q = self._quantisation(0.005, 0)
                return self.op(kind, [x, self.constant((alpha / 0.005).astype(np.int8), q)], out, version=1)
            return self.op(kind, [x, self.constant(alpha)], out)
        options = {"GELU": "GeluOptions", "EXP": "ExpOptions", "SOFTMAX": "SoftmaxOptions"}.get(kind)
        fields = {"beta": 1.0} if kind == "SOFTMAX" else {}
        return self.op(kind, [x], out, options, version=1 if kind == "HARD_SWISH" else 0, **fields)

    def binary(self, kind: str, x, y) -> int:
        options = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions",
                   "MAXIMUM": "MaximumMinimumOptions", "MINIMUM": "MaximumMinimumOptions",
                   "SQUARED_DIFFERENCE": "SquaredDifferenceOptions"}[kind]  # fmt: skip
        out = self.tensor(self.shape(x), like=x if kind in ("MAXIMUM", "MINIMUM") else None)
        return self.op(kind, [x, y], out, options)

    def per_channel(self, kind: str, x) -> int:
        """With a constant of one value per channel."""
        values = self.rng.normal(0, 1, (1, 1, 1, self.shape(x)[3])).astype(np.float32)
        if self.dtype == "int8":
            constant = self.constant(np.round(values * 40).astype(np.int8), self._quantisation(0.025, 3))
        else:
            constant = self.constant(values)
        return self.binary(kind, x, constant)

    def concat(self, parts) -> int:
        channels = sum(self.shape(part)[3] for part in parts)
        out = self.tensor((*self.shape(parts[0])[:3], channels), like=parts[0])
        return self.op("CONCATENATION", parts, out, "ConcatenationOptions", axis=3)

    def pad(self, x, top, bottom, left, right, value: float | None = None) -> int:
        _, height, width, channels = self.shape(x)
        out = self.tensor((1, height + top + bottom, width + left + right, channels), like=x)
        amounts = self.constant(np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32))
        if value is None:
            return self.op("PAD", [x, amounts], out, "PadOptions")
        if self.dtype == "int8":
            fill = self.constant(np.array([int(value)], np.int8), self.tensors[x]["quantization"])
        else:
            fill = self.constant(np.array([value], np.float32))
        return self.op("PADV2", [x, amounts, fill], out, "PadV2Options")

    def upsample(self, x, factor, half_pixel=False, align=False) -> int:
        _, height, width, channels = self.shape(x)
        size = (height * factor[0], width * factor[1])
        out = self.tensor((1, *size, channels), like=x)
        return self.op(
            "RESIZE_NEAREST_NEIGHBOR", [x, self.constant(np.array(size, np.int32))], out,
            "ResizeNearestNeighborOptions", half_pixel_centers=half_pixel, align_corners=align, version=3,
        )  # fmt: skip

    def yolov2_first16(self) -> int:
        """YOLOv2 at 608 x 608 (Redmon and Farhadi, 2016), what DeepThings fuses: 12 convolutions, 4 max-pools."""
        x = self.input(608, 608, 3)
        table = [(32, 3), 0, (64, 3), 0, (128, 3), (64, 1), (128, 3), 0, (256, 3), (128, 1), (256, 3), 0,
                 (512, 3), (256, 1), (512, 3), (256, 1)]  # fmt: skip
        for layer in table:
            if isinstance(layer, int):
                x = self.pool("MAX", x, (2, 2), (2, 2), VALID)
            else:
                filters, kernel = layer
                x = self.unary("LEAKY_RELU", self.conv(x, filters, (kernel, kernel), activation=NO_ACTIVATION))
        return x

    def build(self, outputs) -> bytes:
        graph = {
            "tensors": self.tensors, "operators": self.operators,
            "inputs": np.array(self.inputs, np.int32), "outputs": np.array(outputs, np.int32),
        }  # fmt: skip
        model = {"version": 3, "operator_codes": self.codes, "subgraphs": [graph], "buffers": self.buffers}
        return bytes(pack(model, "Model", b"TFL3"))
