# SPDX-License-Identifier: Apache-2.0
"""Geometry against brute force, and against the published figures of Fused Tile Partitioning."""

import numpy as np
import pytest
from cutting import EXAMPLES
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dnn_dist.cut.memory import stage_memory
from dnn_dist.cut.tiles import cut_tiles
from dnn_dist.cut.walk import walk_tile
from dnn_dist.graph.geometry import Pad, Pads, Upsample, Window
from dnn_dist.graph.region import Region

MIB = 2**20


def windows(size, kernel, stride, dilation, same):
    return Window((size, 1), (kernel, 1), (stride, 1), (dilation, 1), same, "zero")


@settings(max_examples=10 * EXAMPLES, derandomize=True, deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_window_needs_what_its_taps_touch(data, size, kernel, stride, dilation, same):
    """The rows that any tap of any asked-for window touches, those outside the image being the pads."""
    window = windows(size, kernel, stride, dilation, same)
    outputs = window.output_size(0)
    assume(outputs > 0)
    first = data.draw(st.integers(0, outputs - 1))
    end = data.draw(st.integers(first + 1, outputs))
    reach = dilation * (kernel - 1) + 1
    total = max(0, (outputs - 1) * stride + reach - size) if same else 0
    touched = [o * stride - total // 2 + k * dilation for o in range(first, end) for k in range(kernel)]
    need = window.need(Region(first, end, 0, 1))
    assert (need.input.y0, need.input.y1) == (max(0, min(touched)), min(size, max(touched) + 1))
    assert need.pads.top == max(0, -min(touched))
    assert need.pads.bottom == max(0, max(touched) + 1 - size)
    assert need.output == Region(first, end, 0, 1)
    # and so the tile alone gives exactly its own outputs
    padded = need.input.height + need.pads.top + need.pads.bottom
    assert (padded - reach) // stride + 1 == end - first


@settings(max_examples=10 * EXAMPLES, derandomize=True, deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 7), st.integers(1, 3))
def test_mean_over_a_crop_is_padded_as_over_the_whole(data, size, kernel, stride):
    window = Window((size, 1), (kernel, 1), (stride, 1), (1, 1), True, "none")
    outputs = window.output_size(0)
    first = data.draw(st.integers(0, outputs - 1))
    end = data.draw(st.integers(first + 1, outputs))
    need = window.need(Region(first, end, 0, 1))
    assert need.output.contains(Region(first, end, 0, 1))
    crop = Window((need.input.height, 1), (kernel, 1), (stride, 1), (1, 1), need.same, "none")
    assert crop.output_size(0) == need.output.height
    for output in range(first, end):
        rows = set(range(output * stride - window.lead(0), output * stride - window.lead(0) + kernel))
        start = (output - need.output.y0) * stride - crop.lead(0) + need.input.y0
        seen = {r for r in range(start, start + kernel) if need.input.y0 <= r < need.input.y1}
        assert seen == {r for r in rows if 0 <= r < size}


@given(st.data(), st.integers(1, 12), st.integers(0, 5), st.integers(0, 5))
def test_pad_gives_what_the_whole_gives(data, size, top, bottom):
    whole = np.pad(np.arange(1, size + 1), (top, bottom))
    first = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(first + 1, len(whole)))
    need = Pad((size, 1), Pads(top, bottom, 0, 0)).need(Region(first, end, 0, 1))
    assert not need.input.empty
    tile = np.pad(np.arange(1, size + 1)[need.input.slices[0]], (need.pads.top, need.pads.bottom))
    assert need.output.contains(Region(first, end, 0, 1))
    assert (tile == whole[need.output.slices[0]]).all()


@given(st.data(), st.integers(1, 12), st.integers(1, 5))
def test_upsample_gives_what_the_whole_gives(data, size, factor):
    whole = np.repeat(np.arange(size), factor)
    first = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(first + 1, len(whole)))
    need = Upsample((size, 1), (factor, 1)).need(Region(first, end, 0, 1))
    assert need.output.contains(Region(first, end, 0, 1))
    assert (np.repeat(np.arange(size)[need.input.slices[0]], factor) == whole[need.output.slices[0]]).all()


