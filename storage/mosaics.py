"""Mosaics by their headers: what a user named is opened, described and, if it cannot work, refused."""

from __future__ import annotations

import fnmatch
import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, floor
from pathlib import Path

import numpy as np
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio import DatasetReader
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioIOError

from storage.errors import InputError, ObjectStoreError
from storage.header_checks import check_header
from storage.objects import FIRST_CONTACT, SCHEME, ObjectPath, gdal_name, gdal_settings, plain_name, refuse_credentials
from storage.zarr_store import open_address

DRIVERS = ("GTiff", "ENVI", "HFA", "JP2OpenJPEG")
"""Formats that hold pixels. A VRT is none of them: it names other files, any file, also under the name of a TIFF."""

DTYPES = ("uint8", "uint16", "float32")
RASTER_SUFFIXES = (".tif", ".tiff", ".img", ".jp2")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One raster file, URL or Zarr group, or several rasters of one grid that hold its bands.

    Attributes:
        path: as rasterio or Zarr opens it; of several rasters the first one's.
        grid: its own pixels.
        files: all files it consists of, sidecars too.
        driver: GDAL's name of its format, or ``Zarr``.
        variable: of a Zarr group.
        image_bands: rasterio's numbers (from 1) of its bands without alpha; of several rasters counted through.
        parts: the rasters that hold its bands, in their order; empty for one that holds them all.
    """

    path: str
    grid: GeoBox
    files: tuple[str, ...]
    driver: str
    variable: str = ""
    image_bands: tuple[int, ...] = ()
    parts: tuple[Source, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Mosaic:
    """All rasters of one date, by their headers; nothing is held open, so it travels to workers.

    Attributes:
        label: how messages name it.
        sources: where they overlap, the first one with a valid pixel wins.
        grid: covers all sources, on the pixels of the first.
        bands: names; ``band1`` … where the files say nothing.
        dtype: uint8, uint16 or float32.
        date: from the header or the name; None if neither tells.
    """

    label: str
    sources: tuple[Source, ...]
    grid: GeoBox
    bands: tuple[str, ...]
    dtype: str
    date: datetime | None

    @property
    def bands_are_named(self) -> bool:
        return not all(re.fullmatch(r"band\d+", name) for name in self.bands)


def open_mosaic(spec: str | Path | Sequence[str | Path]) -> Mosaic:
    """Open the headers of all that makes one mosaic.

    Args:
        spec: a raster file or GDAL/fsspec URL, a folder of rasters, a glob, a ``.txt`` list of files (one a line,
            relative to the list), a Zarr group, or a list of files. All of them may lie in a bucket, ``s3://…``.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    try:
        label, paths = _expand(spec)
        return _mosaic(label, [_open(path) for path in map(refuse_credentials, paths)])
    except ObjectStoreError as error:
        raise InputError(str(error)) from error


def open_stacks(stacks: Sequence[Mapping[str, str]]) -> Mosaic:
    """Open the headers of a mosaic whose bands are rasters of their own, as STAC catalogues have them.

    Args:
        stacks: each the rasters of one place, by the name of what they hold; one that holds one band gives it that
            name, unless there is one raster alone.

    Raises:
        InputError: naming the files: they are not of one grid or type, or cannot be opened.
    """
    paths = [path for stack in stacks for path in stack.values()]
    if len(paths) == len(stacks):
        return open_mosaic(paths[0] if len(paths) == 1 else paths)
    return _mosaic(_label(paths), [_stacked(stack) for stack in stacks])


def _stacked(stack: Mapping[str, str]) -> _Header:
    found = {name: _open(path) for name, path in stack.items()}
    first = next(iter(found.values()))
    for other in found.values():
        for what, mine, theirs in (
            ("grid", _grid_words(first.source.grid), _grid_words(other.source.grid)),
            ("type", first.dtype, other.dtype),
        ):
            if mine != theirs:
                raise InputError(
                    f"bands of one image must lie on one grid: {first.source.path} has {what} {mine}, "
                    f"{other.source.path} has {theirs}"
                )
    bands = tuple(name if len(header.bands) == 1 else band for name, header in found.items() for band in header.bands)
    parts = tuple(header.source for header in found.values())
    return _Header(
        source=Source(
            path=first.source.path,
            grid=first.source.grid,
            files=tuple(file for part in parts for file in part.files),
            driver="stack",
            image_bands=tuple(range(1, len(bands) + 1)),
            parts=parts,
        ),
        bands=bands,
        dtype=first.dtype,
        date=first.date,
    )


def _grid_words(grid: GeoBox) -> str:
    corner = f"{grid.affine.c:.9g}, {grid.affine.f:.9g}"
    return f"{grid.width} × {grid.height} px of {grid.resolution.x:g} at {corner} in {grid.crs}"


def _open(path: str) -> _Header:
    return _open_zarr(path) if _is_zarr(path) else _open_raster(path)


