"""Which pixels count: nodata by band, alpha, masks, NaN; one rule for every reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_EXACT_BELOW = 1000.0
_RELATIVE = 1e-6
_HUGE, _RELATIVE_OF_HUGE = 1e30, 1e-5
"""A large nodata value of floats loses digits where it is written as text: −3.40282e+38 is a millionth from the type's
end. Nothing that is measured comes near those."""


@dataclass(frozen=True, kw_only=True)
class Validity:
    """The rule by which pixels of a source count.

    Attributes:
        nodata: stored value that stands for no value, for each band (without alpha); None = none.
        alpha: rasterio's number (from 1) of the band that is a mask, not valid where it is 0 or NaN; None = no band is.
        mask: whether the file has a mask of its own (inside, or as ``.msk`` beside it).
        every_band: a pixel is not valid where all bands have their nodata, instead of any band that is read. In eight
            bits every value occurs in imagery: one band of a dark pixel is 0 where the pixel is not missing.
    """

    nodata: tuple[float | None, ...]
    alpha: int | None = None
    mask: bool = False
    every_band: bool = False

    @property
    def words(self) -> str:
        """The rule for a person."""
        values = list(dict.fromkeys(value for value in self.nodata if value is not None))
        rules = []
        if values:
            shown = ", ".join(f"{value:g}" for value in values)
            rules.append(f"nodata {shown} in {'every band' if self.every_band else 'any band that is read'}")
        if self.alpha is not None:
            rules.append(f"band {self.alpha} is a mask (alpha)")
        if self.mask:
            rules.append("mask of the file")
        return "; ".join(rules) or "all pixels"

    @property
    def says_nothing(self) -> bool:
        """Whether nothing but NaN is not valid."""
        return self.alpha is None and not self.mask and all(value is None for value in self.nodata)

    def of_values(self, image: NDArray[Any], bands: Sequence[int]) -> NDArray[np.bool_]:
        """Validity by nodata values and NaN.

        Args:
            image: (C, h, w), the bands with these numbers (from 1, without alpha); all bands where `every_band`.

        Returns:
            (h, w), True = valid.
        """
        valid = np.ones(image.shape[1:], dtype=bool)
        missing = [
            is_nodata(image[index], value)
            for index, band in enumerate(bands)
            if (value := self.nodata[band - 1]) is not None
        ]
        if missing:
            combine = np.logical_and if self.every_band else np.logical_or
            valid = ~combine.reduce(missing)
        if image.dtype.kind == "f":
            valid &= np.isfinite(image).all(axis=0)
        return valid


def nodata_rule(
    dtype: str, nodata: Sequence[float | None], *, alpha: int | None, mask: bool
) -> tuple[Validity, tuple[str, ...]]:
    """The rule for bands of one type, and what is wrong with the nodata values, in words."""
    kept: list[float | None] = []
    doubts = []
    for value in nodata:
        fits = value is None or _fits(dtype, value)
        kept.append(value if fits else None)
        if not fits:
            doubts.append(f"nodata {value:g} is no value of {dtype}: no pixel has it; --nodata names another")
    # a value that one band alone declares is meant for that band, and no other could confirm it
    every_band = np.dtype(dtype).itemsize == 1 and len(kept) > 1 and None not in kept
    rule = Validity(nodata=tuple(kept), alpha=alpha, mask=mask, every_band=every_band)
    return rule, tuple(dict.fromkeys(doubts))


def is_nodata(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Where values (any shape) are the nodata value of their band."""
    if np.isnan(nodata):
        return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)
    if values.dtype.kind != "f":
        return np.asarray(values == values.dtype.type(int(nodata)))
    if abs(nodata) < _EXACT_BELOW or np.isinf(nodata):
        return np.asarray(values == values.dtype.type(nodata))
    with np.errstate(invalid="ignore"):
        share = _RELATIVE if abs(nodata) < _HUGE else _RELATIVE_OF_HUGE
        return np.asarray(np.abs(values.astype(np.float64) - nodata) <= share * abs(nodata))


def _fits(dtype: str, value: float) -> bool:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return True
    if not np.isfinite(value) or value != int(value):
        return False
    limits = np.iinfo(kind)
    return bool(limits.min <= value <= limits.max)
