# SPDX-License-Identifier: Apache-2.0
"""NetBuilder with the ops that converters put around convolutions: resizing, slices, dilation as three ops, float16
weights, squeeze-and-excite.
"""

import numpy as np
from netbuilder import NO_ACTIVATION, RELU, SAME, VALID, NetBuilder


class NetOps(NetBuilder):
    def transposed(
        self, x, filters, kernel, stride, padding=SAME, computed_shape=False, activation=NO_ACTIVATION
    ) -> int:
        """TRANSPOSE_CONV; its output's shape a constant, or worked out while running as Keras models have it."""
        _, height, width, channels = self.shape(x)
        size = [
            extent * s if padding == SAME else (extent - 1) * s + k
            for extent, k, s in zip((height, width), kernel, stride, strict=True)
        ]
        weights, scales = self._weights((filters, *kernel, channels), 0)
        out = self.tensor((1, *size, filters))
        shape = (self.packed_shape if computed_shape else self.listed)(x, [1, *size, filters])
        return self.op(
            "TRANSPOSE_CONV", [shape, weights, x, self._bias(x, scales)], out, "TransposeConvOptions",
            version=3, padding=padding, stride_h=stride[0], stride_w=stride[1], fused_activation_function=activation,
        )  # fmt: skip

    def listed(self, _x, values) -> int:
        return self.constant(np.array(values, np.int32))

    def packed_shape(self, x, values) -> int:
        """[batch of x, *values[1:]] by SHAPE, STRIDED_SLICE and PACK."""
        shape = self._integers([4])
        self.op("SHAPE", [x], shape, "ShapeOptions", out_type=2, version=1)
        batch = self._integers([])
        places = [self.constant(np.array([n], np.int32)) for n in (0, 1, 1)]
        self.op("STRIDED_SLICE", [shape, *places], batch, "StridedSliceOptions", shrink_axis_mask=1, version=1)
        rest = [self.constant(np.array(n, np.int32)) for n in values[1:]]
        return self.op("PACK", [batch, *rest], self._integers([4]), "PackOptions", values_count=4, version=1)

    def _integers(self, shape) -> int:
        made = self.tensor(shape)
        self.tensors[made] = {"shape": np.array(shape, np.int32), "name": f"t{made}", "type": 2}
        return made

    def bilinear(self, x, factor, half_pixel=True, align=False) -> int:
        _, height, width, channels = self.shape(x)
        size = (height * factor[0], width * factor[1])
        out = self.tensor((1, *size, channels), like=x)
        return self.op(
            "RESIZE_BILINEAR", [x, self.constant(np.array(size, np.int32))], out, "ResizeBilinearOptions",
            half_pixel_centers=half_pixel, align_corners=align, version=3,
        )  # fmt: skip

    def depth_to_space(self, x, block) -> int:
        _, height, width, channels = self.shape(x)
        out = self.tensor((1, height * block, width * block, channels // block**2), like=x)
        return self.op("DEPTH_TO_SPACE", [x], out, "DepthToSpaceOptions", block_size=block)

    def space_to_depth(self, x, block) -> int:
        _, height, width, channels = self.shape(x)
        out = self.tensor((1, height // block, width // block, channels * block**2), like=x)
        return self.op("SPACE_TO_DEPTH", [x], out, "SpaceToDepthOptions", block_size=block)

    def strided_slice(self, x, begin, end, strides, begin_mask=0, end_mask=0) -> int:
        """Rows and columns only."""
        _, height, width, channels = self.shape(x)
        size = [
            len(
                range(
                    0 if begin_mask >> a & 1 else begin[a - 1], n if end_mask >> a & 1 else end[a - 1], strides[a - 1]
                )
            )
            for a, n in ((1, height), (2, width))
        ]
        lists = [self.constant(np.array(v, np.int32)) for v in ([0, *begin, 0], [1, *end, channels], [1, *strides, 1])]
        out = self.tensor((1, *size, channels), like=x)
        return self.op(
            "STRIDED_SLICE", [x, *lists], out, "StridedSliceOptions", begin_mask=begin_mask, end_mask=end_mask
        )

    def slice(self, x, begin, size) -> int:
        lists = [self.constant(np.array(v, np.int32)) for v in ([0, *begin, 0], [1, *size, -1])]
        out = self.tensor((1, *size, self.shape(x)[3]), like=x)
        return self.op("SLICE", [x, *lists], out, "SliceOptions")

    def split(self, x, parts) -> list[int]:
        _, height, width, channels = self.shape(x)
        outs = [self.tensor((1, height, width, channels // parts), like=x) for _ in range(parts)]
        self.op("SPLIT", [self.constant(np.array(3, np.int32)), x], outs[0], "SplitOptions", num_splits=parts)
        self.operators[-1]["outputs"] = np.array(outs, np.int32)
        return outs

    def lrn(self, x) -> int:
        out = self.tensor(self.shape(x))
        return self.op(
            "LOCAL_RESPONSE_NORMALIZATION", [x], out, "LocalResponseNormalizationOptions",
            radius=2, bias=2.0, alpha=1e-2, beta=0.75, version=1,
        )  # fmt: skip

    def dilated(self, x, filters, kernel, dilation, depthwise=False) -> int:
        """SAME convolution with a dilation, as SPACE_TO_BATCH_ND, a dense one, BATCH_TO_SPACE_ND."""
        _, height, width, channels = self.shape(x)
        pads, crops = [], []
        for extent, k, d in zip((height, width), kernel, dilation, strict=True):
            total = d * (k - 1)
            surplus = -(extent + total) % d
            pads.append([total // 2, total - total // 2 + surplus])
            crops.append([0, surplus])
        padded = [e + sum(p) for e, p in zip((height, width), pads, strict=True)]
        seen = [p // d for p, d in zip(padded, dilation, strict=True)]
        batch = dilation[0] * dilation[1]
        block = self.constant(np.array(dilation, np.int32))
        spread = self.tensor((batch, *seen, channels), like=x)
        lists = [block, self.constant(np.array(pads, np.int32))]
        self.op("SPACE_TO_BATCH_ND", [x, *lists], spread, "SpaceToBatchNDOptions")
        dense = (
            self.depthwise(spread, 1, kernel, padding=VALID)
            if depthwise
            else self.conv(spread, filters, kernel, padding=VALID)
        )
        self.tensors[dense]["shape"][0] = batch
        out = self.tensor((1, height, width, self.shape(dense)[3]), like=dense)
        lists = [block, self.constant(np.array(crops, np.int32))]
        return self.op("BATCH_TO_SPACE_ND", [dense, *lists], out, "BatchToSpaceNDOptions")

    def float16_conv(self, x, filters, kernel) -> int:
        """With weights and bias that DEQUANTIZE makes of float16."""
        values = self.rng.normal(0, 1, (filters, *kernel, self.shape(x)[3])).astype(np.float16)
        bias = self.rng.normal(0, 1, filters).astype(np.float16)
        made = []
        for value in (values, bias):
            made.append(self.tensor(value.shape))
            self.op("DEQUANTIZE", [self.constant(value)], made[-1], "DequantizeOptions", version=2)
        _, height, width, _ = self.shape(x)
        out = self.tensor((1, height, width, filters))
        return self.op(
            "CONV_2D", [x, *made], out, "Conv2DOptions", stride_h=1, stride_w=1, fused_activation_function=RELU
        )

    def power(self, x, mean=True, by_product=True) -> int:
        """The sum or mean of squares over all pixels."""
        square = self.binary("MUL", x, x) if by_product else self.unary("SQUARE", x)
        total = self.tensor((1, 1, 1, self.shape(x)[3]))
        axes = self.constant(np.array([1, 2], np.int32))
        return self.op("MEAN" if mean else "SUM", [square, axes], total, "ReducerOptions", keep_dims=True)

    def excite(self, x) -> int:
        """Squeeze-and-excite: a mean over all pixels, a convolution of it, and the product with x."""
        channels = self.shape(x)[3]
        mean = self.tensor((1, 1, 1, channels), like=x)
        axes = self.constant(np.array([1, 2], np.int32))
        self.op("MEAN", [x, axes], mean, "ReducerOptions", keep_dims=True)
        scale = self.unary("LOGISTIC", self.conv(mean, channels, (1, 1)))
        return self.binary("MUL", x, scale)
