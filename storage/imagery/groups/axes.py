"""Which dimensions of a Zarr group are rows, columns, bands and time, and where its pixels lie by what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.crs import CRS

from storage.errors import InputError
from storage.imagery.groups.coordinates import axis_of
from storage.imagery.headers.placement import Placement, placement_on
from storage.reference_systems import horizontal_crs

_ROWS = ("y", "lat", "latitude", "northing", "north", "row", "rlat", "yc")
_COLUMNS = ("x", "lon", "longitude", "long", "easting", "east", "col", "column", "rlon", "xc")
_TIMES = ("time", "t", "date", "datetime", "times")
_DEGREES_NORTH = ("degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn")
_DEGREES_EAST = ("degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese")
_GEOGRAPHIC_NAMES = ("lat", "latitude", "lon", "longitude", "long")

_BESIDE = 0.01
"""Pixels by which a geotransform may miss the coordinates and still say the same."""


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Names of an array's dimensions by what they are.

    Attributes:
        rows, columns: of the grid.
        bands: of an array of several; None where it has no such dimension.
        single: dimensions of one element, a time among them.
    """

    rows: str
    columns: str
    bands: str | None
    single: tuple[str, ...]

    def turned(self, array: xr.DataArray) -> xr.DataArray:
        """The array as (band, row, column), or (row, column) where it has no bands."""
        order = (self.rows, self.columns) if self.bands is None else (self.bands, self.rows, self.columns)
        return array.isel(dict.fromkeys(self.single, 0)).transpose(*order)


def with_coordinates(dataset: xr.Dataset) -> xr.Dataset:
    """A group whose arrays of latitudes and longitudes are coordinates, also where nothing declares them."""
    return dataset.set_coords(
        [name for name, array in dataset.data_vars.items() if str(name).lower() in _ROWS + _COLUMNS and array.ndim <= 2]
    )


def curvilinear_words(dataset: xr.Dataset) -> str:
    """Which coordinates of a group have two dimensions, in words; empty where none has."""
    curved = sorted(str(name) for name, coordinate in dataset.coords.items() if coordinate.ndim == 2)
    return (
        f"its coordinates {', '.join(curved)} have two dimensions, so its grid is curvilinear: warp it to a grid of "
        "rows and columns first (xesmf, pyresample, gdalwarp -geoloc)"
        if curved
        else ""
    )


def has_rows_and_columns(array: xr.DataArray) -> bool:
    """Whether two of an array's dimensions are rows and columns of a grid."""
    return _dimension(array, _ROWS) is not None and _dimension(array, _COLUMNS) is not None


def axes_of(array: xr.DataArray, path: str) -> Axes:
    """Dimensions of an array that has rows and columns.

    Raises:
        InputError: several times, or more dimensions than one image of one date has.
    """
    rows, columns = _dimension(array, _ROWS), _dimension(array, _COLUMNS)
    assert rows is not None
    assert columns is not None
    others = [str(name) for name in array.dims if name not in (rows, columns)]
    for name in others:
        if _is_time(array, name) and array.sizes[name] > 1:
            raise InputError(
                f"{path}: `{array.name}` has {array.sizes[name]} times ({name}), a mosaic is of one date: write each "
                f"to a group of its own (ds.isel({name}=[0]).to_zarr(…))"
            )
    many = [name for name in others if array.sizes[name] != 1]
    single = [name for name in others if array.sizes[name] == 1]
    if not many:
        # a dimension of one band is one: its coordinate may name it
        many = [name for name in single if "band" in name.lower() or "channel" in name.lower()][:1]
    if len(many) > 1:
        raise InputError(
            f"{path}: `{array.name}` has {', '.join(f'{name} ({array.sizes[name]})' for name in array.dims)} as its "
            "dimensions; a mosaic of one date has rows, columns and bands"
        )
    bands = many[0] if many else None
    return Axes(rows=rows, columns=columns, bands=bands, single=tuple(name for name in single if name != bands))


def _dimension(array: xr.DataArray, names: Sequence[str]) -> str | None:
    dims = [str(name) for name in array.dims]
    by_name = {name.lower(): name for name in dims}
    for name in names:
        if name in by_name:
            return by_name[name]
    axis, words = ("Y", ("latitude", "projection_y")) if names is _ROWS else ("X", ("longitude", "projection_x"))
    for name in dims:
        attributes = array.coords[name].attrs if name in array.coords else {}
        if attributes.get("axis") == axis or any(word in str(attributes.get("standard_name")) for word in words):
            return name
    return None


def coordinate_along(array: xr.DataArray, dimension: str) -> xr.DataArray | None:
    """The coordinate of a dimension, by its name or as the only one along it that is called like rows or columns."""
    if dimension in array.coords:
        return array.coords[dimension]
    along = [
        coordinate
        for name, coordinate in array.coords.items()
        if coordinate.dims == (dimension,) and str(name).lower() in _ROWS + _COLUMNS
    ]
    return along[0] if len(along) == 1 else None


def _is_time(array: xr.DataArray, name: str) -> bool:
    return name.lower() in _TIMES or (name in array.coords and array.coords[name].dtype.kind == "M")


def time_of(array: xr.DataArray) -> datetime | None:
    """The one time that an array's coordinates give it, naive UTC; None where they give none."""
    for name, coordinate in array.coords.items():
        is_time = str(name).lower() in _TIMES or coordinate.attrs.get("standard_name") == "time"
        if is_time and coordinate.size == 1 and coordinate.dtype.kind == "M":
            time = coordinate.to_numpy().reshape(()).astype("datetime64[us]").item()
            return time if isinstance(time, datetime) else None  # None is not a time (NaT)
    return None


