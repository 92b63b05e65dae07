"""Coordinate reference systems: one name for each however it is spelled, and what each is good for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
from typing import Any

import numpy as np
import pyproj
import rasterio
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from pyproj.aoi import AreaOfInterest
from pyproj.exceptions import CRSError, ProjError
from pyproj.transformer import TransformerGroup
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from storage.errors import InputError

_EQUIVALENT = 70
"""PROJ's confidence, of 100, from which on a definition is the registered one under another name."""

_LONGITUDE_FIRST = {"CRS84": 4326, "CRS83": 4269, "CRS27": 4267}
"""OGC's names of systems that differ from EPSG's in the order of axes alone, which no raster has."""

_EARTH_RADIUS_M = 6_378_137.0
_RADII_APART = 0.01
"""Share by which the radius of an ellipsoid or sphere of the Earth may differ."""

_EDGE_POINTS = 21
"""Points along each edge of a grid that must have a place on the Earth."""


@lru_cache(maxsize=1024)
def horizontal_crs(definition: str) -> CRS:
    """The two-dimensional system of a definition: an authority's code where it has one, else its WKT.

    Heights are left out, whether they are a third axis or a part of a compound system. A shift to WGS 84 that a
    definition brings with it (TOWGS84) is kept.

    Args:
        definition: WKT of any dialect, code, URN, PROJJSON or PROJ string.

    Raises:
        InputError: it is none.
    """
    try:
        crs = pyproj.CRS.from_user_input(definition)
        while crs.is_compound:
            crs = crs.sub_crs_list[0]
        if len(crs.axis_info) == 3 and not crs.is_geocentric:
            crs = crs.to_2d()
        if crs.is_bound and crs.source_crs is not None and _shifts_by_nothing(crs):
            code = rasterio.crs.CRS.from_wkt(crs.to_wkt()).to_epsg()
            crs = pyproj.CRS.from_epsg(code) if code else crs
        return CRS(_code(crs) or crs.to_wkt())
    except (CRSError, RasterioError) as error:
        raise InputError(f"CRS {_short(definition)} is not known: {error}".replace("\n", " ")) from error


def _shifts_by_nothing(crs: pyproj.CRS) -> bool:
    operation, hub = crs.coordinate_operation, crs.target_crs
    return operation is not None and hub is not None and hub.name == "WGS 84" and not any(operation.towgs84 or [1])


def _code(crs: pyproj.CRS) -> str | None:
    code = crs.to_epsg(min_confidence=_EQUIVALENT)
    if code is not None:
        return f"EPSG:{code}"
    authority = crs.to_authority(min_confidence=_EQUIVALENT)
    if authority is None:
        return None
    if authority[0] == "OGC" and authority[1] in _LONGITUDE_FIRST:
        return f"EPSG:{_LONGITUDE_FIRST[authority[1]]}"
    return ":".join(authority)


@lru_cache(maxsize=4096)
def is_same_crs(one: CRS, other: CRS) -> bool:
    """Whether two systems give a place the same two numbers, x before y, whatever they are called."""
    return one == other or bool(one.proj.equals(other.proj, ignore_axis_order=True))


def crs_words(crs: CRS | None) -> str:
    """A system as messages name it: code and name, never a page of WKT."""
    if crs is None:
        return "no CRS"
    text, name = str(crs), str(crs.proj.name)
    if len(text) < 20:
        return text if name == text else f"{text} ({name})"
    if name not in ("unknown", "unnamed"):
        return name
    base = crs.proj.source_crs if crs.proj.is_bound and crs.proj.source_crs is not None else crs.proj
    operation = base.coordinate_operation
    return f"of no name ({base.type_name}{', ' + operation.method_name if operation is not None else ''})"


def crs_name(crs: CRS | None) -> str:
    """A system's code, or its words where it has none."""
    return str(crs) if len(str(crs)) < 20 else crs_words(crs)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "…"


def require_earth(crs: CRS, label: str) -> None:
    """Refuse a system without longitudes and latitudes, or of another body; raises InputError with `label`."""
    definition, words = crs.proj, crs_words(crs)
    flat = definition.source_crs if definition.is_bound and definition.source_crs is not None else definition
    if not (flat.is_geographic or flat.is_projected):
        raise InputError(
            f"{label} has a CRS without a place on the Earth, {words} ({definition.type_name}): assign the one that "
            "its coordinates are in (gdal_edit.py -a_srs EPSG:…), or warp it (gdalwarp)"
        )
    ellipsoid = definition.ellipsoid
    if ellipsoid is not None and abs(ellipsoid.semi_major_metre / _EARTH_RADIUS_M - 1) > _RADII_APART:
        raise InputError(
            f"{label} is not of the Earth: the body of {words} has a radius of {ellipsoid.semi_major_metre / 1e3:,.0f} "
            f"km, the Earth one of {_EARTH_RADIUS_M / 1e3:,.0f} km"
        )


