"""Where a raster's pixels lie: its georeferencing as a north-up grid, and how the stored array is turned to it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio import DatasetReader

from storage.errors import InputError
from storage.reference_systems import horizontal_crs

_ROTATION = 1e-9
"""Share of the pixel size by which a geotransform may turn and still be one that does not."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The north-up grid of a stored array.

    Attributes:
        grid: its pixels, from north to south and from west to east.
        flip_y: the array's first row is the southernmost.
        flip_x: the array's first column is the easternmost.
    """

    grid: GeoBox
    flip_y: bool = False
    flip_x: bool = False


_WORLD_FILES = (".tfw", ".tifw", ".wld", ".j2w", ".jp2w", ".blw", ".bilw")


def placement_of(dataset: DatasetReader, path: str) -> Placement:
    """The placement of an open raster; `path` is how messages name it.

    Raises:
        InputError: no CRS, no geotransform, or one that turns; ground control points or RPCs alone.
    """
    if dataset.transform.is_identity:
        raise InputError(f"{path} {_without_transform(dataset)}")
    if dataset.crs is None:
        raise InputError(f"{path} has no coordinate reference system: {_without_crs(dataset)}")
    crs = horizontal_crs(dataset.crs.to_wkt())
    return placement_on(dataset.transform, crs, height=dataset.height, width=dataset.width, path=path)


def _without_transform(dataset: DatasetReader) -> str:
    points, crs = dataset.gcps
    if points:
        target = "EPSG:…" if crs is None or crs.to_epsg() is None else f"EPSG:{crs.to_epsg()}"
        return (
            f"has {len(points)} ground control points and no geotransform: warp it to a north-up grid first "
            f"(gdalwarp -tps -t_srs {target})"
        )
    if dataset.rpcs is not None:
        return (
            "has RPCs (a sensor model) and no geotransform: warp it to a north-up grid first, with a terrain model "
            "where there is one (gdalwarp -rpc -to RPC_DEM=… -t_srs EPSG:…)"
        )
    if dataset.crs is None:
        return (
            "has no coordinate reference system and no geotransform, so its pixels are nowhere: georeference it "
            "(gdal_edit.py -a_srs EPSG:… -a_ullr …)"
        )
    return "has a CRS but no geotransform, so its pixels are nowhere: georeference it (gdal_edit.py -a_ullr …)"


def _without_crs(dataset: DatasetReader) -> str:
    beside = [Path(file).name for file in dataset.files if file.lower().endswith(_WORLD_FILES)]
    if beside:
        return (
            f"its world file {beside[0]} says where its corner is and how large its pixels, but in no CRS: assign the "
            "one that these numbers are in (gdal_edit.py -a_srs EPSG:…)"
        )
    return "assign the one that its coordinates are in (gdal_edit.py -a_srs EPSG:…)"


def placement_on(transform: Affine, crs: CRS, *, height: int, width: int, path: str) -> Placement:
    """The placement that a geotransform gives an array of `height` rows and `width` columns.

    Raises:
        InputError: naming `path`: the geotransform turns or shears, or its pixels have no size.
    """
    if not all(map(isfinite, tuple(transform)[:6])):
        raise InputError(f"{path} has a geotransform that is none: {tuple(transform)[:6]}")
    turn = max(abs(transform.b) - _ROTATION * abs(transform.a), abs(transform.d) - _ROTATION * abs(transform.e))
    if turn > 0 or not transform.a or not transform.e:
        raise InputError(
            f"{path} has a rotated geotransform {tuple(transform)[:6]}: warp it to a north-up grid first (gdalwarp)"
        )
    flip_x, flip_y = transform.a < 0, transform.e > 0
    left = transform.c + transform.a * width if flip_x else transform.c
    top = transform.f + transform.e * height if flip_y else transform.f
    north_up = Affine(abs(transform.a), 0, left, 0, -abs(transform.e), top)
    return Placement(grid=GeoBox((height, width), north_up, crs), flip_y=flip_y, flip_x=flip_x)
