"""The band of a COG: what its values are, and how they become coarser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What the values of a COG of one band are.

    Attributes:
        dtype: whole numbers of at most 32 bits.
        nodata: for averages the lowest or the highest value of the type, so that no mean can be it.
        scale: what a stored value is to be multiplied with.
        overviews: GDAL's name of the resampling.
        tags: what else the file says of itself.
    """

    dtype: str
    nodata: int
    description: str
    scale: float = 1.0
    overviews: Literal["AVERAGE", "NEAREST"] = "AVERAGE"
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dtype = np.dtype(self.dtype)
        if dtype.kind not in "ui" or dtype.itemsize > 4:
            raise ValueError(f"a layer of {self.dtype}: its values must be whole numbers of at most 32 bits")
        ends = np.iinfo(dtype).min, np.iinfo(dtype).max
        if not ends[0] <= self.nodata <= ends[1]:
            raise ValueError(f"nodata {self.nodata} is no value of {self.dtype}")
        if self.overviews == "AVERAGE" and self.nodata not in ends:
            raise ValueError(f"nodata {self.nodata} can be a mean of values of {self.dtype}; it must be one of {ends}")

    def halved(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Pixels at half the resolution.

        Args:
            pixels: (h, w) of the layer's type; their first row and column are even ones of the image.

        Returns:
            (⌈h / 2⌉, ⌈w / 2⌉): of every 2 × 2 pixels (fewer at an odd edge) the mean of those that are not nodata, a
            half rounded up, and nodata only where all are; or, of nearest pixels, the upper left one.
        """
        if self.overviews == "NEAREST":
            return pixels[::2, ::2].copy()
        height, width = pixels.shape
        if height % 2 or width % 2:
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2)), constant_values=self.nodata)
        wide: type[np.integer[Any]] = np.uint16 if pixels.dtype == np.uint8 else np.int64
        corners = [pixels[y::2, x::2] for y in (0, 1) for x in (0, 1)]
        missing = [corner == self.nodata for corner in corners]
        total = np.zeros(corners[0].shape, dtype=wide)
        if not any(corner.any() for corner in missing):
            for corner in corners:
                total += corner
            return np.right_shift(total + 2, 2).astype(pixels.dtype)
        count = np.full(total.shape, 4, dtype=wide)
        for corner, away in zip(corners, missing, strict=True):
            total += np.where(away, 0, corner).astype(wide, copy=False)
            count -= away
        mean = (2 * total + count) // np.maximum(2 * count, 1)
        return np.where(count == 0, self.nodata, mean).astype(pixels.dtype)
