"""Coordinates of the rows or columns of an array as the grid that was meant by them.

Coordinates are centres of pixels. They are often rounded: float32 has seven digits, and text has as many as somebody
gave it. So a grid is not the difference of the first two, which would drift over the array, but the roundest step that
gives all of them; and what no rounding explains, a gap, a repeat, a turn, is refused with its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10

import numpy as np
from numpy.typing import NDArray

from storage.errors import InputError

_SHARE = 0.02
"""Share of a pixel by which a coordinate may lie beside the grid, whatever its type."""

_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Evenly spaced centres of pixels.

    Attributes:
        first: centre of the first pixel as it is stored, in units of the CRS.
        step: from one centre to the next; negative where they descend.
        size: number of pixels.
    """

    first: float
    step: float
    size: int

    @property
    def edge(self) -> float:
        """Where the first pixel begins."""
        return self.first - self.step / 2


def axis_of(values: NDArray[np.generic], *, name: str, path: str) -> Axis:
    """The grid meant by coordinates of two pixels or more.

    Args:
        values: (n,) as stored.
        name: of the coordinate, and `path` of the group, for messages.

    Raises:
        InputError: not numbers, NaN among them, or steps that differ; the message has the worst step and its place.
    """
    if values.dtype.kind not in "iuf":
        raise InputError(f"{path}: its coordinate {name} holds {values.dtype}, not numbers")
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        where = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise InputError(f"{path}: its coordinate {name} is {numbers[where]} at {where:,} of {len(numbers):,}")
    rounding = _rounding(values)
    step = float(numbers[-1] - numbers[0]) / (len(numbers) - 1)
    if rounding > abs(step) / 2 > 0:
        raise InputError(
            f"{path}: its coordinate {name} is {values.dtype}, which holds {numbers[0]:.9g} to {rounding:.2g} alone, "
            f"while its pixels have {abs(step):.6g}: write it as float64"
        )
    steps = np.diff(numbers)
    usual = float(np.median(steps))
    allowed = max(_SHARE * abs(usual), 1.5 * rounding)
    away = np.abs(steps - usual)
    if not usual or away.max() > allowed:
        raise InputError(_uneven(steps, numbers, usual, name, path))
    drift = np.abs(numbers - (numbers[0] + step * np.arange(len(numbers))))
    if drift.max() > max(_SHARE * abs(step), 2 * rounding):
        where = int(drift.argmax())
        raise InputError(
            f"{path}: its coordinate {name} is not evenly spaced: {numbers[where]:.9g} at {where:,} lies "
            f"{drift[where] / abs(step):.3g} pixels beside a grid from {numbers[0]:.9g} to {numbers[-1]:.9g}"
        )
    return _roundest(numbers, step, max(rounding, float(drift.max())))


def _rounding(values: NDArray[np.generic]) -> float:
    """How far two neighbouring numbers of the type lie apart at the largest coordinate."""
    if values.dtype.kind != "f":
        return 0.0
    return float(np.spacing(np.abs(values).max()))


def _uneven(steps: NDArray[np.float64], numbers: NDArray[np.float64], usual: float, name: str, path: str) -> str:
    where = int(np.abs(steps - usual).argmax())
    place = f"from {numbers[where]:.9g} to {numbers[where + 1]:.9g} at {where:,} of {len(numbers):,}"
    if not steps[where]:
        what = "it repeats a value"
    elif usual and np.sign(steps[where]) != np.sign(usual):
        what = "it turns"
    else:
        what = "it has a gap"
    return (
        f"{path}: its coordinate {name} is not evenly spaced, {what}: its steps are {usual:.9g}, but "
        f"{steps[where]:.9g} {place}: sort it, or fill what is missing (ds.reindex)"
    )


def _roundest(numbers: NDArray[np.float64], step: float, rounding: float) -> Axis:
    """The step and the first centre with the fewest digits that still give every coordinate to its rounding."""
    count = np.arange(len(numbers))
    allowed = 1.001 * rounding + 4 * np.spacing(np.abs(numbers).max())
    for candidate in _candidates(step):
        shift = numbers - candidate * count
        # all origins between these two give every coordinate
        low, high = float(shift.max() - allowed), float(shift.min() + allowed)
        if low > high:
            continue
        edge = _shortest(low - candidate / 2, high - candidate / 2)
        return Axis(first=edge + candidate / 2, step=candidate, size=len(numbers))
    slope, start = np.polyfit(count, numbers, 1)
    return Axis(first=float(start), step=float(slope), size=len(numbers))


def _candidates(step: float) -> list[float]:
    """The step, and one over it, to one digit and to more; 1/3600 of a degree is round in the second sense."""
    size = floor(log10(abs(step)))
    inverse = 1 / step
    inverse_size = floor(log10(abs(inverse)))
    candidates = []
    for digits in range(1, _DIGITS + 1):
        candidates.append(round(step, digits - 1 - size))
        candidates.append(1 / round(inverse, digits - 1 - inverse_size))
    return candidates


def _shortest(low: float, high: float) -> float:
    """The number with the fewest decimals in a range."""
    middle = (low + high) / 2
    largest = max(abs(low), abs(high), 1e-300)
    for decimals in range(-floor(log10(largest)), 16):
        number = round(middle, decimals)
        if low <= number <= high:
            return float(number)
    return middle
