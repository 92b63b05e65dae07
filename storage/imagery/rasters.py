"""Pixels of a mosaic on the run's grid, window by window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from odc.geo.overlap import compute_reproject_roi
from odc.geo.types import XY
from rasterio.enums import Resampling
from rasterio.errors import WarpOperationError
from rasterio.features import geometry_mask
from rasterio.warp import reproject
from rasterio.windows import Window

from storage.errors import ReplacedError, ShortReadError
from storage.geometry import is_whole_shift
from storage.imagery.handles import close_handle, handle
from storage.imagery.headers.decoding import hearing_damage
from storage.imagery.headers.look import valid_pixels
from storage.imagery.identity.versions import conditions, of_versions
from storage.imagery.mosaics import Mosaic
from storage.imagery.source_index import SourceIndex
from storage.imagery.sources import Source, is_remote
from storage.imagery.values import Encoding
from storage.longitudes import in_frame_of, outline_on
from storage.places.gdal import gdal_settings
from storage.regions import region_geometry

_RESAMPLED_TILE = 512
"""Pixels of the grid that are resampled at a time, so that a much finer source does not fill the memory."""

_FEW = 64
"""Sources of a mosaic up to which whole tiles are resampled from each: what they cost counts only where many meet."""

_GDAL = {"GDAL_CACHEMAX": 64, "GDAL_NUM_THREADS": "1", "GDAL_TIFF_INTERNAL_MASK": True}
_ON_A_DISK = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}
"""Side-cars are asked for by their names: to list a folder of 100,000 tiles for each of them takes longer."""


@dataclass(frozen=True, kw_only=True)
class GridReader:
    """One date's pixels on the grid of the run. Holds no file open, so it travels to workers.

    A source that lies on the grid's pixels is read as it is; another one is resampled, block by block, with the same
    values whatever the block.

    Attributes:
        bands: numbers (from 1, without alpha) of the bands to read, in the order wanted.
        encoding: how values are to be; None = as they are stored.
        resampling: nearest, bilinear, cubic or average.
        region: GeoJSON file; pixels whose centre is outside its polygons are invalid.
    """

    mosaic: Mosaic
    grid: GeoBox
    bands: tuple[int, ...]
    encoding: Encoding | None = None
    resampling: str = "bilinear"
    region: Path | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For a worker, which may run in another folder: the same region."""
        made_anew = ("_index", "_sources")
        own = {name: value for name, value in self.__dict__.items() if name not in made_anew}
        return {**own, "region": self.region and self.region.absolute()}

    @cached_property
    def _index(self) -> SourceIndex:
        return SourceIndex(self._sources, self.grid)

    @cached_property
    def _sources(self) -> tuple[Source, ...]:
        """The mosaic's, where the grid counts longitudes."""
        return tuple(
            source if placed is source.grid else replace(source, grid=placed)
            for source in self.mosaic.sources
            for placed in (in_frame_of(source.grid, self.grid),)
        )

    @property
    def dtype(self) -> str:
        """Type of what is read."""
        return self.mosaic.dtype if self.encoding is None else self.encoding.dtype

    @cached_property
    def _outline(self) -> Geometry | None:
        if self.region is None:
            return None
        assert self.grid.crs is not None
        return outline_on(region_geometry(self.region), self.grid)

    def read(self, *, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels of a range inside the grid.

        Returns:
            image (C, h, w) in the type of `encoding`, 0 where invalid; valid (h, w), True = valid. Invalid is what the
            source says (nodata value, mask band, alpha, NaN), what lies outside of all sources, or of the region.

        Raises:
            ShortReadError: a source could not deliver pixels that its header promises.
            ValueRangeError: a value is beyond what the encoding can hold.
        """
        target = self.grid[rows, cols]
        image = np.zeros((len(self.bands), *target.shape), dtype=self.dtype)
        valid = np.zeros(target.shape, dtype=bool)
        for number in self._index.touching(rows, cols):
            if valid.all():
                break
            self._add(number, rows, cols, image, valid)
        if self._outline is not None:
            valid &= geometry_mask([self._outline.geom], target.shape, target.affine, invert=True)
        image[:, ~valid] = 0
        return image, valid

    def _add(self, number: int, rows: slice, cols: slice, image: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Fill what is not valid yet from one source, by its number in the mosaic."""
        source, target = self._sources[number], self.grid[rows, cols]
        if is_whole_shift(source.grid, self.grid):
            shift = ~target.affine * source.grid.affine
            y, x = round(shift.f), round(shift.c)
            into_rows = slice(max(y, 0), min(y + source.grid.height, target.height))
            into_cols = slice(max(x, 0), min(x + source.grid.width, target.width))
            if into_rows.start >= into_rows.stop or into_cols.start >= into_cols.stop:
                return
            pixels = self._read_source(
                source,
                rows=slice(into_rows.start - y, into_rows.stop - y),
                cols=slice(into_cols.start - x, into_cols.stop - x),
            )
            _fill(image[:, into_rows, into_cols], valid[into_rows, into_cols], *pixels)
            return
        self._add_resampled(number, rows, cols, image, valid)

    def _read_source(self, source: Source, *, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels of a source on its own grid, in the reader's encoding."""
        image, valid = read_source(source, self.bands, rows=rows, cols=cols)
        if self.encoding is None:
            return image, valid
        bands = [source.bands[band - 1] for band in self.bands]
        return self.encoding.convert(image, valid, bands, path=source.path), valid

    def _add_resampled(
        self, number: int, rows: slice, cols: slice, image: NDArray[Any], valid: NDArray[np.bool_]
    ) -> None:
        """Resample whole tiles of the grid, always the same ones, so that no rounding depends on how it is cut.

        Of many small sources only that part of a tile that the source may reach, which is always the same too.
        """
        source = self._sources[number]
        rows_near, cols_near = self._index.span(number, rows=rows, cols=cols)
        are_many = len(self._sources) > _FEW
        for y in range(rows_near.start // _RESAMPLED_TILE * _RESAMPLED_TILE, rows_near.stop, _RESAMPLED_TILE):
            for x in range(cols_near.start // _RESAMPLED_TILE * _RESAMPLED_TILE, cols_near.stop, _RESAMPLED_TILE):
                tile_rows = slice(y, min(y + _RESAMPLED_TILE, self.grid.height))
                tile_cols = slice(x, min(x + _RESAMPLED_TILE, self.grid.width))
                if are_many:
                    tile_rows, tile_cols = self._index.span(number, rows=tile_rows, cols=tile_cols)
                    if not (_meet(tile_rows, rows) and _meet(tile_cols, cols)):
                        continue
                resampled = self._resampled(source, self.grid[tile_rows, tile_cols])
                if resampled is None:
                    continue
                (of_tile_y, here_y), (of_tile_x, here_x) = _shared(tile_rows, rows), _shared(tile_cols, cols)
                _fill(
                    image[:, here_y, here_x],
                    valid[here_y, here_x],
                    resampled[0][:, of_tile_y, of_tile_x],
                    resampled[1][of_tile_y, of_tile_x],
                )

    def _resampled(self, source: Source, target: GeoBox) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
        """A source brought onto `target`, a part of the grid; None where they do not overlap.

        Validity goes with the pixels as an alpha band: a pixel is valid if the source pixel nearest to it is, and its
        value is interpolated from valid pixels alone.
        """
        # left to itself GDAL derives the size of its kernel from the part it is given
        scale = _scale(source.grid, in_frame_of(self.grid, source.grid))
        target = in_frame_of(target, source.grid)  # of a source in metres, whose system counts longitudes its own way
        padding = 4 * ceil(max(scale.x, scale.y, 1.0))
        info = compute_reproject_roi(source.grid, target, padding=padding)
        rows, cols = info.roi_src
        if rows.start >= rows.stop or cols.start >= cols.stop:
            return None
        image, valid = self._read_source(source, rows=slice(rows.start, rows.stop), cols=slice(cols.start, cols.stop))
        opaque = np.asarray(min(255, np.iinfo(image.dtype).max) if image.dtype.kind != "f" else 255, dtype=image.dtype)
        pixels = np.concatenate([np.where(valid, image, 0), np.where(valid, opaque, 0)[None]]).astype(image.dtype)
        result = np.zeros((len(pixels), *target.shape), dtype=image.dtype)
        origin = source.grid[rows, cols]
        try:
            reproject(
                pixels,
                result,
                src_transform=origin.affine,
                src_crs=str(origin.crs),
                dst_transform=target.affine,
                dst_crs=str(target.crs),
                src_alpha=len(pixels),
                dst_alpha=len(pixels),
                resampling=Resampling[self.resampling],
                init_dest_nodata=False,
                XSCALE=1 / scale.x,
                YSCALE=1 / scale.y,
                tolerance=0,  # an approximated transformation would depend on how the grid is cut
            )
        except WarpOperationError as error:
            raise ShortReadError(f"{source.path} cannot be brought onto the grid: {error}") from error
        return result[:-1], result[-1] > 0


@lru_cache(maxsize=4096)
def _scale(source: GeoBox, grid: GeoBox) -> XY[float]:
    """Pixels of a source along one pixel of the grid."""
    return compute_reproject_roi(source, grid).scale2


def _meet(one: slice, other: slice) -> bool:
    return max(one.start, other.start) < min(one.stop, other.stop)


def _shared(tile: slice, span: slice) -> tuple[slice, slice]:
    """What two ranges share, counted from the start of each."""
    start, stop = max(tile.start, span.start), min(tile.stop, span.stop)
    return slice(start - tile.start, stop - tile.start), slice(start - span.start, stop - span.start)


def _fill(image: NDArray[Any], valid: NDArray[np.bool_], pixels: NDArray[Any], pixels_valid: NDArray[np.bool_]) -> None:
    new = pixels_valid & ~valid
    if new.all():
        image[...] = pixels
        valid[...] = True
    else:
        image[:, new] = pixels[:, new]
        valid |= new


def read_source(
    source: Source, bands: tuple[int, ...], *, rows: slice, cols: slice
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels of a source on its own grid: image (C, h, w) and valid (h, w).

    Raises:
        ReplacedError: a file of it is not the one any more that it was planned with.
        ShortReadError: naming file and window.
    """
    if source.parts:
        return _read_parts(source, bands, rows, cols)
    stored_rows, stored_cols = (
        _stored(rows, source.grid.height, source.flip_y),
        _stored(cols, source.grid.width, source.flip_x),
    )
    with of_versions(source.versions):
        try:
            image, valid = _reading_of(source)(source, bands, stored_rows, stored_cols)
        except ReplacedError:
            raise
        except Exception as error:  # GDAL's and the codecs' errors come in many types
            cause = f"{error}" if error.__cause__ is None else f"{error} {error.__cause__}"
            window = f"rows {rows.start}–{rows.stop}, columns {cols.start}–{cols.stop}"
            raise ShortReadError(f"{source.path}: {window} cannot be read: {cause}") from error
    if source.flip_y or source.flip_x:
        turned = (slice(None, None, -1 if source.flip_y else 1), slice(None, None, -1 if source.flip_x else 1))
        return np.ascontiguousarray(image[:, *turned]), np.ascontiguousarray(valid[turned])
    return image, valid


def _stored(span: slice, size: int, flipped: bool) -> slice:
    """Where rows or columns of a grid lie in an array that runs the same way, or the other."""
    return slice(size - span.stop, size - span.start) if flipped else span


def _read_parts(
    source: Source, bands: tuple[int, ...], rows: slice, cols: slice
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Bands from rasters of their own: a pixel is valid if it is in all of them."""
    places = [(part, number) for part in source.parts for number in range(1, len(part.image_bands) + 1)]
    bands_read = [
        read_source(part, (number,), rows=rows, cols=cols) for part, number in (places[band - 1] for band in bands)
    ]
    return np.concatenate([image for image, _ in bands_read]), np.logical_and.reduce([valid for _, valid in bands_read])


def _reading_of(source: Source) -> Callable[..., tuple[NDArray[Any], NDArray[np.bool_]]]:
    if source.driver != "Zarr":
        return _read_raster
    from storage.imagery.groups.group import read_group

    return read_group


def _read_raster(
    source: Source, bands: tuple[int, ...], rows: slice, cols: slice
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    window = Window.from_slices(rows, cols)
    settings = {**_GDAL, **({} if is_remote(source.path) else _ON_A_DISK), **gdal_settings()}
    with rasterio.Env(**settings, **conditions(source.versions)):
        dataset = handle(source)
        try:
            with hearing_damage():
                return _decoded(dataset, source, bands, window)
        except Exception:
            # GDAL keeps the tile as far as it could be decoded: asked again it would give that without a word
            close_handle(source)
            raise


def _decoded(
    dataset: rasterio.DatasetReader, source: Source, bands: tuple[int, ...], window: Window
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    numbers, rule = source.image_bands, source.validity
    assert rule is not None
    if source.palette:
        indices = dataset.read(numbers[0], window=window)
        valid = valid_pixels(dataset, rule, indices[None], numbers, (1,), window)
        colours = np.asarray(source.palette, dtype=np.uint8)
        valid &= colours[:, 3][indices] > 0  # transparent
        return colours[:, [band - 1 for band in bands]][indices].transpose(2, 0, 1), valid
    image = dataset.read([numbers[band - 1] for band in bands], window=window)
    return image, valid_pixels(dataset, rule, image, numbers, bands, window)
