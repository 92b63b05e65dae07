"""The logistic fit against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from dasnet.prediction.calibration import Calibration


def sample(n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    changed = random.random(n) < 0.15
    distances = np.where(changed, random.beta(5, 3, n), random.beta(2, 6, n)) * 2
    return distances, changed


def counted(distances: np.ndarray, changed: np.ndarray) -> Calibration:
    """Fitted to pixels in 4096 bins, as validation counts them."""
    edges = np.linspace(0, 2, 4097)
    by_class = [np.histogram(distances[changed == kind], bins=edges)[0] for kind in (True, False)]
    return Calibration.fit((edges[:-1] + edges[1:]) / 2, changed=by_class[0], unchanged=by_class[1])


def test_the_fit_is_that_of_logistic_regression() -> None:
    distances, changed = sample()
    ours = counted(distances, changed)
    theirs = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(distances[:, None], changed)
    assert ours.slope == pytest.approx(theirs.coef_[0, 0], rel=3e-3)
    assert ours.intercept == pytest.approx(theirs.intercept_[0], rel=3e-3)
    got = ours.probability(torch.tensor(distances[:500])).numpy()
    np.testing.assert_allclose(got, theirs.predict_proba(distances[:500, None])[:, 1], atol=2e-3)
    assert ours.distance(float(got[0])) == pytest.approx(distances[0], abs=1e-6)


def test_perfectly_separated_classes_still_have_a_finite_fit() -> None:
    fit = Calibration.fit([0.1, 0.2, 1.5, 1.6], changed=[0, 0, 1, 1], unchanged=[1, 1, 0, 0])
    assert fit.probability(torch.tensor(1.6)) > 0.95 > 0.05 > fit.probability(torch.tensor(0.1))


def test_what_cannot_be_calibrated_is_refused() -> None:
    distances, changed = sample(1000)
    with pytest.raises(ValueError, match="positive slope"):
        counted(distances, ~changed)
    with pytest.raises(ValueError, match="changed and unchanged"):
        counted(distances, np.zeros(1000, dtype=bool))
    for slope in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="slope"):
            Calibration(slope=slope, intercept=0.0)
