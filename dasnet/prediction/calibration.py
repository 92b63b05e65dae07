"""From distance to probability: a logistic curve, fitted on validation pixels and kept in the bundle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from torch import Tensor  # a plan reads calibrations, and torch takes seconds to import


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Probability of change = sigmoid(slope · distance + intercept): monotone, so it never changes a ranking.

    Attributes:
        slope: positive.
        intercept: any finite number.
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope > 0):
            raise ValueError(
                f"a calibration has a positive slope and a finite intercept, not slope {self.slope}, "
                f"intercept {self.intercept}: a larger distance must mean a more probable change"
            )

    def probability(self, distance: Tensor) -> Tensor:
        """Distances in [0, 2] to probabilities in (0, 1), any shape, on the tensor's device."""
        return (distance * self.slope + self.intercept).sigmoid()

    def distance(self, probability: float) -> float:
        """The distance that has this probability; may lie outside [0, 2]."""
        return (math.log(probability / (1 - probability)) - self.intercept) / self.slope

    @classmethod
    def fit(cls, distances: ArrayLike, *, changed: ArrayLike, unchanged: ArrayLike) -> Calibration:
        """Logistic regression by maximum likelihood over pixels, counted by their distance.

        Args:
            distances: in [0, 2], (N,).
            changed, unchanged: pixels of each class at each distance, (N,).

        Raises:
            ValueError: no changed or no unchanged pixel, or distances that say nothing about change (the fitted slope
                is not positive).
        """
        from scipy.optimize import minimize  # slow to import, and a predictor needs the fitted curve alone
        from scipy.special import expit

        d = np.asarray(distances, dtype=np.float64)
        positive, negative = np.asarray(changed, dtype=np.float64), np.asarray(unchanged, dtype=np.float64)
        total = positive.sum() + negative.sum()
        if not (positive.sum() > 0 and negative.sum() > 0):
            raise ValueError(
                f"a calibration needs changed and unchanged pixels, not {positive.sum():.0f} and {negative.sum():.0f}"
            )

        # Without a bound, classes that a distance separates perfectly have no finite fit: this penalty moves a slope of
        # a real fit by less than a thousandth.
        ridge = 1e-6

        def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            z = parameters[0] * d + parameters[1]
            p = expit(z)
            value = (positive * np.logaddexp(0, -z) + negative * np.logaddexp(0, z)).sum() / total
            error = ((positive + negative) * p - positive) / total
            gradient = np.array([(error * d).sum(), error.sum()]) + 2 * ridge * parameters
            return value + ridge * (parameters**2).sum(), gradient

        start = np.array([1.0, math.log(positive.sum() / negative.sum())])
        slope, intercept = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 1000}).x
        return cls(slope=float(slope), intercept=float(intercept))


UNCALIBRATED = Calibration(slope=4.0, intercept=-4.0)
"""The curve of a bundle that nothing was fitted to yet: probability 0.5 at distance 1, the middle of [0, 2]."""
NOT_CALIBRATED = "**not calibrated**"
"""How the card of such a bundle says so; the paragraph with these words goes when the bundle is calibrated."""
