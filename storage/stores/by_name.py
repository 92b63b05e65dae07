"""Series of more dates than two: images by date, probabilities by pair, and what is read from all pairs together.

Each date has a store of its own, and each pair: a new date adds stores, and touches none. A *part* of the region's
grid, cut along blocks, is read through views that look like a run's store, so products are made of it as of a run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from storage.errors import IntegrityError
from storage.products.cog import CheckBlock, Layer, read_checked, write_layer
from storage.stores.create import create_probability_cube
from storage.stores.run_store import NODATA, RunStore, changed_level

NEVER, UNKNOWN = 0, -1
"""Of a map of first dates: no change was seen; no pair is known there."""


@dataclass(frozen=True, kw_only=True)
class ImagesByDate:
    """Images of several dates, each in a store of its own; a `DatesSource` for those that are named."""

    stores: Mapping[str, RunStore]

    def read_dates(self, names: Sequence[str], *, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Images (T, C, h, w) and valid (T, h, w) of the named dates; beyond the grid 0 and False."""
        found = [self.stores[name].read_series(rows=rows, cols=cols) for name in names]
        return np.concatenate([images for images, _ in found]), np.concatenate([valid for _, valid in found])


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
        found = [store.read_images(0, rows=self._row(rows), cols=self._col(cols)) for store in self.images]
        return np.stack([image for image, _ in found]), np.stack([valid for _, valid in found])

    def read_probability(self, *, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """(h, w) uint8 of a range inside the part: probability × 254, 255 = nodata."""
        return self.probability.read_probability(rows=self._row(rows), cols=self._col(cols))

    def _row(self, rows: slice) -> slice:
        return slice(rows.start + self.rows.start, rows.stop + self.rows.start)

    def _col(self, cols: slice) -> slice:
        return slice(cols.start + self.cols.start, cols.stop + self.cols.start)


@dataclass(frozen=True, kw_only=True)
class SeriesMaps:
    """What all pairs together say of a part: when a change was first seen, and how sure one can be that any happened.

    Attributes:
        views: one a pair, over one part, in the order of `seen`.
        seen: the day on which each pair's change was seen.
        threshold: of the probability.
        checks: sees each block of each pair before it is used.
    """

    views: tuple[PairView, ...]
    seen: tuple[date, ...]
    threshold: float
    checks: tuple[CheckBlock, ...]

    def __post_init__(self) -> None:
        assert len(self.views) == len(self.seen) == len(self.checks) > 0 and list(self.seen) == sorted(self.seen)

    def read_peak(self, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """(h, w) uint8: the highest probability of any pair × 254; 255 where no pair is known."""
        ranked = np.zeros((rows.stop - rows.start, cols.stop - cols.start), dtype=np.uint8)
        for stored in self._stored(rows, cols):
            np.maximum(ranked, np.where(stored == NODATA, 0, stored + np.uint8(1)), out=ranked)  # nodata lowest
        return ranked - np.uint8(1)  # 0 − 1 is nodata again

    def read_first(self, rows: slice, cols: slice) -> NDArray[np.int32]:
        """(h, w) int32: the day of the first change seen, as YYYYMMDD; :data:`NEVER`, :data:`UNKNOWN`."""
        first = np.full((rows.stop - rows.start, cols.stop - cols.start), UNKNOWN, dtype=np.int32)
        for stored, day in zip(self._stored(rows, cols), self.seen, strict=True):
            known = stored != NODATA
            first[known & (first == UNKNOWN)] = NEVER
            first[known & (stored >= changed_level(self.threshold)) & (first == NEVER)] = _as_number(day)
        return first

    def _stored(self, rows: slice, cols: slice) -> Iterator[NDArray[np.uint8]]:
        for view, check in zip(self.views, self.checks, strict=True):
            yield read_checked(view, rows, cols, check=check)

    def write_peak(self, path: Path, conclude: Callable[[], None]) -> None:
        """As a COG like that of one pair; `conclude` as of :func:`storage.products.cog.write_cog`."""
        layer = Layer(
            dtype="uint8", nodata=NODATA, description="highest change probability of all pairs", scale=1 / 254
        )
        write_layer(path, layer, grid=self.views[0].grid, strips=self._strips(self.read_peak), conclude=conclude)

    def write_first(self, path: Path, conclude: Callable[[], None]) -> None:
        """As a COG of days; overviews take the nearest pixel, because the mean of two dates is no date."""
        layer = Layer(
            dtype="int32",
            nodata=UNKNOWN,
            description="day on which a change was first seen, YYYYMMDD; 0 = none was",
            overviews="NEAREST",
        )
        write_layer(path, layer, grid=self.views[0].grid, strips=self._strips(self.read_first), conclude=conclude)

    def _strips(self, read: Callable[[slice, slice], NDArray[Any]]) -> Iterator[tuple[slice, NDArray[Any]]]:
        view = self.views[0]
        for y in range(0, view.height, view.block):
            rows = slice(y, min(y + view.block, view.height))
            parts = [read(rows, slice(x, min(x + view.block, view.width))) for x in range(0, view.width, view.block)]
            yield rows, np.concatenate(parts, axis=1)


def _as_number(day: date) -> int:
    return day.year * 10_000 + day.month * 100 + day.day


def assemble_cube(
    path: Path,
    stores: Sequence[RunStore],
    *,
    times: Sequence[datetime],
    intervals: Sequence[tuple[datetime, datetime]],
    attrs: Mapping[str, Any],
) -> None:
    """All pairs as one array ``change_probability(time, y, x)``, with `start` and `end` of each pair over `time`.

    The stores' shards are linked (or copied, where the file system has no links), not computed or decoded again, and
    the cube appears in one step.

    Args:
        stores: finished, one a pair, of one grid and block size.
        times: the date that each pair tells of, ascending.
        intervals: the two dates of each pair.

    Raises:
        IntegrityError: a store has lost a shard.
    """

    def fill(draft: Path) -> None:
        for index, store in enumerate(stores):
            shards = store.path / "change_probability" / "c" / "0"
            for row, col in np.ndindex(-(-store.height // store.block), -(-store.width // store.block)):
                shard = shards / str(row) / str(col)
                if not shard.is_file():
                    raise IntegrityError(f"{shard} is missing, though its block was written")
                _link(shard, draft / "change_probability" / "c" / str(index) / str(row) / str(col))

    create_probability_cube(
        path, grid=stores[0].grid, times=times, intervals=intervals, block=stores[0].block, attrs=attrs, fill=fill
    )


def _link(shard: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(shard, target)
    except OSError:
        shutil.copyfile(shard, target)
