"""Methods whose statistic is χ² of unchanged pixels, fitted again and again to the pixels that look unchanged.

Each pass weighs a pixel by the probability that an unchanged one differs more than it does (Nielsen 2007), so that
change has less and less part in what is taken for normal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dasnet.baselines import otsu
from dasnet.baselines.detector import PixelDetector, SquaredLength
from dasnet.baselines.statistics import Moments, Names, Tally, pixel_pairs, require_pixels, require_varying
from dasnet.baselines.untrained import State

Threshold = Literal["otsu", "chi2"]

SMALLEST_VARIANCE = 1e-8
"""Least variance of a difference of variates: where two dates agree to the last digit, 0 would be divided by 0."""

_LISTED = 6  # values of a spectrum in a note

SIGNIFICANCE = 0.01
"""Share of the unchanged pixels that the threshold of χ² calls changed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A fit to weighted pixel pairs.

    Attributes:
        length: χ² of C degrees of freedom where nothing changed.
        spectrum: (C,) what converges: canonical correlations, or eigenvalues.
    """

    length: SquaredLength
    spectrum: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ChiSquared:
    """Passes of one fit each, and one for the threshold if that is Otsu's.

    Attributes:
        fit: pixel pairs' moments, names, and which pixels they are (for messages) to a :class:`Fit`.
        spectrum_name: how notes call the spectrum.
        most_fits: the last one counts, converged or not.
        tolerance: converged is what moves by no more than this in every value of the spectrum.
        threshold: "otsu": of the square roots; "chi2": the quantile of χ² that is exceeded with :data:`SIGNIFICANCE`.
            On real scenes what is unchanged has heavier tails than χ², the more so after reweighting.
    """

    name: str
    source: str
    fit: Callable[[Moments, Names, str], Fit]
    spectrum_name: str
    most_fits: int
    version: int = 1
    tolerance: float = 1e-3
    threshold: Threshold = "otsu"
    halo: int = 0

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        fitting = {
            "most_fits": self.most_fits,
            "tolerance": self.tolerance,
            "smallest_variance": SMALLEST_VARIANCE,
            "threshold": self.threshold,
        }
        return fitting | ({"significance": SIGNIFICANCE} if self.threshold == "chi2" else otsu.PARAMETERS)

    def count(self, state: State, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_]) -> Tally:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        pairs = pixel_pairs(before, after, valid)
        if not state.passes:
            return Tally(moments=(Moments.of(pairs),))
        bands = len(before)
        squared = self._length(state).of(pairs[:bands], pairs[bands:])
        if self._settled(state):
            return Tally(counts=otsu.histogram(squared / bands))
        from scipy.special import gammaincc  # slow to import, and a plan only names the method

        return Tally(moments=(Moments.of(pairs, gammaincc(bands / 2, squared / 2)),))

    def advance(self, state: State, tally: Tally, names: Names) -> State:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        if state.passes and self._settled(state):
            cut = otsu.cut(tally.counts, names)
            return State(
                finished=True,
                values={**state.values, "cut": np.array(cut)},
                notes=(*state.notes, f"Otsu's threshold of the root of χ² by degrees of freedom: {cut:.4g}"),
            )
        (moments,) = tally.moments
        require_pixels(moments, names)
        among = f" among the pixels that pass {state.passes + 1} takes for unchanged" if state.passes else ""
        require_varying(moments, names.bands, among=among)
        fitted = self.fit(moments, names, among)
        listed = ", ".join(f"{value:.4f}" for value in fitted.spectrum[:_LISTED])
        note = f"{self.spectrum_name} {listed}{', …' if len(fitted.spectrum) > _LISTED else ''}"
        moved = np.inf
        if state.passes:
            moved = float(np.abs(fitted.spectrum - state.values["spectrum"]).max())
            note += f", moved by {moved:.2g}; weighs {moments.weight:,.0f} pixels as unchanged"
        settled = moved <= self.tolerance or state.passes + 1 == self.most_fits
        return State(
            finished=settled and self.threshold == "chi2",
            values={
                "matrix": fitted.length.matrix,
                "centre": fitted.length.centre,
                "spectrum": fitted.spectrum,
                "settled": np.array(float(settled)),
            },
            notes=(*state.notes, note),
        )

    def detector(self, state: State) -> PixelDetector:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        freedom = len(state.values["spectrum"])
        if self.threshold == "otsu":
            threshold = freedom * float(state.values["cut"]) ** 2
            origin = "Otsu's threshold of the root of χ²"
        else:
            from scipy.special import chdtri

            threshold = float(chdtri(freedom, SIGNIFICANCE))
            origin = f"which χ² of {freedom} degrees of freedom exceeds in {SIGNIFICANCE:.0%} of unchanged pixels"
        return PixelDetector(length=self._length(state), threshold=threshold, origin=origin)

    @staticmethod
    def _settled(state: State) -> bool:
        return bool(state.values["settled"])

    @staticmethod
    def _length(state: State) -> SquaredLength:
        return SquaredLength(matrix=state.values["matrix"], centre=state.values["centre"])
