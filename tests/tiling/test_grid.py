"""Properties of blocks and windows that the four promises stand on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.grid import BlockGrid, Box, WindowLattice

lengths = st.integers(1, 300)


@st.composite
def lattices(draw: st.DrawFn) -> WindowLattice:
    window = draw(st.integers(4, 64))
    overlap = draw(st.integers(0, window - 1))
    return WindowLattice(height=draw(lengths), width=draw(lengths), window=window, overlap=overlap)


@given(height=lengths, width=lengths, size=st.integers(1, 80))
def test_blocks_cover_every_pixel_once(height: int, width: int, size: int) -> None:
    grid = BlockGrid(height=height, width=width, size=size)
    counted = np.zeros((height, width), dtype=int)
    for block in grid:
        counted[block.box.rows, block.box.cols] += 1
        assert grid[block.index] == block == grid.named(block.name)
    assert (counted == 1).all()
    assert len(grid) == grid.rows * grid.cols


@given(lattice=lattices())
def test_windows_cover_every_pixel_and_stay_inside(lattice: WindowLattice) -> None:
    for starts, length in ((lattice.starts_y, lattice.height), (lattice.starts_x, lattice.width)):
        covered = np.zeros(max(length, lattice.window), dtype=int)
        for start in starts:
            covered[start : start + lattice.window] += 1
        assert (covered[:length] >= 1).all()
        assert starts[0] == 0
        assert (np.diff(starts) > 0).all()
        assert (np.diff(starts) <= lattice.stride).all()
        if length >= lattice.window:
            assert starts[-1] + lattice.window == length


@given(lattice=lattices(), size=st.integers(4, 120))
def test_a_block_computes_every_window_that_touches_it_and_reads_all_it_needs(
    lattice: WindowLattice, size: int
) -> None:
    everything = Box(y0=0, y1=lattice.height, x0=0, x1=lattice.width)
    windows = [
        Box(y0=y, y1=y + lattice.window, x0=x, x1=x + lattice.window)
        for y, x in lattice.origins_touching(everything).tolist()
    ]
    assert len(windows) == len(lattice)
    for block in BlockGrid(height=lattice.height, width=lattice.width, size=size):
        touching = [window for window in windows if window.intersects(block.box)]
        assert [(w.y0, w.x0) for w in touching] == [tuple(o) for o in lattice.origins_touching(block.box).tolist()]
        needed = lattice.read_box(block.box)
        assert (needed.y0, needed.x0) == (min(w.y0 for w in touching), min(w.x0 for w in touching))
        assert (needed.y1, needed.x1) == (max(w.y1 for w in touching), max(w.x1 for w in touching))
        assert needed.y0 <= block.box.y0
        assert needed.y1 >= block.box.y1


@given(window=st.integers(2, 64), share=st.floats(0, 0.5))
def test_regular_neighbours_blend_to_one(window: int, share: float) -> None:
    overlap = int(window * share)
    lattice = WindowLattice(height=5 * window, width=5 * window, window=window, overlap=overlap)
    assert lattice.taper.min() > 0
    assert lattice.taper.max() <= 1
    if overlap:
        assert np.allclose(lattice.taper[-overlap:] + lattice.taper[:overlap], 1, atol=1e-6)


def test_a_box_counts_from_another_one() -> None:
    inner = Box(y0=10, y1=20, x0=30, x1=50).relative_to(Box(y0=-5, y1=40, x0=10, x1=60))
    assert inner == Box(y0=15, y1=25, x0=20, x1=40)
    assert (inner.height, inner.width, inner.area) == (10, 20, 200)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Box(y0=3, y1=3, x0=0, x1=1),
        lambda: BlockGrid(height=0, width=5, size=2),
        lambda: WindowLattice(height=5, width=5, window=8, overlap=8),
        lambda: WindowLattice(height=5, width=5, window=8, overlap=-1),
        lambda: WindowLattice(height=0, width=5, window=8, overlap=0),
        lambda: BlockGrid(height=5, width=5, size=2).named("r00003c00000"),
        lambda: BlockGrid(height=5, width=5, size=2).named("t0/r00000c00000"),
    ],
)
def test_what_is_impossible_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        make()  # type: ignore[operator]
    with pytest.raises(IndexError):
        BlockGrid(height=5, width=5, size=2)[9]
