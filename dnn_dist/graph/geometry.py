# SPDX-License-Identifier: Apache-2.0
"""Which box of its input an op needs for a box of its output, and with which pads.

Seven geometries cover every op that can be tiled: Pointwise ops, a sliding Window, a Dilated one written as
three ops, a Transposed convolution, an explicit Pad, Upsample by whole factors and Downsample. Each answers
`need(output)` with a `Need`: the input box to crop, the pads to add on each side, and the output box that
comes of it, which holds the one asked for and is larger only where the op cannot be made to give less.

The formulas are those of Fused Tile Partitioning (DeepThings, eqs. 1-4) for one side at a time, with dilation
D: input [S*o1 - P, S*(o2 - 1) - P + D*(F - 1) + 1) for output [o1, o2), cut at the tensor's border, what was
cut becoming the pad of that side.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnn_dist.graph.region import Region

Pair = tuple[int, int]  # (along rows, along columns)
Span = tuple[int, int]  # half-open, along one axis


@dataclass(frozen=True, slots=True)
class Pads:
    """Rows and columns to add on each side."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    @property
    def any(self) -> bool:
        return bool(self.top or self.bottom or self.left or self.right)


@dataclass(frozen=True, slots=True)
class Need:
    """What an op takes and gives in one tile."""

    input: Region
    """The box to crop from every spatial input."""
    pads: Pads
    """What to add to the crop before the op runs without padding of its own."""
    output: Region
    """The box that comes of it."""
    same: bool = False
    """Whether the op keeps its SAME padding instead (it then pads the crop as it would pad the whole)."""