def placement_of_array(
    array: xr.DataArray, axes: Axes, attributes: Mapping[str, Any], path: str
) -> tuple[Placement, tuple[str, ...]]:
    """The placement of an array by its coordinates, by a geotransform, or by both where they agree; and doubts.

    Args:
        attributes: of the group.

    Raises:
        InputError: neither; coordinates that no grid gives; a geotransform that contradicts them; no CRS.
    """
    said = {**attributes, **array.attrs}
    declared = _geotransform(array, said, path)
    has_coordinates = all(coordinate_along(array, name) is not None for name in (axes.rows, axes.columns))
    if not has_coordinates and declared is None:
        raise InputError(f"{path}: {_without_coordinates(array, axes)}")
    crs, doubts = _crs(array, axes, said, path)
    height, width = array.sizes[axes.rows], array.sizes[axes.columns]
    if not has_coordinates:
        assert declared is not None
        return placement_on(declared, crs, height=height, width=width, path=path), doubts
    transform = _transform_of_coordinates(array, axes, declared, path)
    if declared is not None:
        _require_agreement(declared, transform, height=height, width=width, path=path)
    return placement_on(transform, crs, height=height, width=width, path=path), doubts


def _without_coordinates(array: xr.DataArray, axes: Axes) -> str:
    if curved := curvilinear_words(array.to_dataset()):
        return curved
    missing = " and ".join(name for name in (axes.rows, axes.columns) if coordinate_along(array, name) is None)
    return (
        f"`{array.name}` has no coordinate {missing} and no geotransform (GeoTransform, spatial:transform), so its "
        "pixels are nowhere"
    )


def _transform_of_coordinates(array: xr.DataArray, axes: Axes, declared: Affine | None, path: str) -> Affine:
    ends = []
    for name, step in ((axes.columns, declared and declared.a), (axes.rows, declared and declared.e)):
        coordinate = coordinate_along(array, name)
        assert coordinate is not None
        values = coordinate.to_numpy()
        if values.size == 1:
            if not step:
                raise InputError(f"{path}: its coordinate {name} has one value: nothing tells how large a pixel is")
            ends.append((float(values[0]) - step / 2, step))
            continue
        axis = axis_of(values, name=name, path=path)
        ends.append((axis.edge, axis.step))
    (left, across), (top, down) = ends
    return Affine(across, 0, left, 0, down, top)


def _require_agreement(declared: Affine, transform: Affine, *, height: int, width: int, path: str) -> None:
    beside = ~transform * declared
    first, last = beside * (0, 0), beside * (width, height)
    ends = [abs(first[0]), abs(first[1]), abs(last[0] - width), abs(last[1] - height)]
    if max(ends) <= _BESIDE:
        return
    half = all(abs(end - 0.5) <= _BESIDE for end in ends)
    why = "half a pixel: one of the two means corners, the other centres" if half else f"{max(ends):.4g} pixels"
    raise InputError(
        f"{path}: its geotransform {tuple(declared)[:6]} and its coordinates, {tuple(transform)[:6]}, differ by {why}; "
        "write the right one and leave the other out (ds.rio.write_transform())"
    )


def _geotransform(array: xr.DataArray, said: Mapping[str, Any], path: str) -> Affine | None:
    """The geotransform that is written somewhere, from corner to corner of pixels."""
    for coordinate in array.coords.values():
        if coordinate.ndim == 0 and "GeoTransform" in coordinate.attrs:
            return _numbers(coordinate.attrs["GeoTransform"], path, "GeoTransform", gdal=True)
    if "spatial:transform" not in said:
        return None
    transform = _numbers(said["spatial:transform"], path, "spatial:transform", gdal=False)
    if said.get("spatial:registration") == "node":
        return transform * Affine.translation(-0.5, -0.5)
    return transform


def _numbers(value: object, path: str, name: str, *, gdal: bool) -> Affine:
    try:
        numbers = [float(part) for part in (value.split() if isinstance(value, str) else value)]  # type: ignore[attr-defined]
        return Affine.from_gdal(*numbers) if gdal else Affine(*numbers[:6])
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: its {name} {str(value)[:80]!r} is no six numbers") from error


def _crs(array: xr.DataArray, axes: Axes, said: Mapping[str, Any], path: str) -> tuple[CRS, tuple[str, ...]]:
    found = array.rio.crs
    if found is not None:
        return horizontal_crs(found.to_wkt()), ()
    for key in ("proj:code", "proj:wkt2", "proj:projjson", "crs_wkt", "spatial_ref", "crs"):
        if said.get(key):
            value = said[key]
            return horizontal_crs(value if isinstance(value, str) else json.dumps(value)), ()
    if _are_degrees(array, axes):
        return CRS("EPSG:4326"), (
            f"it names no CRS; its coordinates {axes.rows} and {axes.columns} are degrees: read as EPSG:4326 (WGS 84)",
        )
    raise InputError(f"{path}: `{array.name}` has no coordinate reference system (CF grid mapping)")


def _are_degrees(array: xr.DataArray, axes: Axes) -> bool:
    """Whether both coordinates say that they are degrees of latitude and longitude, or are called so and could be."""
    for name, units, largest in ((axes.rows, _DEGREES_NORTH, 90.0), (axes.columns, _DEGREES_EAST, 360.0)):
        coordinate = coordinate_along(array, name)
        if coordinate is None:
            return False
        stated = str(coordinate.attrs.get("units", "")).lower()
        if stated in units:
            continue
        if stated or str(coordinate.name).lower() not in _GEOGRAPHIC_NAMES or coordinate.dtype.kind not in "iuf":
            return False
        if not float(np.abs(coordinate.to_numpy()).max()) <= largest:
            return False
    return True
