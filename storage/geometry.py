"""What a grid is in words and numbers: affine, CRS, metres a pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import line
from pyproj import Geod

from storage.reference_systems import is_same_crs

_WHOLE_PIXEL = 1e-3
"""Pixels by which a shift may miss a whole number and still be one."""


def grid_facts(grid: GeoBox) -> dict[str, Any]:
    """A grid as JSON holds it."""
    return {"crs": str(grid.crs), "transform": list(grid.affine)[:6], "shape": list(grid.shape)}


def grid_of(facts: Mapping[str, Any]) -> GeoBox:
    """The grid that :func:`grid_facts` described."""
    return GeoBox(tuple(facts["shape"]), Affine(*facts["transform"]), CRS(facts["crs"]))


def metres_a_pixel(grid: GeoBox) -> float:
    """Metres on the ground along one pixel of the grid from west to east, in its middle, by the ellipsoid.

    So degrees, feet and the stretch of a projection count for what they are there. Without a place on the Earth, the
    grid's own unit.
    """
    across = abs(float(grid.resolution.x))
    if grid.crs is None or not (grid.crs.geographic or grid.crs.projected):
        return across
    x, y = grid.extent.centroid.coords[0]
    ends = line([(x - across / 2, y), (x + across / 2, y)], crs=grid.crs).to_crs("EPSG:4326")
    longitudes, latitudes = zip(*ends.coords, strict=True)
    return float(Geod(ellps="WGS84").line_length(longitudes, latitudes))


def is_whole_shift(source: GeoBox, grid: GeoBox) -> bool:
    """True if the pixels of the two coincide but for a shift by whole pixels."""
    if source.crs != grid.crs and (source.crs is None or grid.crs is None or not is_same_crs(source.crs, grid.crs)):
        return False
    relative = ~grid.affine * source.affine
    drift = max(abs(relative.a - 1) * source.width, abs(relative.e - 1) * source.height)
    return bool(
        drift < _WHOLE_PIXEL
        and abs(relative.c - round(relative.c)) < _WHOLE_PIXEL
        and abs(relative.f - round(relative.f)) < _WHOLE_PIXEL
    )
