"""Slow feature analysis and its iterated form (Wu, Du and Zhang 2014)."""

from __future__ import annotations

import numpy as np

from dasnet.baselines.detector import SquaredLength
from dasnet.baselines.reweighted import SMALLEST_VARIANCE, ChiSquared, Fit
from dasnet.baselines.statistics import Moments, Names, require_independent


def slow_features(moments: Moments, names: Names, among: str = "") -> Fit:
    """Features of standardised bands that differ least between the dates; the spectrum: their mean squared difference.

    They solve A w = λ B w, A the covariance of the differences and B the mean of both dates' covariances. The squared
    length sums each feature's squared difference over λ.

    Raises:
        DegenerateStatisticsError: one relation binds the bands of both dates.
    """
    from scipy.linalg import eigh  # slow to import, and a plan only names the method

    before, after, across = moments.correlations()
    scale, bands = moments.deviation, len(before)
    both = (before + after) / 2
    require_independent(both, [f"band {band}" for band in names.bands_before], among=f" in both dates{among}")
    slowness, features = eigh(before + after - across - across.T, both)
    weighted = features / np.sqrt(np.maximum(slowness, SMALLEST_VARIANCE))  # (C, features)
    matrix = np.hstack([weighted.T / scale[:bands], -weighted.T / scale[bands:]])
    return Fit(length=SquaredLength(matrix=matrix, centre=moments.mean), spectrum=slowness)


SFA = ChiSquared(
    name="sfa",
    source="Wu, Du and Zhang (2014), slow feature analysis for change detection",
    fit=slow_features,
    spectrum_name="slowness",
    most_fits=1,
)
ISFA = ChiSquared(
    name="isfa",
    source="Wu, Du and Zhang (2014), iterative slow feature analysis",
    fit=slow_features,
    spectrum_name="slowness",
    most_fits=50,
)
