"""The one rule from a probability to what is stored, and from a threshold to what is changed."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiling.conventions import LEVELS, NODATA, PROBABILITY_SCALE, changed_level, level_of, lowest_changed

THRESHOLDS = st.floats(1e-9, 1 - 1e-9)


@given(THRESHOLDS)
def test_a_reader_of_the_mosaic_sees_the_same_changes(threshold: float) -> None:
    probabilities = np.arange(LEVELS + 1) * PROBABILITY_SCALE
    changed = np.arange(LEVELS + 1) >= changed_level(threshold)
    assert np.array_equal(changed, probabilities >= threshold - 1e-11)
    assert 1 <= changed_level(threshold) <= LEVELS < NODATA


@given(THRESHOLDS, st.floats(0, 1))
def test_a_probability_at_hand_is_judged_as_the_stored_one(threshold: float, probability: float) -> None:
    if abs(probability * LEVELS % 1 - 0.5) > 1e-9:  # halves go to the even level
        stored = level_of(np.float64(probability))
        assert (probability >= lowest_changed(threshold)) == (stored >= changed_level(threshold))
    assert abs(lowest_changed(threshold) - threshold) <= 0.5 / LEVELS + 1e-11 or threshold < 0.5 / LEVELS


def test_arrays_and_tensors_are_stored_alike() -> None:
    values = np.linspace(0, 1, 10_001, dtype=np.float32)
    assert np.array_equal(level_of(values), level_of(torch.from_numpy(values)).numpy())
    assert {level_of(values).min(), level_of(values).max()} == {0, LEVELS}
