"""Change vector analysis (Malila 1980): how far a pixel moves in the space of its standardised bands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dasnet.baselines import otsu
from dasnet.baselines.detector import PixelDetector, SquaredLength
from dasnet.baselines.statistics import Moments, Names, Tally, pixel_pairs, require_pixels, require_varying
from dasnet.baselines.untrained import State

UNRELATED = 2.0
"""Mean of the statistic where the dates have nothing to do with each other."""


def change_vectors(mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> SquaredLength:
    """Squared length of the difference of bands that each date's own mean and deviation, (2C,), standardise.

    It is divided by the number of bands: :data:`UNRELATED` is what two unrelated dates have on average.
    """
    bands = len(mean) // 2
    scale = 1 / (np.sqrt(bands) * deviation)
    return SquaredLength(matrix=np.hstack([np.diag(scale[:bands]), -np.diag(scale[bands:])]), centre=mean)


@dataclass(frozen=True)
class Cva:
    """Pass 1: mean and deviation of every band. Pass 2: histogram of the lengths, for Otsu's threshold.

    Attributes:
        threshold: "otsu"; "unrelated": what two unrelated dates have on average, for which no second pass is made.
    """

    name: str = "cva"
    version: int = 1
    source: str = "Malila (1980), change vector analysis; Otsu (1979)"
    halo: int = 0
    threshold: Literal["otsu", "unrelated"] = "otsu"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        return otsu.PARAMETERS if self.threshold == "otsu" else {"threshold": self.threshold}

    def count(self, state: State, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_]) -> Tally:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        if state.passes == 0:
            return Tally(moments=(Moments.of(pixel_pairs(before, after, valid)),))
        return Tally(counts=otsu.histogram(self._length(state).of(before[:, valid], after[:, valid])))

    def advance(self, state: State, tally: Tally, names: Names) -> State:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        if state.passes == 0:
            return replace(first_state(tally, names), finished=self.threshold == "unrelated")
        cut = otsu.cut(tally.counts, names)
        return State(
            finished=True,
            values={**state.values, "cut": np.array(cut)},
            notes=(*state.notes, f"Otsu's threshold of the lengths: {cut:.4g}"),
        )

    def detector(self, state: State) -> PixelDetector:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        if self.threshold == "unrelated":
            return PixelDetector(length=self._length(state), threshold=UNRELATED, origin="that of two unrelated dates")
        return PixelDetector(
            length=self._length(state),
            threshold=float(state.values["cut"]) ** 2,
            origin=f"the square of Otsu's threshold of the change vectors' lengths, {float(state.values['cut']):.4g}",
        )

    def _length(self, state: State) -> SquaredLength:
        return change_vectors(state.values["mean"], state.values["deviation"])


def first_state(tally: Tally, names: Names) -> State:
    """Means and deviations after the first pass; raises DegenerateStatisticsError."""
    (moments,) = tally.moments
    require_pixels(moments, names)
    require_varying(moments, names.bands)
    values = {"mean": moments.mean, "deviation": moments.deviation}
    return State(values=values, notes=(f"means and deviations of {moments.weight:,.0f} pixels",))
