"""One grid for all dates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, floor, isfinite
from pathlib import Path

from affine import Affine
from odc.geo.crs import CRS, CRSError
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from odc.geo.overlap import compute_reproject_roi

from storage.errors import InputError
from storage.geometry import _WHOLE_PIXEL, is_whole_shift
from storage.imagery.mosaics import Mosaic
from storage.longitudes import box_in_frame, footprint_of, in_frame_of, outline_on
from storage.reference_systems import (
    crs_name,
    horizontal_crs,
    require_earth,
    require_geotiff_can_hold,
    require_place_on_earth,
    transformation_note,
)
from storage.regions import region_geometry

_LARGEST_RESOLUTION_RATIO = 8.0


def common_grid(
    mosaics: Sequence[Mosaic],
    *,
    crs: str | None = None,
    resolution: float | None = None,
    bbox: tuple[float, float, float, float] | None = None,
    region: Path | None = None,
    covered_by: Sequence[Mosaic] = (),
) -> GeoBox:
    """The grid of the result: the first date's unless asked otherwise.

    Args:
        crs, resolution: asked for; a new grid is laid over the first date's extent then.
        bbox: left, bottom, right, top in units of the grid's CRS; grown to whole pixels.
        region: GeoJSON file in EPSG:4326; the grid is cut to whole pixels around it.
        covered_by: a bbox or region may reach as far as any of these, and not only as far as the first date.

    Raises:
        InputError: unknown CRS, one without a place on the Earth or that GeoTIFF cannot hold, no overlap (with both
            extents), or resolutions too far apart.
    """
    first = mosaics[0]
    for mosaic in mosaics:
        require_place_on_earth(mosaic.grid, mosaic.label)
    grid = _requested_grid(first.grid, crs, resolution)
    assert grid.crs is not None
    if bbox is not None or region is not None:
        grid = _grown(grid, covered_by)
    covering = "all dates" if covered_by else first.label
    if bbox is not None:
        grid = _cut(grid, box_in_frame(BoundingBox(*bbox, crs=grid.crs), grid), f"bounding box {bbox}", covering)
    if region is not None:
        assert grid.crs is not None
        outline = outline_on(region_geometry(region), grid)
        grid = _cut(grid, outline.boundingbox, f"region {region}", covering)
    require_place_on_earth(grid, f"the grid of {first.label}")
    require_geotiff_can_hold(grid, f"the grid of {first.label}")
    for mosaic in mosaics:
        require_overlap(mosaic, grid, first.label)
        require_similar_resolution(mosaic, grid)
    return grid


def needs_resampling(mosaic: Mosaic, grid: GeoBox) -> bool:
    """False where every source lies on the grid's pixels, shifted by whole pixels at most."""
    return any(not is_whole_shift(in_frame_of(source.grid, grid), grid) for source in mosaic.sources)


def transformation_notes(mosaics: Sequence[Mosaic], grid: GeoBox) -> list[str]:
    """By which operations dates are brought to another datum, and how well; nothing for those that have the grid's."""
    assert grid.crs is not None
    notes: dict[str, None] = {}
    for mosaic in mosaics:
        for own in {str(source.grid.crs): source.grid for source in mosaic.sources}.values():
            if own.crs is not None and (note := transformation_note(own.crs, grid.crs, _degrees(own))):
                notes[note] = None
    return list(notes)


def _degrees(grid: GeoBox) -> tuple[float, float, float, float]:
    """West, south, east, north of a grid."""
    _, (west, south, east, north) = footprint_of(grid)
    return west, south, east, north


def _requested_grid(first: GeoBox, crs: str | None, resolution: float | None) -> GeoBox:
    if crs is None and resolution is None:
        return first
    target = horizontal_crs(crs) if crs is not None else first.crs
    assert target is not None
    require_earth(target, f"--crs {crs}" if crs is not None else "the first date")
    try:
        if resolution is None:
            return first if target == first.crs else first.to_crs(target)
        extent = first.extent if target == first.crs else first.footprint(target)
        return GeoBox.from_bbox(extent.boundingbox, target, resolution=resolution, tight=True)
    except (CRSError, ValueError, OverflowError) as error:  # where a system ends, coordinates are infinite
        raise InputError(
            f"the first date's extent, {_extent(first.extent.boundingbox)} in {crs_name(first.crs)}, cannot be brought "
            f"to --crs {crs}: {error}"
        ) from error


