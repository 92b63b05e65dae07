"""One raster file, URL or Zarr group by its header: it is opened, described and, if it cannot work, refused."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio import DatasetReader
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

from storage.errors import InputError, ObjectStoreError
from storage.imagery.header_checks import check_header
from storage.imagery.placement import Placement, placement_on
from storage.places.bucket import SCHEME, ObjectPath
from storage.places.credentials import refuse_credentials
from storage.places.gdal import gdal_name, gdal_settings, plain_name
from tiling.conventions import DTYPES

DRIVERS = ("GTiff", "ENVI", "HFA", "JP2OpenJPEG")
"""Formats that hold pixels. A VRT is none of them: it names other files, any file, also under the name of a TIFF."""

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
        image_bands: rasterio's numbers (from 1) of its bands without alpha; of several rasters counted through.
        parts: the rasters that hold its bands, in their order; empty for one that holds them all.
        flip_y: its first stored row is the southernmost; `grid` is north-up whatever it is.
        flip_x: its first stored column is the easternmost.
    """

    path: str
    grid: GeoBox
    files: tuple[str, ...]
    driver: str
    variable: str = ""
    image_bands: tuple[int, ...] = ()
    parts: tuple[Source, ...] = ()
    flip_y: bool = False
    flip_x: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """For a worker, which may run in another folder: the same file."""
        return {**self.__dict__, "path": absolute(self.path)}


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a source says of itself.

    Attributes:
        bands: names; ``band1`` … where it says nothing.
        dtype: one of :data:`DTYPES`.
        date: naive UTC, from the header or the name; None if neither tells.
    """

    source: Source
    bands: tuple[str, ...]
    dtype: str
    date: datetime | None


def open_source(path: str) -> Header:
    """Open the header of one file, URL or Zarr group, and look for a valid pixel.

    Raises:
        InputError: naming the path and what is wrong with it.
    """
    refuse_credentials(path)
    try:
        if not is_zarr(path):
            return _open_raster(path)
        from storage.imagery.zarr_groups import open_group

        return open_group(path)
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
        return not path.lower().endswith(RASTER_SUFFIXES) and (ObjectPath.parse(path) / "zarr.json").exists()
    return (Path(path) / "zarr.json").exists()


def _open_raster(path: str) -> Header:
    if path.startswith(SCHEME):
        facts = ObjectPath.parse(path).facts()
        if facts is None or not facts.size:
            raise InputError(f"{path} " + ("does not exist" if facts is None else "is empty (0 bytes)"))
    elif not is_remote(path):
        if not Path(path).exists():
            raise InputError(f"{path} does not exist")
        if Path(path).is_file() and not Path(path).stat().st_size:
            raise InputError(f"{path} is empty (0 bytes)")
        if path.lower().endswith(".vrt"):
            raise InputError(f"{path} is a VRT, which may name any other file: give the list of its files instead")
    with rasterio.Env(**gdal_settings()), open_with_allowed_driver(path) as dataset:
        check_header(dataset, path)
        image_bands, dtype = image_bands_of(dataset, path, what="a mosaic")
        placement = _placement(path, dataset)
        header = Header(
            source=Source(
                path=path,
                grid=placement.grid,
                files=tuple(map(plain_name, dataset.files)) or (path,),
                driver=dataset.driver,
                image_bands=image_bands,
                flip_y=placement.flip_y,
                flip_x=placement.flip_x,
            ),
            bands=_band_names(dataset, image_bands),
            dtype=dtype,
            date=date_of(path, {**dataset.tags(), **dataset.tags(ns="IMAGERY")}),
        )
        # last, because GDAL's error from a pixel that cannot be read surfaces again in the next call on this dataset
        _require_a_valid_pixel(path, dataset)
        return header


def image_bands_of(dataset: rasterio.DatasetReader, path: str, *, what: str) -> tuple[tuple[int, ...], str]:
    """Numbers, from 1, of the bands that are not alpha, and their type.

    Args:
        what: the file is to be, for the message.

    Raises:
        InputError: their types differ, or are none of :data:`DTYPES`.
    """
    numbers = tuple(
        number for number, meaning in enumerate(dataset.colorinterp, start=1) if meaning != ColorInterp.alpha
    )
    dtypes = {dataset.dtypes[number - 1] for number in numbers}
    if len(dtypes) != 1 or not dtypes <= set(DTYPES):
        raise InputError(f"{path} holds {', '.join(sorted(dtypes))}; {what} is one of {', '.join(DTYPES)}")
    return numbers, dtypes.pop()


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


def _placement(path: str, dataset: DatasetReader) -> Placement:
    if dataset.crs is None:
        raise InputError(f"{path} has no coordinate reference system: assign one (gdal_edit.py -a_srs)")
    if dataset.transform.is_identity:
        raise InputError(f"{path} has a CRS but no geotransform, so its pixels are nowhere: georeference it")
    return placement_on(dataset.transform, crs_of(dataset.crs), height=dataset.height, width=dataset.width, path=path)


def crs_of(crs: rasterio.crs.CRS) -> CRS:
    code = crs.to_epsg()
    return CRS(f"EPSG:{code}" if code else crs.to_wkt())


def _band_names(dataset: DatasetReader, numbers: Iterable[int]) -> tuple[str, ...]:
    names = []
    for position, number in enumerate(numbers, start=1):
        description = dataset.descriptions[number - 1]
        meaning = dataset.colorinterp[number - 1].name
        if meaning in ("red", "green", "blue", "nir"):
            names.append(meaning)
        else:
            names.append(description.strip() if description and description.strip() else f"band{position}")
    return tuple(names)


def date_of(path: str, tags: dict[str, str]) -> datetime | None:
    """From what GDAL's metadata readers call the acquisition, else from the name.

    TIFF's own DateTime is no help: it says when the file was written.
    """
    acquired = tags.get("ACQUISITIONDATETIME")
    if acquired:
        try:
            time = datetime.fromisoformat(acquired)
        except ValueError:
            pass
        else:
            return naive_utc(time)
    return date_in_name(path)


def naive_utc(time: datetime) -> datetime:
    """A time in UTC without saying so, as stores keep it; one without a zone is taken for UTC."""
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def date_in_name(path: str) -> datetime | None:
    """The first date in a file's name, YYYYMMDD or with - or _ in between; None = there is none."""
    name = Path(path.rstrip("/")).name
    for year, month, day in re.findall(r"(?<!\d)((?:19|20)\d{2})[-_]?(\d{2})[-_]?(\d{2})(?!\d)", name):
        try:
            return datetime(int(year), int(month), int(day))
        except ValueError:
            continue
    years = re.findall(r"(?<!\d)((?:19|20)\d{2})(?!\d)", name) or re.findall(r"^((?:19|20)\d{2})(?=[A-Za-z])", name)
    return datetime(int(years[0]), 1, 1) if years else None


def _require_a_valid_pixel(path: str, dataset: DatasetReader) -> None:
    """A look at five by five small windows settles it for any real mosaic; only then is all of it read."""
    try:
        for y in np.linspace(0, dataset.height - 1, 5).astype(int):
            for x in np.linspace(0, dataset.width - 1, 5).astype(int):
                window = rasterio.windows.Window(x, y, min(32, dataset.width - x), min(32, dataset.height - y))
                if _any_valid(dataset, window):
                    return
        if any(_any_valid(dataset, window) for _, window in dataset.block_windows(1)):
            return
    except Exception:  # GDAL's errors come in many types; ingest reads every pixel and says which ones are missing
        return
    raise InputError(f"{path} has no valid pixel: all of it is nodata")


def _any_valid(dataset: DatasetReader, window: rasterio.windows.Window) -> bool:
    valid = dataset.dataset_mask(window=window) > 0
    if valid.any() and np.dtype(dataset.dtypes[0]).kind == "f":
        valid &= np.isfinite(dataset.read(window=window)).all(axis=0)
    return bool(valid.any())
