"""Chosen cells against a mask of the whole grid, pixel by pixel."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.chosen import ChosenCells, with_passed_over
from tiling.conventions import NODATA, PASSED_OVER
from tiling.grid import BlockGrid, Box, WindowLattice


@st.composite
def choices(draw: st.DrawFn) -> tuple[ChosenCells, np.ndarray]:
    """Chosen cells, and the same as a mask (h, w)."""
    height, width, size = draw(st.integers(1, 90)), draw(st.integers(1, 90)), draw(st.integers(1, 40))
    lattice = BlockGrid(height=height, width=width, size=size)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    chosen = random.random(len(lattice)) < draw(st.floats(0, 1))
    mask = np.zeros((height, width), dtype=bool)
    for cell in lattice:
        mask[cell.box.rows, cell.box.cols] = chosen[cell.index]
    return ChosenCells.of(lattice, chosen), mask


@given(choices(), st.integers(8, 120), st.integers(1, 60), st.integers(0, 20))
def test_chosen_cells_bring_their_windows_and_what_no_other_window_covers(
    choice: tuple[ChosenCells, np.ndarray], size: int, window: int, overlap: int
) -> None:
    chosen, mask = choice
    height, width = mask.shape
    lattice = WindowLattice(height=height, width=width, window=window, overlap=min(overlap, window - 1))
    origins = lattice.origins_touching(Box(y0=0, y1=height, x0=0, x1=width))
    touched = [bool(mask[y : y + window, x : x + window].any()) for y, x in origins]
    assert chosen.touched_by(origins, window).tolist() == touched
    missing = np.zeros((height + window, width + window), dtype=int)
    for (y, x), is_touched in zip(origins, touched, strict=True):
        missing[y : y + window, x : x + window] += not is_touched
    for block in BlockGrid(height=height, width=width, size=size):
        within = lattice.read_box(block.box)
        computed, whole = chosen.part_of(lattice, block.box, within=within)
        inner = block.box.relative_to(within)
        assert np.array_equal(whole[inner.rows, inner.cols], missing[block.box.rows, block.box.cols] == 0)
        assert (whole[inner.rows, inner.cols] >= mask[block.box.rows, block.box.cols]).all()
        boxes = [Box(y0=y, y1=y + window, x0=x, x1=x + window) for y, x in origins[np.array(touched)].tolist()]
        assert computed.tolist() == [[w.y0, w.x0] for w in boxes if w.intersects(block.box)]


@given(choices())
def test_a_choice_survives_its_file(choice: tuple[ChosenCells, np.ndarray]) -> None:
    chosen, _ = choice
    assert ChosenCells.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen


@pytest.mark.parametrize("damage", [{"chosen": "AAAA"}, {"chosen": "?"}, {"cell": 0}])
def test_a_damaged_choice_is_an_error(damage: dict[str, Any]) -> None:
    stored = ChosenCells.of(BlockGrid(height=10, width=10, size=4), np.ones(9, dtype=bool)).to_dict()
    with pytest.raises(ValueError, match=r"."):
        ChosenCells.from_dict({**stored, **damage})
    with pytest.raises(ValueError, match="8 cells are no 3 × 3"):
        ChosenCells.of(BlockGrid(height=10, width=10, size=4), np.ones(8, dtype=bool))


def test_passed_over_computed_and_nodata_stay_apart() -> None:
    probability = np.array([[[0, 7, 254, 255, 255, 3]]], dtype=np.uint8)
    valid = np.array([[[True, True, True, False, True, True]]])
    chosen = np.array([[True, True, True, True, False, False]])
    stored = with_passed_over(probability, valid=valid, chosen=chosen)
    assert stored.tolist() == [[[1, 7, 254, NODATA, PASSED_OVER, PASSED_OVER]]]
    assert with_passed_over(probability, valid=~valid, chosen=~chosen)[0, 0, 4] == NODATA
