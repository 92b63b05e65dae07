"""A label raster on the grid of its scene: of each pixel the label's in which its centre lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.overlap import compute_reproject_roi

from storage.datasets.label_rasters import LabelFile, LabelRaster
from storage.datasets.label_values import DECLARED, OUTSIDE
from storage.errors import InputError
from storage.geometry import is_whole_shift

_TILE = 1024
"""Side of a part of the grid whose places are looked up at a time."""
_TIE = 1e-6
_LARGEST_RATIO = 8.0


@dataclass(frozen=True, kw_only=True)
class LabelReader:
    """A label raster on the grid of its scene. Holds no file open, so it travels to workers."""

    raster: LabelRaster
    grid: GeoBox

    @property
    def path(self) -> str:
        return self.raster.path

    def read(self, *, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Values and state, (h, w) each, of a range inside the grid.

        Raises:
            InputError, ShortReadError: as of :meth:`LabelFile.read`.
        """
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        values = np.zeros(shape, dtype=self.raster.dtype)
        state = np.full(shape, OUTSIDE, dtype=np.uint8)
        for y in range(rows.start, rows.stop, _TILE):
            for x in range(cols.start, cols.stop, _TILE):
                tile_rows, tile_cols = slice(y, min(y + _TILE, rows.stop)), slice(x, min(x + _TILE, cols.stop))
                part = (
                    slice(tile_rows.start - rows.start, tile_rows.stop - rows.start),
                    slice(tile_cols.start - cols.start, tile_cols.stop - cols.start),
                )
                for file in self.raster.files:
                    _add(file, self.grid, tile_rows, tile_cols, values[part], state[part])
        return values, state


def label_reader(
    label: LabelRaster, grid: GeoBox, *, images: GeoBox, images_path: str
) -> tuple[LabelReader, str | None]:
    """A label on the grid of its scene, and a word where it does not lie on that grid's pixels.

    Args:
        images: own grid of the first date, on whose pixels a label without georeferencing lies.

    Raises:
        InputError: another size where pixels are all there is to align by; no overlap; pixels of a size too different.
    """
    if label.grid.crs is None or grid.crs is None:
        if len(label.files) != 1:
            raise InputError(f"{label.path} is made of several files and has no georeferencing to match them by")
        if label.grid.shape != images.shape:
            (height, width), (h, w) = label.grid.shape, images.shape
            raise InputError(
                f"{label.path} has {width} × {height} px, {images_path} has {w} × {h} px: sizes must agree"
            )
        lost = label.grid.crs is None and grid.crs is not None
        note = f"{label.path} has no georeferencing: it is laid on {images_path} pixel by pixel" if lost else None
        return LabelReader(raster=label.placed(images), grid=grid), note
    if not any(_share_ground(file.grid, grid) for file in label.files):
        raise InputError(f"{label.path} does not overlap {images_path}: a label lies where its images do")
    scale = float(compute_reproject_roi(label.grid, grid).scale)
    if not 1 / _LARGEST_RATIO <= scale <= _LARGEST_RATIO:
        raise InputError(
            f"{label.path} has pixels {max(scale, 1 / scale):.3g} times as {'small' if scale > 1 else 'large'} as "
            f"those of {images_path}: at most {_LARGEST_RATIO:g} times can be used, resample one of them"
        )
    reader = LabelReader(raster=label, grid=grid)
    if all(is_whole_shift(file.grid, grid) for file in label.files):
        return reader, None
    own, theirs = (f"{abs(g.resolution.x):.6g} in {g.crs}" for g in (label.grid, grid))
    return reader, f"{label.path} lies on another grid (pixels of {own}, not {theirs}): the nearest of them are taken"


def _add(
    file: LabelFile, grid: GeoBox, rows: slice, cols: slice, values: NDArray[Any], state: NDArray[np.uint8]
) -> None:
    """Fill what is not known yet from one file."""
    missing = (state == OUTSIDE) | (state == DECLARED)
    if not missing.any():
        return
    found, what = _nearest(file, grid, rows, cols)
    better = missing & (what != OUTSIDE) & ((state == OUTSIDE) | (what != DECLARED))
    values[better] = found[better]
    state[better] = what[better]


def _share_ground(own: GeoBox, grid: GeoBox) -> bool:
    info = compute_reproject_roi(own, grid)
    return all(span.stop > span.start for roi in (info.roi_src, info.roi_dst) for span in roi)


def _nearest(file: LabelFile, grid: GeoBox, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Values and state of the file's pixels in which the centres of a range of the grid lie."""
    y, x = _places(file.grid, grid, rows, cols)
    inside = (y >= 0) & (y < file.grid.height) & (x >= 0) & (x < file.grid.width)  # (h, w)
    if not inside.any():
        return np.zeros(inside.shape, dtype=file.dtype), np.full(inside.shape, OUTSIDE, dtype=np.uint8)
    own_y, own_x = np.broadcast_to(y, inside.shape)[inside], np.broadcast_to(x, inside.shape)[inside]
    top, left = int(own_y.min()), int(own_x.min())
    values, state = file.read(slice(top, int(own_y.max()) + 1), slice(left, int(own_x.max()) + 1))
    y, x = np.clip(y - top, 0, len(values) - 1), np.clip(x - left, 0, values.shape[1] - 1)
    return values[y, x], np.where(inside, state[y, x], np.uint8(OUTSIDE))


def _places(own: GeoBox, grid: GeoBox, rows: slice, cols: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column in `own` of each pixel of a range of `grid`, in shapes that make (h, w) together; −1 = none."""
    across, down = np.arange(cols.start, cols.stop)[None] + 0.5, np.arange(rows.start, rows.stop)[:, None] + 0.5
    if own.crs == grid.crs:
        to_own = ~own.affine * grid.affine
    else:
        assert grid.crs is not None and own.crs is not None
        east, north = np.broadcast_arrays(grid.affine.a * across + grid.affine.c, grid.affine.e * down + grid.affine.f)
        across, down = grid.crs.transformer_to_crs(own.crs)(east, north)
        to_own = ~own.affine
    return _whole(to_own.e * down + to_own.f), _whole(to_own.a * across + to_own.c)


def _whole(places: NDArray[np.float64]) -> NDArray[np.int64]:
    """The pixel that a place lies in; on an edge the one after it, whatever rounding says."""
    known = np.isfinite(places) & (np.abs(places) < 2**53)
    return np.where(known, np.floor(np.where(known, places, 0) + _TIE), -1).astype(np.int64)
