"""One raster file, URL or Zarr group by its header: it is opened, described and, if it cannot work, refused."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import rasterio
from odc.geo.geobox import GeoBox
from rasterio import DatasetReader
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

from storage.errors import InputError, ObjectStoreError
from storage.imagery.dates.acquisition import UNDATED, AcquisitionDate
from storage.imagery.description import NOTHING_SAID, Band, Overrides
from storage.imagery.identity.versions import FileVersion, version_of, versions_of
from storage.imagery.validity import Validity
from storage.places.bucket import SCHEME, ObjectPath
from storage.places.credentials import refuse_credentials
from storage.places.gdal import gdal_name

DRIVERS = ("GTiff", "ENVI", "HFA", "JP2OpenJPEG")
"""Formats that hold pixels. A VRT is none of them: it names other files, any file, also under the name of a TIFF."""

_ZARR_FILES = ("zarr.json", ".zgroup")
"""What lies in a group of Zarr 3, and of Zarr 2."""

RASTER_SUFFIXES = (".tif", ".tiff", ".img", ".jp2")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One raster file, URL or Zarr group, or several rasters of one grid that hold its bands.

    Attributes:
        path: as rasterio or Zarr opens it; of several rasters the first one's.
        grid: its own pixels.
        files: all files it consists of, sidecars too.
        driver: GDAL's name of its format, or ``Zarr``.
        variable: name of the variable of a Zarr group.
        image_bands: rasterio's numbers (from 1) of its bands without alpha, in the order of `bands`; of several rasters
            counted through.
        bands: what they are; three for the one band of a palette.
        validity: which of its pixels count; None for several rasters, each of which has its own.
        palette: red, green, blue and opacity, 0 … 255, of each value 0 … 255 of its one band; empty = none.
        parts: the rasters that hold its bands, in their order; empty for one that holds them all.
        flip_y: its first stored row is the southernmost; `grid` is north-up whatever it is.
        flip_x: its first stored column is the easternmost.
        versions: which content its files had when its header was read; what is read later is compared with them.
    """

    path: str
    grid: GeoBox
    files: tuple[str, ...]
    driver: str
    variable: str = ""
    image_bands: tuple[int, ...] = ()
    bands: tuple[Band, ...] = ()
    validity: Validity | None = None
    palette: tuple[tuple[int, int, int, int], ...] = ()
    parts: tuple[Source, ...] = ()
    flip_y: bool = False
    flip_x: bool = False
    versions: tuple[FileVersion, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """For a worker, which may run in another folder: the same file."""
        return {**self.__dict__, "path": absolute(self.path)}


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a source says of itself.

    Attributes:
        dtype: type of its values, one of :data:`storage.imagery.values.READABLE`.
        acquired: its date, and how that is known.
        facts: how it is stored and was processed, for a person.
        doubts: what was guessed, each with the option that settles it.
    """

    source: Source
    dtype: str
    acquired: AcquisitionDate = UNDATED
    facts: Mapping[str, str] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    @property
    def bands(self) -> tuple[Band, ...]:
        return self.source.bands


def open_source(path: str, said: Overrides = NOTHING_SAID, *, look: bool = True) -> Header:
    """Open the header of one file, URL or Zarr group.

    Args:
        said: what the user says of it.
        look: look for a valid pixel and at its edge; not worth it for each of many tiles.

    Raises:
        InputError: naming the path and what is wrong with it.
    """
    refuse_credentials(path)
    before = version_of(path)  # else a file that is replaced while it is looked at would have two
    try:
        if not is_zarr(path):
            from storage.imagery.headers.raster import open_raster

            header = open_raster(path, said, look=look)
        else:
            from storage.imagery.groups.group import open_group

            header = open_group(path, said)
        versions = versions_of(header.source.files, before=before)
        parts = tuple(replace(part, versions=versions) for part in header.source.parts)  # arrays of one group
        return replace(header, source=replace(header.source, versions=versions, parts=parts))
    except ObjectStoreError as error:
        raise InputError(str(error)) from error


def is_remote(path: str) -> bool:
    """Whether a path is a URL or one of GDAL's virtual files."""
    return "://" in path or path.startswith("/vsi")


def absolute(path: str) -> str:
    """The same file for a process that runs in another folder; a URL stays as it is."""
    return path if is_remote(path) else str(Path(path).absolute())


def is_zarr(path: str) -> bool:
    """Whether a path is that of a Zarr group, by its name or by what lies there."""
    if path.rstrip("/").endswith(".zarr"):
        return True
    if path.startswith(SCHEME):
        is_raster = path.lower().endswith(RASTER_SUFFIXES)
        return not is_raster and any((ObjectPath.parse(path) / name).exists() for name in _ZARR_FILES)
    return any((Path(path) / name).exists() for name in _ZARR_FILES)


def open_with_allowed_driver(path: str, drivers: Sequence[str] = DRIVERS) -> DatasetReader:
    """Open a raster by the first of `drivers` that takes it, and by no other.

    Raises:
        InputError: none takes it; the message has the first one's reason.
    """
    reasons = []
    for driver in drivers:
        try:
            return open_quietly(path, driver)
        except RasterioIOError as error:
            reasons.append(str(error))
    raise InputError(f"{path} is none of {', '.join(drivers)}: {reasons[0]}")


def open_quietly(path: str, driver: str) -> DatasetReader:
    """A raster, without rasterio's warning where it has no georeferencing: whoever needs that refuses it in words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(gdal_name(path), driver=driver)
