"""What is counted of the probability, plate by plate, and what the counts of all plates come to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.products.reader import pixels_sha256
from tiling.conventions import NODATA

_ROWS = 32


@dataclass(frozen=True, kw_only=True)
class PlateSums:
    """What is counted of one plate.

    Attributes:
        pixels_sha256: SHA-256 of the plate's own pixels, uint8, row by row, as hex.
        histogram: (256,) pixels of each value; the last one is nodata.
    """

    pixels_sha256: str
    histogram: tuple[int, ...]

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> PlateSums:
        """Count (h, w) uint8 pixels of a plate."""
        histogram = np.zeros(256, dtype=np.int64)
        for y in range(0, len(pixels), _ROWS):  # bincount makes eight bytes of each
            histogram += np.bincount(pixels[y : y + _ROWS].ravel(), minlength=256)
        return cls(pixels_sha256=pixels_sha256(pixels), histogram=tuple(int(count) for count in histogram))


@dataclass(frozen=True, kw_only=True)
class CogResult:
    """What a COG holds.

    Attributes:
        pixels_sha256: SHA-256 over the digests of all plates (32 bytes each, SHA-256 of the plate's own pixels, row by
            row) in the order of their numbers; so it does not depend on blocks, and no one reads all pixels for it.
        histogram: (256,) pixels of each value; the last one is nodata.
    """

    pixels_sha256: str
    histogram: tuple[int, ...]

    @property
    def valid_pixels(self) -> int:
        return sum(self.histogram[:NODATA])


def add_up(plates: Iterable[PlateSums]) -> CogResult:
    """What the sums of all plates, in the order of their numbers, come to."""
    total, histogram = hashlib.sha256(), np.zeros(256, dtype=np.int64)
    for plate in plates:
        total.update(bytes.fromhex(plate.pixels_sha256))
        histogram += plate.histogram
    return CogResult(pixels_sha256=total.hexdigest(), histogram=tuple(int(count) for count in histogram))
