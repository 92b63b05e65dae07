"""Moments and tallies against numpy on the whole; what cannot be used is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasnet.baselines.methods import UNTRAINED, fit, untrained_named
from dasnet.baselines.statistics import Moments, Tally, pixel_pairs, total
from dasnet.errors import DegenerateStatisticsError, PredictorError
from tests.dasnet.baselines.pairs import detector_of, names, two_dates

RANDOM = np.random.default_rng(7)


@given(st.data())
def test_moments_of_parts_are_those_of_the_whole_whatever_the_cut(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 1000))
    count = data.draw(st.integers(2, 200))
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(4, count)) * [[1], [10], [0.1], [3]] + [[1e6], [0], [-5], [300]]
    weights = random.random(count) if data.draw(st.booleans()) else None
    edges = sorted(data.draw(st.lists(st.integers(0, count), max_size=6)))
    cuts = list(zip([0, *edges], [*edges, count], strict=True))
    parts = [Moments.of(vectors[:, a:b], None if weights is None else weights[a:b]) for a, b in cuts]
    found = total(Tally(moments=(part,)) for part in parts).moments[0]
    np.testing.assert_allclose(found.weight, count if weights is None else weights.sum())
    np.testing.assert_allclose(found.mean, np.average(vectors, axis=1, weights=weights), rtol=1e-12, atol=1e-12)
    expected = np.cov(vectors, aweights=weights, ddof=0)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-8, atol=1e-9)


def test_a_large_offset_costs_no_digits() -> None:
    vectors = 1e7 + RANDOM.normal(size=(2, 5000))
    found = Moments.of(vectors[:, :2000]) + Moments.of(vectors[:, 2000:])
    np.testing.assert_allclose(found.covariance, np.cov(vectors - 1e7, ddof=0), rtol=1e-7)


def test_a_tally_survives_json_to_the_last_bit() -> None:
    vectors = RANDOM.normal(size=(5, 40))
    tally = Tally(moments=(Moments.of(vectors), Moments.of(vectors[:2])), counts=np.arange(9) * 10**15)
    back = Tally.unpack(json.loads(json.dumps(tally.pack())))
    assert np.array_equal(back.counts, tally.counts)
    for mine, theirs in zip(back.moments, tally.moments, strict=True):
        assert mine.weight == theirs.weight
        assert np.array_equal(mine.mean, theirs.mean)
        assert np.array_equal(np.triu(mine.scatter), np.triu(theirs.scatter))
        assert np.array_equal(mine.scatter, mine.scatter.T)


@pytest.mark.parametrize("name", UNTRAINED)
@settings(max_examples=6)
@given(rows=st.sets(st.sampled_from([4, 16, 20, 32, 48])), cols=st.sets(st.sampled_from([8, 24, 40])))
def test_statistics_of_sheets_are_those_of_the_whole_pair(name: str, rows: set[int], cols: set[int]) -> None:
    before, after, _ = two_dates(height=60, width=72)
    valid = np.ones((60, 72), dtype=bool)
    valid[3:11, 40:] = False
    whole = fit(UNTRAINED[name], lambda: [(before, after, valid)], names(3))
    boxes = [
        (slice(top, bottom), slice(left, right))
        for top, bottom in zip([0, *sorted(rows)], [*sorted(rows), 60], strict=True)
        for left, right in zip([0, *sorted(cols)], [*sorted(cols), 72], strict=True)
    ]
    sheets = [(before[:, *box], after[:, *box], valid[box]) for box in boxes]
    found = fit(UNTRAINED[name], lambda: sheets, names(3))
    assert found.passes == whole.passes
    one, other = UNTRAINED[name].detector(whole), UNTRAINED[name].detector(found)
    assert other.threshold == pytest.approx(one.threshold, rel=1e-9)
    np.testing.assert_allclose(
        other.statistic(before, after, valid)[valid], one.statistic(before, after, valid)[valid], rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize("name", UNTRAINED)
def test_degenerate_pairs_are_refused_by_name(name: str) -> None:
    method = UNTRAINED[name]
    before, after, _ = two_dates()
    constant = after.copy()
    constant[1] = 7
    with pytest.raises(DegenerateStatisticsError, match=r"band b2 of new\.tif has one value, 7"):
        detector_of(method, before, constant)
    with pytest.raises(DegenerateStatisticsError, match=r"no pixel is valid in both old\.tif and new\.tif"):
        detector_of(method, before, after, np.zeros(before.shape[1:], dtype=bool))
    huge = before.copy()
    huge[0, 0, 0] = 1e200
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(DegenerateStatisticsError, match="so large"):
        detector_of(method, huge, after)
    with pytest.raises(DegenerateStatisticsError, match=r"between old\.tif and new\.tif make one cluster"):
        detector_of(method, before, before)


def test_bands_that_determine_one_another_are_named() -> None:
    before, after, _ = two_dates(4)
    before[3] = 2 * before[0] - before[2] + 5
    with pytest.raises(DegenerateStatisticsError) as refused:
        detector_of(UNTRAINED["irmad"], before, after)
    assert "singular" in str(refused.value)
    assert "band b1 of old.tif, band b3 of old.tif, band b4 of old.tif determine" in str(refused.value)
    after[3] = 2 * after[0] - after[2] + 5
    for name in ("sfa", "isfa"):
        # standardised, the relation is another one at each date: only one that both share is singular there
        shared_before, shared_after = before.copy(), after.copy()
        shared_before[3], shared_after[3] = shared_before[0], shared_after[0]
        with pytest.raises(DegenerateStatisticsError, match="in both dates: band b1, band b4 determine"):
            detector_of(UNTRAINED[name], shared_before, shared_after)


def test_patches_are_needed_for_patches() -> None:
    before, after, _ = two_dates(height=9, width=40)
    valid = np.zeros((9, 40), dtype=bool)
    valid[::3] = True
    with pytest.raises(DegenerateStatisticsError, match="no patch of 4 × 4 pixels is valid in both"):
        detector_of(UNTRAINED["pca-kmeans"], before, after, valid)


def test_thresholds_that_a_method_does_not_have_are_refused() -> None:
    assert untrained_named("cva", threshold="otsu") is UNTRAINED["cva"]
    for name, threshold in (("cva", "chi2"), ("pca-kmeans", "chi2"), ("pca-kmeans", "otsu")):
        with pytest.raises(PredictorError, match=f"{name} knows no threshold '{threshold}'"):
            untrained_named(name, threshold=threshold)  # type: ignore[arg-type]


def test_pixel_pairs_are_both_dates_of_the_valid_pixels() -> None:
    before, after = np.arange(8, dtype=np.uint8).reshape(2, 2, 2), np.arange(8, 16, dtype=np.uint8).reshape(2, 2, 2)
    pairs = pixel_pairs(before, after, np.array([[True, False], [False, True]]))
    assert pairs.tolist() == [[0, 3], [4, 7], [8, 11], [12, 15]]
