"""Which windows of a block are computed and which of them cover a pixel, held against loops over all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasnet.errors import PredictorError
from dasnet.prediction.block_windows import BlockWindows, Covering
from tiling.grid import Box, WindowLattice


@st.composite
def lattices(draw: st.DrawFn) -> WindowLattice:
    window = draw(st.integers(1, 12))
    return WindowLattice(
        height=draw(st.integers(1, 50)),
        width=draw(st.integers(1, 50)),
        window=window,
        overlap=draw(st.integers(0, window - 1)),
    )


@given(lattice=lattices(), data=st.data())
def test_a_pixel_is_covered_by_the_windows_that_reach_it_in_their_order(
    lattice: WindowLattice, data: st.DataObject
) -> None:
    starts, side = lattice.starts_y, lattice.window
    first = data.draw(st.integers(0, lattice.height - 1))
    pixels = slice(first, data.draw(st.integers(first + 1, lattice.height)))
    taper = np.linspace(0.1, 0.9, side, dtype=np.float32)
    covering = Covering.of(starts, taper=taper, pixels=pixels)
    for column, pixel in enumerate(range(pixels.start, pixels.stop)):
        expected = [(number, pixel - start) for number, start in enumerate(starts) if start <= pixel < start + side]
        there = covering.weight[:, column] > 0
        got = list(zip(covering.window[there, column], covering.offset[there, column], strict=True))
        assert got == expected
        assert covering.weight[there, column].tolist() == [taper[offset] for _, offset in expected]
        missing = set(zip(covering.window[~there, column], covering.offset[~there, column], strict=True))
        assert missing <= set(expected), "what stands in for no window is of the pixel itself"


def test_a_pixel_that_no_window_covers_has_no_weight() -> None:
    taper = np.ones(3, dtype=np.float32)
    covering = Covering.of(np.array([2, 9]), taper=taper, pixels=slice(0, 14))
    assert covering.weight.tolist() == [[0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0]]
    assert ((covering.window >= 0) & (covering.window < 2) & (covering.offset >= 0) & (covering.offset < 3)).all()
    assert Covering.of(np.array([2, 9]), taper=taper, pixels=slice(4, 4)).weight.shape == (1, 0)


@given(lattice=lattices(), data=st.data())
def test_windows_with_a_valid_pixel_are_computed_and_have_a_place_each(
    lattice: WindowLattice, data: st.DataObject
) -> None:
    grid = Box(y0=0, y1=lattice.height, x0=0, x1=lattice.width)
    read = lattice.read_box(grid)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    valid = random.random((read.height, read.width)) < data.draw(st.sampled_from([0.003, 0.02, 1.0]))
    origins = lattice.origins_touching(grid)
    origins = origins[random.random(len(origins)) < data.draw(st.sampled_from([0.5, 1.0]))]
    side = lattice.window
    expected = [(y, x) for y, x in origins.tolist() if valid[y : y + side, x : x + side].any()]
    windows = BlockWindows.of(random.permutation(origins), side=side, valid=valid)
    assert len(windows) == len(expected)
    corners, table = [], 0
    for band in windows.bands(data.draw(st.sampled_from([1, 7, 1000]))):
        there, places = windows.places(band)
        corners += there.tolist()
        rows = windows.starts_y[band]
        assert len(set(places.tolist())) == len(places)
        for (y, x), place in zip(there, places, strict=True):
            row, column = divmod(place, len(windows.starts_x))
            assert (rows[row], windows.starts_x[column]) == (y, x)
        table += len(rows)
    assert corners == [list(corner) for corner in expected]
    assert table == len(windows.starts_y)


def test_a_window_that_is_given_twice_or_lies_outside_is_refused() -> None:
    valid = np.ones((20, 30), dtype=bool)
    with pytest.raises(PredictorError, match="3 windows stand at 2 places"):
        BlockWindows.of(np.array([[0, 0], [0, 8], [0, 0]]), side=8, valid=valid)
    for outside in ([[0, 23]], [[13, 0]], [[-1, 0]]):
        with pytest.raises(PredictorError, match=r"do not lie in \(20, 30\) px"):
            BlockWindows.of(np.array(outside), side=8, valid=valid)
