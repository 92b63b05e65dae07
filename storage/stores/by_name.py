"""Series of more dates than two: images by date, probabilities by pair, and what is read from all pairs together.

Each date has a store of its own, and each pair: a new date adds stores, and touches none. A *part* of the region's
grid, cut along blocks, is read through views that look like a run's store, so products are made of it as of a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from storage.stores.run_store import RunStore


@dataclass(frozen=True, kw_only=True)
class ImagesByDate:
    """Images of several dates, each in a store of its own."""

    stores: Mapping[str, RunStore]

    def write_date(self, name: str, image: NDArray[Any], valid: NDArray[np.bool_], *, rows: slice, cols: slice) -> None:
        """Write one block of one date durably: image (C, h, w), valid (h, w)."""
        self.stores[name].write_image(0, image, valid, rows=rows, cols=cols)

    def read_dates(self, names: Sequence[str], *, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Images (T, C, h, w) and valid (T, h, w) of the named dates; beyond the grid 0 and False."""
        series = [self.stores[name].read_series(rows=rows, cols=cols) for name in names]
        return np.concatenate([images for images, _ in series]), np.concatenate([valid for _, valid in series])


@dataclass(frozen=True, kw_only=True)
class ProbabilitiesByPair:
    """Probabilities of several pairs of dates, each in a store of its own."""

    stores: Mapping[str, RunStore]

    def write_pair(self, name: str, probability: NDArray[np.uint8], *, rows: slice, cols: slice) -> str:
        """Write one block (h, w) of a pair durably; returns the SHA-256 of its bytes, as hex."""
        return self.stores[name].write_probability(probability[None], rows=rows, cols=cols)


@dataclass(frozen=True, kw_only=True)
class PairView:
    """One pair of dates over a part of the grid; what COG, polygons and quicklook read.

    Attributes:
        probability: the pair's store.
        images: the stores of its two dates.
        rows, cols: the part, cut along blocks.
    """

    probability: RunStore
    images: tuple[RunStore, RunStore]
    rows: slice
    cols: slice

    @property
    def grid(self) -> GeoBox:
        part: GeoBox = self.probability.grid[self.rows, self.cols]
        return part

    @property
    def height(self) -> int:
        return int(self.rows.stop - self.rows.start)

    @property
    def width(self) -> int:
        return int(self.cols.stop - self.cols.start)

    @property
    def block(self) -> int:
        return self.probability.block

    @property
    def bands(self) -> tuple[str, ...]:
        return self.images[0].bands

    def read_series(self, *, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Images (2, C, h, w) and valid (2, h, w) of a range inside the part."""
        dates = [store.read_images(0, rows=self._row(rows), cols=self._col(cols)) for store in self.images]
        return np.stack([image for image, _ in dates]), np.stack([valid for _, valid in dates])

    def read_probability(self, *, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """(h, w) uint8 of a range inside the part: probability × 254, 255 = nodata."""
        return self.probability.read_probability(rows=self._row(rows), cols=self._col(cols))

    def _row(self, rows: slice) -> slice:
        return slice(rows.start + self.rows.start, rows.stop + self.rows.start)

    def _col(self, cols: slice) -> slice:
        return slice(cols.start + self.cols.start, cols.stop + self.cols.start)
