"""Label rasters: values as the file holds them, and apart from them what it declares to be no label.

An image's reader makes nodata and transparent pixels invalid; of a label they may be one of its two values. So labels
are read with all their pixels, and what the file says of each stands beside its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio import DatasetReader
from rasterio.enums import ColorInterp

from storage.datasets.label_values import DECLARED, PLAIN, TRANSPARENT, LabelCounts, count_label, one_band
from storage.errors import InputError, ObjectStoreError
from storage.imagery.headers.checks import check_header
from storage.imagery.headers.look import has_mask
from storage.imagery.headers.placement import Placement, placement_of
from storage.imagery.identity.versions import version_of, versions_of
from storage.imagery.names.spec import named_rasters
from storage.imagery.rasters import read_source
from storage.imagery.sources import DRIVERS, Source, is_remote, is_zarr, open_source, open_with_allowed_driver
from storage.imagery.validity import Validity, is_nodata
from storage.imagery.values import require_readable
from storage.places.gdal import gdal_settings, plain_name

LABEL_DRIVERS = ("GTiff", "PNG", "JPEG", "BMP", *(driver for driver in DRIVERS if driver != "GTiff"))
_STRIP = 256
"""Rows that are counted at a time."""


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """One file of a label raster, by its header.

    Attributes:
        source: as it is read: its bands, the alpha band last where there is one, and no pixel of them invalid but by
            the file's own mask; of a Zarr group those of its nodata too. Its grid has no CRS without georeferencing.
        dtype: of its values as they are read.
        alpha: whether the last band is one.
        nodata: declared; None = none.
        greys: (256,) the grey of each index, where its palette is grey; then these are its values.
        clear: indices that its palette makes transparent.
    """

    source: Source
    dtype: str
    alpha: bool = False
    nodata: float | None = None
    greys: tuple[int, ...] = ()
    clear: tuple[int, ...] = ()

    @property
    def path(self) -> str:
        return self.source.path

    @property
    def grid(self) -> GeoBox:
        return self.source.grid

    def read(self, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Values and state, (h, w) each, of a range of its own pixels.

        Raises:
            InputError: it is coloured, or an index has no colour in its palette.
            ShortReadError, ReplacedError: as of :func:`storage.imagery.rasters.read_source`.
        """
        bands = tuple(range(1, len(self.source.image_bands) + 1))
        image, valid = read_source(self.source, bands, rows=rows, cols=cols)
        opaque = image[-1] > 0 if self.alpha else np.ones(valid.shape, dtype=bool)
        image = image[:-1] if self.alpha else image
        values = one_band(self.path, image)
        undefined = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(valid.shape, dtype=bool)
        invalid = DECLARED if self.source.driver == "Zarr" else TRANSPARENT  # there it is nodata, here the file's mask
        state = np.where(valid | undefined, PLAIN, invalid).astype(np.uint8)
        state[~opaque] = TRANSPARENT
        if self.nodata is not None:
            state[np.logical_and.reduce([is_nodata(band, self.nodata) for band in image])] = DECLARED
        state[undefined] = DECLARED
        if self.clear:
            state[np.isin(values, self.clear)] = TRANSPARENT
        if self.greys:
            values = self._greys(values)
        return values.astype(self.dtype, copy=False), state

    def _greys(self, indices: NDArray[Any]) -> NDArray[np.uint8]:
        greys = np.array(self.greys, dtype=np.int16)[indices]
        if (greys < 0).any():
            raise InputError(
                f"{self.path} has the value {int(indices[greys < 0][0])}, which has no colour of its own in its grey "
                "palette: write its values without a palette"
            )
        return greys.astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class LabelRaster:
    """A label raster by its headers: one file, or several that make one mosaic; holds no file open.

    Attributes:
        path: how messages name it.
        files: where they overlap, the first one whose pixel is not declared nodata counts.
        grid: of the first file.
        notes: what is remarkable about how it is read.
    """

    path: str
    files: tuple[LabelFile, ...]
    notes: tuple[str, ...] = ()

    @property
    def grid(self) -> GeoBox:
        return self.files[0].grid

    @property
    def dtype(self) -> str:
        return self.files[0].dtype

    def counts(self, *, most_px: int | None = None) -> tuple[LabelCounts, float]:
        """All its pixels by value, of its own grid, and the share of them that was looked at.

        Args:
            most_px: pixels to look at, at most about this many, in strips at even distances; None = all.
        """
        total, seen, whole = LabelCounts(), 0, sum(file.grid.height * file.grid.width for file in self.files)
        step = 1 if most_px is None else max(1, -(-whole // most_px))
        for file in self.files:
            for top in range(0, file.grid.height, _STRIP * step):
                rows = slice(top, min(top + _STRIP, file.grid.height))
                values, state = file.read(rows, slice(0, file.grid.width))
                total += count_label(values, state)
                seen += values.size
        return total, seen / whole

    def placed(self, grid: GeoBox) -> LabelRaster:
        """The same pixels said to lie on another grid of the same shape."""
        (file,) = self.files
        return replace(self, files=(replace(file, source=replace(file.source, grid=grid)),))


def open_label(spec: str) -> LabelRaster:
    """Open a label raster by its headers.

    Args:
        spec: a raster file, picture or URL, a folder or list of them, or a Zarr group.

    Raises:
        InputError: unreadable, or of a type that is no label's.
    """
    try:
        named = named_rasters(spec)
        if many := next((stack for stack in named.stacks if len(stack) != 1), None):
            raise InputError(f"{named.label} has bands in files of their own ({many[0][1]} …): a label has one band")
        opened = [_open_file(path) for ((_, path),) in named.stacks]
    except ObjectStoreError as error:
        raise InputError(str(error)) from error
    files, notes = zip(*opened, strict=True)
    words = dict.fromkeys(note for found in notes for note in found)
    if len({file.dtype for file in files}) > 1:
        held = ", ".join(sorted({file.dtype for file in files}))
        raise InputError(f"{named.label}: its files do not make one label, they hold {held}")
    return LabelRaster(path=named.label, files=files, notes=tuple(words))


def _open_file(path: str) -> tuple[LabelFile, tuple[str, ...]]:
    if is_zarr(path):
        source = open_source(path).source
        dtype = read_source(source, (1,), rows=slice(0, 1), cols=slice(0, 1))[0].dtype
        return LabelFile(source=source, dtype=str(dtype)), ()
    if not is_remote(path):
        if not Path(path).exists():
            raise InputError(f"{path} does not exist")
        if not Path(path).stat().st_size:
            raise InputError(f"{path} is empty (0 bytes)")
    before = version_of(path)
    settings = gdal_settings(is_planning=True)
    with rasterio.Env(**settings), open_with_allowed_driver(path, LABEL_DRIVERS) as dataset:
        check_header(dataset, path)
        file, notes = _of_dataset(dataset, path)
    versions = versions_of(file.source.files, before=before)
    return replace(file, source=replace(file.source, versions=versions)), notes


def _of_dataset(dataset: DatasetReader, path: str) -> tuple[LabelFile, tuple[str, ...]]:
    numbers = range(1, dataset.count + 1)
    alphas = tuple(n for n in numbers if dataset.colorinterp[n - 1] == ColorInterp.alpha)
    bands = tuple(n for n in numbers if n not in alphas)
    dtypes = {dataset.dtypes[number - 1] for number in numbers}
    if len(dtypes) != 1 or not bands or len(alphas) > 1:
        held = ", ".join(sorted(dtypes)) if bands else "nothing but alpha"
        raise InputError(f"{path} holds {held}: a label has one band of whole numbers")
    dtype = dtypes.pop()
    require_readable(dtype, path, what="a label")
    greys, clear, notes = _palette(dataset, bands, path)
    placed = dataset.crs is not None and not dataset.transform.is_identity
    placement = (
        placement_of(dataset, path) if placed else Placement(grid=GeoBox(dataset.shape, Affine.identity(), None))
    )
    source = Source(
        path=path,
        grid=placement.grid,
        files=tuple(map(plain_name, dataset.files)) or (path,),
        driver=dataset.driver,
        image_bands=(*bands, *alphas),
        validity=Validity(nodata=(None,) * dataset.count, mask=has_mask(dataset)),
        flip_y=placement.flip_y,
        flip_x=placement.flip_x,
    )
    file = LabelFile(
        source=source,
        dtype="uint8" if greys else dtype,
        alpha=bool(alphas),
        nodata=dataset.nodatavals[bands[0] - 1],
        greys=greys,
        clear=clear,
    )
    return file, notes


def _palette(
    dataset: DatasetReader, bands: Sequence[int], path: str
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]:
    """Greys of a grey palette (−1 where an index has no colour of its own), transparent indices, and a word."""
    if len(bands) != 1 or dataset.colorinterp[bands[0] - 1] != ColorInterp.palette or dataset.dtypes[0] != "uint8":
        return (), (), ()
    colours = {index: colour for index, colour in dataset.colormap(bands[0]).items() if index < 256}
    clear = tuple(index for index, colour in colours.items() if len(colour) > 3 and colour[3] == 0)
    if any(len(set(colour[:3])) > 1 for colour in colours.values()):
        shown = ", ".join(f"{i} = {colour[:3]}" for i, colour in sorted(colours.items())[:4])
        return (), clear, (f"{path} has a palette of colours ({shown} …): its indices are its values",)
    greys = [-1] * 256
    blacks = [index for index, colour in sorted(colours.items()) if colour[0] == 0]
    for index, colour in colours.items():
        # a TIFF's palette has 256 entries: those that nobody filled are black
        greys[index] = colour[0] if colour[0] or index == blacks[0] else -1
    return tuple(greys), clear, (f"{path} has a grey palette: its greys are its values",)