def _mosaic(label: str, found: Sequence[_Header]) -> Mosaic:
    first = found[0]
    for other in found[1:]:
        # two CRSs make one mosaic, as on the border of two UTM zones: each file is brought to the grid by itself
        for what, mine, theirs in (
            ("bands", len(first.bands), len(other.bands)),
            ("type", first.dtype, other.dtype),
        ):
            if mine != theirs:
                raise InputError(
                    f"{label}: its files do not make one mosaic: {first.source.path} has {what} {mine}, "
                    f"{other.source.path} has {theirs}"
                )
    return Mosaic(
        label=label,
        sources=tuple(header.source for header in found),
        grid=_union([header.source.grid for header in found]),
        bands=first.bands,
        dtype=first.dtype,
        date=first.date,
    )


@dataclass(frozen=True, kw_only=True)
class _Header:
    source: Source
    bands: tuple[str, ...]
    dtype: str
    date: datetime | None


def _expand(spec: str | Path | Sequence[str | Path]) -> tuple[str, list[str]]:
    if not isinstance(spec, str | Path):
        if not spec:
            raise InputError("a mosaic needs at least one file, the list is empty")
        return _label([str(path) for path in spec]), [str(path) for path in spec]
    text = refuse_credentials(str(spec))
    if text.startswith(SCHEME):
        return text, _expand_objects(ObjectPath.parse(text))
    if _is_remote(text) or _is_zarr(text):
        return text, [text]
    path = Path(text)
    if path.is_dir():
        paths = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in RASTER_SUFFIXES)
        if not paths:
            raise InputError(f"{text} is a folder without rasters ({', '.join(RASTER_SUFFIXES)})")
        return text, paths
    if path.suffix.lower() == ".txt" and path.is_file():
        paths = list(_listed(path.read_text(), path.parent))
        if not paths:
            raise InputError(f"{text} lists no file")
        return text, paths
    if not path.exists() and glob.has_magic(text):
        paths = sorted(glob.glob(text, recursive=True))  # noqa: PTH207  the pattern may be absolute
        if not paths:
            raise InputError(f"no file matches {text}")
        return text, paths
    return text, [text]


def _label(paths: Sequence[str]) -> str:
    return paths[0] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _expand_objects(path: ObjectPath) -> list[str]:
    if path.suffix.lower() != ".txt" and path.facts(patience=FIRST_CONTACT) is not None:
        return [str(path)]
    path.parent.require_answer()
    if _is_zarr(str(path)):
        return [str(path)]
    if path.suffix.lower() == ".txt":
        return list(_listed(path.read_text(), path.parent))
    if glob.has_magic(path.key):
        root = path.parent
        while glob.has_magic(root.key):
            root = root.parent
        paths = [str(found) for found, _ in root.walk() if fnmatch.fnmatchcase(found.key, path.key)]
        if not paths:
            raise InputError(f"no object matches {path}")
        return sorted(paths)
    paths = sorted(str(found) for found in path.iterdir() if found.suffix.lower() in RASTER_SUFFIXES)
    if not paths:
        raise InputError(f"{path} does not exist, and there are no rasters below it ({', '.join(RASTER_SUFFIXES)})")
    return paths


def _listed(text: str, folder: Path | ObjectPath) -> Iterable[str]:
    lines = (line.strip() for line in text.splitlines())
    return (line if _is_remote(line) else str(folder / line) for line in lines if line and line[0] != "#")


def _is_remote(path: str) -> bool:
    return "://" in path or path.startswith("/vsi")


def _is_zarr(path: str) -> bool:
    if path.rstrip("/").endswith(".zarr"):
        return True
    if path.startswith(SCHEME):
        return not path.lower().endswith(RASTER_SUFFIXES) and (ObjectPath.parse(path) / "zarr.json").exists()
    return (Path(path) / "zarr.json").exists()


def _open_raster(path: str) -> _Header:
    if path.startswith(SCHEME):
        facts = ObjectPath.parse(path).facts()
        if facts is None or not facts.size:
            raise InputError(f"{path} " + ("does not exist" if facts is None else "is empty (0 bytes)"))
    elif not _is_remote(path):
        if not Path(path).exists():
            raise InputError(f"{path} does not exist")
        if Path(path).is_file() and not Path(path).stat().st_size:
            raise InputError(f"{path} is empty (0 bytes)")
        if path.lower().endswith(".vrt"):
            raise InputError(f"{path} is a VRT, which may name any other file: give the list of its files instead")
    with rasterio.Env(**gdal_settings()), open_with_allowed_driver(path) as dataset:
        check_header(dataset, path)
        image_bands = tuple(
            number for number, meaning in enumerate(dataset.colorinterp, start=1) if meaning != ColorInterp.alpha
        )
        dtypes = {dataset.dtypes[number - 1] for number in image_bands}
        if len(dtypes) != 1 or not dtypes <= set(DTYPES):
            raise InputError(f"{path} holds {', '.join(sorted(dtypes))}; a mosaic is one of {', '.join(DTYPES)}")
        header = _Header(
            source=Source(
                path=path,
                grid=_grid(path, dataset),
                files=tuple(map(plain_name, dataset.files)) or (path,),
                driver=dataset.driver,
                image_bands=image_bands,
            ),
            bands=_band_names(dataset, image_bands),
            dtype=dtypes.pop(),
            date=_date(path, {**dataset.tags(), **dataset.tags(ns="IMAGERY")}),
        )
        # last, because GDAL's error from a pixel that cannot be read surfaces again in the next call on this dataset
        _require_a_valid_pixel(path, dataset)
        return header