def _cut(grid: GeoBox, box: BoundingBox, what: str, covering: str) -> GeoBox:
    to_pixels = ~grid.affine
    (left, top), (right, bottom) = to_pixels * (box.left, box.top), to_pixels * (box.right, box.bottom)
    x0, y0 = max(floor(left + _WHOLE_PIXEL), 0), max(floor(top + _WHOLE_PIXEL), 0)
    x1, y1 = min(ceil(right - _WHOLE_PIXEL), grid.width), min(ceil(bottom - _WHOLE_PIXEL), grid.height)
    if x0 >= x1 or y0 >= y1:
        raise InputError(
            f"{what} lies outside the mosaics: its extent is {_extent(box)}, that of {covering} is "
            f"{_extent(grid.extent.boundingbox)} in {crs_name(grid.crs)}"
        )
    return GeoBox((y1 - y0, x1 - x0), grid.affine * Affine.translation(x0, y0), grid.crs)


@lru_cache(maxsize=4096)
def _extent_in(grid: GeoBox, crs: CRS) -> BoundingBox:
    """An archive asks for those of all its dates, once for each date that it tries."""
    box: BoundingBox = grid.footprint(crs).boundingbox
    return box


def _grown(grid: GeoBox, mosaics: Sequence[Mosaic]) -> GeoBox:
    """The grid, with as many more pixels on each side as the mosaics reach beyond it."""
    assert grid.crs is not None
    x0, y0, x1, y1 = 0, 0, grid.width, grid.height
    for mosaic in mosaics:
        extent = _extent_in(in_frame_of(mosaic.grid, grid), grid.crs)
        left, top = ~grid.affine * (extent.left, extent.top)
        right, bottom = ~grid.affine * (extent.right, extent.bottom)
        if not all(map(isfinite, (left, top, right, bottom))):
            continue  # it lies where this CRS ends
        x0, y0 = min(x0, floor(left + _WHOLE_PIXEL)), min(y0, floor(top + _WHOLE_PIXEL))
        x1, y1 = max(x1, ceil(right - _WHOLE_PIXEL)), max(y1, ceil(bottom - _WHOLE_PIXEL))
    return GeoBox((y1 - y0, x1 - x0), grid.affine * Affine.translation(x0, y0), grid.crs)


def overlaps(mosaic: Mosaic, grid: GeoBox) -> bool:
    """Whether the two share a pixel.

    Raises:
        InputError: the mosaic's CRS cannot be brought to the grid's.
    """
    try:
        own = in_frame_of(mosaic.grid, grid)
        info = compute_reproject_roi(own, in_frame_of(grid, own))
    except (CRSError, ValueError) as error:
        raise InputError(
            f"{mosaic.label} ({crs_name(mosaic.grid.crs)}) cannot be brought to {crs_name(grid.crs)}: {error}"
        ) from error
    return not any(span.stop <= span.start for roi in (info.roi_src, info.roi_dst) for span in roi)


def require_overlap(mosaic: Mosaic, grid: GeoBox, whose: str) -> None:
    """Refuse a mosaic that no pixel of a grid lies in, with both extents; `whose` the grid is; raises InputError."""
    if not overlaps(mosaic, grid):
        assert grid.crs is not None
        theirs = in_frame_of(mosaic.grid, grid).footprint(grid.crs).boundingbox
        raise InputError(
            f"{mosaic.label} does not overlap the grid of {whose}: extents {_extent(theirs)} and "
            f"{_extent(grid.extent.boundingbox)} in {crs_name(grid.crs)}"
        )


def require_similar_resolution(mosaic: Mosaic, grid: GeoBox) -> None:
    """Refuse a mosaic whose pixels are more than eight times as large or as small as the grid's; raises InputError."""
    own = in_frame_of(mosaic.grid, grid)
    scale = compute_reproject_roi(own, in_frame_of(grid, own)).scale
    if not 1 / _LARGEST_RESOLUTION_RATIO <= scale <= _LARGEST_RESOLUTION_RATIO:
        raise InputError(
            f"{mosaic.label} has pixels of {abs(mosaic.grid.resolution.x):g} ({crs_name(mosaic.grid.crs)}), the grid "
            f"of {abs(grid.resolution.x):g} ({crs_name(grid.crs)}): {max(scale, 1 / scale):.1f} times as large; more "
            f"than {_LARGEST_RESOLUTION_RATIO:g} times cannot be compared, give --resolution"
        )


def _extent(box: BoundingBox) -> str:
    return f"x {box.left:.6g} to {box.right:.6g}, y {box.bottom:.6g} to {box.top:.6g}"
