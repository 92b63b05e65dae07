"""Maps of a series: when a change was first seen, and the highest probability of any pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.products.cog import write_layer
from storage.products.geotiff.layer import Layer
from storage.products.reader import CheckBlock, read_checked
from storage.stores.by_name import PairView
from tiling.conventions import NODATA, PROBABILITY_SCALE, changed_level

NEVER, UNKNOWN = 0, -1
"""Values in a map of first dates: no change was seen; no pair is known there."""


@dataclass(frozen=True, kw_only=True)
class SeriesMaps:
    """What all pairs together say of a part: when a change was first seen, and how sure one can be that any happened.

    Attributes:
        views: one a pair, over one part, in the order of `days`.
        days: the day on which each pair's change was seen.
        threshold: on the probability.
        checks: sees each block of each pair before it is used.
    """

    views: tuple[PairView, ...]
    days: tuple[date, ...]
    threshold: float
    checks: tuple[CheckBlock, ...]

    def __post_init__(self) -> None:
        assert len(self.views) == len(self.days) == len(self.checks) > 0 and list(self.days) == sorted(self.days)

    def read_peak(self, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """(h, w) uint8: the highest probability of any pair × 254; 255 where no pair is known."""
        ranked = np.zeros((rows.stop - rows.start, cols.stop - cols.start), dtype=np.uint8)
        for stored in self._stored(rows, cols):
            np.maximum(ranked, np.where(stored == NODATA, 0, stored + np.uint8(1)), out=ranked)  # nodata lowest
        return ranked - np.uint8(1)  # 0 − 1 is nodata again

    def read_first(self, rows: slice, cols: slice) -> NDArray[np.int32]:
        """(h, w) int32: the day of the first change seen, as YYYYMMDD; :data:`NEVER`, :data:`UNKNOWN`."""
        first = np.full((rows.stop - rows.start, cols.stop - cols.start), UNKNOWN, dtype=np.int32)
        for stored, day in zip(self._stored(rows, cols), self.days, strict=True):
            valid = stored != NODATA
            first[valid & (first == UNKNOWN)] = NEVER
            first[valid & (stored >= changed_level(self.threshold)) & (first == NEVER)] = _as_number(day)
        return first

    def _stored(self, rows: slice, cols: slice) -> Iterator[NDArray[np.uint8]]:
        for view, check in zip(self.views, self.checks, strict=True):
            yield read_checked(view, rows, cols, check=check)

    def write_peak(self, path: Path, conclude: Callable[[], None]) -> None:
        """As a COG like that of one pair; `conclude` as of :func:`storage.products.cog.write_cog`."""
        layer = Layer(
            dtype="uint8", nodata=NODATA, description="highest change probability of all pairs", scale=PROBABILITY_SCALE
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
