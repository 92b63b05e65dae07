"""A finished run in memory, for tests of the products; fakes nothing but the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox


@dataclass
class MemoryRun:
    """A SeriesReader over arrays: probability (h, w) uint8, images (2, C, h, w), valid."""

    probability: NDArray[np.uint8]
    images: NDArray[Any] | None = None
    valid: NDArray[np.bool_] | None = None
    bands: tuple[str, ...] = ("red", "green", "blue")
    block: int = 64
    crs: str = "EPSG:32631"
    resolution: float = 2.0
    reads: list[tuple[slice, slice]] = field(default_factory=list)

    @property
    def grid(self) -> GeoBox:
        step = self.resolution
        return GeoBox(self.probability.shape, Affine(step, 0, 500_000, 0, -step, 5_600_000), self.crs)

    @property
    def height(self) -> int:
        return self.probability.shape[0]

    @property
    def width(self) -> int:
        return self.probability.shape[1]

    def read_probability(self, *, rows: slice, cols: slice) -> NDArray[Any]:
        self.reads.append((rows, cols))
        return self.probability[rows, cols]

    def read_series(self, *, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        assert self.images is not None and self.valid is not None
        return self.images[..., rows, cols], self.valid[..., rows, cols]
