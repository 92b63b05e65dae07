"""The logistic fit against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from dasnet.calibration import Calibration


def sample(n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    changed = random.random(n) < 0.15
    distances = np.where(changed, random.beta(5, 3, n), random.beta(2, 6, n)) * 2
    return distances, changed


def test_the_fit_is_that_of_logistic_regression() -> None:
    distances, changed = sample()
    ours = Calibration.fit(distances.reshape(100, -1), changed.reshape(100, -1))
    theirs = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(distances[:, None], changed)
    assert ours.slope == pytest.approx(theirs.coef_[0, 0], rel=3e-3)
    assert ours.intercept == pytest.approx(theirs.intercept_[0], rel=3e-3)
    got = ours.probability(torch.tensor(distances[:500])).numpy()
    np.testing.assert_allclose(got, theirs.predict_proba(distances[:500, None])[:, 1], atol=2e-3)
    assert ours.distance(float(got[0])) == pytest.approx(distances[0], abs=1e-6)


def test_counts_say_the_same_as_pixels() -> None:
    d = np.array([0.1, 0.5, 1.0, 1.5])
    changed, unchanged = np.array([1, 5, 30, 50]), np.array([90, 60, 20, 4])
    counted = Calibration.fit_counts(d, changed=changed, unchanged=unchanged)
    pixels = np.concatenate([np.repeat(d, changed), np.repeat(d, unchanged)])
    labels = np.arange(pixels.size) < changed.sum()
    each = Calibration.fit(pixels, labels)
    assert counted.slope == pytest.approx(each.slope, rel=2e-3)
    assert counted.intercept == pytest.approx(each.intercept, rel=2e-3)


def test_perfectly_separated_classes_still_have_a_finite_fit() -> None:
    fit = Calibration.fit([0.1, 0.2, 1.5, 1.6], [False, False, True, True])
    assert fit.probability(torch.tensor(1.6)) > 0.95 > 0.05 > fit.probability(torch.tensor(0.1))


def test_what_cannot_be_calibrated_is_refused() -> None:
    distances, changed = sample(1000)
    with pytest.raises(ValueError, match="positive slope"):
        Calibration.fit(distances, ~changed)
    with pytest.raises(ValueError, match="changed and unchanged"):
        Calibration.fit(distances, np.zeros(1000, dtype=bool))
    with pytest.raises(ValueError, match=r"\[0, 2\]"):
        Calibration.fit(distances * 2, changed)
    with pytest.raises(ValueError, match="999 labels"):
        Calibration.fit(distances, changed[:-1])
    for slope in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="slope"):
            Calibration(slope=slope, intercept=0.0)
