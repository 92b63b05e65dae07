"""From a method's statistic to what the mosaic stores, and the quadratic statistic that most methods share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tiling.conventions import LEVELS

THRESHOLD = 0.5
"""The probability where the statistic reaches the method's own threshold."""

_STRIP = 1 << 16  # pixels at a time: temporaries stay in a core's cache


class Detector(Protocol):
    """A method whose statistics are known: it gives every pixel a number that grows with change."""

    @property
    def threshold(self) -> float:
        """The method's own threshold of the statistic, positive."""
        ...

    @property
    def halo(self) -> int:
        """Pixels around a pixel that its statistic depends on."""
        ...

    def statistic(self, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(h, w) squared size of the change, 0 or more, of two dates (C, h, w); `valid` (h, w): there in both dates.

        A pixel's bits depend on its values and those of its halo alone, not on where in the array it lies. Where not
        valid it is any number.
        """
        ...

    def describe(self) -> str:
        """The threshold and where it comes from, for a person."""
        ...


def probability(statistic: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Probability of change with the odds `statistic` / `threshold`: 0 at 0, 1/2 at the threshold, towards 1 beyond.

    A method without training knows no frequencies of change, so this is a scale, not a calibration: monotone, the same
    for every method, and never saturated, as the distribution function of χ² is from the smallest change on. The
    statistic is threshold · p / (1 − p).
    """
    return statistic / (statistic + threshold)


def levels(statistic: NDArray[np.float64], threshold: float) -> NDArray[np.uint8]:
    """The probability × 254 as it is stored, rounded down: level 127 and above is what the threshold calls changed.

    Raises:
        ArithmeticError: a statistic is NaN or infinite.
    """
    share = probability(statistic, threshold)
    if not np.isfinite(share).all():
        raise ArithmeticError("a valid pixel has no finite statistic: are its values within float32's range?")
    return np.floor(share * LEVELS).astype(np.uint8)


@dataclass(frozen=True, kw_only=True, eq=False)
class SquaredLength:
    """|matrix · (v − centre)|² of a pixel pair v: change vectors, MAD and slow features are all of this form.

    Attributes:
        matrix: (C, 2C); `centre`: (2C,); both float64.
    """

    matrix: NDArray[np.float64]
    centre: NDArray[np.float64]

    def of(self, before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.float64]:
        """The squared length for two dates, (C, ...) each: (...) float64.

        Sums are written out: a matrix product may round a pixel otherwise at the edge of an array than inside it.
        """
        shape = before.shape[1:]
        bands = [*before.reshape(len(before), -1), *after.reshape(len(after), -1)]
        lengths = np.empty(bands[0].size)
        for first in range(0, lengths.size, _STRIP):
            strip = slice(first, first + _STRIP)
            centred = [band[strip] - middle for band, middle in zip(bands, self.centre, strict=True)]
            lengths[strip] = _sum_of_squares(self.matrix, centred)
        return lengths.reshape(shape)


def _sum_of_squares(matrix: NDArray[np.float64], centred: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    squares = np.zeros_like(centred[0])
    for row in matrix:
        part = np.zeros_like(squares)
        for factor, values in zip(row, centred, strict=True):
            if factor:
                part += factor * values
        squares += part * part
    return squares


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelDetector:
    """A :class:`Detector` that looks at single pixels.

    Attributes:
        length: the statistic.
        origin: where the threshold comes from, for a person.
    """

    length: SquaredLength
    threshold: float
    origin: str
    halo: int = 0

    def statistic(self, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
        """See :class:`Detector`."""
        return self.length.of(before, after)

    def describe(self) -> str:
        """See :class:`Detector`."""
        return f"{self.threshold:.4g}, {self.origin}"
