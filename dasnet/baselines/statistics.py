"""Sufficient statistics of pixel pairs, how they add up, and when they say nothing.

A *pixel pair* is one place at both dates: the C values before and the C values after it as one vector of 2C, float64.
Statistics are taken of one sheet after another and added in the sheets' order, so that their bits depend neither on how
the mosaic is cut into blocks nor on who computed which sheet.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dasnet.errors import DegenerateStatisticsError

# float32 has seven digits: a spread below this share of the mean is rounding, no signal
_CONSTANT = 1e-8
# smallest eigenvalue of a correlation matrix; bands of real sensors stay above 1e-5, copies and sums fall below 1e-13
_DEPENDENT = 1e-10


@dataclass(frozen=True, kw_only=True)
class Names:
    """How messages call what is compared.

    Attributes:
        before, after: the two mosaics, or the dataset.
        bands_before, bands_after: names of the C bands of each.
    """

    before: str
    after: str
    bands_before: tuple[str, ...]
    bands_after: tuple[str, ...]

    @property
    def bands(self) -> tuple[str, ...]:
        """(2C,) every band with its mosaic, in the order of a pixel pair."""
        return (
            *(f"band {band} of {self.before}" for band in self.bands_before),
            *(f"band {band} of {self.after}" for band in self.bands_after),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Weighted mean and scatter of vectors.

    Attributes:
        weight: sum of the weights; the number of vectors where each weighs 1.
        mean: (D,) float64.
        scatter: (D, D) float64, Σ w (v − mean)(v − mean)ᵀ.
    """

    weight: float
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @classmethod
    def of(cls, vectors: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> Moments:
        """Moments of the columns of `vectors`, (D, n), n ≥ 0; `weights`: (n,), not negative; None = 1 each."""
        dimensions, count = vectors.shape
        total = float(count if weights is None else weights.sum())
        if not total > 0:
            return cls(weight=0.0, mean=np.zeros(dimensions), scatter=np.zeros((dimensions, dimensions)))
        mean = (vectors.sum(axis=1) if weights is None else vectors @ weights) / total
        centred = vectors - mean[:, None]
        weighted = centred if weights is None else centred * weights
        return cls(weight=total, mean=mean, scatter=weighted @ centred.T)

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets together (Chan, Golub and LeVeque 1983): no large sums are subtracted."""
        if not other.weight or not self.weight:
            return self if self.weight else other
        weight = self.weight + other.weight
        apart = other.mean - self.mean
        return Moments(
            weight=weight,
            mean=self.mean + apart * (other.weight / weight),
            scatter=self.scatter + other.scatter + np.outer(apart, apart) * (self.weight * other.weight / weight),
        )

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(D, D) Σ w (v − mean)(v − mean)ᵀ / Σ w."""
        return (self.scatter + self.scatter.T) / (2 * self.weight)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """(D,) standard deviations."""
        return np.sqrt(np.diag(self.covariance))

    def correlations(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Correlations of pixel pairs, (C, C) each: of the bands before, of those after, and of one with the other.

        Unlike covariances they keep their digits in what is made of them, whatever units the bands have.
        """
        correlation = self.covariance / np.outer(self.deviation, self.deviation)
        bands = len(correlation) // 2
        return correlation[:bands, :bands], correlation[bands:, bands:], correlation[:bands, bands:]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """What one pass counts on one sheet: moments of some sets of vectors, and a histogram."""

    moments: tuple[Moments, ...] = ()
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            moments=tuple(mine + theirs for mine, theirs in zip(self.moments, other.moments, strict=True)),
            counts=self.counts + other.counts,
        )

    def pack(self) -> list[str]:
        """As text that JSON can hold, exact to the last bit; a symmetric matrix takes half its place."""
        packed = [_text(self.counts.astype("<i8"))]
        for part in self.moments:
            upper = part.scatter[np.triu_indices(len(part.mean))]
            packed.append(_text(np.concatenate([[part.weight], part.mean, upper]).astype("<f8")))
        return packed

    @classmethod
    def unpack(cls, packed: Sequence[str]) -> Tally:
        """What :meth:`pack` made."""
        counts, *moments = packed
        return cls(
            moments=tuple(_moments(np.frombuffer(base64.b64decode(text), dtype="<f8")) for text in moments),
            counts=np.frombuffer(base64.b64decode(counts), dtype="<i8").astype(np.int64),
        )


def total(tallies: Iterable[Tally]) -> Tally:
    """Add tallies, one or more, in the order given: another order may give other last bits."""
    sums: Tally | None = None
    for tally in tallies:
        sums = tally if sums is None else sums + tally
    if sums is None:
        raise ValueError("no tally to add")
    return sums


def _text(values: NDArray[np.generic]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _moments(values: NDArray[np.float64]) -> Moments:
    # 1 + D + D(D + 1)/2 values
    dimensions = round((np.sqrt(8 * len(values) + 1) - 3) / 2)
    upper = np.zeros((dimensions, dimensions))
    upper[np.triu_indices(dimensions)] = values[1 + dimensions :]
    return Moments(
        weight=float(values[0]),
        mean=values[1 : 1 + dimensions].astype(np.float64),
        scatter=upper + np.triu(upper, 1).T,
    )


def pixel_pairs(before: NDArray[np.generic], after: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray:
    """(2C, n) float64: the pairs of two dates (C, h, w) where `valid`, (h, w), both are there."""
    return np.concatenate([before[:, valid], after[:, valid]]).astype(np.float64)


def require_pixels(moments: Moments, names: Names, *, what: str = "pixel") -> None:
    """Raises DegenerateStatisticsError where nothing was there to look at, or sums overflow."""
    if not moments.weight:
        raise DegenerateStatisticsError(
            f"no {what} is valid in both {names.before} and {names.after}: there is nothing to compare"
        )
    if not np.isfinite(moments.scatter).all():
        raise DegenerateStatisticsError(
            f"values of {names.before} or {names.after} are so large that their squares have no sum: rescale them"
        )


def require_varying(moments: Moments, labels: Sequence[str], *, among: str = "") -> None:
    """Raises DegenerateStatisticsError naming the first of the (D,) `labels` whose values are all one."""
    for label, mean, deviation in zip(labels, moments.mean, moments.deviation, strict=True):
        if deviation <= _CONSTANT * abs(mean):
            raise DegenerateStatisticsError(
                f"{label} has one value, {mean:g}, in every pixel that is valid in both dates{among}, so there is no "
                "spread to compare its changes with: leave it out with --bands"
            )


def require_independent(covariance: NDArray[np.float64], labels: Sequence[str], *, among: str = "") -> None:
    """Raises DegenerateStatisticsError naming the `labels` that a linear relation binds: the (D, D) matrix is singular.

    Call :func:`require_varying` first.
    """
    deviation = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(deviation, deviation))
    if values[0] < _DEPENDENT:
        share = np.abs(vectors[:, 0])
        bound = [label for label, part in zip(labels, share, strict=True) if part > 0.05 * share.max()]
        raise DegenerateStatisticsError(
            f"the covariance is singular{among}: {', '.join(bound)} determine one another linearly; leave one of them "
            "out with --bands"
        )
