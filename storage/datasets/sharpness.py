"""How sharp the images of a dataset are, by split and date: a network that has learnt from blurred ones misses others.

The gradient at a pixel is |v(y, x + 1) − v(y, x)| + |v(y + 1, x) − v(y, x)| of the mean v of all bands. A sample's is
the median over its pixels, a split's the median over its samples. Divided by the standard deviation of the sample's
values it depends neither on units nor on contrast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.datasets.store import DATES

Sharpness = tuple[float, float]
"""Median gradient of one date of a sample and standard deviation of its values, both in the values' own units."""

REMARKABLE = 1.5
"""Ratio of two sharpnesses from which on a person is warned."""


def sharpness_of(image: NDArray[Any], valid: NDArray[np.bool_]) -> Sharpness | None:
    """Sharpness of one date of a sample.

    Args:
        image: (C, h, w), in any units; valid: (h, w), True = valid. Gradients of three valid pixels count alone.

    Returns:
        None where there is no such gradient, or one value alone.
    """
    grey = image.mean(axis=0, dtype=np.float32)
    here = valid[:-1, :-1] & valid[1:, :-1] & valid[:-1, 1:]
    if not here.any():
        return None
    corner = grey[:-1, :-1]
    gradient = np.abs(grey[:-1, 1:] - corner) + np.abs(grey[1:, :-1] - corner)
    deviation = float(grey[valid].std(dtype=np.float64))
    return (float(np.median(gradient[here])), deviation) if deviation > 0 else None


@dataclass(frozen=True, kw_only=True)
class SplitSharpness:
    """Sharpness of one date of all samples of a split.

    Attributes:
        split, date: train, val or test; before or after.
        gradient: median gradient in the values' own units.
        relative: median of the gradients divided by the standard deviation.
    """

    split: str
    date: str
    gradient: float
    relative: float

    def __str__(self) -> str:
        return f"{self.split} {self.date} {self.relative:.3f}"


def split_sharpness(
    samples: Mapping[str, Iterable[Sequence[Sharpness | None]]],
) -> list[SplitSharpness]:
    """Sharpness of each split and date, from that of (before, after) of its samples; without any it is left out."""
    found = []
    for split, dates in samples.items():
        for date, values in zip(DATES, zip(*dates, strict=True), strict=False):
            present = np.array([value for value in values if value is not None], dtype=np.float64)
            if len(present):
                gradient, relative = np.median(present[:, 0]), np.median(present[:, 0] / present[:, 1])
                found.append(SplitSharpness(split=split, date=date, gradient=float(gradient), relative=float(relative)))
    return found


def sharpness_warnings(measured: Sequence[SplitSharpness]) -> list[str]:
    """What a person should know before training: splits or dates of which one is much sharper than the other.

    Both are compared by what depends on no units: of two splits the same date, of two dates the same split.
    """
    splits = [pair for pair in combinations(measured, 2) if pair[0].date == pair[1].date]
    dates = [pair for pair in combinations(measured, 2) if pair[0].split == pair[1].split]
    return [
        f"{what} are not equally sharp: {sharp.split} {sharp.date} is {_ratio(sharp, soft):.1f} times as sharp as "
        f"{soft.split} {soft.date} (median gradient {sharp.relative:.3f} and {soft.relative:.3f} standard deviations, "
        f"{sharp.gradient:.4g} and {soft.gradient:.4g} in the images' units): train with augmentation.blur and "
        "augmentation.sharpen"
        for what, pairs in (("splits", splits), ("dates", dates))
        if pairs
        for sharp, soft in [max((_sorted(*pair) for pair in pairs), key=lambda pair: _ratio(*pair))]
        if _ratio(sharp, soft) > REMARKABLE
    ]


def _sorted(one: SplitSharpness, other: SplitSharpness) -> tuple[SplitSharpness, SplitSharpness]:
    return (one, other) if one.relative >= other.relative else (other, one)


def _ratio(sharp: SplitSharpness, soft: SplitSharpness) -> float:
    return sharp.relative / max(soft.relative, 1e-9)


SHARPNESS_HEADER = ("split", "date", "median gradient", "in standard deviations", "of the first split's")


def sharpness_table(measured: Sequence[SplitSharpness]) -> list[list[str]]:
    """Rows under :data:`SHARPNESS_HEADER`; the last column compares what depends on no units."""
    first = {each.date: each for each in reversed(measured)}
    return [
        [
            each.split,
            each.date,
            f"{each.gradient:.4g}",
            f"{each.relative:.3f}",
            f"{each.relative / max(first[each.date].relative, 1e-9):.2f}",
        ]
        for each in measured
    ]