def require_place_on_earth(grid: GeoBox, label: str) -> None:
    """Refuse a grid whose pixels have no longitude and latitude, which every product needs.

    Raises:
        InputError: naming `label`: a local system, one of another body, or a corner that lies nowhere.
    """
    assert grid.crs is not None
    require_earth(grid.crs, label)
    crs, words = grid.crs.proj, crs_words(grid.crs)
    flat = crs.source_crs if crs.is_bound and crs.source_crs is not None else crs
    x, y = _edge(grid)
    try:
        longitudes, latitudes = to_degrees(grid.crs).transform(x, y)
    except ProjError as error:
        raise InputError(f"{label}: {words} cannot be brought to EPSG:4326: {error}") from error
    beyond = ~(np.isfinite(longitudes) & np.isfinite(latitudes))
    if flat.is_geographic and not flat.type_name.startswith("Derived"):
        # a row of pixels whose centres are the pole reaches half a pixel beyond it
        beyond |= np.abs(y) * _degrees_a_unit(flat) > 90 + abs(grid.resolution.y) * _degrees_a_unit(flat)
    if beyond.any():
        where = int(np.flatnonzero(beyond)[0])
        raise InputError(
            f"{label} reaches where {words} has no place on the Earth: x {x[where]:.9g}, y {y[where]:.9g} of its edge "
            "has no longitude and latitude; its CRS or its geotransform is wrong, or cut it with --bbox or --region"
        )


def _degrees_a_unit(crs: pyproj.CRS) -> float:
    factor = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 0.0
    return float(np.degrees(factor)) if factor else 1.0


def _edge(grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Points along the edge of a grid: x and y in its CRS."""
    across, down = np.linspace(0, grid.width, _EDGE_POINTS), np.linspace(0, grid.height, _EDGE_POINTS)
    cols = np.concatenate([across, across, np.zeros_like(down), np.full_like(down, grid.width)])
    rows = np.concatenate([np.zeros_like(across), np.full_like(across, grid.height), down, down])
    affine = grid.affine
    return affine.a * cols + affine.b * rows + affine.c, affine.d * cols + affine.e * rows + affine.f


@lru_cache(maxsize=256)
def to_degrees(crs: CRS) -> Transformer:
    """From x and y of a system to longitude and latitude of EPSG:4326."""
    return Transformer.from_crs(crs.proj, "EPSG:4326", always_xy=True)


def require_geotiff_can_hold(grid: GeoBox, label: str) -> None:
    """Refuse a grid whose CRS is another one, or none, when it is read back from a GeoTIFF.

    Raises:
        InputError: naming `label` and a CRS to ask for instead.
    """
    assert grid.crs is not None
    if _returns_from_geotiff(grid.crs):
        return
    raise InputError(
        f"{label}: GeoTIFF cannot hold its CRS {crs_words(grid.crs)}, so no product could say where it is: ask for "
        f"another grid, --crs {_utm(grid)} for one"
    )


@lru_cache(maxsize=256)
def _returns_from_geotiff(crs: CRS) -> bool:
    # without side-cars: they would hold what the file itself does not
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), MemoryFile() as memory:
        try:
            with memory.open(
                driver="GTiff",
                width=1,
                height=1,
                count=1,
                dtype="uint8",
                crs=str(crs),
                transform=Affine(1, 0, 1, 0, -1, 2),
            ):
                pass
            with memory.open() as dataset:
                return dataset.crs is not None and is_same_crs(horizontal_crs(dataset.crs.to_wkt()), crs)
        except (RasterioError, CRSError, InputError):
            return False


def _utm(grid: GeoBox) -> str:
    """EPSG code of the UTM zone around a grid's middle; that of degrees far in the north and south."""
    x, y = grid.affine * (grid.width / 2, grid.height / 2)
    assert grid.crs is not None
    longitude, latitude = to_degrees(grid.crs).transform(x, y)
    if not (isfinite(longitude) and abs(latitude) < 84):
        return "EPSG:4326"
    return f"EPSG:{32600 if latitude >= 0 else 32700}"[:-2] + f"{min(int((longitude + 180) // 6 % 60) + 1, 60):02d}"


def transformation_note(mosaic: CRS, grid: CRS, area: Sequence[float]) -> str | None:
    """By which operation coordinates go from one datum to another, and how well; None where the datums are one.

    Args:
        area: west, south, east, north in degrees: where the imagery lies.
    """
    if is_same_crs(mosaic, grid) or _datum(mosaic) == _datum(grid):
        return None
    west, south, east, north = area
    around: Any = AreaOfInterest(west, south, east, north)  # pyproj types two classes of one name
    group = TransformerGroup(mosaic.proj, grid.proj, always_xy=True, area_of_interest=around)
    words = f"{crs_words(mosaic)} is brought to {crs_words(grid)}"
    if not group.transformers:
        return f"{words}: PROJ knows no operation between their datums"
    best = group.transformers[0]
    steps = [step.strip() for step in best.description.split(" + ")]
    shifts = [step for step in steps if " to " in step and not step.startswith("axis")] or steps
    accuracy = f"accurate to {best.accuracy:g} m" if best.accuracy >= 0 else "of unknown accuracy"
    note = f"{words} by {' + '.join(shifts)}, {accuracy}"
    better = [
        operation
        for operation in group.unavailable_operations
        if best.accuracy < 0 or 0 <= operation.accuracy < best.accuracy
    ]
    if better:
        missing = [grid_file.short_name for grid_file in better[0].grids if not grid_file.available]
        note += (
            f"; {better[0].accuracy:g} m need the grid {', '.join(missing)}, which is not here: "
            f"get it (projsync --file {missing[0] if missing else '…'}) or set PROJ_NETWORK=ON"
        )
    return note


def _datum(crs: CRS) -> str:
    base = crs.proj
    if base.is_bound:
        return str(base.to_wkt())  # its shift is its own
    geodetic = base.geodetic_crs
    datum = geodetic.datum if geodetic is not None else None
    return str(datum.name if datum is not None else base.name).removesuffix(" ensemble")
