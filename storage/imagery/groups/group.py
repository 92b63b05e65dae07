"""A Zarr group as a mosaic of one date: described, and read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr
from numpy.typing import NDArray

from storage.errors import InputError
from storage.imagery.band_names import common_name_in
from storage.imagery.dates.acquisition import AcquisitionDate, date_of
from storage.imagery.description import NOTHING_SAID, Overrides
from storage.imagery.groups.axes import (
    axes_of,
    curvilinear_words,
    has_rows_and_columns,
    placement_of_array,
    time_of,
    with_coordinates,
)
from storage.imagery.groups.bands import bands_of_array
from storage.imagery.groups.chunks import chunk_files, chunks_here, require_all_chunks
from storage.imagery.headers.look import is_opaque
from storage.imagery.identity.versions import require_part
from storage.imagery.sources import Header, Source, is_remote
from storage.imagery.stacks import stack_of
from storage.imagery.validity import nodata_rule
from storage.imagery.values import require_readable
from storage.places.zarr_access import open_address


def open_group(path: str, said: Overrides = NOTHING_SAID) -> Header:
    """Describe a Zarr group by its metadata and coordinates.

    Its bands are one array's, or arrays of rows and columns alone whose names are those of bands.

    Args:
        said: what the user says of it.

    Raises:
        InputError: it cannot be a mosaic of one date, or chunks of it are gone.
    """
    try:
        dataset = _opened(path)
    except Exception as error:  # those of zarr, xarray, codecs and calendars come in many types
        raise InputError(f"{path} cannot be opened as a Zarr group: {error}") from error
    arrays = {str(name): array for name, array in dataset.data_vars.items() if has_rows_and_columns(array)}
    if not arrays and (curved := curvilinear_words(dataset)):
        raise InputError(f"{path}: {curved}")
    if not arrays:
        raise InputError(
            f"{path} has no array of rows and columns (y and x, lat and lon, northing and easting); it has "
            f"{', '.join(f'{name} {array.dims}' for name, array in dataset.data_vars.items()) or 'no array at all'}"
        )
    name = "image" if "image" in arrays else next(iter(arrays)) if len(arrays) == 1 else None
    if name is not None:
        return _described(path, dataset, name, said, band=None)
    names, left_out = _bands_by_name(arrays, path)
    headers = [_described(path, dataset, name, said, band=name) for name in names]
    header = stack_of(headers)
    doubts = (f"its arrays {', '.join(left_out)} are no bands by their names: left out",) if left_out else ()
    return replace(
        header,
        source=replace(header.source, files=(path,)),
        acquired=headers[0].acquired,
        facts={"format": "Zarr", "bands in arrays": str(len(names))},
        doubts=(*header.doubts, *doubts),
    )


def _bands_by_name(arrays: dict[str, xr.DataArray], path: str) -> tuple[list[str], list[str]]:
    """Names of the arrays that are bands, and of those that are not."""
    flat = {name: array for name, array in arrays.items() if axes_of(array, path).bands is None}
    names = sorted(name for name in flat if common_name_in(name, path)) or sorted(flat)
    alike = {(flat[name].shape, str(flat[name].dtype)) for name in names}
    if len(alike) != 1 or len(flat) < len(arrays):
        shapes = ", ".join(f"{name} {array.dtype} {dict(array.sizes)}" for name, array in sorted(arrays.items()))
        raise InputError(
            f"{path} needs one array of bands, one named `image`, or arrays of rows and columns that are its bands; it "
            f"has {shapes}"
        )
    return names, sorted(arrays.keys() - set(names))


def _described(path: str, dataset: xr.Dataset, name: str, said: Overrides, *, band: str | None) -> Header:
    """One array of a group; `band` is the name of the one that it is, where each band is an array."""
    array = dataset[name]
    axes = axes_of(array, path)
    require_readable(str(array.dtype), path, what="a mosaic")
    placement, doubts = placement_of_array(array, axes, dataset.attrs, path)
    own = bands_of_array(array, axes, said, path, name=band)
    rule, odd = nodata_rule(str(array.dtype), [each.nodata for each in own.bands], alpha=own.alpha, mask=False)
    if not is_remote(path):
        require_all_chunks(path, name, rule, row_axis=_axis(array, axes.rows), col_axis=_axis(array, axes.columns))
    time = time_of(array)
    return Header(
        source=Source(
            path=path,
            grid=placement.grid,
            files=(path,),
            driver="Zarr",
            variable=name,
            image_bands=own.numbers,
            bands=own.bands,
            validity=rule,
            flip_y=placement.flip_y,
            flip_x=placement.flip_x,
        ),
        dtype=str(array.dtype),
        acquired=date_of(path, {}, said.date_pattern)
        if time is None or said.date_pattern is not None
        else AcquisitionDate(time=time, origin="header", precision="second"),
        facts={"format": "Zarr"},
        doubts=doubts + own.doubts + odd,
    )


def _axis(array: xr.DataArray, name: str) -> int:
    return [str(dimension) for dimension in array.dims].index(name)


def read_group(
    source: Source, bands: tuple[int, ...], rows: slice, cols: slice
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Bands (from 1) of a range of a group: image (C, h, w) in its own type and valid (h, w)."""
    rule = source.validity
    assert rule is not None
    array = _opened(source.path)[source.variable]
    axes = axes_of(array, source.path)
    pixels = axes.turned(array.isel({axes.rows: rows, axes.columns: cols})).to_numpy()
    stored = pixels[None] if pixels.ndim == 2 else pixels
    pixels = stored[[number - 1 for number in source.image_bands]]
    places = {"row_axis": _axis(array, axes.rows), "col_axis": _axis(array, axes.columns)}
    for version in source.versions:
        if version.is_group:
            require_part(version, chunk_files(source.path, source.variable, rows=rows, cols=cols, **places))
    here = chunks_here(source.path, source.variable, rule, rows=rows, cols=cols, **places)
    if rule.alpha is not None:
        here &= is_opaque(stored[rule.alpha - 1])
    image = np.ascontiguousarray(pixels[[band - 1 for band in bands]])
    if rule.every_band:
        return image, here & rule.of_values(pixels, range(1, len(pixels) + 1))
    return image, here & rule.of_values(image, bands)


def _opened(path: str) -> xr.Dataset:
    return with_coordinates(
        xr.open_zarr(open_address(path), chunks=None, decode_coords="all", mask_and_scale=False, consolidated=False)
    )
