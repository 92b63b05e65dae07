"""Iteratively reweighted multivariate alteration detection (Nielsen 2007)."""

from __future__ import annotations

import numpy as np

from dasnet.baselines.detector import SquaredLength
from dasnet.baselines.reweighted import SMALLEST_VARIANCE, ChiSquared, Fit
from dasnet.baselines.statistics import Moments, Names, require_independent


def mad(moments: Moments, names: Names, among: str = "") -> Fit:
    """Differences of canonical variates, each divided by its deviation; the spectrum is the canonical correlations.

    Whatever affine change of the bands either date has undergone, the differences are the same.

    Raises:
        DegenerateStatisticsError: the bands of one date depend on each other.
    """
    from scipy.linalg import cholesky, solve_triangular, svd  # slow to import, and a plan only names the method

    before, after, across = moments.correlations()
    scale, bands = moments.deviation, len(before)
    require_independent(before, names.bands[:bands], among=among)
    require_independent(after, names.bands[bands:], among=among)
    root_before, root_after = cholesky(before, lower=True), cholesky(after, lower=True)
    half = solve_triangular(root_before, across, lower=True)
    left, correlations, right = svd(solve_triangular(root_after, half.T, lower=True).T)
    from_before = solve_triangular(root_before, left, lower=True, trans="T").T / scale[:bands]
    from_after = solve_triangular(root_after, right.T, lower=True, trans="T").T / scale[bands:]
    deviation = np.sqrt(np.maximum(2 * (1 - correlations), SMALLEST_VARIANCE))
    matrix = np.hstack([from_before, -from_after]) / deviation[:, None]
    return Fit(length=SquaredLength(matrix=matrix, centre=moments.mean), spectrum=correlations)


IRMAD = ChiSquared(
    name="irmad",
    source="Nielsen (2007), iteratively reweighted multivariate alteration detection",
    fit=mad,
    spectrum_name="canonical correlations",
    most_fits=50,
)