def open_with_allowed_driver(path: str, drivers: Sequence[str] = DRIVERS) -> DatasetReader:
    """Open a raster by the first of `drivers` that takes it, and by no other.

    Raises:
        InputError: none takes it; the message has the first one's reason.
    """
    reasons = []
    for driver in drivers:
        try:
            return rasterio.open(gdal_name(path), driver=driver)
        except RasterioIOError as error:
            reasons.append(str(error))
    raise InputError(f"{path} is none of {', '.join(drivers)}: {reasons[0]}")


def _grid(path: str, dataset: DatasetReader) -> GeoBox:
    if dataset.crs is None:
        raise InputError(f"{path} has no coordinate reference system: assign one (gdal_edit.py -a_srs)")
    transform = dataset.transform
    if transform.is_identity:
        raise InputError(f"{path} has a CRS but no geotransform, so its pixels are nowhere: georeference it")
    if abs(transform.b) > 1e-9 * abs(transform.a) or abs(transform.d) > 1e-9 * abs(transform.e):
        raise InputError(
            f"{path} has a rotated geotransform {tuple(transform)[:6]}: warp it to a north-up grid first (gdalwarp)"
        )
    if transform.a <= 0 or transform.e >= 0:
        raise InputError(
            f"{path} is not north-up (pixel size {transform.a:g} × {transform.e:g}): warp it first (gdalwarp)"
        )
    north_up = Affine(transform.a, 0, transform.c, 0, transform.e, transform.f)
    return GeoBox(dataset.shape, north_up, _crs(dataset.crs))


def _crs(found: rasterio.crs.CRS) -> CRS:
    code = found.to_epsg()
    return CRS(f"EPSG:{code}" if code else found.to_wkt())


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


def _date(path: str, tags: dict[str, str]) -> datetime | None:
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
            return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
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


def _open_zarr(path: str) -> _Header:
    try:
        dataset = xr.open_zarr(
            open_address(path), chunks=None, decode_coords="all", mask_and_scale=False, consolidated=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be opened as a Zarr group: {error}") from error
    candidates = [str(name) for name, variable in dataset.data_vars.items() if {"y", "x"} <= set(variable.dims)]
    name = "image" if "image" in candidates else candidates[0] if len(candidates) == 1 else None
    if name is None:
        raise InputError(f"{path} needs one variable over (y, x), or one named `image`; it has {candidates or 'none'}")
    image = dataset[name]
    if image.ndim > 3 or (image.ndim == 3 and image.dims[1:] != ("y", "x")):
        raise InputError(
            f"{path}: `{name}` has dimensions {image.dims}; a mosaic of one date has (band, y, x) or (y, x)"
        )
    if image.rio.crs is None:
        raise InputError(f"{path}: `{name}` has no coordinate reference system (CF grid mapping)")
    if str(image.dtype) not in DTYPES:
        raise InputError(f"{path} holds {image.dtype}; a mosaic is one of {', '.join(DTYPES)}")
    transform = image.rio.transform(recalc=True)
    if transform.e >= 0:
        raise InputError(f"{path} is not north-up (pixel size {transform.a:g} × {transform.e:g}): flip y first")
    count = image.sizes.get(str(image.dims[0]), 1) if image.ndim == 3 else 1
    labels = (
        [str(v) for v in image[image.dims[0]].to_numpy()] if image.ndim == 3 and image.dims[0] in image.coords else []
    )
    named = bool(labels) and not all(label.lstrip("-").isdigit() for label in labels)
    return _Header(
        source=Source(
            path=path,
            grid=GeoBox((image.sizes["y"], image.sizes["x"]), transform, _crs(image.rio.crs)),
            files=(path,),
            driver="Zarr",
            variable=name,
            image_bands=tuple(range(1, count + 1)),
        ),
        bands=tuple(labels) if named else tuple(f"band{n}" for n in range(1, count + 1)),
        dtype=str(image.dtype),
        date=_date(path, {}),
    )


def _union(grids: Sequence[GeoBox]) -> GeoBox:
    """The smallest grid on the first one's pixels that covers all of them."""
    first = grids[0]
    if len(grids) == 1:
        return first
    assert first.crs is not None
    to_pixels = ~first.affine
    boxes = [(g.extent if g.crs == first.crs else g.footprint(first.crs)).boundingbox for g in grids]
    corners = [to_pixels * (x, y) for box in boxes for x, y in ((box.left, box.top), (box.right, box.bottom))]
    x0, y0 = floor(min(x for x, _ in corners) + 1e-3), floor(min(y for _, y in corners) + 1e-3)
    x1, y1 = ceil(max(x for x, _ in corners) - 1e-3), ceil(max(y for _, y in corners) - 1e-3)
    return GeoBox((y1 - y0, x1 - x0), first.affine * Affine.translation(x0, y0), first.crs)