@dataclass(frozen=True, slots=True)
class Pointwise:
    """Each output pixel comes from the same pixel of each input, or from an input of one pixel."""

    def need(self, output: Region) -> Need:
        return Need(output, Pads(), output)


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window: convolution or pooling."""

    size: Pair
    """Of the whole input, rows and columns."""
    kernel: Pair
    stride: Pair
    dilation: Pair
    same: bool
    """SAME padding; otherwise VALID."""
    fill: str
    """What the pad is made of: "zero", "lowest" (max-pool), or "none": the op leaves it out of its mean."""

    def lead(self, axis: int) -> int:
        """Rows or columns of SAME padding before the first: half of all, rounded down, as in LiteRT."""
        size, stride = self.size[axis], self.stride[axis]
        return max(0, (-(-size // stride) - 1) * stride + self._reach(axis) - size) // 2 if self.same else 0

    def _reach(self, axis: int) -> int:
        """Rows or columns from a window's first tap to its last, both counted."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def output_size(self, axis: int) -> int:
        size, stride = self.size[axis], self.stride[axis]
        return -(-size // stride) if self.same else (size - self._reach(axis)) // stride + 1

    def need(self, output: Region) -> Need:
        y, top, bottom = self._span(0, output.y0, output.y1)
        x, left, right = self._span(1, output.x0, output.x1)
        pads = Pads(top, bottom, left, right)
        if pads.any and self.fill == "none":
            return self._need_same(y, x)
        return Need(Region(*y, *x), pads, output)

    def _span(self, axis: int, first: int, end: int) -> tuple[Span, int, int]:
        """(input span, pad before, pad after) for outputs [first, end) along one axis."""
        size = self.size[axis]
        start = self.stride[axis] * first - self.lead(axis)
        stop = self.stride[axis] * (end - 1) - self.lead(axis) + self._reach(axis)
        return (max(0, start), min(size, stop)), max(0, -start), max(0, stop - size)

    def _need_same(self, y: Span, x: Span) -> Need:
        """A mean that leaves the pad out cannot be padded by hand, so the op pads a crop that it takes for
        the whole.

        SAME's lead depends on the size modulo the stride only. A crop that starts at a multiple of the stride
        and whose size has the whole's remainder is therefore padded alike, and its windows fall where the
        whole's fall. Windows cut by a border of the crop that is none of the whole give wrong means: the tile
        slices those off.
        """
        spans, outputs = [], []
        for axis, (start, end) in enumerate((y, x)):
            size, stride = self.size[axis], self.stride[axis]
            start -= start % stride
            end += (size - (end - start)) % stride
            spans.append((start, end))
            outputs.append((start // stride, start // stride + -(-(end - start) // stride)))
        return Need(Region(*spans[0], *spans[1]), Pads(), Region(*outputs[0], *outputs[1]), same=True)


@dataclass(frozen=True, slots=True)
class Pad:
    """An explicit pad op: rows and columns around the whole."""

    size: Pair
    """Of the whole input."""
    pads: Pads

    def need(self, output: Region) -> Need:
        y, top, bottom, y_out = _pad_span(self.size[0], self.pads.top, output.y0, output.y1)
        x, left, right, x_out = _pad_span(self.size[1], self.pads.left, output.x0, output.x1)
        return Need(Region(*y, *x), Pads(top, bottom, left, right), Region(*y_out, *x_out))


def _pad_span(size: int, lead: int, first: int, end: int) -> tuple[Span, int, int, Span]:
    """(input span, pad before, pad after, output span); a tile of mere pad takes the nearest input."""
    first, end = min(first, lead + size - 1), max(end, lead + 1)
    start, stop = max(0, first - lead), min(size, end - lead)
    return (start, stop), max(0, lead - first), max(0, end - lead - size), (first, end)


@dataclass(frozen=True, slots=True)
class Upsample:
    """Each input pixel becomes a block of factor[0] x factor[1] output pixels."""

    size: Pair
    """Of the whole input."""
    factor: Pair
    halo: int = 0
    """Input pixels beyond its own on each side that a block depends on: 1 when it is interpolated."""

    def need(self, output: Region) -> Need:
        y, x = (
            (max(0, start // factor - self.halo), min(size, -(-end // factor) + self.halo))
            for size, factor, (start, end) in zip(self.size, self.factor, _spans(output), strict=True)
        )
        fy, fx = self.factor
        return Need(Region(*y, *x), Pads(), Region(y[0] * fy, y[1] * fy, x[0] * fx, x[1] * fx))


@dataclass(frozen=True, slots=True)
class Downsample:
    """Each output pixel comes from `block` input pixels, `step` from the next one's: a slice with strides,
    or space to depth.
    """

    start: Pair
    step: Pair
    block: Pair

    def need(self, output: Region) -> Need:
        y, x = (
            (start + step * first, start + step * (end - 1) + block)
            for start, step, block, (first, end) in zip(self.start, self.step, self.block, _spans(output), strict=True)
        )
        return Need(Region(*y, *x), Pads(), output)


@dataclass(frozen=True, slots=True)
class Transposed:
    """A transposed convolution: input pixel i adds to outputs [S*i - P, S*i - P + F).

    A tile takes every input that adds to its outputs, and gives all that those reach: the values at the rim
    lack what others would add, and are sliced off.
    """

    size: Pair
    """Of the whole input."""
    kernel: Pair
    stride: Pair
    lead: Pair
    """Output rows and columns cut off before the first that is kept."""

    def need(self, output: Region) -> Need:
        spans, reached = [], []
        for axis, (first, end) in enumerate(_spans(output)):
            kernel, stride, lead = self.kernel[axis], self.stride[axis], self.lead[axis]
            start = max(0, -(-(first + lead - kernel + 1) // stride))
            stop = min(self.size[axis], (end - 1 + lead) // stride + 1)
            if stop == start + 1:  # of one pixel the runtime computes a product with a vector, in another order
                stop = min(self.size[axis], stop + 1)
                start = max(0, stop - 2)
            spans.append((start, stop))
            reached.append((start * stride - lead, (stop - 1) * stride - lead + kernel))
        return Need(Region(*spans[0], *spans[1]), Pads(), Region(*reached[0], *reached[1]))


@dataclass(frozen=True, slots=True)
class Dilated:
    """A convolution with dilation D as SPACE_TO_BATCH, a dense one on D*D images, BATCH_TO_SPACE.

    A tile's padded crop is a whole number of D long; what that adds at its end, the last op crops again.
    """

    size: Pair
    """Of the whole input."""
    kernel: Pair
    dilation: Pair
    lead: Pair
    """Rows and columns of padding before the first."""

    def need(self, output: Region) -> Need:
        spans: list[Span] = []
        pads: list[int] = []
        for axis, (first, end) in enumerate(_spans(output)):
            size, dilation = self.size[axis], self.dilation[axis]
            start = first - self.lead[axis]
            length = end - first + dilation * (self.kernel[axis] - 1)
            stop = start + length + -length % dilation
            spans.append((max(0, start), min(size, stop)))
            pads.extend((max(0, -start), max(0, stop - size)))
        return Need(Region(*spans[0], *spans[1]), Pads(*pads), output)


def _spans(region: Region) -> tuple[Span, Span]:
    return (region.y0, region.y1), (region.x0, region.x1)


Geometry = Pointwise | Window | Dilated | Transposed | Pad | Upsample | Downsample
