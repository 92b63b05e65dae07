"""Each method without training against another way to the same numbers, or against what the papers prove of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.linalg import eigh
from scipy.spatial.distance import mahalanobis
from scipy.stats import chi2
from skimage.filters import threshold_otsu
from sklearn.cluster import KMeans
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from sklearn.metrics import cohen_kappa_score

from dasnet.baselines.detector import levels, probability
from dasnet.baselines.irmad import mad
from dasnet.baselines.methods import UNTRAINED, untrained_named
from dasnet.baselines.predictor import UntrainedPredictor
from dasnet.baselines.sfa import slow_features
from dasnet.baselines.statistics import Moments
from dasnet.baselines.untrained import UntrainedMethod
from dasnet.errors import PredictorError
from dasnet.metrics import Confusion
from tests.dasnet.baselines.pairs import detector_of, names, statistic_of, two_dates


def flat(before: NDArray[Any], after: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return before.reshape(len(before), -1).astype(float), after.reshape(len(after), -1).astype(float)


def test_change_vectors_of_four_pixels_by_hand() -> None:
    """Band 1: 0 0 4 4 then 1 1 3 3; band 2: 2 6 2 6 then 2 6 6 2. Means 2, 4, 2, 4; deviations 2, 2, 1, 2."""
    before = np.array([[[0, 0, 4, 4]], [[2, 6, 2, 6]]], dtype=np.uint8)
    after = np.array([[[1, 1, 3, 3]], [[2, 6, 6, 2]]], dtype=np.uint8)
    # standardised: −1 −1 1 1 at both dates; −1 1 −1 1 then −1 1 1 −1, so two pixels move by (0, ±2): 4 over 2 bands
    np.testing.assert_allclose(statistic_of(UNTRAINED["cva"], before, after), [[0, 0, 2, 2]], atol=1e-15)


def test_otsus_threshold_is_that_of_scikit_image() -> None:
    before, after, _ = two_dates()
    detector = detector_of(UNTRAINED["cva"], before, after)
    sizes = np.sqrt(detector.statistic(before, after, np.ones(before.shape[1:], dtype=bool)))
    bins = np.floor(sizes * 256)  # 4096 bins up to 16
    assert np.sqrt(detector.threshold) * 256 == threshold_otsu(bins, nbins=int(bins.max() - bins.min()) + 1) // 1 + 1


def test_canonical_correlations_are_those_of_scikit_learn_and_of_the_eigenproblem() -> None:
    x, y = flat(*two_dates(4)[:2])
    fit = mad(Moments.of(np.vstack([x, y])), names(4))
    sxx, syy, sxy = np.cov(x, ddof=0), np.cov(y, ddof=0), np.cov(x, y, ddof=0)[:4, 4:]
    squares, vectors = eigh(sxy @ np.linalg.solve(syy, sxy.T), sxx)
    np.testing.assert_allclose(fit.spectrum, np.sqrt(squares)[::-1], rtol=1e-9)
    u, v = CCA(n_components=4, scale=False, tol=1e-14, max_iter=20_000).fit_transform(x.T, y.T)
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(u.T, v.T, strict=True)]
    np.testing.assert_allclose(fit.spectrum, correlations, atol=1e-6)
    # the differences of the variates, which the eigenvectors give but for their sign
    first = vectors[:, ::-1].T @ (x - x.mean(axis=1, keepdims=True))
    second = (np.linalg.solve(syy, sxy.T @ vectors[:, ::-1]) / np.sqrt(squares[::-1])).T @ (
        y - y.mean(axis=1, keepdims=True)
    )
    expected = np.square((first - second) / np.sqrt(2 * (1 - fit.spectrum))[:, None]).sum(axis=0)
    np.testing.assert_allclose(fit.length.of(x, y), expected, rtol=1e-7)


def test_mad_variates_are_uncorrelated_and_of_unit_variance() -> None:
    x, y = flat(*two_dates(4)[:2])
    length = mad(Moments.of(np.vstack([x, y])), names(4)).length
    variates = length.matrix @ np.vstack([x, y])
    np.testing.assert_allclose(np.cov(variates, ddof=0), np.eye(4), atol=1e-9)


def reweighted(before: NDArray[Any], after: NDArray[Any], kind: str) -> NDArray[np.float64]:
    """IR-MAD and iterated slow features once more, with whole arrays and generalised eigenproblems alone."""
    x, y = flat(before, after)
    bands = len(x)
    weights, last = np.ones(x.shape[1]), np.full(bands, 9.0)
    while True:
        covariance = np.cov(np.vstack([x, y]), aweights=weights, ddof=0)
        means = np.average(np.vstack([x, y]), axis=1, weights=weights)[:, None]
        a, b = x - means[:bands], y - means[bands:]
        sxx, syy, sxy = covariance[:bands, :bands], covariance[bands:, bands:], covariance[:bands, bands:]
        if kind == "irmad":
            squares, vectors = eigh(sxy @ np.linalg.solve(syy, sxy.T), sxx)
            spectrum = np.sqrt(squares)
            other = np.linalg.solve(syy, sxy.T @ vectors) / spectrum
            parts = (vectors.T @ a - other.T @ b) / np.sqrt(2 * (1 - spectrum))[:, None]
        else:
            a, b = a / np.sqrt(np.diag(sxx))[:, None], b / np.sqrt(np.diag(syy))[:, None]
            spread = np.cov(a - b, aweights=weights, ddof=0)
            both = (np.cov(a, aweights=weights, ddof=0) + np.cov(b, aweights=weights, ddof=0)) / 2
            spectrum, vectors = eigh(spread, both)
            parts = vectors.T @ (a - b) / np.sqrt(spectrum)[:, None]
        statistic = np.square(parts).sum(axis=0)
        if np.abs(spectrum - last).max() <= 1e-3:
            return statistic.reshape(before.shape[1:])
        last, weights = spectrum, chi2.sf(statistic, bands)


@pytest.mark.parametrize("name", ["irmad", "isfa"])
def test_iterated_methods_are_their_definition_on_whole_arrays(name: str) -> None:
    before, after, _ = two_dates(4)
    np.testing.assert_allclose(
        statistic_of(UNTRAINED[name], before, after), reweighted(before, after, name), rtol=1e-5, atol=1e-8
    )


@settings(max_examples=8)
@given(st.integers(0, 10_000))
def test_irmad_is_blind_to_affine_changes_of_either_date(seed: int) -> None:
    random = np.random.default_rng(seed)
    before, after, _ = two_dates(3)
    original = statistic_of(UNTRAINED["irmad"], before, after)

    def mixed(image: NDArray[np.float64]) -> NDArray[np.float64]:
        turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
        mixture = turn @ np.diag(random.uniform(0.05, 50, 3)) @ turn.T
        return np.einsum("ij,jyx->iyx", mixture, image) + random.normal(size=(3, 1, 1)) * 1000

    np.testing.assert_allclose(
        statistic_of(UNTRAINED["irmad"], mixed(before), mixed(after)), original, rtol=1e-5, atol=1e-8
    )


def test_change_vectors_and_slow_features_are_blind_to_gain_and_offset_of_each_band() -> None:
    before, after, _ = two_dates(3)
    gain, offset = np.array([0.1, 3, 40])[:, None, None], np.array([5, -100, 0])[:, None, None]
    for name in ("cva", "pca-kmeans", "sfa", "isfa"):
        np.testing.assert_allclose(
            statistic_of(UNTRAINED[name], before * gain + offset, after),
            statistic_of(UNTRAINED[name], before, after),
            rtol=1e-6,
            atol=1e-9,
        )


def test_slow_features_sum_to_the_mahalanobis_distance_of_the_standardised_difference() -> None:
    x, y = flat(*two_dates(4)[:2])
    fit = slow_features(Moments.of(np.vstack([x, y])), names(4))
    difference = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True) - (
        y - y.mean(axis=1, keepdims=True)
    ) / y.std(axis=1, keepdims=True)
    inverse = np.linalg.inv(np.cov(difference, ddof=0))
    expected = [mahalanobis(pixel, np.zeros(4), inverse) ** 2 for pixel in difference.T]
    np.testing.assert_allclose(fit.length.of(x, y), expected, rtol=1e-9)
    assert (np.diff(fit.spectrum) >= 0).all(), "slowest first"


@pytest.mark.parametrize("name", ["irmad", "sfa", "isfa"])
def test_chi2_calls_one_unchanged_pixel_in_a_hundred_changed(name: str) -> None:
    random = np.random.default_rng(3)
    before = random.normal(100, 20, (2, 400, 400))
    after = before + random.normal(0, 5, before.shape)
    # reweighting narrows what is taken for unchanged: one fit is where χ² is exact
    method: Any = untrained_named(name, threshold="chi2")
    once = type(method)(**{**vars(method), "most_fits": 1})
    detector = detector_of(once, before, after)
    assert detector.threshold == pytest.approx(9.2103, abs=1e-4)  # −2 ln 0.01
    there = np.ones(before.shape[1:], dtype=bool)
    assert np.mean(detector.statistic(before, after, there) >= detector.threshold) == pytest.approx(0.01, abs=0.001)


def test_reweighting_brings_the_change_out() -> None:
    before, after, changed = two_dates(3, height=200, width=200)
    for plain, iterated in (("sfa", "isfa"),):
        contrast = [
            np.median(found[changed]) / np.median(found[~changed])
            for found in (statistic_of(UNTRAINED[name], before, after) for name in (plain, iterated))
        ]
        assert contrast[1] > 2 * contrast[0]


def test_one_changed_square_is_found_by_pca_and_kmeans() -> None:
    random = np.random.default_rng(5)
    before = random.integers(90, 110, (1, 64, 64)).astype(np.uint8)
    after = before + random.integers(0, 3, before.shape).astype(np.uint8)
    after[0, 24:40, 12:36] = 220
    detector = detector_of(UNTRAINED["pca-kmeans"], before, after)
    called = detector.statistic(before, after, np.ones((64, 64), dtype=bool)) >= detector.threshold
    assert called[26:39, 14:35].all(), "all but its rim"
    outside = np.ones((64, 64), dtype=bool)
    outside[22:42, 10:38] = False
    assert not called[outside].any()


def test_pca_and_kmeans_are_those_of_scikit_learn() -> None:
    """On the patches side by side, with components and clusters by scikit-learn."""
    before, after, _ = two_dates(2, height=96, width=96)
    x, y = flat(before, after)
    scaled = [(v - v.mean(axis=1, keepdims=True)) / v.std(axis=1, keepdims=True) for v in (x, y)]
    size = np.sqrt(np.square(scaled[0] - scaled[1]).mean(axis=0)).reshape(96, 96)
    patches = size.reshape(24, 4, 24, 4).transpose(0, 2, 1, 3).reshape(-1, 16)
    features = PCA(n_components=0.9, svd_solver="full").fit_transform(patches)
    clusters = KMeans(2, n_init=10, random_state=0).fit_predict(features)
    changed = clusters == int(patches[clusters == 1].mean() > patches[clusters == 0].mean())
    detector = detector_of(UNTRAINED["pca-kmeans"], before, after)
    called = detector.statistic(before, after, np.ones((96, 96), dtype=bool)) >= detector.threshold
    # the pixel whose patch this is
    assert cohen_kappa_score(called[2::4, 2::4].ravel(), changed) > 0.97


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_changed_rectangle_is_found_in_any_type_of_values(name: str) -> None:
    before, after, changed = two_dates(3, height=120, width=120, seed=4)
    whole = [np.clip(np.round(date + 100), 0, 65535).astype(np.uint16) for date in (before, after)]
    integer = statistic_of(UNTRAINED[name], *whole)
    detector = detector_of(UNTRAINED[name], *whole)
    called = integer >= detector.threshold
    assert (called & changed).sum() / (called | changed).sum() > 0.5
    floats = [date.astype(np.float32) for date in whole]
    assert np.array_equal(statistic_of(UNTRAINED[name], *floats), integer)


@pytest.mark.parametrize("name", ["irmad", "isfa"])
def test_what_agrees_to_the_last_digit_is_unchanged_and_nothing_else(name: str) -> None:
    """Canonical correlations of 1, slowness of 0: an edit pasted into a copy of the image."""
    before, after, changed = two_dates(3)
    pasted = np.where(changed, after, before)
    detector = detector_of(UNTRAINED[name], before, pasted)
    assert np.array_equal(detector.statistic(before, pasted, ~changed) >= detector.threshold, changed)


@pytest.mark.parametrize("name", UNTRAINED)
def test_one_band_is_enough(name: str) -> None:
    before, after, changed = two_dates(1, height=120, width=120)
    found = statistic_of(UNTRAINED[name], before, after)
    assert np.median(found[changed]) > 3 * np.median(found[~changed])


@pytest.mark.parametrize("name", UNTRAINED)
def test_what_nodata_holds_says_nothing(name: str) -> None:
    before, after, _ = two_dates(3)
    valid = np.ones(before.shape[1:], dtype=bool)
    valid[10:23, 5:18] = False
    found = statistic_of(UNTRAINED[name], before, after, valid)
    wild_before, wild_after = before.copy(), after.copy()
    wild_before[:, ~valid], wild_after[:, ~valid] = 5e4, -1e5
    assert np.array_equal(statistic_of(UNTRAINED[name], wild_before, wild_after, valid)[valid], found[valid])


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_pixels_bits_do_not_depend_on_where_the_array_is_cut(name: str) -> None:
    method: UntrainedMethod = UNTRAINED[name]
    before, after, _ = two_dates(3, height=61, width=73)
    there = np.ones((61, 73), dtype=bool)
    there[30, 20:40] = False
    detector = detector_of(method, before, after, there)
    whole = detector.statistic(before, after, there)
    halo = method.halo
    for top, left, height, width in ((0, 0, 5, 7), (13, 29, 17, 23), (50, 60, 11, 13), (31, 0, 1, 73)):
        y0, x0 = max(top - halo, 0), max(left - halo, 0)
        wide = (slice(y0, top + height + halo), slice(x0, left + width + halo))
        part = detector.statistic(before[:, *wide], after[:, *wide], there[wide])
        inner = part[top - y0 : top - y0 + height, left - x0 : left - x0 + width]
        assert np.array_equal(inner, whole[top : top + height, left : left + width])


def test_levels_rise_with_the_statistic_and_meet_the_threshold() -> None:
    statistic = np.concatenate([[0.0], np.geomspace(1e-6, 1e9, 2000)])
    stored = levels(statistic, 16.8)
    assert stored[0] == 0 and (np.diff(stored.astype(int)) >= 0).all() and stored.max() == 253
    assert levels(np.array([16.8, np.nextafter(16.8, 0) - 1e-12, 3 * 16.8]), 16.8).tolist() == [127, 126, 190]
    shares = probability(statistic[1:], 16.8)
    np.testing.assert_allclose(16.8 * shares / (1 - shares), statistic[1:], rtol=1e-6)
    with np.errstate(invalid="ignore"), pytest.raises(ArithmeticError, match="no finite statistic"):
        levels(np.array([np.inf]), 1.0)


def test_the_predictor_fills_its_crop_and_nothing_else() -> None:
    before, after, _ = two_dates(3, height=64, width=80)
    valid = np.ones((2, 64, 80), dtype=bool)
    valid[0, 40:, :] = valid[1, :, 70:] = False
    both = valid[0] & valid[1]
    detector = detector_of(UNTRAINED["pca-kmeans"], before, after, both)
    origins = np.array([(y, x) for y in (0, 32) for x in (0, 32, 48)], dtype=np.int64)
    arguments: dict[str, Any] = {"origins": origins, "taper": np.ones(32, dtype=np.float32)}
    images = np.stack([before, after])
    found = UntrainedPredictor(detector).predict(images, valid, crop=(slice(8, 60), slice(16, 80)), **arguments)
    expected = np.where(both, levels(detector.statistic(before, after, both), detector.threshold), 255)
    assert np.array_equal(found.probability[0], expected[8:60, 16:80])
    assert (found.windows_computed, found.windows_skipped) == (6, 0)
    assert not found.disagreement.any() and found.disagreement.shape == (256,)
    empty = UntrainedPredictor(detector).predict(images, valid & False, crop=(slice(0, 64), slice(0, 80)), **arguments)
    assert (empty.probability == 255).all() and empty.windows_computed == 0
    with pytest.raises(PredictorError, match="one pair"):
        UntrainedPredictor(detector).predict(
            images, valid, crop=(slice(0, 9), slice(0, 9)), pairs=[(1, 0)], **arguments
        )


@pytest.mark.parametrize(("method", "f1", "kappa"), [("cva", 0.90, 0.88), ("irmad", 0.94, 0.93), ("isfa", 0.93, 0.91)])
def test_taizhou_is_found_as_well_as_the_literature_says(shared: Path, method: str, f1: float, kappa: float) -> None:
    """Landsat ETM+ of 2000 and 2003 with 21,390 labelled pixels, on which IR-MAD and ISFA beat change vectors."""
    folder = shared / "data/taizhou"
    before, after = (rasterio.open(folder / name).read() for name in ("2000TM", "2003TM"))
    label = np.full(before.shape[1:], 255, dtype=np.uint8)
    for value, name in ((0, "unchanged.bmp"), (1, "change.bmp")):
        label[np.asarray(Image.open(folder / name).convert("L")) > 0] = value
    detector = detector_of(UNTRAINED[method], before, after)
    everywhere = np.ones(label.shape, dtype=bool)
    found = Confusion.count(detector.statistic(before, after, everywhere) >= detector.threshold, label)
    assert found.total == 21_390 and found.f1 > f1 and found.kappa > kappa
