"""Distances between precomputed embeddings of two dates: one vector a pixel, such as a foundation model gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dasnet.baselines import otsu
from dasnet.baselines.statistics import Moments, Names, Tally, require_pixels
from dasnet.baselines.untrained import State
from dasnet.errors import DegenerateStatisticsError
from tiling.conventions import dequantised

Measure = Literal["cosine", "l2"]

LENGTH_RATIO = 1.25
"""Ratio of the mean lengths of two dates' vectors from which on they are of other scales: quantisation and resampling
change a length by some hundredths."""

_STRIP = 1 << 14  # pixels at a time: sums over 64 bands and more stay in a core's cache

_QUANTISED = dequantised(np.arange(-128, 128, dtype=np.float64))
"""Values of the 256 numbers of int8, from -128 on."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingDistance:
    """Distance between the vectors of a pixel at both dates, and Otsu's threshold of it, in one pass.

    Attributes:
        measure: the statistic: "cosine": 1 − cos of the angle between the vectors, 0 … 2, whatever their lengths; a
            vector of length 0 is at 1 from any other. "l2": squared length of their difference over that of `length`.
        quantised: int8 values stand for what :func:`tiling.conventions.dequantised` makes of them, not for themselves.
        length: usual length of a vector, in which "l2" is measured.
    """

    name: str
    measure: Measure
    source: str
    quantised: bool = True
    length: float = 1.0
    version: int = 1
    halo: int = 0

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        return {**otsu.PARAMETERS, "measure": self.measure, "quantised": self.quantised, "length": self.length}

    def statistic(
        self, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """(...) distances between vectors (C, ...) of two dates; see :class:`~dasnet.baselines.detector.Detector`.

        Bands are added one after another, so that a pixel's bits depend on its own vectors alone.
        """
        shape = before.shape[1:]
        bands_before, bands_after = before.reshape(len(before), -1), after.reshape(len(after), -1)
        distances = np.empty(bands_before.shape[1])
        measure = self._cosine if self.measure == "cosine" else self._l2
        for first in range(0, distances.size, _STRIP):
            strip = slice(first, first + _STRIP)
            distances[strip] = measure(bands_before[:, strip], bands_after[:, strip])
        return distances.reshape(shape)

    def lengths(self, vectors: NDArray[Any]) -> NDArray[np.float64]:
        """Euclidean lengths (...) of vectors (C, ...) as they are stored."""
        squares = np.zeros(vectors.shape[1:])
        for band in vectors:
            squares += np.square(self._values(band), dtype=np.float64)
        return np.sqrt(squares)

    def count(self, state: State, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_]) -> Tally:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        pairs = before[:, valid], after[:, valid]
        lengths = np.stack([self.lengths(vectors) for vectors in pairs])
        return Tally(moments=(Moments.of(lengths),), counts=otsu.histogram(self.statistic(*pairs)))

    def advance(self, state: State, tally: Tally, names: Names) -> State:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        (moments,) = tally.moments
        require_pixels(moments, names)
        require_one_scale(*moments.mean, names=names)
        cut = otsu.cut(tally.counts, names)
        lengths = " and ".join(f"{length:.4g}" for length in moments.mean)
        note = f"{moments.weight:,.0f} pairs of vectors, {lengths} long on average; Otsu's threshold {cut**2:.4g}"
        return State(finished=True, values={"cut": np.array(cut), "lengths": moments.mean}, notes=(*state.notes, note))

    def detector(self, state: State) -> EmbeddingDetector:
        """See :class:`~dasnet.baselines.untrained.UntrainedMethod`."""
        cut = float(state.values["cut"])
        return EmbeddingDetector(method=self, threshold=cut**2)

    @property
    def words(self) -> str:
        """What the statistic is, for a person."""
        if self.measure == "cosine":
            return "cosine distance (1 − cos) between embeddings"
        return f"squared distance between embeddings over the square of {self.length:g}"

    def _values(self, vectors: NDArray[Any]) -> NDArray[Any]:
        if self.quantised and vectors.dtype == np.int8:
            return _QUANTISED[vectors.astype(np.int16) + 128]
        return vectors

    def _cosine(self, before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.float64]:
        product, squares_before, squares_after = (np.zeros(before.shape[1]) for _ in range(3))
        for one, other in zip(before, after, strict=True):
            mine, theirs = (np.asarray(self._values(band), dtype=np.float64) for band in (one, other))
            product += mine * theirs
            squares_before += mine * mine
            squares_after += theirs * theirs
        lengths = np.sqrt(squares_before) * np.sqrt(squares_after)
        cosine = np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)
        none_at_all = (squares_before == 0) & (squares_after == 0)
        # the cosine of a vector with itself may be rounded beyond 1
        return np.where(none_at_all, 0.0, np.clip(1 - cosine, 0, 2))

    def _l2(self, before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.float64]:
        squares = np.zeros(before.shape[1])
        for one, other in zip(before, after, strict=True):
            mine, theirs = (np.asarray(self._values(band), dtype=np.float64) for band in (one, other))
            apart = mine - theirs
            squares += apart * apart
        return squares / self.length**2


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingDetector:
    """A :class:`~dasnet.baselines.detector.Detector` by the distance of vectors."""

    method: EmbeddingDistance
    threshold: float
    halo: int = 0

    def statistic(self, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
        """See :class:`~dasnet.baselines.detector.Detector`."""
        return self.method.statistic(before, after, valid)

    def describe(self) -> str:
        """See :class:`~dasnet.baselines.detector.Detector`."""
        return f"{self.threshold:.4g}, Otsu's threshold of the {self.method.words}"


def require_one_scale(before: float, after: float, *, names: Names) -> None:
    """Refuse vectors of two dates whose usual lengths, given here, are of other scales.

    Raises:
        DegenerateStatisticsError: naming both mosaics and both lengths.
    """
    short, long = sorted((before, after))
    if long > LENGTH_RATIO * short:
        raise DegenerateStatisticsError(
            f"vectors of {names.before} are {before:.4g} long, those of {names.after} {after:.4g}: these are "
            "embeddings of other scales. Give both as they were published, or say with --values stored that the "
            "numbers of int8 stand for themselves, with --values physical that scale and offset of the files make them"
        )


EMBEDDINGS: dict[str, EmbeddingDistance] = {
    method.name: method
    for method in (
        EmbeddingDistance(
            name="embedding-cosine",
            measure="cosine",
            source="cosine distance of precomputed embeddings (Brown et al. 2025, AlphaEarth Foundations); Otsu (1979)",
        ),
        EmbeddingDistance(
            name="embedding-l2",
            measure="l2",
            source="Euclidean distance of precomputed embeddings; Otsu (1979)",
        ),
    )
}
"""Methods whose mosaics are embeddings, by the name that a user gives."""
