"""Distances between precomputed embeddings against plain arithmetic on vectors, int8 quantised as documented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dasnet.baselines.embeddings import EMBEDDINGS, EmbeddingDistance
from dasnet.baselines.methods import fit, untrained_named
from dasnet.baselines.statistics import Names
from dasnet.errors import DegenerateStatisticsError, PredictorError

NAMES = Names(before="b.tif", after="a.tif", bands_before=("A00",), bands_after=("A00",))


def unit_vectors(random: np.random.Generator, bands: int, *shape: int) -> NDArray[np.float64]:
    vectors = random.normal(size=(bands, *shape))
    return vectors / np.linalg.norm(vectors, axis=0)


def quantised(vectors: NDArray[np.float64]) -> NDArray[np.int8]:
    """As the documentation of the Satellite Embedding has it: the root, its sign kept, times 127.5, rounded."""
    return np.clip(np.rint(np.sqrt(np.abs(vectors)) * np.sign(vectors) * 127.5), -127, 127).astype(np.int8)


def restored(stored: NDArray[np.int8]) -> NDArray[np.float64]:
    numbers = stored.astype(np.float64)
    return np.asarray((numbers / 127.5) ** 2 * np.sign(numbers))


def cosine_distance(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(before, axis=0) * np.linalg.norm(after, axis=0)
    return np.asarray(1 - np.einsum("c...,c...->...", before, after) / lengths)


@given(seed=st.integers(0, 2**32 - 1), bands=st.sampled_from([2, 64, 100]))
def test_distances_of_int8_are_those_of_what_it_stands_for(seed: int, bands: int) -> None:
    random = np.random.default_rng(seed)
    before, after = (quantised(unit_vectors(random, bands, 3, 5)) for _ in range(2))
    found = EMBEDDINGS["embedding-cosine"].statistic(before, after)
    np.testing.assert_allclose(found, cosine_distance(restored(before), restored(after)), atol=1e-12)
    found = EMBEDDINGS["embedding-l2"].statistic(before, after)
    np.testing.assert_allclose(found, ((restored(before) - restored(after)) ** 2).sum(axis=0), rtol=1e-12)


def test_quantisation_costs_little() -> None:
    random = np.random.default_rng(1)
    before, after = (unit_vectors(random, 64, 4000) for _ in range(2))
    for name, exact in (
        ("embedding-cosine", cosine_distance(before, after)),
        ("embedding-l2", ((before - after) ** 2).sum(axis=0)),
    ):
        found = EMBEDDINGS[name].statistic(quantised(before), quantised(after))
        assert np.abs(found - exact).max() < 0.03


def test_numbers_that_stand_for_themselves_are_not_dequantised() -> None:
    random = np.random.default_rng(2)
    before, after = (random.integers(-100, 101, (8, 50)).astype(np.int8) for _ in range(2))
    plain = EmbeddingDistance(name="plain", measure="cosine", source="", quantised=False)
    expected = cosine_distance(before.astype(float), after.astype(float))
    np.testing.assert_allclose(plain.statistic(before, after), expected, atol=1e-12)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_a_pixel_does_not_depend_on_its_neighbours(name: str) -> None:
    random = np.random.default_rng(3)
    before, after = (quantised(unit_vectors(random, 16, 173, 211)) for _ in range(2))
    whole = EMBEDDINGS[name].statistic(before, after)
    part = (slice(31, 90), slice(77, 200))
    assert np.array_equal(EMBEDDINGS[name].statistic(before[:, *part], after[:, *part]), whole[part])
    assert whole.min() > 0
    assert np.array_equal(EMBEDDINGS[name].statistic(after, before), whole)


def test_vectors_of_no_length_are_apart_from_any_other() -> None:
    before = np.array([[0.0, 0.0, 3.0], [0.0, 0.0, 4.0]])
    after = np.array([[0.0, 0.6, -3.0], [0.0, 0.8, -4.0]])
    assert EMBEDDINGS["embedding-cosine"].statistic(before, after).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_otsu_tells_changed_vectors_from_noise(name: str) -> None:
    random = np.random.default_rng(4)
    before = unit_vectors(random, 64, 80, 90)
    after = before + 0.03 * random.normal(size=before.shape)
    after /= np.linalg.norm(after, axis=0)
    changed = np.zeros((80, 90), dtype=bool)
    changed[10:30, 20:60] = True
    after[:, changed] = unit_vectors(random, 64, int(changed.sum()))
    method = untrained_named(name, threshold="otsu")
    pair = quantised(before), quantised(after)
    rows = (slice(0, 41), slice(41, 80))
    valid = np.ones((80, 90), dtype=bool)
    state = fit(method, lambda: [(pair[0][:, part], pair[1][:, part], valid[part]) for part in rows], NAMES)
    detector = method.detector(state)
    assert np.array_equal(detector.statistic(*pair, valid) >= detector.threshold, changed)


def test_dates_of_other_scales_are_refused_with_both_lengths() -> None:
    random = np.random.default_rng(5)
    before, after = (unit_vectors(random, 8, 20, 20) for _ in range(2))
    with pytest.raises(DegenerateStatisticsError, match=r"b\.tif are 1 long, those of a\.tif 100"):
        fit(EMBEDDINGS["embedding-l2"], lambda: [(before, 100 * after, np.ones((20, 20), dtype=bool))], NAMES)
    with pytest.raises(PredictorError, match="Otsu's"):
        untrained_named("embedding-l2", threshold="chi2")
