"""Where a raster's pixels lie: its georeferencing as a north-up grid, and how the stored array is turned to it."""

from __future__ import annotations

from dataclasses import dataclass

from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from storage.errors import InputError

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


def placement_on(transform: Affine, crs: CRS, *, height: int, width: int, path: str) -> Placement:
    """The placement that a geotransform gives an array of `height` rows and `width` columns.

    Raises:
        InputError: naming `path`: the geotransform turns or shears, or its pixels have no size.
    """
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
