"""Means over blocks of pixels and statistics of cells, against loops over every pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasnet.baselines.coarse import SHARE_SEEN, block_means, cell_statistics


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    factor=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["uint8", "uint16", "float32", "int8"]),
)
def test_means_are_of_valid_pixels(height: int, width: int, factor: int, seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    before, after = ((100 * random.normal(size=(3, height, width))).astype(kind) for _ in range(2))
    valid = random.random((height, width)) < 0.6
    coarse_before, coarse_after, there = block_means(before, after, valid, factor)
    assert there.shape == (-(-height // factor), -(-width // factor))
    for y, x in np.ndindex(there.shape):
        block = (slice(y * factor, (y + 1) * factor), slice(x * factor, (x + 1) * factor))
        assert there[y, x] == valid[block].any()
        if there[y, x]:
            for image, found in ((before, coarse_before), (after, coarse_after)):
                expected = image[:, *block][:, valid[block]].astype(np.float64).mean(axis=1)
                np.testing.assert_allclose(found[:, y, x], expected, rtol=1e-9, atol=1e-9)


def test_means_do_not_depend_on_where_strips_are_cut() -> None:
    random = np.random.default_rng(1)
    before, after = (random.normal(size=(2, 37, 53)).astype(np.float32) for _ in range(2))
    valid = random.random((37, 53)) < 0.9
    whole = block_means(before, after, valid)
    parts = [block_means(before[:, y : y + 8], after[:, y : y + 8], valid[y : y + 8]) for y in range(0, 37, 8)]
    for number in range(3):
        assert np.array_equal(np.concatenate([part[number] for part in parts], axis=-2), whole[number])


def test_a_cell_has_what_the_most_different_of_its_pixels_reach() -> None:
    random = np.random.default_rng(2)
    statistic, valid = random.gamma(1, size=(50, 70)), random.random((50, 70)) < 0.5
    valid[:16, :16] = False
    statistic[~valid] = np.nan
    cells = cell_statistics(statistic, valid, side=16)
    assert cells.shape == (4, 5)
    assert np.isnan(cells[0, 0])
    for row, col in np.ndindex(cells.shape):
        seen = statistic[row * 16 : (row + 1) * 16, col * 16 : (col + 1) * 16]
        seen = seen[np.isfinite(seen)]
        if seen.size:
            reached = np.mean(seen >= cells[row, col])
            assert SHARE_SEEN <= reached < SHARE_SEEN + 1 / seen.size + 1e-12


def test_one_pixel_is_a_cell() -> None:
    assert cell_statistics(np.array([[3.0]]), np.array([[True]]), side=32) == pytest.approx(np.array([[3.0]]))