@pytest.mark.parametrize(
    ("grid", "input_mib", "work_ratio", "traffic_mib"),
    [(2, 6.03, 1.247, None), (3, 8.15, 1.529, 13.79), (4, 10.59, 1.845, 16.23), (5, 13.35, 2.196, 18.99)],
)
def test_published_figures_of_yolov2(yolov2, grid, input_mib, work_ratio, traffic_mib):
    """DeepThings, figure 12, and what follows from its equations; float32 throughout."""
    stage = cut_tiles(yolov2, (grid, grid))
    assert sum(op.weight_bytes for op in yolov2.ops) / MIB == pytest.approx(13.04, abs=0.02)
    inputs = sum(port.bytes for piece in stage.pieces for port in piece.inputs)
    outputs = sum(port.bytes for piece in stage.pieces for port in piece.outputs)
    assert inputs / MIB == pytest.approx(input_mib, abs=0.01)
    assert sum(piece.macs for piece in stage.pieces) / yolov2.macs == pytest.approx(work_ratio, abs=0.001)
    if traffic_mib:
        frame = yolov2.tensors[yolov2.inputs[0]].bytes
        assert (frame + inputs + outputs) / MIB == pytest.approx(traffic_mib, abs=0.01)


@pytest.mark.parametrize(
    ("grid", "largest_mib", "saving", "layer_saving"),
    [(3, 29.06, 0.58, 0.69), (4, 24.66, None, None), (5, 22.12, 0.68, 0.79)],
)
def test_published_memory_of_yolov2(yolov2, grid, largest_mib, saving, layer_saving):
    """DeepThings, sections V and VI: weights and the largest layer of any tile; the mean over layers."""
    memory = stage_memory(yolov2, cut_tiles(yolov2, (grid, grid)))
    assert memory.weights / MIB == pytest.approx(13.04, abs=0.02)
    assert memory.whole / MIB == pytest.approx(69.5, abs=0.1)
    assert memory.piece / MIB == pytest.approx(largest_mib, abs=0.1)
    if saving:
        assert memory.saving == pytest.approx(saving, abs=0.01)
        assert memory.layer_saving == pytest.approx(layer_saving, abs=0.01)


def test_balanced_tiles_of_yolov2(yolov2):
    """The dearest tile of 5 x 5 costs less; the work together, and what is sent, stay what they were."""
    even, balanced = (cut_tiles(yolov2, (5, 5), balanced=b) for b in (False, True))
    dearest, evened = (max(piece.macs for piece in s.pieces) / yolov2.macs for s in (even, balanced))
    assert dearest == pytest.approx(0.110, abs=0.001) and evened == pytest.approx(0.094, abs=0.001)
    work, after = (sum(piece.macs for piece in s.pieces) for s in (even, balanced))
    assert after == pytest.approx(work, rel=0.001)
    assert min(piece.macs for piece in balanced.pieces) / yolov2.macs > 0.75 * evened


def test_two_groups_do_less_work_twice(yolov2):
    """In two groups, the first up to the third pool: 1.45 times the work and not 2.20, for 18.1 MB and not 15.5."""
    third = [op.index for op in yolov2.ops if op.kind == "MAX_POOL_2D"][2]
    groups = [cut_tiles(yolov2, (5, 5), 0, third), cut_tiles(yolov2, (5, 5), third + 1)]
    pieces = [piece for stage in groups for piece in stage.pieces]
    assert sum(piece.macs for piece in pieces) / yolov2.macs == pytest.approx(1.45, abs=0.01)
    traffic = sum(port.bytes for piece in pieces for port in (*piece.inputs, *piece.outputs))
    assert traffic / 1e6 == pytest.approx(18.1, abs=0.05)


def test_published_crops_of_yolov2(yolov2):
    """DeepThings' tiles are ceil(38 / parts) wide; the crops follow from the tiles alone."""
    frame, output = yolov2.inputs[0], yolov2.outputs[0]

    def crops(width):
        tiles = [(x, min(38, x + width)) for x in range(0, 38, width)]
        last = len(yolov2.ops) - 1
        regions = [walk_tile(yolov2, 0, last, {output: Region(0, 38, *x)}).inputs[frame] for x in tiles]
        return [(region.x0, region.x1 - 1) for region in regions]

    assert crops(13) == [(0, 266), (149, 474), (357, 607)]
    assert crops(8) == [(0, 186), (69, 314), (197, 442), (325, 570), (453, 607)]
